"""Model versions in a running cluster: sent as deltas, served, rolled back, compared, exported."""

import json
import os
import pathlib
import random
import tarfile
import threading

import numpy
import onnxruntime
import pytest
from PIL import Image, ImageOps

from harness import Cluster, run, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
DATA = pathlib.Path(os.environ.get("NDPIPE_TEST_DATA") or ROOT.parent / "shared" / "data")
PHOTOS = (5, 120, 41)  # classes, photos a store, seed
FLAGS = ["--epochs", 30]


def versions(cluster):
    return {m["version"]: m for m in cluster.ask("models")}


def finetune(cluster, *flags):
    """A fine-tune with its relabel; the ended job."""
    return cluster.ask("finetune", *FLAGS, *flags)


def tail_file(cluster, store, version):
    """Where a store keeps the tail of a version."""
    tail = cluster.query("SELECT lower(hex(tail)) FROM version WHERE number = ?", version)[0][0]
    return cluster.store_folders[store] / "models" / "tails" / f"{tail}.safetensors"


def seen_versions(cluster):
    """The versions of all labels that readers see."""
    return {row[0] for row in cluster.query(
        "SELECT DISTINCT o.version FROM photo p, meta JOIN outcome o ON o.version = coalesce(p.pinned, meta.serving) "
        "AND o.photo = p.number WHERE p.present > 0")}


