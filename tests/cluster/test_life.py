"""The published commands, and what readers see while labels change."""

import json
import pathlib
import subprocess
import sys

from harness import Cluster, run, wait_until

PHOTOS = (5, 160, 21)


def test_published_commands_end_with_the_report(tmp_path):
    with Cluster(tmp_path, 2, PHOTOS, tuner_flags=["-r", 2, "-n", 2]) as cluster:
        cluster.start()
        wait_until(lambda: "Overall fine-tuning time (sec):" in cluster.tuner.out(), "the report is printed")
        lines = cluster.tuner.out().splitlines()
        assert lines[0].startswith("Feature extraction time (sec): ")
        assert lines[1].startswith("Feature extraction throughput (image/sec): ")
        assert lines[2].startswith("Overall fine-tuning time (sec): ")
        # Only one fine-tune for a state folder, also after a restart.
        cluster.tuner.stop()
        cluster.tuner.start()
        cluster.wait_for_stores()
        assert [j["kind"] for j in cluster.ask("jobs")].count("finetune") == 1


def test_labels_switch_at_once_and_the_report_is_whole(tmp_path):
    with Cluster(tmp_path, 2, PHOTOS, store_flags=["--no-cache"]) as cluster:
        cluster.start().wait_for_stores()
        cluster.ask("relabel")
        before = cluster.ask("status")
        assert before["labelled"] == 320 and before["serving_version"] == 1

        finetune = cluster.start_finetune("-r", 2)
        cluster.wait_for_job(finetune)
        relabel = cluster.relabel_of(finetune)
        label = cluster.query("SELECT v.name FROM source_label s JOIN vocabulary v ON v.id = s.label LIMIT 1")[0][0]
        seen = set()

        def ended():
            versions = {h["version"] for h in cluster.ask("search", label, "--source", "model", "--limit", 1000)}
            assert len(versions) <= 1, "readers saw two versions at once"
            seen.update(versions)
            return cluster.job(relabel)["state"] == "done"

        wait_until(ended, "the relabel has ended")
        status = cluster.ask("status")
        assert status["serving_version"] == 2 and status["labelled"] == 320
        cluster.check_one_outcome_each(2)
        assert cluster.ask("search", label, "--source", "model")[0]["version"] == 2

        report = cluster.job(finetune)["report"]
        for key in ("photos", "labelled", "failed", "stores", "n_run", "feature_extraction_seconds",
                    "images_per_second", "training_seconds", "overall_seconds", "overlap_ratio", "top1_before",
                    "top1_after", "feature_bytes", "photo_bytes", "model_bytes", "delta_bytes", "relabel_seconds"):
            assert key in report, key
        assert report["photos"] == report["labelled"] == 320
        assert report["failed"] == 0
        assert report["top1_before"] is None  # ImageNet's classes are not the user's
        assert report["top1_after"] > 0.6
        assert report["model_bytes"] > report["delta_bytes"] > 0


def test_corrections_import_and_deletion_while_daemons_run(tmp_path):
    with Cluster(tmp_path, 1, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        cluster.ask("relabel")
        photo = cluster.query("SELECT hex(id) FROM photo LIMIT 1")[0][0].lower()
        cluster.ask("label", photo, "my own label")
        hits = cluster.ask("search", "my own label")
        assert [h["photo"] for h in hits] == [photo] and hits[0]["source"] == "user"

        run("import", "generate:5,20,99", "--store", cluster.store_folders[0])
        wait_until(lambda: cluster.ask("status")["photos"] == 180, "the Tuner knows the new photos")
        cluster.ask("relabel")  # catches up
        assert cluster.ask("status")["labelled"] == 180

        run("delete", photo, "--store", cluster.store_folders[0])
        wait_until(lambda: cluster.ask("status")["photos"] == 179, "the Tuner knows the deletion")
        assert cluster.ask("search", "my own label") == []
        assert not list((cluster.store_folders[0] / "photos").rglob(f"{photo}*"))


def test_absent_store_keeps_its_labels_and_is_pending(tmp_path):
    with Cluster(tmp_path, 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        cluster.ask("relabel")
        finetune = cluster.ask("finetune", "--no-relabel")
        cluster.stores[1].stop()
        wait_until(lambda: [s["connected"] for s in cluster.ask("status")["stores"]].count(True) == 1,
                   "the Tuner noticed")
        cluster.ask("relabel", "--model-version", finetune["version"])
        status = cluster.ask("status")
        assert status["serving_version"] == 2
        assert status["pending"] == 160 and status["labelled"] == 320
        cluster.stores[1].start()
        cluster.wait_for_stores()
        cluster.ask("relabel", "--model-version", 2)
        cluster.check_one_outcome_each(2)


def test_infer_writes_csv_and_json(tmp_path):
    folder = tmp_path / "photos"
    run("import", "generate:3,12,5", "--store", tmp_path / "store")
    (tmp_path / "store" / "photos").rename(folder)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    (folder / "empty.png").write_bytes(b"")
    done = run("infer", "efficientnet-lite0", folder, "--output", tmp_path / "labels.csv", "--json")
    result = json.loads(done.stdout)
    assert (result["photos"], result["labelled"], result["failed"]) == (14, 12, 2)
    assert result["images_per_second"] > 0 and result["seconds"] > 0
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert lines[0] == "path,label,class_index,confidence,error" and len(lines) == 15
    assert sum(line.startswith("broken.jpg,,,,") for line in lines) == 1


def test_a_second_backbone_labels_everything_and_the_first_comes_back(tmp_path):
    root = pathlib.Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, root / "tools" / "make_random_backbone.py", "vit-tiny", tmp_path / "vit"],
                   check=True, capture_output=True)
    with Cluster(tmp_path, 1, (3, 24, 2)) as cluster:
        cluster.start().wait_for_stores()
        cluster.ask("relabel")
        added = cluster.ask("models", "add", tmp_path / "vit" / "model.onnx")
        assert (added["version"], added["state"]) == (2, "staged")
        cluster.ask("relabel")  # the newest version
        cluster.check_one_outcome_each(2)
        cluster.ask("relabel", "--model-version", 1)
        assert cluster.ask("status")["serving_version"] == 1
        assert {m["version"]: m["state"] for m in cluster.ask("models")}[1] == "serving"
