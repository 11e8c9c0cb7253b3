"""The program, which is started again and again on the same stores, and the process of the exchanges."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trio

from marketflow.embedded.processes import child_arguments
from tests.bench.children import ROOT

STOP_LIMIT = 12.0
"""Seconds: shutdown_timeout, and a margin for a busy machine."""
START_LIMIT = 60.0
"""Seconds: it may have to wait for another service's lock, and the machine may be busy."""


class Program:
    """`python -m marketflow serve`."""

    def __init__(self, directory: Path, port: int, settings: Mapping[str, object]) -> None:
        self.port = port
        self.log = directory / "service.log"
        self.wanted = False
        """Whether it must answer: False during intended starts and stops."""
        self.up_since = 0.0
        """In seconds of Trio's clock."""
        self.starts = 0
        self._directory = directory
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
        values = {
            f"MARKETFLOW_{name}": value if isinstance(value, str) else json.dumps(value)
            for name, value in {**settings, "HTTP__PORT": port}.items()
        }
        path = os.pathsep.join(filter(None, [str(ROOT), inherited.get("PYTHONPATH", "")]))
        self._environment = inherited | values | {"PYTHONPATH": path}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def pids(self) -> list[int]:
        """The process id, or none."""
        return [] if self._process is None else [self._process.pid]

    @property
    def ended(self) -> bool:
        """Whether it has ended unintentionally."""
        return self.wanted and self._process is not None and self._process.poll() is not None

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        process = self._launched()
        self.starts += 1
        with trio.fail_after(START_LIMIT):
            while not await self._ready():
                if process.poll() is not None:
                    raise RuntimeError(f"the service has ended:\n{self.log.read_text()[-2_000:]}")
                await trio.sleep(0.05)
        self.up_since, self.wanted = trio.current_time(), True

    def _launched(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "marketflow", "serve", "--log-format", "json"]
        with self.log.open("ab") as stderr:
            popen = child_arguments(signal.SIGKILL) | {"cwd": self._directory, "env": self._environment}
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, **popen
            )
        return self._process

    async def _ready(self) -> bool:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
                await stream.send_all(b"GET /health/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                return (await stream.receive_some(100)).startswith(b"HTTP/1.1 200")
        except OSError:
            return False
        except trio.BrokenResourceError:
            return False

    async def end(self, number: signal.Signals) -> int:
        """Signal it, and wait until it has ended; returns its exit code.

        Raises:
            subprocess.TimeoutExpired: it has not ended within STOP_LIMIT.
        """
        assert self._process is not None
        self.wanted = False
        self._process.send_signal(number)
        return await trio.to_thread.run_sync(self._process.wait, STOP_LIMIT)

    def kill(self) -> None:
        """Kill it in any state."""
        self.wanted = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Exchanges:
    """Controls the process of the exchanges, which answers at once."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def told(self, *exchanges: str, behaviour: str = "") -> dict[str, Any]:
        """Change the behaviour of exchanges; returns what was sent since the last call."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        command = {"exchanges": exchanges, "behaviour": behaviour}
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        self._process.stdin.flush()
        told: dict[str, Any] = json.loads(self._process.stdout.readline())
        return told
