"""A node of a cluster as a child process, whose log is read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import trio

from marketflow.embedded.processes import child_arguments

LOG_LINE: Final = 1024 * 1024
"""A longer line of a log (bytes) is read in parts, which are no events."""


class NodeProcess:
    """`marketflow serve --role ...`. Ctrl-C does not reach it, and on Linux it ends with us."""

    def __init__(self, name: str, role: str, port: int, settings: Mapping[str, str]) -> None:
        """Starts it. Call it on the main thread: the process ends with the thread that has started it.

        Args:
            name: that of the node.
            role: that of the node.
            port: 0: any free one.
            settings: by variable, without `MARKETFLOW_`.
        """
        reading, writing = os.pipe()
        environment = {f"MARKETFLOW_{key}": value for key, value in settings.items()}
        self.name: Final = name
        self._process = subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-m", "marketflow", "serve", "--role", role, "--port", str(port)),
                *("--log-level", "info", "--log-format", "json"),
            ],
            env=os.environ | environment | {"MARKETFLOW_CLUSTER__NODE": name},
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            # The working directory may have a config.toml.
            **(child_arguments(signal.SIGTERM) | {"cwd": Path.cwd()}),
        )
        os.close(writing)
        self._log = trio.lowlevel.FdStream(reading)

    @property
    def pid(self) -> int:
        """The process' id."""
        return self._process.pid

    def stop(self) -> None:
        """Ask it to end in order, if it still runs."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End it at once, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Its log, until it has ended. A line that is no event becomes `{"event": line}`, as an error."""
        rest = b""
        async for piece in self._log:
            *lines, rest = (rest + piece).split(b"\n")
            if len(rest) > LOG_LINE:
                lines, rest = [*lines, rest], b""
            for line in lines:
                yield _event(line)
        await self._log.aclose()

    async def ended(self) -> int:
        """Wait until it has ended; returns its exit code, negative for a signal. Its log must have ended."""
        return await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)


def _event(line: bytes) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    return event if isinstance(event, dict) else {"event": line.decode(errors="replace"), "level": "error"}
