"""ONNX Runtime in a pool of threads: each decodes its photos with Pillow and runs the session, which is fp32."""

import collections
import concurrent.futures
import importlib.metadata

import numpy as np
import onnxruntime

from photos import batches_of, top1


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("onnxruntime", "pillow")}


class Peer:
    # Its CPU provider has no bf16 convolutions.
    precision = "fp32"

    def __init__(self, model, decoder, settings, precision, cores):
        self.decoder = decoder
        self.settings = settings
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        # Threads that spin for work take the cores that decode.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(model.onnx_file, options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.scale = 1 / np.array(model.std, np.float32)
        self.shift = -np.array(model.mean, np.float32) * self.scale
        self.pool = concurrent.futures.ThreadPoolExecutor(settings["workers"])
        empty = np.zeros((settings["batch"], *model.crop, 3), np.uint8)
        for future in [self.pool.submit(self._infer, empty) for _ in range(settings["workers"])]:
            future.result()

    def _infer(self, pixels):
        normalised = pixels * self.scale
        normalised += self.shift
        nchw = np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))
        return top1(self.session.run(None, {self.input: nchw})[0])

    def _label_batch(self, batch):
        pixels, cpu_seconds = self.decoder.batch(batch)
        return batch, *self._infer(pixels), cpu_seconds

    def label(self, paths, table) -> dict:
        decode_cpu_seconds = 0.0
        ahead = 2 * self.settings["workers"]
        working = collections.deque()
        todo = batches_of(paths, self.settings["batch"])
        for i in range(len(todo) + ahead):
            if i < len(todo):
                working.append(self.pool.submit(self._label_batch, todo[i]))
            if i >= ahead and working:
                batch, class_indices, confidences, cpu_seconds = working.popleft().result()
                decode_cpu_seconds += cpu_seconds
                table.add(batch, class_indices, confidences)
        return {"decode_cpu_seconds": decode_cpu_seconds}
