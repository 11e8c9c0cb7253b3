"""The real program in its own process: started and signalled, with its log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from signal import SIGTERM, Signals
from typing import Any

import slow_machine
import trio
from asking import Client, eventually

START_LIMIT = 30.0
"""Seconds until it must serve."""


class Program:
    """`marketflow` in its own process group. It writes to files, so that it never blocks on us."""

    def __init__(self, process: trio.Process, stdout: Path, stderr: Path) -> None:
        self.process = process
        self._stdout = stdout
        self._stderr = stderr

    @property
    def stdout(self) -> str:
        return self._stdout.read_text(errors="replace")

    @property
    def stderr(self) -> str:
        return self._stderr.read_text(errors="replace")

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its log so far. Every line must be a JSON object: no traceback, and no other output."""
        whole, _, _ = self.stderr.rpartition("\n")
        return [_event(line) for line in whole.splitlines()]

    async def logged(self, event: str, *, within: float = START_LIMIT) -> dict[str, Any]:
        """Wait for an event in the log."""

        def found() -> dict[str, Any] | None:
            assert self.process.returncode is None or self._has(event), "it has ended"
            return next((each for each in self.events if each["event"] == event), None)

        logged = await eventually(found, within=within)
        assert logged is not None
        return logged

    def _has(self, event: str) -> bool:
        return any(each["event"] == event for each in self.events)

    async def serving(self) -> Client:
        """Wait until it serves."""
        return Client((await self.logged("serving"))["url"])

    def signal(self, number: Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, *, within: float = 10.0) -> int:
        """Wait for it to end; returns the exit code."""
        with slow_machine.within(within), trio.move_on_after(4 * within):
            return await self.process.wait()
        raise AssertionError(f"it has not ended within {within} s")

    async def stopped(self, number: Signals = SIGTERM, *, within: float = 10.0) -> dict[str, Any]:
        """Signal it and expect a clean stop; returns the ledger that it logged at its end."""
        self.signal(number)
        assert await self.ended(within=within) == 0
        last = self.events[-1]
        assert last["event"] == "stopped"
        return last


def _event(line: str) -> dict[str, Any]:
    assert line.startswith("{"), f"no event, but {line!r}"
    event: dict[str, Any] = json.loads(line)
    return event


@asynccontextmanager
async def program(
    directory: Path,
    *arguments: str,
    environment: Mapping[str, object] | None = None,
    temporary: Path | None = None,
) -> AsyncIterator[Program]:
    """Run `marketflow` in a directory, with settings given as `MARKETFLOW_` variables without that prefix.

    Afterwards it is killed if it still runs, and its stderr is printed, so that pytest shows it with a
    failure.

    Args:
        directory: its working directory, which also gets its output.
        arguments: its command line.
        environment: strings are used as they are, anything else as JSON.
        temporary: its directory for temporary files.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
    values = {
        f"MARKETFLOW_{name}": value if isinstance(value, str) else json.dumps(value)
        for name, value in (environment or {}).items()
    }
    if temporary is not None:
        values["TMPDIR"] = str(temporary)
    stdout, stderr = directory / "stdout.txt", directory / "stderr.txt"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "marketflow", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=directory,
            env=clean | values,
            start_new_session=True,
        )
    run = Program(process, stdout, stderr)
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        print(f"exit code {process.returncode}, stdout:\n{run.stdout}\nstderr:\n{run.stderr}")  # noqa: T201
