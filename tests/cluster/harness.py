"""Runs Tuner and PipeStores as the processes that an operator would start, and looks at what they leave on disk."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import sqlite3
import subprocess
import time

PROGRAM = os.environ.get("NDPIPE_PROGRAM") or str(
    pathlib.Path(__file__).resolve().parents[2] / "build" / "release" / "ndpipe")
DEADLINE_SECONDS = 400


def run(*arguments, check=True, env=None):
    """Runs one command to its end; its CompletedProcess with text output."""
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True,
                          timeout=DEADLINE_SECONDS, env={**os.environ, **(env or {})})
    if check and done.returncode != 0:
        raise AssertionError(f"ndpipe {arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, what, seconds=DEADLINE_SECONDS, interval=0.05):
    """Polls until condition() is true; its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(interval)
    raise AssertionError(f"timed out waiting until {what}")


class Daemon:
    """One process of the program, with its standard output and log in files."""

    def __init__(self, folder, name, arguments, env=None):
        self.out_file = folder / f"{name}.out"
        self.log_file = folder / f"{name}.log"
        self.arguments = arguments
        self.env = {**os.environ, **(env or {})}
        self.process = None

    def start(self):
        with open(self.out_file, "ab") as out, open(self.log_file, "ab") as log:
            self.process = subprocess.Popen([PROGRAM, *map(str, self.arguments)], stdout=out, stderr=log,
                                            stdin=subprocess.DEVNULL, env=self.env)
        return self

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=60)

    def is_running(self):
        return self.process.poll() is None

    def out(self):
        return self.out_file.read_text()

    def log(self):
        return self.log_file.read_text()


class Cluster:
    """A Tuner and PipeStores on this machine, all below one folder."""

    def __init__(self, folder, num_stores, photos, store_flags=(), tuner_flags=()):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.state = self.folder / "state"
        self.store_folders = [self.folder / f"store-{i}" for i in range(num_stores)]
        classes, per_store, seed = photos
        for i, store in enumerate(self.store_folders):
            if per_store:
                run("import", f"generate:{classes},{per_store},{seed + i}", "--store", store)
        self.tuner = Daemon(self.folder, "tuner",
                            ["tuner", "-p", self.port, "--state", self.state, "--threads", 2, *tuner_flags])
        self.stores = [Daemon(self.folder, f"store-{i}",
                              ["pipestore", self.port, "--store", store, "--threads", 1, *store_flags],
                              env={"TUNER_IP": "127.0.0.1"}) for i, store in enumerate(self.store_folders)]

    def start(self):
        self.tuner.start()
        for store in self.stores:
            store.start()
        return self

    def stop(self):
        for daemon in [*self.stores, self.tuner]:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for daemon in [*self.stores, self.tuner]:
            if daemon.process and daemon.is_running():
                daemon.kill()

    def ask(self, *arguments, check=True):
        """A command against the Tuner with --json; None when check is off and it failed."""
        done = run(*arguments, "--tuner", f"127.0.0.1:{self.port}", "--json", check=check)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def wait_for_stores(self):
        def ready():
            status = self.ask("status", check=False)
            stores = status["stores"] if status else []
            return (len(stores) == len(self.stores) and
                    all(s["connected"] and s["applied_changes"] == s["last_change"] for s in stores))
        wait_until(ready, "every store has joined")

    def job(self, number):
        """The job, or None while the Tuner is away."""
        return self.ask("jobs", "show", number, check=False)

    def wait_for_job(self, number):
        """Waits over restarts of the Tuner; the ended job."""
        job = wait_until(lambda: (lambda j: j if j and j["state"] in ("done", "failed", "cancelled") else None)(
            self.job(number)), f"job {number} has ended")
        assert job["state"] == "done", job
        return job

    def start_finetune(self, *flags):
        return self.ask("finetune", "--no-wait", *flags)["id"]

    def relabel_of(self, finetune):
        """The relabel that follows a fine-tune."""
        return wait_until(lambda: next((j["id"] for j in self.ask("jobs", check=False) or []
                                        if j["parent"] == finetune), None), "the relabel is queued")

    def tail_hashes(self):
        """The names of the tails on disk are their SHA-256: equal sets are equal models. What a killed Tuner was still
        writing has another suffix."""
        return sorted(f.stem for f in (self.state / "tails").glob("*.safetensors"))

    def query(self, sql, *arguments):
        with contextlib.closing(sqlite3.connect(self.state / "labels.db")) as db:
            return db.execute(sql, arguments).fetchall()

    def check_one_outcome_each(self, version):
        """Every photo has exactly one outcome in the version, and readers see that version."""
        photos = self.query("SELECT count(*) FROM photo WHERE deleted = 0 AND present > 0")[0][0]
        outcomes = self.query("SELECT photo, count(*) FROM outcome WHERE version = ? GROUP BY photo", version)
        assert photos > 0
        assert len(outcomes) == photos
        assert all(count == 1 for _, count in outcomes)
        status = self.ask("status")
        assert status["serving_version"] == version
        assert status["labelled"] + status["failed"] == photos
        assert status["pending"] == 0
