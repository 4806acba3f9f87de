"""A store and a folder full of hostile photos among good ones: each bad one fails for its reason, all others are labelled,
in bounded memory; damaged and hostile derived bytes are dropped and made again."""

import csv
import functools
import io
import json
import os
import pathlib
import random
import sqlite3
import struct
import tarfile
import zlib

import pytest
from PIL import Image, features

from harness import Cluster, run

MODEL = "efficientnet-lite0"
DATA = pathlib.Path(os.environ.get("NDPIPE_TEST_DATA") or pathlib.Path(__file__).resolve().parents[3] / "shared" / "data")
NUM_GOOD = 40
HUGE_SIDE = 30_000
# EfficientNet-Lite0 in OpenVINO takes about 300 MiB; one photo at a time may take 512 MiB more.
MAX_PEAK_MIB = 1024


def encoded(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def with_size_in_frame(jpeg, side):
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", side, side) + jpeg[at + 4:]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def black_png(side, rows=None):
    """A square of one bit a pixel; all of it in some tens of kilobytes."""
    rows = side if rows is None else rows
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes((1 + side // 8) * rows))) +
            chunk(b"IEND", b""))


def announcing(heif, side):
    """The container's word for the size, wherever it stands."""
    parts = heif.split(b"ispe")
    return parts[0] + b"".join(b"ispe" + part[:4] + struct.pack(">II", side, side) + part[12:] for part in parts[1:])


def box(kind, data, full=None):
    data = data if full is None else struct.pack(">I", full << 24) + data
    return struct.pack(">I", 8 + len(data)) + kind + data


def heif_of_circle():
    """Two grids, each the tile of the other."""
    grid = struct.pack(">BBBBII", 0, 1, 0, 0, 64, 64)
    places = struct.pack(">BBH", 0x44, 0, 2) + b"".join(struct.pack(">HHHHII", i, 1, 0, 1, 0, 12) for i in (1, 2))
    infos = struct.pack(">H", 2) + b"".join(box(b"infe", struct.pack(">HH", i, 0) + b"grid\0", 2) for i in (1, 2))
    references = b"".join(box(b"dimg", struct.pack(">HHH", i, 1, 3 - i)) for i in (1, 2))
    sizes = box(b"ipco", box(b"ispe", struct.pack(">II", 64, 64), 0))
    owners = box(b"ipma", struct.pack(">I", 2) + b"".join(struct.pack(">HBB", i, 1, 0x81) for i in (1, 2)), 0)
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + box(b"meta", b"".join([
        box(b"hdlr", b"\0\0\0\0pict" + bytes(13), 0), box(b"pitm", struct.pack(">H", 1), 0), box(b"iloc", places, 1),
        box(b"iinf", infos, 0), box(b"iref", references, 0), box(b"iprp", sizes + owners), box(b"idat", grid)]), 0)


def with_scans(jpeg, count):
    """A progressive JPEG whose first scan comes `count` times."""
    begin = jpeg.index(b"\xff\xda")
    end = begin + 2
    while jpeg[end] != 0xFF or jpeg[end + 1] == 0:
        end += 1
    return jpeg[:end] + jpeg[begin:end] * count + jpeg[end:]


def bad_photos(good):
    """{name: bytes}: none of these can be labelled."""
    image = Image.open(io.BytesIO(good[0]))
    bad = {
        "empty.jpg": b"",
        "zeros.jpg": bytes(5000),
        "zeros.png": bytes(5001),
        "text.jpg": b"no photo at all",
        "huge.jpg": with_size_in_frame(encoded(image, "JPEG"), HUGE_SIDE),
        "huge.png": black_png(HUGE_SIDE, rows=100),
        "bomb.png": black_png(13_000),
        "scans.jpg": with_scans(encoded(image, "JPEG", progressive=True), 3000),
        "circle.heic": heif_of_circle(),
        "animation.webp": encoded(image, "WEBP", save_all=True, append_images=[image.rotate(90)]),
    }
    if features.check("avif"):
        bad["huge.avif"] = announcing(encoded(image, "AVIF"), HUGE_SIDE)
        bad["larger-inside.avif"] = announcing(encoded(Image.new("RGB", (6000, 6000)), "AVIF", speed=10), 64)
    whole = {"jpg": good[1], "png": encoded(image, "PNG"), "webp": encoded(image, "WEBP")}
    if features.check("avif"):
        whole["avif"] = encoded(image, "AVIF")
    for extension, photo in whole.items():
        for i in range(1, 20):
            bad[f"cut-{i:02}.{extension}"] = photo[:len(photo) * i // 20]
    return bad


def mislabelled_photos(good):
    """{name: bytes}: whole photos under another format's name."""
    image = Image.open(io.BytesIO(good[2]))
    return {"a-png.jpg": encoded(image, "PNG"), "a-jpeg.png": encoded(image, "JPEG", quality=91),
            "a-webp.heic": encoded(image, "WEBP"), "a-jpeg.webp": encoded(image, "JPEG", quality=92)}


def damaged_photos(good, count):
    """{name: bytes}: these may be photos still, or not."""
    dice = random.Random(5)
    damaged = {}
    for i in range(count):
        photo = bytearray(good[i % len(good)])
        for _ in range(dice.randint(1, 7)):
            photo[dice.randrange(len(photo) if i % 2 else 700)] = dice.randrange(256)
        damaged[f"damaged-{i:04}.jpg"] = bytes(photo)
    return damaged


def good_photos(folder):
    run("import", f"generate:5,{NUM_GOOD},11", "--store", folder)
    return [file.read_bytes() for file in sorted((folder / "photos").rglob("*.jpg"))]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """(the folder, names of the photos that must be labelled, of those that must fail, of those that may do either)"""
    root = tmp_path_factory.mktemp("hostile")
    good = good_photos(root / "generated")
    folder = root / "photos"
    folder.mkdir()
    fine = {f"good-{i:02}.jpg": photo for i, photo in enumerate(good)} | mislabelled_photos(good)
    bad = bad_photos(good)
    either = damaged_photos(good, 100)
    if (DATA / "photos.tar").exists():
        with tarfile.open(DATA / "photos.tar") as archive:
            real = [archive.extractfile(entry).read() for entry in archive.getmembers()[:20] if entry.isfile()]
        fine |= {f"real-{i:02}.jpg": photo for i, photo in enumerate(real)}
        bad |= {f"real-cut-{i:02}-{k}.jpg": photo[:len(photo) * k // 20] for i, photo in enumerate(real) for k in (1, 9, 19)}
    for name, photo in (fine | bad | either).items():
        (folder / name).write_bytes(photo)
    return folder, set(fine), set(bad), set(either)


@pytest.fixture(scope="module")
def inferred(corpus, tmp_path_factory):
    """{name: its row}, of `ndpipe infer` over the folder."""
    output = tmp_path_factory.mktemp("inferred") / "labels.csv"
    said = json.loads(run("infer", MODEL, corpus[0], "--output", output, "--threads", 1, "--json").stdout)
    rows = {row["path"]: row for row in csv.DictReader(output.open(newline=""))}
    assert len(rows) == said["photos"] == said["labelled"] + said["failed"]
    assert sum(bool(row["error"]) for row in rows.values()) == said["failed"]
    return rows


def test_infer_labels_the_good_and_fails_the_bad(corpus, inferred):
    _, fine, bad, either = corpus
    assert set(inferred) == fine | bad | either
    assert [name for name in fine if inferred[name]["error"]] == []
    assert [name for name in bad if not inferred[name]["error"]] == []
    assert all(inferred[name]["class_index"] for name in fine)
    reasons = {"empty.jpg": "empty", "huge.jpg": "too large", "huge.png": "too large", "bomb.png": "too large",
               "scans.jpg": "scans", "text.jpg": "not a photo", "zeros.png": "not a photo", "animation.webp": "animated",
               "circle.heic": "made of each other",
               "huge.avif": "too large", "larger-inside.avif": "more pixels than it announces", "cut-19.jpg": "truncated"}
    for name in reasons.keys() & bad:
        assert reasons[name] in inferred[name]["error"], (name, inferred[name]["error"])


def lz4_of_zeros(num_bytes):
    """A block: one zero, then one match of the rest at distance 1."""
    rest = num_bytes - 1 - 4 - 15
    return b"\x1f\x00\x01\x00" + b"\xff" * (rest // 255) + bytes([rest % 255])


def zstd_of_zeros(announced, num_blocks):
    """A frame that announces one size and holds another: each block says 128 KiB in four bytes."""
    block = (128 << 10) << 3 | 1 << 1
    last = block | 1
    return (struct.pack("<IBQ", 0xFD2FB528, 0xE0, announced) + (struct.pack("<I", block)[:3] + b"\0") * num_blocks +
            struct.pack("<I", last)[:3] + b"\0")


def deflate_of_zeros(num_bytes):
    encoder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return encoder.compress(bytes(num_bytes)) + encoder.flush()


@functools.cache
def bomb_of(codec):
    """A sidecar that unpacks to far more than its photo; of no codec, one that is too long."""
    made = {"zstd": lambda: zstd_of_zeros(150_528, 8000), "lz4": lambda: lz4_of_zeros(1 << 30),
            "deflate": lambda: deflate_of_zeros(1 << 27)}
    return made.get(codec, lambda: bytes(1 << 20))()


def hostile_item(space, index):
    """An item that is none of its space: not of its size, a bomb, or features that are no numbers."""
    if space.startswith("feature/"):
        return [b"\xff" * 2560, b"\xff" * 2, b"", os.urandom(2559)][index % 4]
    bomb = bomb_of(space.rsplit("/", 1)[1])
    return [bomb, b"", os.urandom(3000), bomb[:len(bomb) // 2]][index % 4]


def plant_hostile_items(derived, photos):
    """Hostile items of the photos in every space that there is, in whole records, as a program gone wrong might leave
    them; {(space, photo): bytes}."""
    planted = {}
    with sqlite3.connect(derived / "index.db") as index:
        for space, name in index.execute("SELECT id, name FROM spaces").fetchall():
            segment, size = index.execute("SELECT id, size FROM segments WHERE space = ? ORDER BY id DESC",
                                          (space,)).fetchone()
            with open(derived / f"segment-{segment:06}.bin", "r+b") as file:
                file.seek(size)
                for i, photo in enumerate(photos):
                    item = hostile_item(name, i)
                    head = b"NDR1" + struct.pack("<IqI", space, photo, len(item))
                    file.write(head + struct.pack("<I", zlib.crc32(head + item)) + item)
                    index.execute("INSERT INTO items(space, number, segment, offset, length) VALUES(?, ?, ?, ?, ?)",
                                  (space, photo, segment, size, len(item)))
                    size += len(head) + 4 + len(item)
                    planted[space, photo] = item
            index.execute("UPDATE segments SET size = ?, items = items + ?, bytes = bytes + ? WHERE id = ?",
                          (size, len(photos), sum(len(item) for key, item in planted.items() if key[0] == space), segment))
    return planted


def item_of(derived, index, space, photo):
    found = index.execute("SELECT segment, offset, length FROM items WHERE space = ? AND number = ?",
                          (space, photo)).fetchone()
    if found is None:
        return None
    with open(derived / f"segment-{found[0]:06}.bin", "rb") as file:
        file.seek(found[1] + 24)
        return file.read(found[2])


def peak_mib(daemon):
    status = pathlib.Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def photos_after(store, number):
    catalog = sqlite3.connect(store / "catalog.db")
    found = [row[0] for row in catalog.execute("SELECT number FROM photo WHERE number > ? ORDER BY number", (number,))]
    catalog.close()
    return found


def test_a_cluster_labels_the_good_fails_the_bad_and_drops_hostile_derived_bytes(tmp_path, corpus, inferred):
    folder, fine, bad, either = corpus
    with Cluster(tmp_path, 1, (3, 10, 2)) as cluster:
        store = cluster.store_folders[0]
        cluster.start().wait_for_stores()
        assert cluster.ask("relabel")["done"] == 10
        cluster.stores[0].stop()
        last = max(photos_after(store, 0))

        report = json.loads(run("import", folder, "--store", store, "--json").stdout)
        refused = {failure["origin"]: failure["reason"] for failure in report["failures"]}
        assert report["found"] == report["added"] + report["known"] + report["failed"] == len(fine | bad | either)
        assert set(refused) <= bad | either and all(refused.values())
        assert {"text.jpg", "empty.jpg", "zeros.png"} <= set(refused)
        # Photos are told by their bytes, so that equal ones are one photo.
        taken = {(folder / name).read_bytes(): inferred[name] for name in (fine | bad | either) - set(refused)}
        expected_failures = sorted(row["error"] for row in taken.values() if row["error"])
        assert report["added"] == len(taken)
        planted = plant_hostile_items(store / "derived", photos_after(store, last)[::2])
        assert {space for space, _ in planted} != set()

        cluster.stores[0].start()
        cluster.wait_for_stores()
        job = cluster.ask("relabel")
        assert (job["state"], job["done"], job["failed"]) == ("done", len(taken), len(expected_failures))
        cluster.check_one_outcome_each(job["version"])
        # The Tuner's numbers are its own; with one store they are in the order of the store's.
        outcomes = cluster.query("SELECT photo, label, reason FROM outcome WHERE version = ? ORDER BY photo", job["version"])
        assert len(outcomes) == 10 + len(taken)
        assert sorted(reason for _, label, reason in outcomes if label is None) == expected_failures
        shown = cluster.ask("search", "--failed", "--limit", 10000)
        assert sorted(photo["reason"] for photo in shown) == expected_failures
        assert peak_mib(cluster.stores[0]) < MAX_PEAK_MIB

        cluster.stores[0].stop()
        index = sqlite3.connect(store / "derived" / "index.db")
        labelled = {photo for photo, (_, label, _) in zip(photos_after(store, 0), outcomes, strict=True)
                    if label is not None}
        assert labelled & {photo for _, photo in planted}
        assert [key for key, item in planted.items()
                if key[1] in labelled and item_of(store / "derived", index, *key) in (item, None)] == []
        index.close()
