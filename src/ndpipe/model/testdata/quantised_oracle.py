#!/usr/bin/env python3
"""Quantised models (QDQ) in the forms that tools write them, and what ONNX Runtime makes of them, for tests of the model
and of engines.

usage: quantised_oracle.py make FOLDER | close FOREIGN KEPT CUT TAIL | refuse FOLDER | pixels COUNT FILE
       | answers MODEL CUT PIXELS OUT | pair FOLDER
"""

import contextlib
import io
import logging
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization
from safetensors import safe_open

RANDOM = np.random.default_rng(11)
FEATURES = 32


def photos(count: int) -> np.ndarray:
    """Smooth colours that differ between photos: features then differ, too."""
    waves = RANDOM.normal(size=(count, 3, 1, 1)) + 0.5 * RANDOM.normal(size=(count, 3, 8, 8))
    return waves.astype(np.float32)


def weights(*shape: int) -> np.ndarray:
    return (RANDOM.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def network(path: pathlib.Path, opset: int = 17, ending: str = "gemm") -> None:
    """Two convolutions, pooling, and a linear classifier of two classes."""
    node = helper.make_node
    nodes = [
        node("Conv", ["input", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"], "relu1"),
        node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c2"], ["r2"], "relu2"),
        node("GlobalAveragePool", ["r2"], ["pooled"], "pool"),
        node("Flatten", ["pooled"], ["features"], "flatten"),
    ]
    values = {"w1": weights(16, 3, 3, 3), "b1": weights(16, 1)[:, 0], "w2": weights(FEATURES, 16, 3, 3)}
    values |= {"b2": weights(FEATURES, 1)[:, 0], "b3": np.zeros(2, np.float32)}
    if ending == "gemm":
        values["w3"] = weights(2, FEATURES)
        nodes.append(node("Gemm", ["features", "w3", "b3"], ["logits"], "classifier", transB=1))
    else:
        values["w3"] = weights(2, FEATURES).T.copy()
        nodes.append(node("MatMul", ["features", "w3"], ["product"], "classifier"))
        nodes.append(node("Add", ["product", "b3"], ["logits"], "bias"))
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    # Both classes occur: the bias takes their means away.
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "b3")
    mean = run(model.SerializeToString(), None, photos(64)).mean(axis=0)
    bias.CopyFrom(numpy_helper.from_array(-mean.astype(np.float32), "b3"))
    path.parent.mkdir()
    onnx.save(model, str(path))


class Calibration(quantization.CalibrationDataReader):
    """Photos of more contrast than those compared, so that nothing is cut off at the ends of the scales."""

    def __init__(self) -> None:
        self.photos = iter([{"input": 2.5 * photos(16)} for _ in range(4)])

    def get_next(self):
        return next(self.photos, None)


def quantise(path: pathlib.Path, **options) -> None:
    logging.disable()  # it recommends steps that these networks do not need
    with contextlib.redirect_stdout(io.StringIO()):
        quantization.quantize_static(str(path), str(path), Calibration(), **options)


def edit(path: pathlib.Path, change) -> None:
    proto = onnx.load(str(path))
    change(proto.graph)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, str(path))


def constants(graph) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def weights_as_floats(graph) -> None:
    """Weights kept as fp32 behind QuantizeLinear and DequantizeLinear, as quantisation-aware training exports them."""
    values = constants(graph)
    nodes = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in values and values[node.input[0]].dtype == np.int8:
            name, scale = node.input[0], values[node.input[1]]
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            shape = [1] * values[name].ndim
            if scale.ndim:
                shape[axis] = -1
            floats = values[name].astype(np.float32) * scale.reshape(shape)
            graph.initializer.append(numpy_helper.from_array(floats.astype(np.float32), name + "_fp32"))
            inputs = [name + "_fp32", *node.input[1:]]
            nodes.append(helper.make_node("QuantizeLinear", inputs, [name + "_q"], axis=axis))
            node.input[0] = name + "_q"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def weight_transposed(graph) -> None:
    """The classifier's int8 weights by class, and a Transpose behind their DequantizeLinear."""
    dequantize, values = find_weight(graph)
    tensor = next(t for t in graph.initializer if t.name == dequantize.input[0])
    tensor.CopyFrom(numpy_helper.from_array(values[tensor.name].T.copy(), tensor.name))
    by_class = dequantize.output[0] + "_by_class"
    after = helper.make_node("Transpose", [by_class], [dequantize.output[0]], perm=[1, 0])
    dequantize.output[0] = by_class
    for attribute in dequantize.attribute:
        attribute.i = 0
    graph.node.insert(list(graph.node).index(dequantize) + 1, after)


def weight_in_blocks(graph) -> None:
    """A scale for every eight features of each class (opset 21)."""
    dequantize, values = find_weight(graph)
    levels = values[dequantize.input[0]]
    part = 0.5 + 0.5 * RANDOM.random((levels.shape[0], FEATURES // 8))
    scale = (values[dequantize.input[1]].max() * part).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(scale, "block_scale"))
    del dequantize.input[1:]
    dequantize.input.append("block_scale")
    del dequantize.attribute[:]
    dequantize.attribute.extend([helper.make_attribute("axis", 1), helper.make_attribute("block_size", 8)])


def find_weight(graph):
    """The DequantizeLinear of the classifier's weights."""
    values = constants(graph)
    classifier = next(node for node in graph.node if node.name.startswith("classifier"))
    dequantize = next(node for node in graph.node if node.output[0] == classifier.input[1])
    return dequantize, values


def make(folder: str) -> None:
    global RANDOM
    int8, uint8 = quantization.QuantType.QInt8, quantization.QuantType.QUInt8
    forms = {
        "per-tensor": ({}, {"per_channel": False}, None),
        "per-channel": ({}, {"per_channel": True}, None),
        "uint8-weights": ({}, {"weight_type": uint8}, None),
        "int8-activations": ({}, {"activation_type": int8, "per_channel": True}, None),
        "opset-13": ({"opset": 13}, {"per_channel": True}, None),
        "matmul": ({"ending": "matmul"}, {"per_channel": True}, None),
        "matmul-transposed": ({"ending": "matmul"}, {"per_channel": True}, weight_transposed),
        "float-weights": ({}, {"per_channel": True}, weights_as_floats),
        "blocked": ({"opset": 21}, {}, weight_in_blocks),
        "plain-classifier": ({}, {"per_channel": True, "nodes_to_exclude": ["classifier"]}, None),
    }
    for name, (made, options, change) in forms.items():
        RANDOM = np.random.default_rng(2)  # the same network in every form
        path = pathlib.Path(folder) / f"quantised-{name}" / "model.onnx"
        network(path, **made)
        options = {"quant_format": quantization.QuantFormat.QDQ, "activation_type": uint8, "weight_type": int8} | options
        quantise(path, **options)
        if change is not None:
            edit(path, change)


def pair(folder: str) -> None:
    """FOLDER/model.onnx in fp32 and FOLDER/int8/model.onnx, its quantised variant."""
    path = pathlib.Path(folder) / "model.onnx"
    network(path)
    variant = path.parent / "int8" / path.name
    variant.parent.mkdir()
    variant.write_bytes(path.read_bytes())
    quantise(variant, quant_format=quantization.QuantFormat.QDQ, per_channel=True, nodes_to_exclude=["classifier"])


def refuse(folder: str) -> None:
    """The other format, of operators that compute with quantised numbers themselves."""
    path = pathlib.Path(folder) / "operators" / "model.onnx"
    network(path, ending="matmul")
    quantise(path, quant_format=quantization.QuantFormat.QOperator)


def run(model, outputs, data: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options).run(outputs, {"input": data})[0]


def close(foreign: str, kept: str, cut: str, tail: str) -> None:
    """The kept model keeps its int8 weights, and its logits and our tail's are the foreign ones but for the rounding of
    the classifier's own input and output, which is left out."""
    onnx.checker.check_model(kept, full_check=True)
    proto = onnx.load(kept)
    values = constants(proto.graph)
    behind = {node.input[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    layers = [name for name, value in values.items() if value.ndim == 4]
    assert len(layers) == 2, f"convolutions of constants: {layers}"
    for name in layers:
        assert values[name].dtype in (np.int8, np.uint8) and name in behind, f"{name} is {values[name].dtype}"

    data = photos(40)
    wanted = run(foreign, None, data)
    largest = np.abs(wanted).max()
    logits = run(kept, None, data)
    np.testing.assert_allclose(logits, wanted, atol=0.03 * largest)
    assert {0, 1} == set(wanted.argmax(axis=1)), "all photos are of one class: nothing is compared"

    proto.graph.output.append(helper.make_tensor_value_info(cut, TensorProto.FLOAT, None))
    features = run(proto.SerializeToString(), [cut], data)
    with safe_open(tail, framework="numpy") as file:
        ours = features.reshape(len(data), -1) @ file.get_tensor("classifier.weight").T
        ours += file.get_tensor("classifier.bias")
    np.testing.assert_allclose(ours, wanted, atol=0.03 * largest)
    clear = np.abs(wanted[:, 0] - wanted[:, 1]) > 0.06 * largest
    assert clear.sum() > 20
    np.testing.assert_array_equal(ours.argmax(axis=1)[clear], wanted.argmax(axis=1)[clear])


def pixels(count: str, file: str) -> None:
    """uint8 [count, 8, 8, 3]"""
    levels = (127 + 60 * photos(int(count))).clip(0, 255).astype(np.uint8)
    pathlib.Path(file).write_bytes(levels.transpose(0, 2, 3, 1).tobytes())


def answers(model: str, cut: str, file: str, out: str) -> None:
    """OUT/features.raw and OUT/logits.raw, float32, of pixels normalised with mean 127 and standard deviation 128."""
    levels = np.frombuffer(pathlib.Path(file).read_bytes(), np.uint8).reshape(-1, 8, 8, 3)
    data = ((levels.astype(np.float32) - 127) / 128).transpose(0, 3, 1, 2)
    proto = onnx.load(model)
    (pathlib.Path(out) / "logits.raw").write_bytes(run(model, None, data).tobytes())
    proto.graph.output.append(helper.make_tensor_value_info(cut, TensorProto.FLOAT, None))
    (pathlib.Path(out) / "features.raw").write_bytes(run(proto.SerializeToString(), [cut], data).tobytes())


if __name__ == "__main__":
    commands = {f.__name__: f for f in (make, pair, refuse, close, pixels, answers)}
    commands[sys.argv[1]](*sys.argv[2:])
