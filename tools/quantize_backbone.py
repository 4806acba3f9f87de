#!/usr/bin/env python3
"""Quantises a backbone to int8 on the user's own photos: OUT_FOLDER/model.onnx (QDQ) and OUT_FOLDER/manifest.json.

usage: tools/setup/quantize.sh MODEL_FOLDER PHOTO_FOLDER [OUT_FOLDER] [--photos N] [--cpus this|all] [--fast]
       [--keep-first] [--transformer]

MODEL_FOLDER holds model.onnx and manifest.json. OUT_FOLDER is MODEL_FOLDER/int8 when not given, where
`ndpipe infer --precision auto` looks for it. Photos are preprocessed as the manifest says, with Pillow; broken ones are
left out. The classifier stays in floating point: it runs apart from the body, and costs next to nothing. Prints one JSON
line: photos used, and how many of up to 100 of them keep their class in ONNX Runtime. The folder appears whole or not at
all; one that is there is replaced.
"""

import argparse
import contextlib
import json
import logging
import os
import pathlib
import random
import shutil
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from PIL import Image, ImageOps

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
PHOTO_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
MIN_PHOTOS = 10
MAX_PIXELS = 200_000_000
NUM_COMPARED = 100
SEED = 1


def preprocess(path: pathlib.Path, manifest: dict) -> np.ndarray:
    """The network's input for one photo: float32 [1, 3, height, width]."""
    rule = manifest["preprocess"]
    with Image.open(path) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise ValueError("too many pixels")
        image = ImageOps.exif_transpose(opened).convert("RGB")
    short = min(image.size)
    size = [max(1, rule["resize_short_side"] * side // short) for side in image.size]
    image = image.resize(size, FILTERS[rule["interpolation"]])
    left, top = round((size[0] - rule["crop_width"]) / 2), round((size[1] - rule["crop_height"]) / 2)
    image = image.crop((left, top, left + rule["crop_width"], top + rule["crop_height"]))
    pixels = np.asarray(image, np.float32)
    normalised = (pixels - np.float32(manifest["mean"])) / np.float32(manifest["std"])
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])


def choose_photos(folder: pathlib.Path, count: int) -> list[pathlib.Path]:
    """A sample of the whole folder that is the same for the same folder."""
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_ENDINGS and p.is_file())
    random.Random(SEED).shuffle(found)
    return found[: count + count // 10 + 1]  # some may be broken


def read_photos(folder: pathlib.Path, manifest: dict, count: int) -> list[np.ndarray]:
    photos = []
    for path in choose_photos(folder, count):
        if len(photos) == count:
            break
        try:
            photos.append(preprocess(path, manifest))
        except Exception as error:  # whatever Pillow makes of a broken file
            print(f"quantize: {path} is left out: {error}", file=sys.stderr)
    if len(photos) < MIN_PHOTOS:
        raise SystemExit(
            f"quantize: {folder} has {len(photos)} readable photos (JPEG, PNG, WebP); at least {MIN_PHOTOS} are "
            "needed, and 300 make good scales"
        )
    return photos


def classifier_nodes(proto: onnx.ModelProto) -> list[str]:
    """The names of the nodes from the graph's output back to its last product: these stay in floating point."""
    producers = {output: node for node in proto.graph.node for output in node.output}
    names = []
    node = producers.get(proto.graph.output[0].name)
    while node is not None:
        names.append(node.name)
        if node.op_type in ("Gemm", "MatMul", "Conv"):
            return names
        inputs = [name for name in node.input if name in producers]
        node = producers[inputs[0]] if inputs else None
    return []


def unquantised_nodes(proto: onnx.ModelProto, arguments: argparse.Namespace) -> list[str]:
    first = [node.name for node in proto.graph.node if node.op_type == "Conv"][:1]
    return classifier_nodes(proto) + (first if arguments.keep_first else [])


def load_model(path: pathlib.Path) -> onnx.ModelProto:
    proto = onnx.load(str(path))
    # Per-channel scales came with opset 13.
    if next(o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")) < 13:
        proto = onnx.version_converter.convert_version(proto, 17)
    for number, node in enumerate(proto.graph.node):
        if not node.name:
            node.name = f"node-{number}"  # scopes are given by name
    return proto


def this_cpu_has_vnni() -> bool:
    """Whether products of 8-bit numbers are summed in 32 bits. Other CPUs saturate at 16, and need weights of 7 bits in
    the first layer."""
    flags = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & set(flags))


def quantise(proto: onnx.ModelProto, photos: list[np.ndarray], arguments: argparse.Namespace) -> onnx.ModelProto:
    # Correcting each layer's bias by inference, not by a formula, costs minutes and nearly halves the error; NNCF cannot
    # take every graph apart for it.
    if not arguments.fast:
        try:
            return quantise_with_nncf(copy_of(proto), photos, arguments, fast=False)
        except RuntimeError as error:
            print(f"quantize: going on with --fast, because the exact correction fails: {error}", file=sys.stderr)
    return quantise_with_nncf(proto, photos, arguments, fast=True)


def copy_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    return copied


def quantise_with_nncf(
    proto: onnx.ModelProto, photos: list[np.ndarray], arguments: argparse.Namespace, fast: bool
) -> onnx.ModelProto:
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    name = proto.graph.input[0].name
    nncf.set_log_level(logging.ERROR)  # it reports to standard output
    has_vnni = arguments.cpus == "this" and this_cpu_has_vnni()
    with contextlib.redirect_stdout(sys.stderr):  # its progress bars are no result
        return nncf.quantize(
            proto,
            nncf.Dataset(photos, lambda photo: {name: photo}),
            preset=nncf.QuantizationPreset.MIXED,  # activations with zero points: closer to fp32 where none is ReLU
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(photos),
            fast_bias_correction=fast,
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.DISABLE if has_vnni else OverflowFix.FIRST_LAYER
            ),
            model_type=nncf.ModelType.TRANSFORMER if arguments.transformer else None,
            ignored_scope=nncf.IgnoredScope(names=unquantised_nodes(proto, arguments)),
        )


