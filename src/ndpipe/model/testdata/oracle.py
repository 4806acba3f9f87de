#!/usr/bin/env python3
"""The other side of model_oracle_test: makes foreign ONNX files and compares with independent implementations.

usage: oracle.py same FOREIGN KEPT CUT TAIL MAX_NODES | external FOLDER | spellings FOLDER | chains FOLDER
       | classifiers FOLDER | tail FILE BACKBONE_HEX | deep_tail FILE | weights FILE | exported KEPT FILE
"""

import json
import math
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors import safe_open
from safetensors.numpy import save_file

RANDOM = np.random.default_rng(7)


def session(model) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options)


def same(foreign: str, kept: str, cut: str, tail: str, max_nodes: str) -> None:
    onnx.checker.check_model(kept, full_check=True)
    proto = onnx.load(kept)
    assert len(proto.graph.node) <= int(max_nodes), f"{len(proto.graph.node)} nodes are left"
    before = session(foreign)
    side = before.get_inputs()[0].shape[2:]
    photos = RANDOM.normal(size=(3, 3, *side)).astype(np.float32)
    wanted = before.run(None, {before.get_inputs()[0].name: photos})[0]
    logits = session(kept).run(None, {before.get_inputs()[0].name: photos})[0]
    assert wanted.std(axis=0).max() > 0, "the logits do not depend on the photos: nothing is compared"
    np.testing.assert_array_equal(logits, wanted)

    proto.graph.output.append(helper.make_tensor_value_info(cut, TensorProto.FLOAT, None))
    features = session(proto.SerializeToString()).run([cut], {before.get_inputs()[0].name: photos})[0]
    with safe_open(tail, framework="numpy") as weights:
        ours = features.reshape(3, -1) @ weights.get_tensor("classifier.weight").T + weights.get_tensor(
            "classifier.bias"
        )
    np.testing.assert_allclose(ours, wanted, atol=1e-4 * np.abs(wanted).max())


def tail(file: str, backbone: str) -> None:
    with safe_open(file, framework="numpy") as weights:
        assert sorted(weights.keys()) == ["classifier.bias", "classifier.weight"]
        weight = weights.get_tensor("classifier.weight")
        bias = weights.get_tensor("classifier.bias")
        assert weights.metadata() == {
            "format": "ndpipe-tail-1",
            "backbone": backbone,
            "cut": '/head/Flatten_output_0 "é"',
        }
    np.testing.assert_array_equal(weight, np.arange(15, dtype=np.float32).reshape(3, 5) / np.float32(7))
    np.testing.assert_array_equal(bias, np.array([0.5, -1.25, 3e-38], np.float32))


def deep_tail(file: str) -> None:
    """Parameters of the backbone beside the classifier, under names of their own."""
    with safe_open(file, framework="numpy") as weights:
        assert weights.metadata()["format"] == "ndpipe-tail-2"
        names = sorted(weights.keys())
        assert names == ["backbone.gain", "backbone.kernel", "classifier.bias", "classifier.weight"], names
        np.testing.assert_array_equal(weights.get_tensor("backbone.gain"), np.float32(0.25))
        kernel = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
        np.testing.assert_array_equal(weights.get_tensor("backbone.kernel"), kernel)


def weights(file: str) -> None:
    """As another program spells the same tensors: its own order of keys and of values."""
    tensors = {
        "zeta": np.array(1.5, np.float32),
        "alpha": np.arange(6, dtype=np.float32).reshape(2, 3),
        "mid/é": np.full((1, 1, 2), -0.25, np.float32),
    }
    save_file(tensors, file, metadata={"key": "a \"text\""})


