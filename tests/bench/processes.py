"""What /proc tells of a process, and of the machine."""

from __future__ import annotations

import os
import re
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process, with the children that it has waited for."""
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) / TICKS


def cpu_seconds_of_all(pid: int) -> float:
    """The same of a process and its living children: PostgreSQL has one for each connection."""
    children = 0.0
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = _stat(int(entry.name))
        except OSError:
            continue  # It has ended meanwhile.
        if int(fields[1]) == pid:
            children += sum(map(int, fields[11:13])) / TICKS
    return cpu_seconds(pid) + children


def rss(pid: int) -> int:
    """Bytes of memory that a process has now."""
    return _memory(pid, "VmRSS")


def peak_rss(pid: int) -> int:
    """Bytes of memory that it had at most."""
    return _memory(pid, "VmHWM")


def busy_seconds() -> float:
    """Processor time that all processes of this machine have used."""
    user, nice, system, _, _, hard, soft, _ = _machine()
    return user + nice + system + hard + soft


def stolen_seconds() -> float:
    """Processor time that other guests of this host took from us."""
    return _machine()[7]


def _machine() -> list[float]:
    """The first eight fields of /proc/stat, over all processors, in seconds."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    return [int(field) / TICKS for field in fields]


def _stat(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the state on (its third)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _memory(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
