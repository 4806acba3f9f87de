"""What an operator sees when something is wrong: a clear error, the right exit code, nothing lost."""

import os
import shutil
import sqlite3
import subprocess

import pytest

from harness import Cluster, Daemon, free_port, run, wait_until

PHOTOS = (3, 40, 3)


def fails(*arguments, code=1, env=None):
    done = run(*arguments, check=False, env=env)
    assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
    assert done.stderr.strip(), "an error must say something"
    return done.stderr


def test_wrong_usage_is_exit_code_2(tmp_path):
    assert "--store" in fails("pipestore", code=2)
    assert "--help" in fails("no-such-command", code=2)
    fails("import", "cifar99:0x", "--store", tmp_path / "s", code=2)
    assert "level" in fails("--log-level", "loud", "status", code=2)


def test_unreachable_tuner(tmp_path):
    port = free_port()
    text = fails("status", "--tuner", f"127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in text
    # A PipeStore waits for its Tuner instead.
    store = Daemon(tmp_path, "store", ["pipestore", port, "--store", tmp_path / "s", "--tuner", "127.0.0.1"]).start()
    wait_until(lambda: "trying again" in store.log(), "the PipeStore says that it waits")
    assert store.is_running()
    store.stop()


def test_port_in_use_and_state_in_use(tmp_path):
    with Cluster(tmp_path, 0, (0, 0, 0)) as cluster:
        cluster.start()
        wait_until(lambda: cluster.ask("status", check=False), "the Tuner answers")
        assert "in use" in fails("tuner", "-p", cluster.port, "--state", tmp_path / "other")
        assert str(cluster.state) in fails("tuner", "-p", free_port(), "--state", cluster.state)


def test_plain_grpc_stays_on_loopback(tmp_path):
    assert "--insecure" in fails("tuner", "-p", free_port(), "--listen", "0.0.0.0", "--state", tmp_path / "t")
    assert "--insecure" in fails("pipestore", "25258", "--tuner", "10.0.0.1", "--store", tmp_path / "s")
    assert "--insecure" in fails("status", "--tuner", "10.0.0.1")


def test_missing_device_is_said(tmp_path):
    run("import", "generate:2,4,1", "--store", tmp_path / "s")
    text = fails("infer", "efficientnet-lite0", tmp_path / "s" / "photos", "--device", "cuda:0")
    assert "cuda:0" in text


def test_databases_of_a_newer_program(tmp_path):
    run("import", "generate:2,4,1", "--store", tmp_path / "s")
    for folder, name, command in [(tmp_path / "s", "catalog.db", ("import", "generate:2,4,1", "--store", tmp_path / "s"))]:
        db = sqlite3.connect(folder / name)
        db.execute("PRAGMA user_version=1000")
        db.close()
        assert "newer" in fails(*command)
    with Cluster(tmp_path / "c", 0, (0, 0, 0)) as cluster:
        cluster.start()
        wait_until(lambda: cluster.ask("status", check=False), "the Tuner answers")
        cluster.stop()
        db = sqlite3.connect(cluster.state / "labels.db")
        db.execute("PRAGMA user_version=1000")
        db.close()
        assert "newer" in fails("tuner", "-p", cluster.port, "--state", cluster.state)


def test_two_daemons_with_one_store(tmp_path):
    with Cluster(tmp_path, 1, PHOTOS) as cluster:
        cluster.start().wait_for_stores()
        assert "already serves" in fails("pipestore", cluster.port, "--store", cluster.store_folders[0])
        # The same store id from a copied folder: refused by the Tuner, and the first daemon goes on.
        copy = tmp_path / "copy"
        shutil.copytree(cluster.store_folders[0], copy)
        text = fails("pipestore", cluster.port, "--store", copy)
        assert "store" in text
        assert cluster.stores[0].is_running()
        cluster.ask("relabel")
        assert cluster.ask("status")["labelled"] == 40


def test_store_of_another_cluster_is_refused(tmp_path):
    with Cluster(tmp_path / "one", 1, PHOTOS) as one:
        one.start().wait_for_stores()
        one.stop()
        with Cluster(tmp_path / "two", 0, (0, 0, 0)) as two:
            two.start()
            wait_until(lambda: two.ask("status", check=False), "the second Tuner answers")
            assert "cluster" in fails("pipestore", two.port, "--store", one.store_folders[0])


def test_broken_photos_fail_alone(tmp_path):
    with Cluster(tmp_path, 1, PHOTOS) as cluster:
        source = tmp_path / "source"
        source.mkdir()
        photo = next((cluster.store_folders[0] / "photos").rglob("*.jpg")).read_bytes()
        (source / "truncated.jpg").write_bytes(photo[: len(photo) // 2])
        run("import", source, "--store", cluster.store_folders[0])
        cluster.start().wait_for_stores()
        job = cluster.ask("relabel")
        assert (job["state"], job["done"], job["failed"]) == ("done", 41, 1)
        reasons = cluster.query("SELECT reason FROM outcome WHERE label IS NULL")
        assert len(reasons) == 1 and reasons[0][0]


def test_a_bad_model_is_refused(tmp_path):
    with Cluster(tmp_path, 0, (0, 0, 0)) as cluster:
        cluster.start()
        wait_until(lambda: cluster.ask("status", check=False), "the Tuner answers")
        (tmp_path / "bad.onnx").write_bytes(os.urandom(5000))
        (tmp_path / "manifest.json").write_text("{}")
        remote = ("--tuner", f"127.0.0.1:{cluster.port}")
        fails("models", "add", tmp_path / "bad.onnx", *remote, code=2)
        fails("models", "add", tmp_path / "missing.onnx", *remote)
        assert "99" in fails("relabel", "--model-version", 99, *remote)
        assert len(cluster.ask("models")) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="SKIPPED: mounting a small file system needs root")
def test_full_disk_loses_nothing(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small]).returncode != 0:
        pytest.skip("SKIPPED: file systems cannot be mounted here")
    try:
        text = fails("import", "generate:5,2000,1", "--store", small / "store")
        assert "space" in text or "full" in text
        # What was counted is there, and the store works again once there is room.
        subprocess.run(["mount", "-o", "remount,size=300m", small], check=True)
        run("import", "generate:5,200,1", "--store", small / "store")
        db = sqlite3.connect(small / "store" / "catalog.db")
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        db.close()
    finally:
        subprocess.run(["umount", "-l", small], check=True)
