"""What the figures were measured on, and how busy it was: from /proc."""

import os
import pathlib
import time


def cpu_name_and_flags() -> tuple[str, set[str]]:
    name, flags = "unknown", set()
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip() == "flags":
            flags = set(value.split())
    return name, flags


def has_bf16() -> bool:
    return bool(cpu_name_and_flags()[1] & {"avx512_bf16", "amx_bf16"})


class BusyTime:
    """Core-seconds that the cores were busy since it was made, with any work: on a quiet machine that is the pass's."""

    def __init__(self, cores: set[int]):
        self.cores = cores
        self.started = time.monotonic()
        self.before = self._read()

    def core_seconds(self) -> float:
        return self._read() - self.before

    def share(self) -> float:
        """Of the cores' time, 0 to 1."""
        return self.core_seconds() / ((time.monotonic() - self.started) * len(self.cores))

    def _read(self) -> float:
        ticks = 0
        for line in pathlib.Path("/proc/stat").read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[0].startswith("cpu") and fields[0] != "cpu" and int(fields[0][3:]) in self.cores:
                user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields[1:9])
                ticks += user + nice + system + irq + softirq + steal
        return ticks / os.sysconf("SC_CLK_TCK")


def busy_share(cores: set[int]) -> float:
    """How busy the cores are while we do nothing."""
    busy = BusyTime(cores)
    time.sleep(0.5)
    return busy.share()
