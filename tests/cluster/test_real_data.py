"""Real photos, held against an independent oracle: ONNX Runtime on pixels that Pillow made.

The data is not part of the project: NDPIPE_TEST_DATA, or ../shared/data beside it. Without it these tests are skipped.
"""

import csv
import json
import os
import pathlib
import tarfile

import numpy
import onnxruntime
import pytest
from PIL import Image, ImageOps

from harness import run

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("NDPIPE_TEST_DATA") or ROOT.parent / "shared" / "data")
MODEL = ROOT / "build" / "models" / "efficientnet-lite0" / "model.onnx"


def needs(name):
    return pytest.mark.skipif(not (DATA / name).exists(), reason=f"SKIPPED: no {name} in {DATA}")


def preprocess(file, short_side=256, crop=224):
    photo = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    width, height = photo.size
    scale = (short_side, short_side * height // width) if width < height else (short_side * width // height, short_side)
    photo = photo.resize(scale, Image.BICUBIC)
    left, top = round((photo.width - crop) / 2), round((photo.height - crop) / 2)
    pixels = numpy.asarray(photo.crop((left, top, left + crop, top + crop)), numpy.float32)
    return ((pixels - 127) / 128).transpose(2, 0, 1)[None]


@needs("photos.tar")
def test_infer_is_right_where_the_oracle_is(tmp_path):
    with tarfile.open(DATA / "photos.tar") as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / "photos"
    done = run("infer", "efficientnet-lite0", folder, "--output", tmp_path / "labels.csv", "--json")
    result = json.loads(done.stdout)
    assert (result["labelled"], result["failed"]) == (result["photos"], 0)

    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    ours = oracle = same = 0
    rows = list(csv.DictReader((tmp_path / "labels.csv").open()))
    for row in rows:
        truth = int(row["path"][:3])
        logits = session.run(None, {session.get_inputs()[0].name: preprocess(folder / row["path"])})[0]
        ours += int(row["class_index"]) == truth
        oracle += int(logits.argmax()) == truth
        same += int(logits.argmax()) == int(row["class_index"])
    assert len(rows) == result["photos"] > 0
    assert abs(ours - oracle) <= 1
    assert same >= 0.98 * len(rows)


@needs("cifar-100-binary.tar.gz")
def test_demo_learns_cifar_100(tmp_path):
    report_file = tmp_path / "report.json"
    run("demo", "--photos", f"cifar100:{DATA / 'cifar-100-binary.tar.gz'}", "--stores", 2, "-r", 2,
        "--report", report_file, "--dir", tmp_path / "demo")
    report = json.loads(report_file.read_text())
    assert report["photos"] == report["labelled"] == 10_000
    assert report["evaluation_part"] == "test" and report["evaluation_photos"] == 2_000
    assert report["top1_after"] >= 0.60
