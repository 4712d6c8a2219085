"""What processes of this machine have used: CPU seconds and peak resident memory, from ``/proc``."""

from __future__ import annotations

import os
from pathlib import Path

from cdc.local.processes import Process

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    fields = text[text.rindex(")") + 2 :].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def peak_rss_mb(pid: int) -> float:
    """The most memory that was ever resident, in MiB; 0 when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    for line in text.splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def children(pid: int) -> list[int]:
    """The processes below this one."""
    process = Process.of(pid)
    return [] if process is None else [child.pid for child in process.descendants()]


class CpuMeter:
    """CPU seconds of some processes since it was made, or (``from_zero``) since they began."""

    def __init__(self, *pids: int) -> None:
        self._before = {pid: cpu_seconds(pid) for pid in pids}

    @classmethod
    def from_zero(cls, *pids: int) -> CpuMeter:
        """What the processes used before counts too: their start."""
        meter = cls()
        meter._before = dict.fromkeys(pids, 0.0)
        return meter

    def seconds(self) -> float:
        """Used since then; to be read while the processes live."""
        return round(sum(cpu_seconds(pid) - before for pid, before in self._before.items()), 2)
