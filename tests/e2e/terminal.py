"""The real program on a real terminal, with a screen and a keyboard."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pyte
import trio
from asking import eventually

CTRL_C = b"\x03"
CTRL_Z = b"\x1a"


class Terminal:
    """A terminal in which `marketflow` runs."""

    def __init__(self, process: trio.Process, keyboard: int, columns: int, lines: int) -> None:
        self.process = process
        self.received = b""
        """Everything that the program wrote."""
        self._keyboard = keyboard
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)

    @property
    def text(self) -> str:
        """The text on the screen."""
        return "\n".join(line.rstrip() for line in self._screen.display)

    def colour(self, text: str) -> str:
        """The colour of the first character of a text."""
        row, line = next((row, line) for row, line in enumerate(self._screen.display) if text in line)
        colour: str = self._screen.buffer[row][line.index(text)].fg
        return colour

    async def shows(self, *texts: str, within: float = 30.0) -> None:
        """Wait until all these texts are on the screen."""
        try:
            await eventually(lambda: all(text in self.text for text in texts), within=within)
        except AssertionError:
            raise AssertionError(f"not all of {texts} in:\n{self.text}") from None

    def press(self, key: bytes) -> None:
        os.write(self._keyboard, key)

    async def ended(self, *, within: float = 10.0) -> int:
        """Wait for the end of the program; returns the exit code."""
        with trio.fail_after(within):
            return await self.process.wait()

    async def read(self) -> None:
        """Show the program's output until it has ended."""
        while True:
            await trio.lowlevel.wait_readable(self._keyboard)
            try:
                data = os.read(self._keyboard, 65_536)
            except OSError:  # Linux raises it when no process has the terminal open
                return
            self.received += data
            self._stream.feed(data)


@asynccontextmanager
async def terminal(
    directory: Path, *arguments: str, columns: int = 80, lines: int = 24, env: Mapping[str, str] | None = None
) -> AsyncIterator[Terminal]:
    """Run `marketflow` in its own terminal, which is closed at the end of the block."""
    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("MARKETFLOW_")}
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "marketflow", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=directory,
            env=clean | {"TERM": "xterm-256color", "LC_ALL": "C.UTF-8"} | dict(env or {}),
            start_new_session=True,
            # Make it the controlling terminal, so that Ctrl-C reaches the program.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
    finally:
        os.close(theirs)
    try:
        async with trio.open_nursery() as nursery:
            shown = Terminal(process, ours, columns, lines)
            nursery.start_soon(shown.read)
            yield shown
            nursery.cancel_scope.cancel()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()
        os.close(ours)
