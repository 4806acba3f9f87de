#!/usr/bin/env python3
"""NDPipe against what people would use instead: stored JPEGs to durable labels, in one run, one JSON line a system.

usage: bench/peers/run.py --model FOLDER --photos FOLDER      (bench/peers/setup.sh first)

A short search finds each peer's fastest settings (or --settings has those of an earlier run), then rounds alternate all
systems over the same photos. README.md says what is inside the clocks.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import shutil
import signal
import sys
import tempfile

import machine
from report import Report, rate_of
from settings import KeptSettings, first_settings, search
from systems import PYTHON, Peer, PeerFailed, Program

PEERS = ("openvino", "pytorch", "ray", "onnxruntime")
SEARCH_SECONDS = 2  # that a pass of ours takes with the photos of the search, at most
ROOT = pathlib.Path(__file__).resolve().parents[2]


def say(text: str) -> None:
    print(f"peers: {text}", file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / "build/release/ndpipe")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="folder with model.onnx and manifest.json")
    parser.add_argument("--photos", type=pathlib.Path, required=True, help="folder of JPEGs; repeated until a pass is long")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8, help="that a pass of ours takes at least (default 8)")
    parser.add_argument("--cores", type=int, default=0, help="for every system alike; 0: all")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 where the CPU has it")
    parser.add_argument("--decode", choices=("full", "scaled"), default="full", help="of the peers' Pillow")
    parser.add_argument("--peers", default=",".join(PEERS), help="some of " + ",".join(PEERS))
    parser.add_argument("--settings", type=pathlib.Path, help="file of the peers' settings: what it lacks is searched and added")
    parser.add_argument("--quick", action="store_true", help="one round over the photos once, no search: shows that all run")
    arguments = parser.parse_args()
    arguments.peers = arguments.peers.split(",")
    unknown = set(arguments.peers) - set(PEERS)
    if unknown:
        parser.error(f"unknown peers: {', '.join(sorted(unknown))}")
    if arguments.rounds < 1 or not 0 < arguments.seconds < 3600:
        parser.error("--rounds and --seconds: at least one round of more than no time expected")
    if not 0 <= arguments.cores <= len(os.sched_getaffinity(0)):
        parser.error(f"--cores: 0 to {len(os.sched_getaffinity(0))} expected, the cores of this process")
    return arguments


def choose_precision(asked: str) -> str:
    if asked != "fp32" and not machine.has_bf16():
        say("NOTE: this CPU has no bf16 instructions: every system runs fp32, and the figures are those of fp32")
        return "fp32"
    return "bf16" if asked == "auto" else asked


def repeat_photos(source: pathlib.Path, folder: pathlib.Path, times: int) -> None:
    """Fills folder with the source's JPEGs under new names, as hard links where the file system can."""
    files = sorted(file for file in source.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"no JPEGs in {source}: name a folder that has some with --photos")
    folder.mkdir()
    for i in range(times):
        for number, file in enumerate(files):
            target = folder / f"{i:04}_{number:04}_{file.name}"
            try:
                os.link(file, target)
            except OSError:
                shutil.copyfile(file, target)


