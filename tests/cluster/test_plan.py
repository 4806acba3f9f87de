"""Profiles, plans, and fine-tunes that follow them, by real processes."""

from harness import Cluster, run

PHOTOS = (4, 60, 31)


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
