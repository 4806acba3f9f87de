"""`ndpipe infer` on every input that it takes, held against pixels that Pillow and NumPy made."""

import csv
import gzip
import json
import random
import signal
import subprocess
import zipfile
import zlib

import numpy
import pytest
from PIL import Image, ImageOps

from harness import PROGRAM, Cluster, run, wait_until

MODEL = "efficientnet-lite0"
NUM_PHOTOS = 24


def raw_deflate(data):
    encoder = zlib.compressobj(6, zlib.DEFLATED, -15)
    return encoder.compress(data) + encoder.flush()


WRAPPINGS = [raw_deflate, zlib.compress, gzip.compress, bytes]


def pixels_of(file, short_side=256, crop=224):
    """uint8 [224, 224, 3], as the model's manifest says."""
    photo = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    width, height = photo.size
    scale = (short_side, short_side * height // width) if width < height else (short_side * width // height, short_side)
    photo = photo.resize(scale, Image.BICUBIC)
    left, top = round((photo.width - crop) / 2), round((photo.height - crop) / 2)
    return numpy.asarray(photo.crop((left, top, left + crop, top + crop)))


def normalised(pixels):
    """float32 [3, 224, 224]: the network's input."""
    return ((pixels.astype(numpy.float32) - 127) / 128).transpose(2, 0, 1)


def infer(source, folder, *flags):
    """(what the command says, {path: row of its CSV})"""
    output = folder / "labels.csv"
    said = json.loads(run("infer", MODEL, source, "--output", output, "--json", *flags).stdout)
    rows = list(csv.DictReader(output.open(newline="", errors="surrogateescape")))
    assert len(rows) == said["photos"] == said["labelled"] + said["failed"]
    assert sum(bool(row["error"]) for row in rows) == said["failed"]
    assert not list(folder.glob("labels.csv.tmp*"))
    return said, {row["path"]: row for row in rows}


def fails(*arguments, code):
    done = run("infer", MODEL, *arguments, check=False)
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stderr


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "store"
    run("import", f"generate:6,{NUM_PHOTOS},3", "--store", folder)
    return folder


@pytest.fixture(scope="module")
def photos(store, tmp_path_factory):
    """A folder with the generated photos as photo-00.jpg and so on."""
    folder = tmp_path_factory.mktemp("photos")
    for i, file in enumerate(sorted((store / "photos").rglob("*.jpg"))):
        (folder / f"photo-{i:02}.jpg").write_bytes(file.read_bytes())
    assert len(list(folder.iterdir())) == NUM_PHOTOS
    return folder


@pytest.fixture(scope="module")
def labels(photos, tmp_path_factory):
    """{stem: class index} by the photos' own preprocessing."""
    _, rows = infer(photos, tmp_path_factory.mktemp("labels"))
    return {path.removesuffix(".jpg"): row["class_index"] for path, row in rows.items()}


def write_binaries(photos, folder, values):
    """values(pixels) of every photo, each in another wrapping; what was written, by name."""
    folder.mkdir()
    for i, file in enumerate(sorted(photos.iterdir())):
        data = WRAPPINGS[i % len(WRAPPINGS)](numpy.ascontiguousarray(values(pixels_of(file))).tobytes())
        (folder / f"{file.stem}.bin").write_bytes(data)


@pytest.mark.parametrize("values, flags, kind", [
    (lambda pixels: pixels, ("--layout", "hwc"), "preprocessed uint8"),
    (lambda pixels: pixels.transpose(2, 0, 1), ("--layout", "chw"), "preprocessed uint8"),
    (normalised, (), "preprocessed float32"),
    (normalised, ("--layout", "chw"), "preprocessed float32"),
])
def test_the_published_layout_gets_the_photos_labels(tmp_path, photos, labels, values, flags, kind):
    folder = tmp_path / "binaries"
    write_binaries(photos, folder, values)
    with zipfile.ZipFile(tmp_path / "binaries.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    for source in (folder, tmp_path / "binaries.zip"):
        said, rows = infer(source, tmp_path, *flags)
        assert (said["input"], said["failed"]) == (kind, 0)
        assert {path.removesuffix(".bin"): row["class_index"] for path, row in rows.items()} == labels


def test_files_of_another_kind_fail_alone(tmp_path, photos, labels):
    folder = tmp_path / "binaries"
    write_binaries(photos, folder, lambda pixels: pixels)
    (folder / "photo-90.bin").write_bytes(zlib.compress(numpy.zeros((3, 224, 224), numpy.float32).tobytes()))
    (folder / "photo-91.bin").write_bytes((folder / "photo-00.bin").read_bytes()[:-20])
    (folder / "photo-92.bin").write_bytes(zlib.compress(bytes(50_000_000)))  # a bomb
    (folder / "photo-93.jpg").write_bytes((photos / "photo-00.jpg").read_bytes())
    (folder / "photo-94.bin").write_bytes(b"")
    said, rows = infer(folder, tmp_path, "--layout", "hwc")
    assert said["failed"] == 5
    assert "float32" in rows["photo-90.bin"]["error"]
    assert rows["photo-91.bin"]["error"] and rows["photo-92.bin"]["error"]
    assert "photo (jpeg)" in rows["photo-93.jpg"]["error"]
    assert "empty" in rows["photo-94.bin"]["error"]
    assert {failure["path"] for failure in said["failures"]} == {f"photo-9{i}.{'jpg' if i == 3 else 'bin'}" for i in range(5)}
    assert all(rows[f"{stem}.bin"]["class_index"] == label for stem, label in labels.items())


def test_wrong_usage_is_said(tmp_path, photos):
    folder = tmp_path / "pixels"
    write_binaries(photos, folder, lambda pixels: pixels)
    assert "--layout hwc" in fails(folder, code=2)
    floats = tmp_path / "floats"
    write_binaries(photos, floats, normalised)
    assert "chw" in fails(floats, "--layout", "hwc", code=2)
    (tmp_path / "notes").mkdir()
    assert "no photos" in fails(tmp_path / "notes", code=1)
    (tmp_path / "notes" / "notes.txt").write_text("nothing to label here")
    assert "notes.txt" in fails(tmp_path / "notes", code=2)
    assert "nothing" in fails(tmp_path / "nothing", code=1)
    assert "neither" in fails(tmp_path / "notes" / "notes.txt", code=2)
    fails(photos, "--layout", "cwh", code=2)


def test_photos_are_told_by_content(tmp_path, photos, labels):
    folder = tmp_path / "odd"
    folder.mkdir()
    jpeg = (photos / "photo-00.jpg").read_bytes()
    for name in ("a.png", "b.txt", "c", "d.JPG"):
        (folder / name).write_bytes(jpeg)
    (folder / "e.jpg").symlink_to(photos / "photo-00.jpg")
    (folder / "dangling.jpg").symlink_to(folder / "nowhere")
    (folder / "round").symlink_to(folder)
    (folder / "text.jpg").write_text("this is no photo")
    (folder / "empty.webp").write_bytes(b"")
    (folder / "notes.txt").write_text("passed over")
    said, rows = infer(folder, tmp_path)
    assert all(rows[name]["class_index"] == labels["photo-00"] for name in ("a.png", "b.txt", "c", "d.JPG", "e.jpg"))
    assert rows["text.jpg"]["error"] and rows["empty.webp"]["error"]
    assert (said["photos"], said["failed"], said["passed_over"]) == (7, 2, 1)
    said, rows = infer(folder / "b.txt", tmp_path)
    assert rows["b.txt"]["class_index"] == labels["photo-00"]


def test_few_photos_do_not_choose_a_precision(tmp_path, photos, labels):
    said, rows = infer(photos, tmp_path, "--precision", "auto")
    assert said["precision_choice"]["precision"] == "fp32"
    assert {path.removesuffix(".jpg"): row["class_index"] for path, row in rows.items()} == labels
    said, _ = infer(photos, tmp_path)
    assert said["precision_choice"] is None


def test_zips_and_stores_of_photos(tmp_path, store, photos, labels):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(photos.iterdir()):
            archive.write(file, f"holiday/{file.name}")
        archive.writestr("../out.jpg", (photos / "photo-00.jpg").read_bytes())
        archive.writestr("holiday/.hidden.jpg", b"hidden")
        archive.writestr("notes.txt", b"passed over")
    said, rows = infer(tmp_path / "photos.zip", tmp_path)
    assert "leads out" in rows.pop("../out.jpg")["error"]
    assert {path[len("holiday/"):-len(".jpg")]: row["class_index"] for path, row in rows.items()} == labels
    assert (said["failed"], said["passed_over"]) == (1, 1)

    said, rows = infer(store, tmp_path)
    assert (said["photos"], said["failed"]) == (NUM_PHOTOS, 0)
    assert sorted(row["class_index"] for row in rows.values()) == sorted(labels.values())
    assert all((store / path).exists() for path in rows)


class Pipe:
    """A file that one can only write to, as a zip's writer finds it at the end of a pipe."""

    def __init__(self, file):
        self.file = file

    def write(self, data):
        return self.file.write(data)

    def flush(self):
        self.file.flush()


def test_zips_of_every_writer(tmp_path, photos, labels):
    jpeg = (photos / "photo-00.jpg").read_bytes()
    with zipfile.ZipFile(tmp_path / "zip64.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("large.jpg", "w", force_zip64=True) as entry:
            entry.write(jpeg)
        with archive.open("naïve, 写真.jpg", "w") as entry:
            entry.write(jpeg)
    with (tmp_path / "piped.zip").open("wb") as file:  # sizes stand behind the entries
        with zipfile.ZipFile(Pipe(file), "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("piped.jpg", jpeg)
    for name, paths in (("zip64.zip", ["large.jpg", "naïve, 写真.jpg"]), ("piped.zip", ["piped.jpg"])):
        _, rows = infer(tmp_path / name, tmp_path)
        assert list(rows) == paths
        assert {row["class_index"] for row in rows.values()} == {labels["photo-00"]}


def test_damaged_zips_end_with_a_reason(tmp_path, photos):
    file = tmp_path / "photos.zip"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for photo in sorted(photos.iterdir()):
            archive.write(photo, photo.name)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "zip" in fails(file, code=1)
    damaged = bytearray(whole)
    damaged[whole.index(b"\xff\xd8\xff") + 1000] ^= 1
    file.write_bytes(damaged)
    said, rows = infer(file, tmp_path)
    assert said["failed"] == 1 and "CRC" in rows["photo-00.jpg"]["error"]


def test_rows_stand_in_the_inputs_order_and_stages_are_told(tmp_path, photos):
    folder = tmp_path / "many"
    folder.mkdir()
    rng = random.Random(1)
    for i in range(700):  # several blocks; some photos fail
        name = f"{i:03}, {'x' * rng.randrange(3)}\"{i}.png"
        Image.new("RGB", (8, 8), (i % 256, 0, 0)).save(folder / name)
        if i % 50 == 7:
            (folder / name).write_bytes(b"broken")
    said, rows = infer(folder, tmp_path)
    assert list(rows) == sorted(file.name for file in folder.iterdir())
    assert said["failed"] == 14 and len(said["failures"]) == 14
    assert set(said["stages"]) == {"load", "decode", "infer", "sink"}
    assert said["bottleneck"] in said["stages"]
    for stage in said["stages"].values():
        assert stage["items"] > 0 and stage["busy_share"] >= 0 and stage["largest_depth"] >= 0
    assert said["seconds"] > 0 and said["images_per_second"] > 0


def test_when_every_photo_fails_the_command_does(tmp_path, photos):
    folder = tmp_path / "bad"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.jpg").write_bytes(b"\xff\xd8\xff, and then nothing")
    output = tmp_path / "labels.csv"
    done = run("infer", MODEL, folder, "--output", output, "--json", check=False)
    assert done.returncode == 1
    assert "all of the 3 photos failed" in done.stderr and "0.jpg" in done.stderr
    said = json.loads(done.stdout)
    assert (said["photos"], said["failed"], said["labelled"]) == (3, 3, 0)
    assert len(list(csv.DictReader(output.open(newline="")))) == 3
    # One that can be labelled is enough; the others are told of.
    (folder / "3.jpg").write_bytes((photos / "photo-00.jpg").read_bytes())
    done = run("infer", MODEL, folder)
    assert "3 of 4 photos failed" in done.stderr and "1 labelled, 3 failed" in done.stdout


def test_a_stores_sidecars_are_used_beside_its_daemon(tmp_path):
    """They give the same labels, and neither they nor the daemon's work are touched."""
    with Cluster(tmp_path, 1, (4, 80, 3)) as cluster:
        store = cluster.store_folders[0]
        photos = len(list((store / "photos").rglob("*.jpg")))
        said, before = infer(store, tmp_path)
        assert said["from_sidecars"] == 0
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune("-n", 1)
        cluster.wait_for_job(finetune)
        relabel = cluster.relabel_of(finetune)
        said, during = infer(store, tmp_path)
        cluster.wait_for_job(relabel)
        kept = sorted((f.name, f.stat().st_size) for f in (store / "derived").glob("segment-*.bin"))
        # Lossless sidecars: not a bit of an answer depends on them.
        said, after = infer(store, tmp_path)
        assert said["from_sidecars"] == said["photos"] == photos
        assert before == during == after
        assert kept == sorted((f.name, f.stat().st_size) for f in (store / "derived").glob("segment-*.bin"))
        # The daemon goes on; a photo that is deleted meanwhile has no sidecar, and is not labelled.
        victim = next((store / "photos").rglob("*.jpg"))
        run("delete", "--store", store, victim.stem)
        said, fewer = infer(store, tmp_path)
        assert said["photos"] == photos - 1 and set(fewer) == set(after) - {str(victim.relative_to(store))}
        cluster.wait_for_job(cluster.start_finetune("-n", 1))
        cluster.stop()
        said, alone = infer(store, tmp_path)
        assert said["from_sidecars"] == photos - 1 and alone == fewer


def test_a_stop_leaves_no_half_file(tmp_path, photos):
    folder = tmp_path / "many"
    folder.mkdir()
    jpeg = (photos / "photo-00.jpg").read_bytes()
    for i in range(20_000):
        (folder / f"{i}.jpg").write_bytes(jpeg)
    output = tmp_path / "labels.csv"
    output.write_text("what was there before")
    process = subprocess.Popen([PROGRAM, "infer", MODEL, folder, "--output", output], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    wait_until(lambda: list(tmp_path.glob("labels.csv.tmp*")), "labelling has begun")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and "stopped" in said
    assert output.read_text() == "what was there before"
    assert not list(tmp_path.glob("labels.csv.tmp*"))
