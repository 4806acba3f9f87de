"""The peers' settings: what the search tries, and where it starts.

Which value is the fastest depends on the machine and the model, so none of them is fixed.
"""

import json
import pathlib
from collections.abc import Callable


def axes_of(peer: str, cores: int) -> dict[str, list]:
    """Settings and the values to try, where the search starts first."""
    half = max(1, cores // 2)
    return {
        "openvino": {
            "batch": [4, 1, 16],
            "workers": [cores, half, 2 * cores],  # threads that decode
            "streams": ["auto", cores],
            "pinning": [True, False],
        },
        "pytorch": {
            "batch": [32, 8, 128],
            "workers": [cores, half],  # processes that decode
            "threads": [cores, max(1, cores - 1)],
            "wait_policy": ["PASSIVE", ""],  # of the OpenMP threads; "" is the default, which spins for a while
        },
        "ray": {
            "style": ["actors", "pipeline"],
            "batch": [4, 1, 16],
            "block": [32, 128],  # photos that a task or a call of an actor gets
        },
        "onnxruntime": {
            "batch": [4, 1, 8],
            "workers": [cores, cores + half],  # threads that decode and run the session
            "threads": [1, cores],  # inside the session
        },
    }[peer]


def first_settings(peer: str, cores: int) -> dict:
    return {axis: values[0] for axis, values in axes_of(peer, cores).items()}


def search(peer: str, cores: int, rate_of: Callable[[dict, float], float]) -> dict:
    """The fastest settings that changing one after the other, each from the best so far, finds.

    rate_of gets the settings and the best rate so far, so that it need not spend time on what is far behind.
    """
    best = first_settings(peer, cores)
    best_rate = rate_of(best, 0.0)
    for axis, values in axes_of(peer, cores).items():
        before = best[axis]
        for value in values:
            if value == before:
                continue
            tried = best | {axis: value}
            rate = rate_of(tried, best_rate)
            if rate > best_rate:
                best, best_rate = tried, rate
    return best


class KeptSettings:
    """Settings found before, in a JSON file: of a peer on a kind of run (model, precision, cores, decode)."""

    def __init__(self, file: pathlib.Path | None, kind: str):
        self.file = file
        self.kind = kind

    def read(self, peer: str) -> dict | None:
        return self._all().get(self.kind, {}).get(peer)

    def write(self, peer: str, settings: dict) -> None:
        if self.file is None:
            return
        kept = self._all()
        kept.setdefault(self.kind, {})[peer] = settings
        self.file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")

    def _all(self) -> dict:
        if self.file is None or not self.file.exists():
            return {}
        return json.loads(self.file.read_text(encoding="utf-8"))
