#!/usr/bin/env python3
"""Exports networks of torchvision and timm without their weights, for the tests of the graph executor.

usage: export_test_graphs.py OUT_DIR [EXPORTER:LIBRARY:MODEL ...]

Needs an environment of its own with torch==2.14.1 torchvision==0.29.1 timm onnx onnxscript (5.5 GB). EXPORTER is script
(torch.onnx.export with dynamo=False) or dynamo. Without names: those of tests/data/graphs. OUT_DIR/NAME.onnx.gz has its
floating-point weights in an external file "weights.bin", which src/ndpipe/engine/torch/network_oracle.py makes from a seed.
Nothing is downloaded: the models are made without weights.
"""

import gzip
import io
import pathlib
import sys
import traceback
import warnings

import onnx
import torch
from onnx import TensorProto

GRAPHS = [
    "script:torchvision:resnet50",
    "dynamo:torchvision:resnext101_32x8d",
    "script:torchvision:inception_v3",
    "script:torchvision:mobilenet_v3_large",
    "dynamo:torchvision:vit_b_16",
    "script:torchvision:regnet_y_400mf",
    "script:timm:efficientnet_lite0",
    "script:timm:vit_base_patch16_224",
    "dynamo:timm:convnext_tiny",
    "script:timm:convnext_tiny",
    "script:timm:swin_tiny_patch4_window7_224",
    "dynamo:timm:swin_tiny_patch4_window7_224",
    "dynamo:timm:mobilenetv3_large_100",
]
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
ELEMENT_BYTES = {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.DOUBLE: 8}
SMALLEST_WEIGHT = 8  # elements; what is smaller are bounds, scales and the like, and stays


def make(library: str, name: str) -> tuple[torch.nn.Module, int]:
    torch.manual_seed(1)
    if library == "torchvision":
        import torchvision

        extra = {"init_weights": False} if name == "inception_v3" else {}
        return torchvision.models.get_model(name, weights=None, **extra).eval(), 299 if name == "inception_v3" else 224
    import timm

    model = timm.create_model(name, pretrained=False).eval()
    return model, model.pretrained_cfg.get("input_size", (3, 224, 224))[-1]


def export(exporter: str, model: torch.nn.Module, size: int) -> onnx.ModelProto:
    photos = torch.randn(2, 3, size, size)
    names = {"input_names": ["input"], "output_names": ["logits"]}
    if exporter == "dynamo":
        program = torch.onnx.export(
            model, (photos,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("N")},), verbose=False, **names
        )
        return program.model_proto
    file = io.BytesIO()
    axes = {"input": {0: "N"}, "logits": {0: "N"}}
    # PRESERVE: batch normalisation stays an operator of its own.
    torch.onnx.export(
        model, (photos,), file, dynamo=False, opset_version=17, dynamic_axes=axes,
        training=torch.onnx.TrainingMode.PRESERVE, **names,
    )  # fmt: skip
    return onnx.load_from_string(file.getvalue())


def strip(proto: onnx.ModelProto) -> None:
    """Moves the weights to an external file that is not written, and drops what no program reads."""
    offset = 0
    for tensor in sorted(proto.graph.initializer, key=lambda tensor: tensor.name):
        count = 1
        for dim in tensor.dims:
            count *= dim
        if tensor.data_type not in FLOATS or count < SMALLEST_WEIGHT:
            continue
        num_bytes = count * ELEMENT_BYTES[tensor.data_type]
        for field in ("raw_data", "float_data", "double_data", "int32_data"):
            tensor.ClearField(field)
        tensor.data_location = TensorProto.EXTERNAL
        del tensor.external_data[:]
        for key, value in (("location", "weights.bin"), ("offset", offset), ("length", num_bytes)):
            tensor.external_data.add(key=key, value=str(value))
        offset += num_bytes
    for node in proto.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for value in [*proto.graph.input, *proto.graph.output, *proto.graph.initializer]:
        value.ClearField("doc_string")
        del value.metadata_props[:]
    del proto.graph.value_info[:]
    del proto.metadata_props[:]
    del proto.graph.metadata_props[:]


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    out_dir = pathlib.Path(sys.argv[1])
    out_dir.mkdir(parents=True, exist_ok=True)
    failed = 0
    for graph in sys.argv[2:] or GRAPHS:
        exporter, library, name = graph.split(":")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                proto = export(exporter, *make(library, name))
            strip(proto)
        except Exception:  # noqa: BLE001: whatever an exporter throws; the others go on
            traceback.print_exc(limit=1)
            failed += 1
            continue
        # Without the time of day: equal graphs give equal files.
        packed = gzip.compress(proto.SerializeToString(deterministic=True), 9, mtime=0)
        (out_dir / f"{library}-{name}-{exporter}.onnx.gz").write_bytes(packed)
        print(f"{graph}: {len(proto.graph.node)} nodes, {len(packed)} bytes", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
