"""The passes of all systems as JSON lines: the machine, then a line a system, all figures medians of the rounds."""

import json
import statistics

import machine


class Report:
    """Add the passes of a round, every system once, after each begin_round. Ours is the first system of the first round."""

    def __init__(self, load: float, num_cores: int, model: str, decode: str):
        self.load = load
        self.num_cores = num_cores
        self.model = model
        self.decode = decode
        self.busy_before_rounds = []
        self.systems = {}  # by name, in order
        self.passes = {}  # by name, a pass a round

    def begin_round(self, busy_share: float) -> None:
        self.busy_before_rounds.append(round(busy_share, 2))

    def add(self, system, told: dict) -> None:
        self.systems[system.name] = system
        self.passes.setdefault(system.name, []).append(told)

    def print(self) -> None:
        print(json.dumps(self._machine_line()))
        for name in self.systems:
            print(json.dumps(self._line(name)), flush=True)

    def _machine_line(self) -> dict:
        return {
            "bench": "machine",
            "cpu": machine.cpu_name_and_flags()[0],
            "bf16": machine.has_bf16(),
            "cores_used": self.num_cores,
            "load_before": round(self.load, 1),
            # The share of the cores that other work had just before each round: figures of busy rounds say little.
            "busy_before_rounds": self.busy_before_rounds,
        }

    def _line(self, name: str) -> dict:
        system, passes = self.systems[name], self.passes[name]
        rate = statistics.median(rate_of(told) for told in passes)
        line = {
            "bench": "peers",
            "system": name,
            "model": self.model,
            "precision": system.precision,
            "photos": passes[0]["photos"],
            "rounds": len(passes),
            "images_per_second": round(rate, 1),
            "images_per_second_per_core": round(rate / self.num_cores, 1),
            "lowest": round(min(map(rate_of, passes)), 1),
            "highest": round(max(map(rate_of, passes)), 1),
            "shares": self._shares(passes),
        }
        ours = next(iter(self.passes.values()))
        if passes is not ours:
            line["ratio"] = round(statistics.median(rate_of(a) / rate_of(b) for a, b in zip(ours, passes)), 3)
            line["label_agreement"] = round(agreement(ours[-1]["labels"], passes[-1]["labels"]), 4)
            line["decode"] = self.decode
            line["settings"] = system.settings
        return line | {"versions": system.versions}

    def _shares(self, passes: list) -> dict:
        """Of the cores' time: Pillow's decoding and resizing, everything else that ran, and nothing. On a quiet machine."""
        decode, rest, idle = [], [], []
        for told in passes:
            capacity = told["seconds"] * self.num_cores
            # Ray's start and end are inside the count but outside the clock: no more than all of the clock's time.
            busy = min(told["busy_core_seconds"], capacity)
            decode.append(told["decode_cpu_seconds"] / capacity)
            rest.append((busy - told["decode_cpu_seconds"]) / capacity)
            idle.append(1 - busy / capacity)
        named = {"decode": decode, "engine_and_rest": rest, "idle": idle}
        return {name: round(statistics.median(values), 2) for name, values in named.items()}


def rate_of(told: dict) -> float:
    return told["photos"] / told["seconds"]


def agreement(ours: dict[str, int], theirs: dict[str, int]) -> float:
    """The share of photos with the same class; every photo has a label in both."""
    return sum(theirs[photo] == label for photo, label in ours.items()) / len(ours)
