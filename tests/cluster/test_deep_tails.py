"""Fine-tunes at an earlier cut, whose tails hold layers of the backbone, with real processes."""

import json
import random

import pytest

from harness import Cluster, run, wait_until

PHOTOS = (5, 160, 21)  # classes, photos a store, seed
SHAPE = [320, 7, 7]    # of the cut: the last block's output, before the convolution to 1280 channels
FLAGS = ["-r", 2, "--epochs", 2, "--patience", 2]


def first_cut_of(shape):
    cuts = json.loads(run("models", "cuts", "efficientnet-lite0", "--json").stdout)
    return next(c["cut"] for c in cuts if c["shape"] == shape)


@pytest.fixture(scope="module")
def cut():
    return first_cut_of(SHAPE)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, cut):
    """The model that such a fine-tune makes when nothing happens."""
    with Cluster(tmp_path_factory.mktemp("undisturbed"), 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune(*FLAGS, "-n", 2, "--cut", cut, "--no-relabel")
        cluster.wait_for_job(finetune)
        return cluster.tail_hashes()


def labels(cluster, version):
    """Each photo's label in the version, by names, which are the same in every cluster."""
    return cluster.query("SELECT hex(p.id), v.name FROM outcome o JOIN photo p ON p.number = o.photo "
                         "JOIN vocabulary v ON v.id = o.label WHERE o.version = ? ORDER BY 1", version)


def test_an_earlier_cut_from_photos_to_labels(tmp_path, cut, undisturbed):
    with Cluster(tmp_path, 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        first = cluster.start_finetune("-n", 2)
        cluster.wait_for_job(first)
        cluster.wait_for_job(cluster.relabel_of(first))
        linear = cluster.job(first)  # with its report, which the relabel completes

        finetune = cluster.start_finetune(*FLAGS, "-n", 2, "--cut", cut)
        deep = cluster.wait_for_job(finetune)
        cluster.wait_for_job(cluster.relabel_of(finetune))
        cluster.check_one_outcome_each(deep["version"])
        report = cluster.job(finetune)["report"]
        assert (report["cut"], report["cut_shape"], report["tail"]) == (cut, SHAPE, "deep")
        assert report["feature_bytes"] == report["extracted_photos"] * 320 * 7 * 7 * 2
        assert report["held_out_photos"] > 0
        assert report["labelled"] == 320 and report["failed"] == 0
        # Every photo's features came through the new cut once; the relabel found them cached.
        assert report["features_from_cache"] == 0
        assert report["relabel_from_cache"] == report["extracted_photos"] > 200
        assert report["top1_after"] > 0.6
        # The linear version, served before, was compared with on the same features.
        assert report["before_version"] == linear["version"]
        assert abs(report["top1_before"] - linear["report"]["top1_after"]) <= 2 / report["evaluation_photos"]
        versions = {m["version"]: m for m in cluster.ask("models")}
        assert versions[deep["version"]]["cut"] == cut
        assert versions[deep["version"]]["state"] == "serving"
        assert set(undisturbed) <= set(cluster.tail_hashes()), "the same model as elsewhere"


def test_cached_features_and_photos_give_the_same_labels(tmp_path, cut):
    seen = []
    for flags in ([], ["--no-cache"]):
        with Cluster(tmp_path / f"cluster{len(seen)}", 1, PHOTOS, store_flags=flags) as cluster:
            cluster.start().wait_for_stores()
            finetune = cluster.start_finetune("--cut", cut, "--epochs", 2)
            deep = cluster.wait_for_job(finetune)
            cluster.wait_for_job(cluster.relabel_of(finetune))
            cached = cluster.job(finetune)["report"]["relabel_from_cache"]
            assert (cached == 0) == bool(flags)
            seen.append((cluster.tail_hashes(), labels(cluster, deep["version"])))
    assert len(seen[0][1]) == 160
    assert seen[0] == seen[1]


def test_one_store_makes_the_same_model(tmp_path, cut, undisturbed):
    classes, per_store, seed = PHOTOS
    with Cluster(tmp_path, 1, (0, 0, 0)) as cluster:
        for i in range(2):
            run("import", f"generate:{classes},{per_store},{seed + i}", "--store", cluster.store_folders[0])
        cluster.start().wait_for_stores()
        cluster.wait_for_job(cluster.start_finetune(*FLAGS, "-n", 1, "--cut", cut, "--no-relabel"))
        assert cluster.tail_hashes() == undisturbed


def test_features_in_files_make_the_same_model(tmp_path, cut, undisturbed):
    with Cluster(tmp_path, 2, PHOTOS, tuner_flags=["--feature-memory-bytes", "100kb"]) as cluster:
        cluster.start().wait_for_stores()
        cluster.wait_for_job(cluster.start_finetune(*FLAGS, "-n", 2, "--cut", cut, "--no-relabel"))
        assert cluster.tail_hashes() == undisturbed
        assert not list((cluster.state / "jobs").iterdir()), "nothing is left behind"


def test_killed_in_extraction_and_in_training(tmp_path, cut, undisturbed):
    moments = random.Random(5)
    with Cluster(tmp_path, 2, PHOTOS, store_flags=["--no-cache"]) as cluster:
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune(*FLAGS, "-n", 2, "--cut", cut, "--no-relabel")

        def reached(share):
            now = cluster.job(finetune) or {"done": 0, "total": 0}
            return now["total"] > 0 and now["done"] >= share * now["total"]

        wait_until(lambda: reached(moments.uniform(0.1, 0.6)), "the extraction has come that far")
        cluster.stores[0].kill()
        cluster.stores[0].start()
        wait_until(lambda: reached(1), "the last run is trained")
        cluster.tuner.kill()
        cluster.tuner.start()
        cluster.wait_for_job(finetune)
        assert cluster.tail_hashes() == undisturbed


def test_classes_are_added_to_a_version(tmp_path, cut):
    with Cluster(tmp_path, 1, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        first = cluster.ask("finetune", "--cut", cut, "--epochs", 2)
        run("import", "generate:6,120,99", "--store", cluster.store_folders[0])
        wait_until(lambda: cluster.ask("status")["photos"] == 280, "the Tuner knows the new photos")
        second = cluster.ask("finetune", "--continue-from", first["version"], "--epochs", 2)
        report = second["report"]
        assert (report["num_classes"], report["known_classes"]) == (6, 5)
        assert report["cut"] == cut and report["continue_from"] == first["version"]
        assert report["top1_before"] is None and report["known_top1_before"] > 0.5
        assert len(report["classes"]) == 6
        cluster.check_one_outcome_each(second["version"])


def test_cuts_that_do_not_fit(tmp_path, cut):
    with Cluster(tmp_path, 1, (3, 40, 3)) as cluster:
        cluster.start().wait_for_stores()
        remote = ("--tuner", f"127.0.0.1:{cluster.port}")

        def refused(code, *flags):
            done = run("finetune", *flags, *remote, check=False)
            assert done.returncode == code, (done.returncode, done.stderr)
            return done.stderr

        misspelt = cut[:-1] + "x"
        text = refused(1, "--cut", misspelt)
        assert misspelt in text and cut in text, "it names the nearest"
        assert "models cuts" in text
        assert "no single-tensor edge" in refused(2, "--cut", "logits")
        # One photo's features would not fit a message.
        text = refused(2, "--cut", first_cut_of([96, 112, 112]))
        assert "message" in text and "later cut" in text
        assert "99" in refused(1, "--continue-from", 99)
        refused(2, "--delta-bits", 3)
        refused(2, "--learning-rate", -1)
        assert cluster.ask("jobs") == [], "nothing has started"
