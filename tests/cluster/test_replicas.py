"""Photos that lie in several stores: each is processed once, by whichever is free; stores that are lost or come late."""

import pytest

from harness import Cluster, run, wait_until

CLASSES = 5
EACH = 120  # photos of one seed


def import_seeds(store, *seeds):
    """Photos of a seed have the same bytes in every store, and so the same ids."""
    for seed in seeds:
        run("import", f"generate:{CLASSES},{EACH},{seed}", "--store", store)


def cluster_of(folder, *seeds_of_stores, **flags):
    cluster = Cluster(folder, len(seeds_of_stores), (CLASSES, 0, 0), **flags)
    for store, seeds in zip(cluster.store_folders, seeds_of_stores):
        import_seeds(store, *seeds)
    return cluster


def done_photos(cluster, job):
    return (cluster.job(job) or {"done": 0})["done"]


def without_outcome(cluster, version, store_folder):
    """How many photos that lie in the store have no outcome in the version."""
    known = {s["name"]: s["id"] for s in cluster.ask("status")["stores"]}
    store = next(i for name, i in known.items() if name.endswith(str(store_folder)))
    return cluster.query("""SELECT count(*) FROM replica r JOIN store s ON s.number = r.store
        WHERE s.id = ? AND r.present > 0 AND NOT EXISTS
        (SELECT 1 FROM outcome o WHERE o.version = ? AND o.photo = r.photo)""", store, version)[0][0]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The model of one store with the photos of seeds 1, 2 and 3."""
    with cluster_of(tmp_path_factory.mktemp("undisturbed"), (1, 2, 3)) as cluster:
        cluster.start().wait_for_stores()
        cluster.wait_for_job(cluster.start_finetune("-r", 2, "--no-relabel"))
        return cluster.tail_hashes()


def test_each_photo_is_processed_once(tmp_path, undisturbed):
    with cluster_of(tmp_path, (1, 2), (3, 2), (2, 3, 1)) as cluster:
        cluster.start().wait_for_stores()
        assert cluster.ask("status")["photos"] == 3 * EACH
        finetune = cluster.start_finetune("-r", 2, "-n", 3)
        job = cluster.wait_for_job(finetune)
        relabel = cluster.wait_for_job(cluster.relabel_of(finetune))
        assert cluster.tail_hashes() == undisturbed
        report = cluster.job(finetune)["report"]
        assert report["extracted_photos"] == report["training_photos"] + report["evaluation_photos"]
        assert report["extracted_photos"] <= 3 * EACH
        assert report["lacking_photos"] == 0
        assert relabel["done"] == relabel["total"] == 3 * EACH
        cluster.check_one_outcome_each(job["version"])


def test_a_killed_store_is_not_missed_where_others_have_its_photos(tmp_path, undisturbed):
    """Without --on-loss continue: there is nothing to wait for."""
    with cluster_of(tmp_path, (1, 3), (1, 2, 3), store_flags=["--no-cache"]) as cluster:
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune("-r", 2, "-n", 2)
        wait_until(lambda: done_photos(cluster, finetune) > 0, "some photos are done", interval=0.01)
        cluster.stores[0].kill()
        job = cluster.wait_for_job(finetune)
        relabel = cluster.wait_for_job(cluster.relabel_of(finetune))
        assert cluster.tail_hashes() == undisturbed
        assert relabel["done"] == 3 * EACH
        cluster.check_one_outcome_each(job["version"])


def test_on_loss_continue_lacks_only_what_nobody_else_has(tmp_path):
    with cluster_of(tmp_path, (1, 2), (2, 3), store_flags=["--no-cache"]) as cluster:
        cluster.start().wait_for_stores()
        finetune = cluster.start_finetune("-r", 2, "-n", 2, "--on-loss", "continue")
        wait_until(lambda: done_photos(cluster, finetune) > 0, "some photos are done", interval=0.01)
        cluster.stores[0].kill()
        job = cluster.wait_for_job(finetune)
        cluster.wait_for_job(cluster.relabel_of(finetune))
        report = cluster.job(finetune)["report"]
        assert report["lacking_photos"] <= EACH
        total = report["training_photos"] + report["evaluation_photos"]
        assert report["extracted_photos"] + report["lacking_photos"] == total
        assert without_outcome(cluster, job["version"], cluster.store_folders[1]) == 0
        assert cluster.ask("status")["labelled"] == 2 * EACH

        # It comes back and catches up.
        cluster.stores[0].start()
        cluster.wait_for_stores()
        cluster.ask("relabel", "--model-version", job["version"])
        cluster.check_one_outcome_each(job["version"])


@pytest.mark.parametrize("kind", ["finetune", "relabel"])
def test_a_store_that_joins_late_takes_part(tmp_path, kind):
    with cluster_of(tmp_path, (1, 2, 4, 5), (2, 3, 4, 5), store_flags=["--no-cache"]) as cluster:
        cluster.tuner.start()
        cluster.stores[0].start()

        def first_is_known():
            status = cluster.ask("status", check=False)
            return status and status["photos"] == 4 * EACH
        wait_until(first_is_known, "the first store has joined")
        job = (cluster.start_finetune("-r", 4, "-n", 1, "--no-relabel") if kind == "finetune"
               else cluster.ask("relabel", "--no-wait")["id"])
        wait_until(lambda: done_photos(cluster, job) > 0, "some photos are done", interval=0.01)
        cluster.stores[1].start()
        ended = cluster.wait_for_job(job)
        log = cluster.tuner.log()
        if kind == "relabel":
            # Also what only the late store has.
            assert ended["total"] == 5 * EACH
            cluster.check_one_outcome_each(1)
        else:
            report = cluster.job(job)["report"]
            assert report["extracted_photos"] == report["training_photos"] + report["evaluation_photos"]
            assert report["extracted_photos"] <= 4 * EACH
            assert "joined late" in log
