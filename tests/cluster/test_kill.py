"""kill -9 of each process in each phase: the job finishes, nothing is lost or doubled, the model's bits are the same.

NDPIPE_KILL_ROUNDS repeats each test with other moments; 1 where it is not set.
"""

import os
import random

import pytest

from harness import Cluster, wait_until

ROUNDS = range(int(os.environ.get("NDPIPE_KILL_ROUNDS", "1")))
PHOTOS = (5, 240, 7)  # classes, photos a store, seed
FLAGS = ["-r", 2, "-n", 2, "--epochs", 200]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The model that a fine-tune makes when nothing happens."""
    with Cluster(tmp_path_factory.mktemp("undisturbed"), 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune(*FLAGS)
        cluster.wait_for_job(finetune)
        cluster.wait_for_job(cluster.relabel_of(finetune))
        return cluster.tail_hashes()


def finish(cluster, finetune, undisturbed):
    job = cluster.wait_for_job(finetune)
    cluster.wait_for_job(cluster.relabel_of(finetune))
    cluster.check_one_outcome_each(job["version"])
    assert cluster.tail_hashes() == undisturbed


def wait_for_progress(cluster, job, share):
    """Until that share of the job's photos is done; 1 is the time of the last run's training."""
    def reached():
        now = cluster.job(job) or {"done": 0, "total": 0}
        return now["total"] > 0 and now["done"] >= share * now["total"]
    wait_until(reached, f"{share:.2f} of the photos are done", interval=0.01)


@pytest.mark.parametrize("round", ROUNDS)
def test_pipestore_killed_in_extraction(tmp_path, undisturbed, round):
    with Cluster(tmp_path, 2, PHOTOS, store_flags=["--no-cache"]) as cluster:
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune(*FLAGS)
        wait_for_progress(cluster, finetune, random.Random(round).uniform(0.01, 0.6))
        cluster.stores[round % 2].kill()
        cluster.stores[round % 2].start()
        finish(cluster, finetune, undisturbed)


@pytest.mark.parametrize("round", ROUNDS)
def test_tuner_killed_in_training(tmp_path, undisturbed, round):
    with Cluster(tmp_path, 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune(*FLAGS)
        wait_for_progress(cluster, finetune, random.Random(round).choice([0.5, 0.75, 1]))
        cluster.tuner.kill()
        cluster.tuner.start()
        finish(cluster, finetune, undisturbed)


@pytest.mark.parametrize("round", ROUNDS)
def test_pipestore_killed_in_relabel(tmp_path, undisturbed, round):
    with Cluster(tmp_path, 2, PHOTOS, store_flags=["--no-cache"]) as cluster:
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune(*FLAGS)
        cluster.wait_for_job(finetune)
        relabel = cluster.relabel_of(finetune)
        wait_for_progress(cluster, relabel, random.Random(round).uniform(0, 0.6))
        cluster.stores[round % 2].kill()
        cluster.stores[round % 2].start()
        finish(cluster, finetune, undisturbed)


@pytest.mark.parametrize("round", ROUNDS)
def test_everything_killed_at_any_moment(tmp_path, undisturbed, round):
    """Each process once, at moments that no phase chooses."""
    moments = random.Random(1000 + round)
    with Cluster(tmp_path, 2, PHOTOS, store_flags=["--no-cache"]) as cluster:
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune(*FLAGS)
        for daemon in moments.sample([*cluster.stores, cluster.tuner], 3):
            wait_until(lambda: moments.random() < 0.03, "the moment has come", interval=0.02)
            daemon.kill()
            daemon.start()
        finish(cluster, finetune, undisturbed)
