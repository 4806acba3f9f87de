"""The systems that run.py compares: NDPipe's program and the peers' processes, with one interface.

A system has name, precision, versions and label(photos, output), which returns photos, seconds and decode_cpu_seconds.
"""

import csv
import json
import os
import pathlib
import subprocess

from label_table import read_labels

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHON = ROOT / "build/peers-venv/bin/python"


class Program:
    """`ndpipe infer`, a new process for every pass."""

    name = "ndpipe"

    def __init__(self, program: pathlib.Path, model: pathlib.Path, precision: str, cores: int):
        self.command = [str(program), "infer", str(model), "--precision", precision, "--threads", str(cores), "--json"]
        self.precision = precision
        version = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True)
        self.versions = {"ndpipe": version.stdout.strip()}
        self.settings = {}

    def label(self, photos: pathlib.Path, output: pathlib.Path) -> dict:
        done = subprocess.run([*self.command, "--output", str(output), str(photos)], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(self.command)} failed: {done.stderr.strip()}")
        told = json.loads(done.stdout)
        self.versions["engine"] = told["engine"]
        return {
            "photos": told["photos"],
            "seconds": told["seconds"],  # until the file of labels is on the disk
            "decode_cpu_seconds": told["stages"]["decode"]["busy_seconds"],
        }

    def labels(self, output: pathlib.Path) -> dict[str, int]:
        with output.open(newline="", encoding="utf-8") as file:
            return {pathlib.Path(row["path"]).name: int(row["class_index"]) for row in csv.DictReader(file) if row["class_index"]}

    def close(self) -> None:
        pass


class Peer:
    """peer.py in a process of its own, which stays for all passes and is idle between them."""

    def __init__(self, name: str, model: pathlib.Path, settings: dict, precision: str, decode: str, cores: int, log):
        self.name = name
        self.settings = settings
        job = {"peer": name, "model": str(model), "settings": settings, "precision": precision}
        self.process = subprocess.Popen(
            [str(PYTHON), str(HERE / "peer.py"), json.dumps(job | {"decode": decode, "cores": cores})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # Ray's workers import the peer's modules; inductor's compiled code is kept for the next process.
            env=os.environ | {"PYTHONPATH": str(HERE), "TORCHINDUCTOR_CACHE_DIR": str(ROOT / "build/peers-inductor")},
        )
        self.log = log
        ready = self._answer()
        self.precision = ready["precision"]
        self.versions = ready["versions"]

    def label(self, photos: pathlib.Path, output: pathlib.Path) -> dict:
        self.process.stdin.write(json.dumps({"photos": str(photos), "labels": str(output)}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def labels(self, output: pathlib.Path) -> dict[str, int]:
        return read_labels(output)

    def close(self) -> None:
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise PeerFailed(f"peer {self.name} with {self.settings} ended with {self.process.returncode}: see {self.log.name}")
        return json.loads(line)


class PeerFailed(Exception):
    """A peer's process ended before its answer."""