def classes(proto: onnx.ModelProto, photos: list[np.ndarray]) -> list[int]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    name = session.get_inputs()[0].name
    return [int(session.run(None, {name: photo})[0].argmax()) for photo in photos]


def write_folder(out: pathlib.Path, proto: onnx.ModelProto, manifest: str) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        temporary.chmod(0o755)
        onnx.save(proto, str(temporary / "model.onnx"))
        (temporary / "manifest.json").write_text(manifest, encoding="utf-8")
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model_folder", type=pathlib.Path)
    parser.add_argument("photo_folder", type=pathlib.Path)
    parser.add_argument("out_folder", type=pathlib.Path, nargs="?", help="default: MODEL_FOLDER/int8")
    parser.add_argument("--photos", type=int, default=300, help="how many to calibrate with")
    parser.add_argument(
        "--cpus", choices=["this", "all"], default="this", help="all: exact also on CPUs without VNNI, less exact on others"
    )
    parser.add_argument("--fast", action="store_true", help="seconds instead of minutes, less exact")
    parser.add_argument(
        "--keep-first", action="store_true", help="the first convolution stays in fp32: slower, and closer to fp32's answers"
    )
    parser.add_argument("--transformer", action="store_true", help="the scheme for attention models")
    arguments = parser.parse_args()
    if arguments.photos < MIN_PHOTOS:
        parser.error(f"--photos: at least {MIN_PHOTOS}")
    for path in (arguments.model_folder / "model.onnx", arguments.model_folder / "manifest.json"):
        if not path.is_file():
            parser.error(f"{path} is missing: MODEL_FOLDER holds model.onnx and manifest.json")
    if not arguments.photo_folder.is_dir():
        parser.error(f"{arguments.photo_folder} is no folder")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    out = (arguments.out_folder or arguments.model_folder / "int8").absolute()
    if out == arguments.model_folder.absolute():
        raise SystemExit("quantize: OUT_FOLDER is MODEL_FOLDER: the backbone would be replaced")
    text = (arguments.model_folder / "manifest.json").read_text(encoding="utf-8")
    photos = read_photos(arguments.photo_folder, json.loads(text), arguments.photos)
    proto = load_model(arguments.model_folder / "model.onnx")
    quantised = quantise(proto, photos, arguments)
    write_folder(out, quantised, text)
    compared = photos[:NUM_COMPARED]
    same = sum(a == b for a, b in zip(classes(proto, compared), classes(quantised, compared)))
    print(
        json.dumps(
            {"int8": os.fspath(out), "photos": len(photos), "compared": len(compared), "same_class": same,
             "agreement": same / len(compared)}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
