"""Figures of a process and of the machine, from /proc."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and of the children that it has waited for."""
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) / TICKS


def exact_cpu_seconds(pid: int) -> float:
    """User and system time of a process, without its children, to the nanosecond; the other is in ticks."""
    return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid(3) makes it


def wake_ups(pid: int) -> int:
    """How often the main thread of a process had waited, and went on."""
    found = re.search(
        r"^voluntary_ctxt_switches:\s+(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE
    )
    assert found is not None
    return int(found[1])


def cpu_seconds_of_all(pid: int) -> float:
    """The same for a process and its living children: PostgreSQL has one for each connection."""
    children = 0.0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = _stat(int(entry.name))
        except OSError:
            continue  # It has ended in the meantime.
        if int(fields[1]) == pid:
            children += sum(map(int, fields[11:13])) / TICKS
    return cpu_seconds(pid) + children


def rss(pid: int) -> int:
    """The current memory of a process in bytes."""
    return _memory(pid, "VmRSS")


def peak_rss(pid: int) -> int:
    """The largest memory of a process so far, in bytes."""
    return _memory(pid, "VmHWM")


def busy_seconds() -> float:
    """Processor time that all processes of this machine have used."""
    user, nice, system, _, _, hard, soft, _ = _machine()
    return user + nice + system + hard + soft


def stolen_seconds() -> float:
    """Processor time that other guests of this host have taken from us."""
    return _machine()[7]


def _machine() -> list[float]:
    """The first eight fields of /proc/stat, over all processors, in seconds."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    return [int(field) / TICKS for field in fields]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third one (the state) on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _memory(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
