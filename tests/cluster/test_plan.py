"""Profiles, plans, and fine-tunes that follow them, by real processes."""

import json
import subprocess

from harness import PROGRAM, Cluster, run, wait_until

PHOTOS = (4, 60, 31)


def test_plan_measures_once_chooses_and_is_followed(tmp_path):
    with Cluster(tmp_path, 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        first = cluster.ask("plan", "--no-profile", check=False)
        assert first is None  # exit 1: nothing was measured

        plan = cluster.ask("plan", "--photos", 40, "--max-cuts", 3, "--epochs", 1)
        assert plan["missing"] == []
        # Held-out photos are neither where there are test photos: they say when a deep tail's training stops.
        assert 110 <= plan["training_photos"] + plan["evaluation_photos"] < 120
        assert len(plan["stores"]) == 2 and all(s["bytes_per_second"] > 0 for s in plan["stores"])
        cuts = {o["cut"] for o in plan["options"]}
        assert plan["default_cut"] in cuts and len(cuts) == 3
        chosen = plan["chosen"]
        assert chosen["possible"] and chosen["stores"] == 2
        possible = [o for o in plan["options"] if o["possible"]]
        assert chosen["seconds"] <= min(o["seconds"] for o in possible) * 1.01 + 1e-9
        assert chosen["cut"] in plan["reason"]
        by_cut = {o["cut"]: o for o in possible if o["n_run"] == 1}
        assert len({o["feature_bytes"] for o in by_cut.values()}) > 1

        # Kept: another life of the Tuner plans without measuring.
        profiles = json.loads((cluster.state / "profiles.json").read_text())
        assert len(profiles["stores"]) == 2 and len(profiles["tuners"]) == 1
        cluster.tuner.stop()
        cluster.tuner.start()
        cluster.wait_for_stores()
        again = cluster.ask("plan", "--no-profile", "--objective", "bytes")
        assert again["chosen"]["feature_bytes"] == min(o["feature_bytes"] for o in again["options"])
        assert [j["kind"] for j in cluster.ask("jobs")] == ["profile"]

        # A fine-tune takes the plan's cut and runs, and what it reached is known to the next plan.
        job = cluster.ask("finetune", "--plan", "auto", "--objective", "bytes", "--epochs", 2, "--no-relabel")
        version = next(v for v in cluster.ask("models") if v["version"] == job["version"])
        assert version["cut"] == again["chosen"]["cut"]
        assert job["report"]["n_run"] == again["chosen"]["n_run"]
        known = cluster.ask("plan", "--no-profile", "--min-accuracy", 0.0)
        assert known["chosen"]["cut"] == version["cut"]
        assert known["chosen"]["top1"] == job["report"]["top1_after"]
        assert any("accuracy is unknown" in note for note in known["notes"])


def test_plan_of_more_stores_and_wrong_usage(tmp_path):
    with Cluster(tmp_path, 1, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        cluster.ask("plan", "--photos", 20, "--max-cuts", 1)
        imagined = cluster.ask("plan", "--stores", 4)
        assert imagined["chosen"] is None
        assert all(o["stores"] == 4 and not o["possible"] for o in imagined["options"])
        text = run("plan", "--tuner", f"127.0.0.1:{cluster.port}").stdout
        assert "choice: " in text and "extraction" in text
        assert run("plan", "--objective", "money", check=False).returncode == 2
        done = run("finetune", "--plan", "auto", "--model", "nothing", "--tuner", f"127.0.0.1:{cluster.port}",
                   check=False)
        assert done.returncode == 1 and "nothing" in done.stderr


def test_profile_ends_with_a_lost_store_and_goes_on_after_kill(tmp_path):
    with Cluster(tmp_path, 2, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        # The Tuner is killed while stores measure; its next life measures what is missing.
        planning = subprocess.Popen([PROGRAM, "plan", "--photos", "40", "--max-cuts", "2", "--tuner",
                                     f"127.0.0.1:{cluster.port}", "--json"], stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
        wait_until(lambda: [j for j in cluster.ask("jobs") if j["state"] == "running"], "the profile runs")
        cluster.tuner.kill()
        planning.wait()
        assert planning.returncode == 1
        cluster.stores[1].kill()
        cluster.tuner.start()
        profile = next(j["id"] for j in wait_until(lambda: cluster.ask("jobs", check=False), "the Tuner is back"))
        cluster.wait_for_job(profile)
        plan = cluster.ask("plan", "--no-profile")
        assert plan["missing"] == [] and [s["store"] for s in plan["stores"]]
        assert plan["chosen"]["stores"] == 1
