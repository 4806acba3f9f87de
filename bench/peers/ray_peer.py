"""Ray Data map_batches with OpenVINO in actors.

style "pipeline": tasks decode with Pillow, one actor runs OpenVINO on all cores; "actors": an actor a core does both.
"""

import importlib.metadata
import os
import pathlib
import secrets
import tempfile
import time

import numpy as np

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
# Its daemons listen on the network; without a token of ours Ray would leave one in the user's home.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

import ray
import ray.data

import openvino_peer
from photos import batches_of, top1

READY_TIMEOUT_SECONDS = 120


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("ray", "openvino", "pillow")}


class Gate:
    """Work begins when every actor has its model, so that the clock has neither the models nor photos done before.

    A folder that all processes see: an actor leaves a file when it is ready.
    """

    def __init__(self, folder: str, num_actors: int):
        self.folder = pathlib.Path(folder)
        self.num_actors = num_actors
        self.is_open = False

    def arrive(self) -> None:
        file = self.folder / f"{os.getpid()}.new"
        file.write_text(str(time.monotonic()))
        file.rename(file.with_suffix(".ready"))

    def wait(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while not self.is_open:
            self.is_open = len(list(self.folder.glob("*.ready"))) >= self.num_actors
            if not self.is_open and time.monotonic() > deadline:
                raise TimeoutError(f"Ray peer: not all of {self.num_actors} actors came within {READY_TIMEOUT_SECONDS} s")
            if not self.is_open:
                time.sleep(0.002)

    def opened(self) -> float:
        return max(float(file.read_text()) for file in self.folder.glob("*.ready"))


class Decode:
    def __init__(self, decoder, gate):
        self.decoder = decoder
        self.gate = gate

    def __call__(self, rows):
        self.gate.wait()
        pixels, cpu_seconds = self.decoder.batch(list(rows["path"]))
        return {"path": rows["path"], "pixels": pixels, "decode_cpu_seconds": [cpu_seconds / len(pixels)] * len(pixels)}


class Infer:
    """The actor of style "pipeline": OpenVINO with as many requests in flight as its throughput hint asks for."""

    def __init__(self, model, precision, batch, cores, gate):
        self.batch = batch
        compiled = openvino_peer.compile_model(model, precision, batch, {"INFERENCE_NUM_THREADS": cores})
        self.requests = openvino_peer.ov.AsyncInferQueue(compiled)
        self.requests.set_callback(self._done)
        empty = np.zeros((batch, *model.crop, 3), np.uint8)
        self.results = {}
        for _ in range(2 * len(self.requests)):
            self.requests.start_async([empty], 0)
        self.requests.wait_all()
        gate.arrive()

    def _done(self, request, start) -> None:
        self.results[start] = top1(request.get_output_tensor().data)

    def __call__(self, rows):
        pixels = rows["pixels"]
        self.results.clear()
        for start in range(0, len(pixels), self.batch):
            part = pixels[start : start + self.batch]
            if len(part) < self.batch:
                part = np.concatenate([part, np.zeros((self.batch - len(part), *part.shape[1:]), np.uint8)])
            self.requests.start_async([part], start)
        self.requests.wait_all()
        return labels_of(rows, [self.results[start] for start in sorted(self.results)], rows["decode_cpu_seconds"])


class DecodeAndInfer:
    """The actor of style "actors": one thread of OpenVINO, one of Pillow, taking turns on a core."""

    def __init__(self, model, precision, batch, decoder, gate):
        self.batch = batch
        self.decoder = decoder
        self.gate = gate
        config = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
        self.request = openvino_peer.compile_model(model, precision, batch, config).create_infer_request()
        self.request.infer([np.zeros((batch, *model.crop, 3), np.uint8)])
        gate.arrive()

    def __call__(self, rows):
        self.gate.wait()
        results = []
        decode_cpu_seconds = 0.0
        for batch in batches_of(list(rows["path"]), self.batch):
            pixels, cpu_seconds = self.decoder.batch(batch, self.batch)
            decode_cpu_seconds += cpu_seconds
            self.request.infer([pixels])
            results.append(top1(self.request.get_output_tensor().data))
        num_photos = len(rows["path"])
        return labels_of(rows, results, [decode_cpu_seconds / num_photos] * num_photos)


def labels_of(rows, results, decode_cpu_seconds):
    num_photos = len(rows["path"])
    return {
        "path": rows["path"],
        "class_index": np.concatenate([result[0] for result in results])[:num_photos],
        "confidence": np.concatenate([result[1] for result in results])[:num_photos],
        "decode_cpu_seconds": decode_cpu_seconds,
    }


class Peer:
    def __init__(self, model, decoder, settings, precision, cores):
        self.precision = precision
        self.model = model
        self.decoder = decoder
        self.settings = settings
        self.cores = cores

    def label(self, paths, table) -> dict:
        with tempfile.TemporaryDirectory(prefix="ray-") as folder:
            # Started and ended for every pass, outside the clock: its daemons would take time from the others' passes.
            ray.init(
                num_cpus=self.cores,
                include_dashboard=False,
                configure_logging=False,
                log_to_driver=False,
                _temp_dir=folder,
            )
            try:
                return self._label(paths, table, folder)
            finally:
                ray.shutdown()

    def _label(self, paths, table, folder) -> dict:
        pathlib.Path(folder, "ready").mkdir()
        gate = Gate(f"{folder}/ready", self.cores if self.settings["style"] == "actors" else 1)
        decode_cpu_seconds = 0.0
        for rows in self._dataset(paths, gate).iter_batches(batch_size=256, prefetch_batches=1):
            table.add(rows["path"], rows["class_index"], rows["confidence"])
            decode_cpu_seconds += float(rows["decode_cpu_seconds"].sum())
        return {"decode_cpu_seconds": decode_cpu_seconds, "started": gate.opened()}

    def _dataset(self, paths, gate):
        block = self.settings["block"]
        batch = self.settings["batch"]
        photos = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=-(-len(paths) // block))
        if self.settings["style"] == "actors":
            arguments = (self.model, self.precision, batch, self.decoder, gate)
            compute = ray.data.ActorPoolStrategy(size=self.cores)
            return photos.map_batches(
                DecodeAndInfer, batch_size=block, fn_constructor_args=arguments, compute=compute, num_cpus=1
            )
        arguments = (self.model, self.precision, batch, self.cores, gate)
        # The actor asks for no core: it shares all of them with the decoding, as the other peers do.
        compute = ray.data.ActorPoolStrategy(size=1)
        return photos.map_batches(Decode(self.decoder, gate), batch_size=block, num_cpus=1).map_batches(
            Infer, batch_size=block, fn_constructor_args=arguments, compute=compute, num_cpus=0
        )
