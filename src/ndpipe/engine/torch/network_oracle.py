#!/usr/bin/env python3
"""What ONNX Runtime makes of two photos: the graph executor's tests compare with it.

usage: network_oracle.py GRAPH.onnx[.gz] OUT_FOLDER

Writes OUT_FOLDER/model.onnx, photos.raw (float32 [2, 3, height, width]) and logits.raw (float32 [2, classes]). A graph
that tools/export_test_graphs.py has stripped gets its weights, in weights.bin, from a seed. Statistics, gains and biases
are random as well: with those of a fresh model all photos give nearly the same logits.
"""

import gzip
import pathlib
import sys
import zlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, external_data_helper


def roles(graph: onnx.GraphProto) -> dict[str, tuple[str, int]]:
    """For each weight, the operator that reads it and as which input; through a Transpose too."""
    readers: dict[str, tuple[str, int]] = {}
    renamed = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if node.op_type in ("Transpose", "Identity", "Reshape", "Cast"):
                renamed.setdefault(node.output[0], name)
                continue
            while name in renamed:
                name = renamed[name]
            readers.setdefault(name, (node.op_type, index))
    return readers


def fill(name: str, dims: list[int], role: tuple[str, int]) -> np.ndarray:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    operator, index = role
    if operator == "BatchNormalization":
        if index == 3:
            return random.normal(0, 0.1, dims)
        return random.normal(0, 0.3, dims) if index == 2 else random.uniform(0.5, 1.5, dims)
    if operator in ("LayerNormalization", "GroupNormalization", "InstanceNormalization"):
        return random.uniform(0.5, 1.5, dims) if index == 1 else random.normal(0, 0.3, dims)
    if operator == "Conv" and index == 1:
        return random.normal(0, (2 / np.prod(dims[1:])) ** 0.5, dims)
    if operator in ("MatMul", "Gemm") and len(dims) > 1:
        fan_in = dims[-1] if operator == "Gemm" else dims[-2]
        return random.normal(0, fan_in**-0.5, dims)
    if operator == "Mul":  # gains; those of layer normalisation that is written out, too
        return random.uniform(0.5, 1.5, dims)
    return random.normal(0, 0.2, dims)


def fill_weights(model: onnx.ModelProto, out: pathlib.Path) -> None:
    readers = roles(model.graph)
    with open(out / "weights.bin", "wb") as file:
        for tensor in model.graph.initializer:
            if not external_data_helper.uses_external_data(tensor):
                continue
            info = external_data_helper.ExternalDataInfo(tensor)
            values = fill(tensor.name, list(tensor.dims), readers.get(tensor.name, ("", 0)))
            dtype = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}.get(tensor.data_type, np.float64)
            file.seek(info.offset)
            file.write(values.astype(dtype).tobytes())


def main() -> None:
    source, out = (pathlib.Path(argument) for argument in sys.argv[1:3])
    out.mkdir(parents=True, exist_ok=True)
    packed = source.read_bytes()
    model = onnx.load_from_string(gzip.decompress(packed) if source.suffix == ".gz" else packed)
    fill_weights(model, out)
    onnx.save(model, out / "model.onnx")

    height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[2:])
    random = np.random.default_rng(5)
    coarse = random.normal(size=(2, 3, 7, 7))
    photos = np.kron(coarse, np.ones((-(-height // 7), -(-width // 7))))[:, :, :height, :width]
    photos = (photos + 0.3 * random.normal(size=photos.shape)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(out / "model.onnx", options, providers=["CPUExecutionProvider"])
    logits = session.run(None, {model.graph.input[0].name: photos})[0].astype(np.float32)
    spread = np.abs(logits[0] - logits[1]).max() / np.abs(logits).max()
    assert np.isfinite(logits).all(), "the logits are not finite: nothing is compared"
    assert spread > 0.02, f"the logits differ by {spread} between photos: nothing is compared"
    photos.tofile(out / "photos.raw")
    logits.tofile(out / "logits.raw")


if __name__ == "__main__":
    main()
