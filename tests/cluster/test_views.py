"""Fine-tunes on several views of each training photo, with real processes."""

import pytest

from harness import run, wait_until
from test_replicas import cluster_of, done_photos

VIEWS = 3
FLAGS = ["-r", 2, "--views", VIEWS, "--no-relabel"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What one store with all photos comes to: the model and the report."""
    with cluster_of(tmp_path_factory.mktemp("undisturbed"), (1, 2)) as cluster:
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune(*FLAGS)
        assert cluster.job(finetune)["views"] == VIEWS
        cluster.wait_for_job(finetune)
        return cluster.tail_hashes(), cluster.job(finetune)["report"]


def test_two_stores_make_the_model_of_one_also_when_one_is_killed(tmp_path, undisturbed):
    tails, one = undisturbed
    with cluster_of(tmp_path, (1,), (2,)) as cluster:
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune(*FLAGS, "-n", 2)
        wait_until(lambda: done_photos(cluster, finetune) > 0, "some photos are done", interval=0.01)
        cluster.stores[0].kill()
        cluster.stores[0].start()
        cluster.wait_for_job(finetune)
        assert cluster.tail_hashes() == tails
        report = cluster.job(finetune)["report"]
        for key in ("top1_after", "extracted_photos", "training_photos", "feature_bytes", "views"):
            assert report[key] == one[key], key
        assert report["views"] == VIEWS
        # Progress counts photos; bytes count views, which only training photos have.
        assert report["extracted_photos"] == report["training_photos"] + report["evaluation_photos"]
        rows = report["training_photos"] * VIEWS + report["evaluation_photos"]
        assert report["feature_bytes"] == rows * report["feature_size"] * 2


def test_views_change_the_model_and_leave_the_cache_as_it_was(tmp_path, undisturbed):
    with cluster_of(tmp_path, (1, 2)) as cluster:
        cluster.start().wait_for_stores()
        plain = cluster.start_finetune("-r", 2, "--no-relabel")
        cluster.wait_for_job(plain)
        assert cluster.job(plain)["report"]["views"] == 1
        of_plain = set(cluster.tail_hashes())
        finetune = cluster.start_finetune(*FLAGS)
        cluster.wait_for_job(finetune)
        report = cluster.job(finetune)["report"]
        # The plain view came from the cache, and the model is the one of a store without any.
        assert report["features_from_cache"] == report["extracted_photos"]
        both = of_plain | set(undisturbed[0])
        assert set(cluster.tail_hashes()) == both and len(both) == len(of_plain) + 1
        again = cluster.start_finetune("-r", 2)
        cluster.wait_for_job(again)
        cluster.wait_for_job(cluster.relabel_of(again))
        assert cluster.job(again)["report"]["relabel_from_cache"] > 0
        assert set(cluster.tail_hashes()) == both, "without views the model is what it was"


def test_views_out_of_range_are_wrong_usage():
    for views in (0, 17, "many"):
        refused = run("finetune", "--views", views, check=False)
        assert refused.returncode == 2 and "--views" in refused.stderr + refused.stdout
