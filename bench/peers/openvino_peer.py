"""OpenVINO's asynchronous queue, fed by Pillow in threads."""

import collections
import concurrent.futures
import importlib.metadata
import queue

import numpy as np
import openvino as ov
from openvino.preprocess import PrePostProcessor

from photos import batches_of, top1


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("openvino", "pillow")}


def compile_model(model, precision: str, batch: int, config: dict) -> ov.CompiledModel:
    """uint8 NHWC in, logits out; the normalisation is a part of the compiled graph."""
    core = ov.Core()
    graph = core.read_model(model.onnx_file)
    graph.reshape([batch, 3, *model.crop])
    steps = PrePostProcessor(graph)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    steps.input().preprocess().convert_element_type(ov.Type.f32).mean(list(model.mean)).scale(list(model.std))
    hints = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": {"bf16": "bf16", "fp32": "f32"}[precision]}
    return core.compile_model(steps.build(), "CPU", hints | config)


class Peer:
    def __init__(self, model, decoder, settings, precision, cores):
        self.precision = precision
        self.decoder = decoder
        self.settings = settings
        config = {"INFERENCE_NUM_THREADS": cores, "ENABLE_CPU_PINNING": settings["pinning"]}
        if settings["streams"] != "auto":
            config["NUM_STREAMS"] = settings["streams"]
        compiled = compile_model(model, precision, settings["batch"], config)
        self.requests = ov.AsyncInferQueue(compiled)
        self.requests.set_callback(self._done)
        self.labelled = queue.SimpleQueue()
        self.pool = concurrent.futures.ThreadPoolExecutor(settings["workers"])
        for _ in range(2 * len(self.requests)):  # the first inference of a request allocates
            self.requests.start_async([np.zeros((settings["batch"], *model.crop, 3), np.uint8)], [])
        self.requests.wait_all()

    def _done(self, request, paths) -> None:
        self.labelled.put((paths, *top1(request.get_output_tensor().data)))

    def _store(self, table) -> None:
        while not self.labelled.empty():
            table.add(*self.labelled.get())

    def label(self, paths, table) -> dict:
        size = self.settings["batch"]
        decode_cpu_seconds = 0.0
        decoding = collections.deque()
        ahead = 2 * self.settings["workers"]
        todo = batches_of(paths, size)
        for i in range(len(todo) + ahead):
            if i < len(todo):
                decoding.append((todo[i], self.pool.submit(self.decoder.batch, todo[i], size)))
            if i >= ahead and decoding:
                batch, future = decoding.popleft()
                pixels, cpu_seconds = future.result()
                decode_cpu_seconds += cpu_seconds
                self.requests.start_async([pixels], batch)  # waits for a free request
                self._store(table)
        self.requests.wait_all()
        self._store(table)
        return {"decode_cpu_seconds": decode_cpu_seconds}