class Benchmark:
    def __init__(self, arguments: argparse.Namespace, work: pathlib.Path, log):
        self.arguments = arguments
        self.work = work
        self.log = log
        self.cores = os.sched_getaffinity(0)
        self.precision = choose_precision(arguments.precision)
        self.num_outputs = 0

    def one_pass(self, system, photos: pathlib.Path) -> dict:
        self.num_outputs += 1
        output = self.work / f"labels-{self.num_outputs}"
        busy = machine.BusyTime(self.cores)
        told = system.label(photos, output)
        told["busy_core_seconds"] = busy.core_seconds()
        told["labels"] = system.labels(output)
        for file in self.work.glob(f"{output.name}*"):
            file.unlink()
        if len(told["labels"]) != told["photos"]:
            raise SystemExit(f"{system.name} labelled {len(told['labels'])} of {told['photos']} photos: not comparable")
        return told

    def open_program(self) -> Program:
        arguments = self.arguments
        return Program(arguments.program.resolve(), arguments.model.resolve(), self.precision, len(self.cores))

    def open_peer(self, name: str, settings: dict) -> Peer:
        arguments = self.arguments
        return Peer(name, arguments.model.resolve(), settings, self.precision, arguments.decode, len(self.cores), self.log)

    def photos_for(self, program: Program, name: str, seconds: float) -> pathlib.Path:
        """A folder that takes the program so long; its first passes prepare the model, fill the page cache and find its rate."""
        once = self.work / "once"
        if not once.exists():
            repeat_photos(self.arguments.photos, once, 1)
            self.one_pass(program, once)
        if seconds == 0:
            return once
        told = self.one_pass(program, once)
        times = math.ceil(seconds / told["seconds"])
        folder = self.work / name
        repeat_photos(self.arguments.photos, folder, times)
        return folder

    def rate_with(self, name: str, photos: pathlib.Path, settings: dict, best: float) -> float:
        """The better one of two passes, or the first if it is far behind the best; 0 for settings that do not run."""
        try:
            peer = self.open_peer(name, settings)
        except PeerFailed as failure:
            say(str(failure))
            return 0.0
        with contextlib.closing(peer):
            rate = rate_of(self.one_pass(peer, photos))
            if rate > best / 2:
                rate = max(rate, rate_of(self.one_pass(peer, photos)))
        say(f"{name}: {rate:.1f} images/s tried with {settings}")
        return rate

    def settings_of(self, name: str, program: Program) -> dict:
        arguments = self.arguments
        if arguments.quick:
            return first_settings(name, len(self.cores))
        kind = f"{arguments.model.resolve().name} {self.precision} {len(self.cores)} cores {arguments.decode}"
        kept = KeptSettings(arguments.settings, kind)
        settings = kept.read(name)
        if settings is None:
            photos = self.work / "search"
            if not photos.exists():
                self.photos_for(program, "search", min(SEARCH_SECONDS, arguments.seconds))
            settings = search(name, len(self.cores), lambda *tried: self.rate_with(name, photos, *tried))
            kept.write(name, settings)
        say(f"{name}: {settings}")
        return settings

    def measure(self, systems: list, photos: pathlib.Path, report: Report) -> None:
        """Rounds of a pass of each; the first of a round changes, so that no system is always after the same one."""
        for i in range(1 if self.arguments.quick else self.arguments.rounds):
            report.begin_round(machine.busy_share(self.cores))
            first = i % len(systems)
            for system in systems[first:] + systems[:first]:
                told = self.one_pass(system, photos)
                report.add(system, told)
                say(f"round {i + 1}: {system.name} {rate_of(told):.1f} images/s")

    def run(self) -> None:
        arguments = self.arguments
        load = os.getloadavg()[0]
        with contextlib.ExitStack() as opened:
            program = self.open_program()
            photos = self.photos_for(program, "photos", 0 if arguments.quick else arguments.seconds)
            settings = {name: self.settings_of(name, program) for name in arguments.peers}
            systems = [program]
            for name in arguments.peers:
                say(f"{name}: preparing its model")
                systems.append(opened.enter_context(contextlib.closing(self.open_peer(name, settings[name]))))
                self.one_pass(systems[-1], self.work / "once")
            report = Report(load, len(self.cores), arguments.model.resolve().name, arguments.decode)
            self.measure(systems, photos, report)
            report.print()


def main() -> int:
    arguments = parse()
    if not PYTHON.exists():
        raise SystemExit(f"{PYTHON} is missing: run bench/peers/setup.sh")
    if not arguments.program.exists():
        raise SystemExit(f"{arguments.program} is missing: run make build, or name the program with --program")
    if arguments.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the peers end and the photos' folder goes
    folder = ROOT / "build"
    with tempfile.TemporaryDirectory(prefix="peers-", dir=folder) as work:
        with (folder / "peers.log").open("w", encoding="utf-8") as log:
            try:
                Benchmark(arguments, pathlib.Path(work), log).run()
            except PeerFailed as failure:
                raise SystemExit(str(failure)) from None
    return 0


if __name__ == "__main__":
    sys.exit(main())
