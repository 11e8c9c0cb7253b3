"""Child processes that get no signals from the terminal and end with us, together with their children."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

_PR_SET_PDEATHSIG: Final = 1

_INHERITED: Final = re.compile(r"PATH|HOME|LANG|LC_\w+|TZ|TMPDIR|(LD|DYLD)_\w+")
"""The variables that a server inherits from us. Others may be secrets, or settings of PostgreSQL's clients
(PG...), which would mislead it."""


def child_arguments(ending: signal.Signals) -> dict[str, Any]:
    """Arguments of Popen for a child that Ctrl-C does not reach, and that on Linux ends with our thread."""
    # "/" because the child's account may not be able to enter our own working directory.
    arguments: dict[str, Any] = {"cwd": "/", "start_new_session": True}
    if sys.platform == "linux":
        parent = os.getpid()
        prctl = ctypes.CDLL(None).prctl

        def tie_to_parent() -> None:
            prctl(_PR_SET_PDEATHSIG, int(ending), 0, 0, 0)
            if os.getppid() != parent:  # the parent died before the call
                os._exit(1)

        # It runs after the change of user, since that change would undo it.
        arguments["preexec_fn"] = tie_to_parent
    return arguments


def server_environment() -> dict[str, str]:
    """The part of our environment that a server needs."""
    return {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}


def processes() -> Iterator[tuple[int, tuple[int, str]]]:
    """Every process: its id, its parent's id, and its command line."""
    if sys.platform == "linux":  # `ps` may be missing there
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended in the meantime
                parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                yield int(entry.name), (int(parent), os.fsdecode(command))
    else:
        ps = ["ps", "-A", "-ww", "-o", "pid=,ppid=,command="]
        listing = subprocess.run(ps, capture_output=True, check=True, text=True)  # noqa: S603
        for line in listing.stdout.splitlines():
            own, parent, text = line.split(maxsplit=2)
            yield int(own), (int(parent), text)


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process, if it exists."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def send_to_all(pid: int, number: signal.Signals) -> None:
    """Signal a server and its children. It is frozen first, so that it cannot start another child."""
    send(pid, signal.SIGSTOP)
    for child, (parent, _) in processes():
        if parent == pid:
            send(child, number)
    send(pid, number)
