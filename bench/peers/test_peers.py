"""The peers' shared parts, and a quick run of the whole where bench/peers/setup.sh has been run. Asserts no timings."""

import json
import os
import pathlib
import sqlite3
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import report
import settings
import systems
from label_table import ROWS_PER_COMMIT, LabelTable, read_labels
from photos import Decoder, Model, batches_of, top1

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("NDPIPE_PROGRAM", ROOT / "build/release/ndpipe"))
MODEL = ROOT / "build/models/efficientnet-lite0"


def make_photo(file: pathlib.Path, width: int, height: int, seed: int, mode: str = "RGB") -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    photo = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    photo.convert(mode).save(file, quality=90)


def model_of(folder: pathlib.Path) -> Model:
    return Model(folder, "m", 64, (48, 56), "bicubic", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 641), (64, 64), (40, 50)])
def test_full_decode_is_resize_then_centre_crop(tmp_path, width, height):
    make_photo(tmp_path / "a.jpg", width, height, 1)
    scale = 64 / min(width, height)
    size = (64, int(64 * height / width)) if width < height else (int(64 * width / height), 64)
    assert abs(max(size) - max(width, height) * scale) < 1
    whole = np.asarray(Image.open(tmp_path / "a.jpg").convert("RGB").resize(size, Image.Resampling.BICUBIC))
    top, left = round((size[1] - 48) / 2), round((size[0] - 56) / 2)
    pixels = Decoder(model_of(tmp_path), "full")(str(tmp_path / "a.jpg"))
    assert np.array_equal(pixels, whole[top : top + 48, left : left + 56])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_scaled_decode_shows_the_same_picture(tmp_path, mode):
    make_photo(tmp_path / "a.jpg", 1000, 700, 2, mode)
    full, scaled = (Decoder(model_of(tmp_path), decode)(str(tmp_path / "a.jpg")) for decode in ("full", "scaled"))
    assert full.shape == scaled.shape == (48, 56, 3)
    # Another part of the picture differs by about 60.
    assert np.abs(full.astype(int) - scaled.astype(int)).mean() < 8


def test_batches_are_padded_with_empty_photos(tmp_path):
    make_photo(tmp_path / "a.jpg", 100, 100, 3)
    pixels, cpu_seconds = Decoder(model_of(tmp_path), "full").batch([str(tmp_path / "a.jpg")], 3)
    assert pixels.shape == (3, 48, 56, 3) and pixels[0].any() and not pixels[1:].any() and cpu_seconds >= 0
    assert batches_of(["a", "b", "c"], 2) == [["a", "b"], ["c"]]


def test_top1_is_softmax():
    logits = np.random.default_rng(4).standard_normal((5, 9)).astype(np.float32)
    softmax = np.exp(logits.astype(np.float64)) / np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True)
    class_indices, confidences = top1(logits)
    assert class_indices.tolist() == softmax.argmax(axis=1).tolist()
    np.testing.assert_allclose(confidences, softmax.max(axis=1), rtol=1e-5)


def test_labels_are_committed_in_batches_and_padding_is_dropped(tmp_path):
    table = LabelTable(tmp_path / "labels")
    paths = [f"folder/{i}.jpg" for i in range(ROWS_PER_COMMIT + 44)]
    table.add(paths, range(1000), [0.5] * 1000)
    other = sqlite3.connect(tmp_path / "labels")
    assert other.execute("SELECT COUNT(*) FROM label").fetchone() == (ROWS_PER_COMMIT,)
    other.close()
    table.close()
    assert read_labels(tmp_path / "labels") == {f"{i}.jpg": i for i in range(len(paths))}


def test_search_keeps_the_fastest_and_never_what_does_not_run():
    axes = settings.axes_of("openvino", 4)
    best = {axis: values[-1] for axis, values in axes.items()}

    def rate_of(tried, best_so_far):
        rate = 0.0 if tried["batch"] == axes["batch"][1] else 1.0 + sum(tried[axis] == best[axis] for axis in axes)
        bests.append(best_so_far)
        return rate

    bests = []
    assert settings.search("openvino", 4, rate_of) == best
    assert bests == sorted(bests) and bests[0] == 0


@pytest.mark.parametrize("peer", ["openvino", "pytorch", "ray", "onnxruntime"])
@pytest.mark.parametrize("cores", [1, 4])
def test_settings_are_kept_by_kind_of_run(tmp_path, peer, cores):
    first = settings.first_settings(peer, cores)
    kept = settings.KeptSettings(tmp_path / "kept.json", "one")
    assert kept.read(peer) is None
    kept.write(peer, first)
    assert settings.KeptSettings(tmp_path / "kept.json", "one").read(peer) == first
    assert settings.KeptSettings(tmp_path / "kept.json", "other").read(peer) is None


class System:
    def __init__(self, name):
        self.name, self.precision, self.settings, self.versions = name, "fp32", {}, {}


def test_ratio_is_the_median_of_the_rounds_ratios(capsys):
    ours, peer = System("ndpipe"), System("openvino")
    written = report.Report(0.0, 1, "m", "full")
    for ours_seconds, peer_seconds in ((1, 2), (1, 1), (4, 6)):
        written.begin_round(0.0)
        for system, seconds, label in ((ours, ours_seconds, 1), (peer, peer_seconds, 2)):
            told = {"photos": 2, "seconds": seconds, "decode_cpu_seconds": 0.25, "busy_core_seconds": 0.5}
            written.add(system, told | {"labels": {"a.jpg": 1, "b.jpg": label}})
    written.print()
    machine, first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert machine["bench"] == "machine" and "ratio" not in first
    assert second["ratio"] == 1.5 and second["label_agreement"] == 0.5
    assert (second["images_per_second"], second["lowest"], second["highest"]) == (1.0, 0.3, 2.0)
    assert first["shares"] == {"decode": 0.25, "engine_and_rest": 0.25, "idle": 0.5}


@pytest.mark.skipif(not systems.PYTHON.exists(), reason="bench/peers/setup.sh has not been run")
@pytest.mark.skipif(not PROGRAM.exists() or not MODEL.exists(), reason="make build has not been run")
def test_quick_run_labels_alike(tmp_path):
    for i in range(12):
        make_photo(tmp_path / f"{i}.jpg", 400 + 10 * i, 300 + 20 * i, i)
    # The two peers that are ready in seconds.
    command = [sys.executable, str(ROOT / "bench/peers/run.py"), "--program", str(PROGRAM), "--model", str(MODEL)]
    command += ["--photos", str(tmp_path), "--precision", "fp32", "--quick", "--peers", "openvino,onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("system") for line in lines] == [None, "ndpipe", "openvino", "onnxruntime"]
    for line in lines[1:]:
        assert line["photos"] == 12 and line["precision"] == "fp32" and line["images_per_second"] > 0
    # Scaled decoding may tip a photo that lies between two classes.
    assert all(line["label_agreement"] >= 10 / 12 for line in lines[2:])


def test_run_refuses_what_it_cannot_do(tmp_path):
    for flags, expected in ((["--peers", "none"], "unknown peers"), (["--cores", "9999"], "--cores"), (["--rounds", "0"], "--rounds")):
        command = [sys.executable, str(ROOT / "bench/peers/run.py"), "--model", str(tmp_path), "--photos", str(tmp_path), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and expected in done.stderr