def exported(kept: str, file: str) -> None:
    """tail_graph_test's network with a trained tail: logits from ONNX Runtime's own features by hand."""
    onnx.checker.check_model(file, full_check=True)
    proto = onnx.load(kept)
    proto.graph.output.append(helper.make_tensor_value_info("pooled", TensorProto.FLOAT, None))
    photos = RANDOM.normal(size=(3, 3, 8, 8)).astype(np.float32)
    features = session(proto.SerializeToString()).run(["pooled"], {"input": photos})[0].reshape(3, 3)
    gain = np.array([10, 20, 30], np.float32)
    features = features * gain * np.vectorize(math.erf)(gain) * np.array([7, 8, 9], np.float32)
    wanted = features.sum(axis=1, keepdims=True) * 0.5 + np.array([1, 2, 3, 4])
    model = session(file)
    np.testing.assert_allclose(model.run(None, {"input": photos})[0], wanted, rtol=1e-5, atol=1e-4)
    assert wanted.std(axis=0).min() > 1, "the logits do not depend on the photos: nothing is compared"
    metadata = model.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["ndpipe.class_names"]) == ["a", "b", "c", "d"]
    assert json.loads(metadata["ndpipe.manifest"])["std"] == [128, 128, 128]


def build(nodes, initializers, opset=17, output="logits"):
    graph = helper.make_graph(
        nodes,
        "foreign",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["N", 2])],
        initializers,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


WEIGHT = RANDOM.normal(size=(2, 3)).astype(np.float32)
BIAS = RANDOM.normal(size=(2,)).astype(np.float32)
BODY = [
    helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["features"]),
]


def external(folder: str) -> None:
    model = build(
        BODY + [helper.make_node("Gemm", ["features", "weight", "bias"], ["logits"], transB=1)],
        [numpy_helper.from_array(WEIGHT, "weight"), numpy_helper.from_array(BIAS, "bias")],
    )
    onnx.save_model(
        model,
        f"{folder}/model.onnx",
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
        convert_attribute=True,
    )