def test_the_next_version_comes_as_a_delta(tmp_path):
    with Cluster(tmp_path, 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        finetune(cluster)
        first = versions(cluster)[2]
        assert first["full_sends"] + first["delta_sends"] == 2
        # Exactly: the change takes less than the tail, and the stores have the Tuner's bits.
        report = finetune(cluster, "--seed", 2)["report"]
        second = versions(cluster)[3]
        assert (second["full_sends"], second["delta_sends"]) == (0, 2)
        assert 0 < second["sent_bytes"] < 2 * second["tail_bytes"]
        assert report["delta_bytes"] == second["sent_bytes"]
        for store in (0, 1):
            kept = tail_file(cluster, store, 3)
            assert kept.read_bytes() == (cluster.state / "tails" / kept.name).read_bytes()
        cluster.check_one_outcome_each(3)


def test_a_damaged_base_gets_the_full_tail(tmp_path):
    with Cluster(tmp_path, 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        finetune(cluster)
        base = tail_file(cluster, 0, 2)
        damaged = bytearray(base.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        base.write_bytes(damaged)
        cluster.stores[0].kill()
        cluster.stores[0].start()
        cluster.wait_for_stores()
        finetune(cluster, "--seed", 2)
        sent = versions(cluster)[3]
        assert sent["full_sends"] == 1, "to the store with the damaged base"
        assert sent["delta_sends"] == 2, "which was sent a delta first"
        assert not base.exists()
        assert tail_file(cluster, 0, 3).exists()
        cluster.check_one_outcome_each(3)


def test_a_store_that_missed_versions_catches_up(tmp_path):
    with Cluster(tmp_path, 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        finetune(cluster)
        made = [cluster.ask("finetune", "--no-relabel", *FLAGS, "--seed", seed)["version"] for seed in (2, 3)]
        cluster.stores[1].stop()
        wait_until(lambda: [s["connected"] for s in cluster.ask("status")["stores"]].count(True) == 1,
                   "the Tuner noticed")
        for version in made:
            cluster.ask("relabel", "--model-version", version)
        assert cluster.ask("status")["pending"] == 120
        cluster.stores[1].start()
        cluster.wait_for_stores()
        cluster.ask("relabel", "--model-version", made[-1])
        assert tail_file(cluster, 1, made[-1]).exists() and not tail_file(cluster, 1, made[0]).exists()
        sent = versions(cluster)[made[-1]]
        assert (sent["full_sends"], sent["delta_sends"]) == (0, 2)
        cluster.check_one_outcome_each(made[-1])


def test_serve_and_rollback_at_once(tmp_path):
    with Cluster(tmp_path, 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        none = run("models", "rollback", "--tuner", f"127.0.0.1:{cluster.port}", check=False)
        assert none.returncode == 1 and "nothing to go back to" in none.stderr
        cluster.ask("relabel")
        finetune(cluster)
        num_jobs = len(cluster.ask("jobs"))
        back = cluster.ask("models", "rollback")
        assert (back["version"], back["serves"], back["job"], back["pending"]) == (1, True, None, 0)
        assert seen_versions(cluster) == {1}
        assert {n: m["state"] for n, m in versions(cluster).items()} == {1: "serving", 2: "retired"}
        assert cluster.ask("models", "serve", 2)["serves"]
        assert seen_versions(cluster) == {2}
        assert len(cluster.ask("jobs")) == num_jobs, "no relabel was needed"

        # Photos that came since are pending in the older version until the relabel that follows.
        run("import", "generate:5,20,77", "--store", cluster.store_folders[0])
        wait_until(lambda: cluster.ask("status")["photos"] == 260, "the Tuner knows the new photos")
        cluster.ask("relabel", "--model-version", 2)
        back = cluster.ask("models", "rollback")
        assert (back["version"], back["serves"], back["pending"]) == (1, True, 20)
        cluster.wait_for_job(back["job"])
        cluster.check_one_outcome_each(1)

        for number, problem in ((99, "no model version 99"), (0, "")):
            wrong = run("models", "serve", number, "--tuner", f"127.0.0.1:{cluster.port}", check=False)
            assert wrong.returncode == (2 if number == 0 else 1) and problem in wrong.stderr


def test_two_versions_side_by_side(tmp_path):
    with Cluster(tmp_path, 1, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        finetune(cluster)
        made = cluster.ask("finetune", "--no-relabel", *FLAGS, "--seed", 2)["version"]
        nothing = run("models", "compare", 2, made, "--tuner", f"127.0.0.1:{cluster.port}", check=False)
        assert nothing.returncode == 1 and "--no-switch" in nothing.stderr
        cluster.ask("relabel", "--version", made, "--no-switch")
        assert cluster.ask("status")["serving_version"] == 2
        assert seen_versions(cluster) == {2}
        assert (versions(cluster)[made]["state"], versions(cluster)[made]["complete"]) == ("distributed", True)

        label, count = cluster.query("SELECT v.name, count(*) FROM outcome o JOIN vocabulary v ON v.id = o.label "
                                     "WHERE o.version = ? GROUP BY 1 LIMIT 1", made)[0]
        hits = cluster.ask("search", label, "--model-version", made, "--limit", 1000)
        assert len(hits) == count and {h["version"] for h in hits} == {made}

        compared = cluster.ask("models", "compare", 2, made, "--examples", 3)
        rows = dict(cluster.query(
            "SELECT a.label = b.label, count(*) FROM outcome a JOIN outcome b ON a.photo = b.photo "
            "WHERE a.version = 2 AND b.version = ? GROUP BY 1", made))
        assert (compared["same"], compared["changed"]) == (rows.get(1, 0), rows.get(0, 0))
        assert compared["same"] + compared["changed"] == 120
        assert sum(row["second"] for row in compared["classes"]) == 120
        assert len(compared["examples"]) == min(3, compared["changed"])
        assert compared["user_labelled"]["photos"] == 120
        assert compared["user_labelled"]["second_right"] > 60
        assert 0 < compared["unseen"]["photos"] < 120
        text = run("models", "compare", 2, made, "--tuner", f"127.0.0.1:{cluster.port}").stdout
        assert text.startswith(f"Photos with an outcome in versions 2 and {made}: 120")

        assert cluster.ask("models", "serve", made)["job"] is None
        assert seen_versions(cluster) == {made}

        # The one before is kept for the way back, until it is dropped; the serving one cannot be.
        refused = run("models", "drop", made, "--tuner", f"127.0.0.1:{cluster.port}", check=False)
        assert refused.returncode == 1 and "serving" in refused.stderr
        assert cluster.ask("models", "drop", 2) == {"version": 2, "outcomes": 120}
        assert cluster.query("SELECT count(*) FROM outcome WHERE version = 2") == [(0,)]
        assert cluster.ask("models", "rollback", check=False) is None
        assert seen_versions(cluster) == {made}
        cluster.check_one_outcome_each(made)


def test_killed_in_a_switch_it_shows_one_version_or_the_other(tmp_path):
    moments = random.Random(5)
    with Cluster(tmp_path, 1, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        cluster.ask("relabel")
        finetune(cluster)
        for _ in range(6):
            stop = threading.Event()

            def switch():
                while not stop.is_set():
                    for number in (1, 2):
                        cluster.ask("models", "serve", number, check=False)

            switcher = threading.Thread(target=switch)
            switcher.start()
            wait_until(lambda: moments.random() < 0.05, "the moment has come", interval=0.02)
            cluster.tuner.kill()
            stop.set()
            switcher.join()
            serving = cluster.query("SELECT serving FROM meta")[0][0]
            assert seen_versions(cluster) == {serving}
            states = dict(cluster.query("SELECT number, state FROM version"))
            assert states == {serving: 2, 3 - serving: 3}
            assert cluster.query("SELECT count(*) FROM photo WHERE pinned IS NOT NULL")[0][0] == 0
            cluster.tuner.start()
            cluster.wait_for_stores()
            cluster.check_one_outcome_each(serving)


def preprocess(file, manifest):
    """As the manifest that is in the exported file says, by Pillow."""
    rule = json.loads(manifest)
    short, crop = rule["preprocess"]["resize_short_side"], rule["preprocess"]["crop_height"]
    photo = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    width, height = photo.size
    scale = (short, short * height // width) if width < height else (short * width // height, short)
    photo = photo.resize(scale, Image.BICUBIC)
    left, top = round((photo.width - crop) / 2), round((photo.height - crop) / 2)
    pixels = numpy.asarray(photo.crop((left, top, left + crop, top + crop)), numpy.float32)
    pixels = (pixels - numpy.array(rule["mean"], numpy.float32)) / numpy.array(rule["std"], numpy.float32)
    return pixels.transpose(2, 0, 1)[None]


def answers(onnx_file, files):
    """What ONNX Runtime says of photos with an exported file: label names."""
    session = onnxruntime.InferenceSession(onnx_file, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    names = json.loads(metadata["ndpipe.class_names"])
    assert "ndpipe.manifest" in metadata
    said = []
    for file in files:
        logits = session.run(None, {session.get_inputs()[0].name: preprocess(file, metadata["ndpipe.manifest"])})[0]
        assert logits.shape == (1, len(names))
        said.append(names[int(logits.argmax())])
    return said


def labels_of(cluster, version):
    """(file, label) of each labelled photo."""
    return [(cluster.store_folders[0] / path, label) for path, label in cluster.query(
        "SELECT l.path, v.name FROM outcome o JOIN location l ON l.photo = o.photo JOIN vocabulary v ON v.id = o.label "
        "WHERE o.version = ? AND l.state = 0 ORDER BY o.photo", version)]


def test_an_exported_version_answers_as_its_labels(tmp_path):
    with Cluster(tmp_path, 1, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        finetune(cluster)
        exported = cluster.ask("models", "export", 2, tmp_path / "tuned.onnx")
        assert exported["bytes"] == (tmp_path / "tuned.onnx").stat().st_size
        labels = labels_of(cluster, 2)
        said = answers(tmp_path / "tuned.onnx", [file for file, _ in labels])
        same = sum(a == label for a, (_, label) in zip(said, labels))
        assert len({label for _, label in labels}) > 1, "one label for all would say nothing"
        assert same >= 0.98 * len(labels) > 0
        wrong = run("models", "export", 99, tmp_path / "none.onnx", "--tuner", f"127.0.0.1:{cluster.port}", check=False)
        assert wrong.returncode == 1 and not (tmp_path / "none.onnx").exists()


@pytest.mark.skipif(not (DATA / "photos.tar").exists(), reason=f"SKIPPED: no photos.tar in {DATA}")
def test_an_exported_backbone_answers_as_its_labels_on_real_photos(tmp_path):
    with tarfile.open(DATA / "photos.tar") as archive:
        archive.extractall(tmp_path)
    with Cluster(tmp_path, 1, (0, 0, 0)) as cluster:
        run("import", tmp_path / "photos", "--store", cluster.store_folders[0])
        cluster.start().wait_for_stores()
        cluster.ask("relabel")
        cluster.ask("models", "export", 1, tmp_path / "own.onnx")
        labels = labels_of(cluster, 1)
        said = answers(tmp_path / "own.onnx", [file for file, _ in labels])
        same = sum(a == label for a, (_, label) in zip(said, labels))
        assert len(labels) == len(list((tmp_path / "photos").iterdir()))
        assert same >= 0.98 * len(labels) > 0


def test_a_quantised_version_is_small_and_the_same_everywhere(tmp_path):
    with Cluster(tmp_path, 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        finetune(cluster)
        report = finetune(cluster, "--seed", 2, "--delta-bits", 8)["report"]
        made = versions(cluster)[3]
        assert (made["base"], made["delta_bits"]) == (2, 8)
        assert (made["full_sends"], made["delta_sends"]) == (0, 2)
        assert 0 < made["sent_bytes"] < 2 * made["tail_bytes"] / 3
        assert report["delta_bytes"] == made["sent_bytes"]
        assert report["top1_after"] > 0.6
        for store in (0, 1):
            kept = tail_file(cluster, store, 3)
            assert kept.read_bytes() == (cluster.state / "tails" / kept.name).read_bytes()
        cluster.check_one_outcome_each(3)