def spellings(folder: str) -> None:
    """Typed fields in place of raw data, fp16 constants, initializers among the inputs, the bias added from the left."""
    weight = helper.make_tensor("half", TensorProto.FLOAT16, (3, 2), WEIGHT.T.astype(np.float16).flatten().tolist())
    bias = helper.make_tensor("bias", TensorProto.FLOAT, (1, 2), BIAS.tolist())
    model = build(
        BODY
        + [
            helper.make_node("Cast", ["half"], ["weight"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["features", "weight"], ["product"]),
            helper.make_node("Add", ["bias", "product"], ["logits"]),
        ],
        [weight, bias],
    )
    # As files before IR version 4 are: every initializer is an input too.
    model.ir_version = 3
    for tensor in (weight, bias):
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    onnx.save(model, f"{folder}/model.onnx")


def ints(name, *values, shape=None):
    return helper.make_tensor(name, TensorProto.INT64, shape if shape is not None else [len(values)], values)


# Each chain computes the weight [3, 2] or the bias [2] from constants in its own way: (nodes, initializers, opset).
def chain_cases():
    node = helper.make_node
    flat = numpy_helper.from_array(WEIGHT.T.reshape(-1).copy(), "flat")
    wide = numpy_helper.from_array(RANDOM.normal(size=(4, 6, 5)).astype(np.float32), "wide")
    straight = numpy_helper.from_array(WEIGHT.T.copy(), "straight")
    yield "reshape", [node("Reshape", ["flat", "dims"], ["weight"])], [flat, ints("dims", 3, -1)], 17
    yield "reshape-zero", [node("Reshape", ["straight", "dims"], ["weight"])], [straight, ints("dims", 0, 2)], 13
    yield "transpose", [node("Transpose", ["other"], ["weight"], perm=[1, 0])], [
        numpy_helper.from_array(WEIGHT, "other")
    ], 17
    yield "slice", [
        node("Slice", ["wide", "starts", "ends", "axes", "steps"], ["cut"]),
        node("Squeeze", ["cut", "axis"], ["weight"]),
    ], [wide, ints("starts", -1, -1, 1), ints("ends", -2, -1000, 5), ints("axes", 0, 1, 2), ints("steps", -1, -2, 2),
        ints("axis", 0)], 17
    yield "slice-negative-axis", [
        node("Slice", ["wide", "starts", "ends", "axes", "steps"], ["cut"]),
        node("Squeeze", ["cut"], ["weight"]),
    ], [wide, ints("starts", 0, 2, 9223372036854775807), ints("ends", 3, 3, -9223372036854775807),
        ints("axes", -2, -3, -1), ints("steps", 1, 1, -3)], 17
    yield "slice-old", [
        node("Slice", ["wide"], ["cut"], starts=[1, 0, 3], ends=[2, 3, 5], axes=[0, 1, 2]),
        node("Squeeze", ["cut"], ["weight"], axes=[0]),
    ], [wide], 9
    yield "gather", [
        node("Gather", ["wide", "one"], ["plane"], axis=0),
        node("Gather", ["plane", "rows"], ["narrow"], axis=0),
        node("Gather", ["narrow", "columns"], ["weight"], axis=1),
    ], [wide, ints("one", 1, shape=[]), ints("rows", 0, -1, 2), ints("columns", 4, 0)], 17
    yield "concat", [
        node("Concat", ["a", "b"], ["weight"], axis=-1),
    ], [numpy_helper.from_array(WEIGHT.T[:, :1].copy(), "a"), numpy_helper.from_array(WEIGHT.T[:, 1:].copy(), "b")], 17
    yield "unsqueeze", [
        node("Unsqueeze", ["flat", "axes"], ["deep"]),
        node("Reshape", ["deep", "dims"], ["weight"]),
    ], [flat, ints("axes", 0, -1), ints("dims", 3, 2)], 17
    for operator in ("Add", "Sub", "Mul", "Div"):
        yield operator.lower(), [node(operator, ["straight", "row"], ["weight"])], [
            straight,
            numpy_helper.from_array(np.array([0.3, 7], np.float32), "row"),
        ], 17
    # Whole-number arithmetic, as shapes are computed.
    yield "shape-arithmetic", [
        node("Shape", ["wide"], ["shape"]),
        node("Gather", ["shape", "one"], ["six"], axis=0),
        node("Div", ["six", "minus_four"], ["minus_one"]),
        node("Mul", ["six", "six"], ["thirty_six"]),
        node("Sub", ["thirty_six", "minus_one"], ["thirty_seven"]),
        node("Unsqueeze", ["thirty_seven", "axis"], ["list"]),
        node("Cast", ["list"], ["values"], to=TensorProto.FLOAT),
        node("Expand", ["values", "dims"], ["grown"]),
        node("Mul", ["grown", "straight"], ["weight"]),
    ], [wide, straight, ints("one", 1, shape=[]), ints("minus_four", -4, shape=[]), ints("axis", 0),
        ints("dims", 3, 2)], 17
    yield "shape-range", [
        node("Shape", ["wide"], ["shape"], start=1, end=-1),
        node("Squeeze", ["shape"], ["six"]),
        node("Range", ["zero", "six", "one"], ["numbers"]),
        node("Cast", ["numbers"], ["values"], to=TensorProto.FLOAT),
        node("Reshape", ["values", "dims"], ["weight"]),
    ], [wide, ints("zero", 0, shape=[]), ints("one", 1, shape=[]), ints("dims", 3, 2)], 17
    yield "constant-of-shape", [
        node("ConstantOfShape", ["dims"], ["ones"], value=helper.make_tensor("", TensorProto.FLOAT, [1], [1.5])),
        node("Mul", ["ones", "straight"], ["weight"]),
    ], [straight, ints("dims", 3, 2)], 17
    yield "where-equal", [
        node("Constant", [], ["numbers"], value_ints=[1, 2, 3]),
        node("Constant", [], ["two"], value_int=2),
        node("Equal", ["numbers", "two"], ["is_two"]),
        node("Unsqueeze", ["is_two", "axis"], ["column"]),
        node("Constant", [], ["half"], value_float=0.5),
        node("Where", ["column", "half", "straight"], ["weight"]),
    ], [straight, ints("axis", 1)], 17
    yield "cast-bool", [
        node("Cast", ["flags"], ["bits"], to=TensorProto.BOOL),
        node("Cast", ["bits"], ["numbers"], to=TensorProto.FLOAT),
        node("Cast", ["numbers"], ["small"], to=TensorProto.FLOAT16),
        node("Cast", ["small"], ["values"], to=TensorProto.FLOAT),
        node("Add", ["values", "straight"], ["weight"]),
    ], [straight, ints("flags", 0, 5, -3, 0, 1, 0, shape=[3, 2])], 17
    yield "input-shape", [
        node("Shape", ["input"], ["shape"]),
        node("Slice", ["shape", "from", "to"], ["eights"]),
        node("Cast", ["eights"], ["row"], to=TensorProto.FLOAT),
        node("Mul", ["row", "straight"], ["weight"]),
    ], [straight, ints("from", 2), ints("to", 4)], 17


def chains(folder: str) -> None:
    for name, nodes, initializers, opset in chain_cases():
        bias = numpy_helper.from_array(BIAS, "bias")
        model = build(
            nodes + BODY + [helper.make_node("Gemm", ["features", "weight", "bias"], ["logits"], alpha=0.5, beta=2.0)],
            [*initializers, bias],
            opset,
        )
        out = pathlib.Path(folder) / f"chain-{name}"
        out.mkdir()
        onnx.save(model, str(out / "model.onnx"))


def classifiers(folder: str) -> None:
    """The same classifier as exporters of different opsets and habits end it: OUT/model.onnx, and OUT/reference.onnx,
    which makes the logits that are expected."""
    node = helper.make_node
    bias = numpy_helper.from_array(BIAS, "bias")
    by_class = numpy_helper.from_array(WEIGHT, "weight")
    by_feature = numpy_helper.from_array(WEIGHT.T.copy(), "weight")
    half = numpy_helper.from_array(WEIGHT.T.astype(np.float16), "half")
    pool = node("GlobalAveragePool", ["input"], ["pooled"])
    plain = [node("Gemm", ["features", "weight", "bias"], ["logits"], transB=1)]
    softmax = [node("Softmax", ["logits"], ["probabilities"], axis=1)]
    endings = {
        "gemm-by-class": (BODY + plain, [by_class, bias], "logits"),
        "gemm-by-feature": (BODY + [node("Gemm", ["features", "weight", "bias"], ["logits"])], [by_feature, bias], "logits"),
        "flatten-axis": (
            [pool, node("Flatten", ["pooled"], ["features"], axis=-3)] + plain, [by_class, bias], "logits"),
        "reshape": (
            [pool, node("Reshape", ["pooled", "dims"], ["features"])] + plain,
            [by_class, bias, ints("dims", -1, 3)], "logits"),
        "matmul-add": (
            BODY + [node("MatMul", ["features", "weight"], ["product"]), node("Add", ["product", "bias"], ["logits"])],
            [by_feature, bias], "logits"),
        "half-weights": (
            BODY + [node("Cast", ["half"], ["weight"], to=TensorProto.FLOAT),
                    node("Gemm", ["features", "weight", "bias"], ["logits"])], [half, bias], "logits"),
        "softmax": (BODY + plain + softmax, [by_class, bias], "probabilities"),
        "identity": (
            BODY + [node("Identity", ["features"], ["same"]), node("Dropout", ["same"], ["kept"]),
                    node("Gemm", ["kept", "weight", "bias"], ["raw"], transB=1),
                    node("Identity", ["raw"], ["logits"])], [by_class, bias], "logits"),
    }
    for opset in (11, 21):
        for name, (nodes, initializers, output) in endings.items():
            out = pathlib.Path(folder) / f"classifier-{name}-{opset}"
            out.mkdir()
            onnx.save(build(nodes, initializers, opset, output), str(out / "model.onnx"))
            reference = [n for n in nodes if n.op_type != "Softmax"]
            onnx.save(build(reference, initializers, opset), str(out / "reference.onnx"))


if __name__ == "__main__":
    functions = (same, external, spellings, chains, classifiers, tail, deep_tail, weights, exported)
    commands = {f.__name__: f for f in functions}
    commands[sys.argv[1]](*sys.argv[2:])
