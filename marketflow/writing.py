"""Output that never blocks or ends the program, even with a full disk, a closed terminal or a blocked pipe.

An unread pipe, a terminal after Ctrl-S and a hung disk block a write for ever. So a thread writes. Its queue
is bounded: when it is full, lines are dropped and counted.
"""

from __future__ import annotations

import os
import select
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol, TextIO

MOST_WAITING: Final = 1024 * 1024
"""The most bytes that wait to be written; lines beyond that are dropped."""

FLUSH_SECONDS: Final = 1.0
"""How long the exit waits for unwritten output."""


class Writer(Protocol):
    """A destination of text. Its methods never raise."""

    def write(self, text: str) -> None:
        """Write the text soon."""
        ...

    def flush(self, seconds: float = ...) -> None:
        """Wait until all is written, for at most `seconds`."""
        ...


def open_writer(stream: TextIO | None, tell: Callable[[int], None] | None = None) -> Writer:
    """A writer to a stream: in a thread if the stream has a file descriptor, else directly.

    Args:
        stream: None (as for a closed stdout or stderr) discards everything.
        tell: called from that thread when it can write again, with the number of dropped lines.
    """
    try:
        descriptor = None if stream is None else stream.fileno()
    except (OSError, ValueError):
        descriptor = None
    if descriptor is None or stream is None:
        return DirectWriter(stream)
    return ThreadWriter(descriptor, stream.encoding or "utf-8", tell)


class DirectWriter:
    """Writes directly to a stream in memory."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """See Writer."""
        if self._stream is not None:
            with suppress(OSError, ValueError):
                self._stream.write(text)
                self._stream.flush()

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """No-op: everything is written already."""


class Backlog:
    """Texts that wait to be written, up to a number of bytes. Beyond that they are dropped and counted.

    Any thread may add; one thread takes a text, writes it, and says how that went.
    """

    def __init__(self, most: int) -> None:
        """`most`: bytes."""
        self._most = most
        self._changed = threading.Condition()
        self._texts: deque[bytes] = deque()
        self._waiting = 0
        """Bytes not written yet, including those being written."""
        self._dropped = 0
        self._stuck = False
        """Whether a wait has timed out and nothing has been written since."""

    def add(self, text: bytes) -> None:
        """Add a text, or drop it if too much waits."""
        with self._changed:
            if self._waiting + len(text) > self._most:
                self._dropped += 1
                return
            self._texts.append(text)
            self._waiting += len(text)
            self._changed.notify_all()

    def take(self) -> bytes:
        """Wait for the next text. It counts as waiting until it is `done`."""
        with self._changed:
            self._changed.wait_for(lambda: self._texts)
            return self._texts.popleft()

    def done(self, text: bytes, *, written: bool) -> int:
        """A text was written, or could not be and is dropped.

        Returns how many were dropped since the last one that was written; 0 if this one was not.
        """
        dropped = 0
        with self._changed:
            if written:
                self._stuck = False
                dropped, self._dropped = self._dropped, 0
            else:
                self._dropped += 1
            self._waiting -= len(text)
            self._changed.notify_all()
        return dropped

    def wait_empty(self, seconds: float) -> None:
        """Wait until all is written or the time is over; after a wait that timed out, do not wait again."""
        with self._changed:
            if not self._stuck:
                self._stuck = not self._changed.wait_for(lambda: self._waiting == 0, seconds)


class ThreadWriter:
    """Writes to a file descriptor from a thread of its own.

    The thread bypasses Python's buffers: Python would try to write their contents again at its exit, and turn
    a clean exit into one with code 120.
    """

    def __init__(
        self,
        descriptor: int,
        encoding: str = "utf-8",
        tell: Callable[[int], None] | None = None,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        """See `open_writer`; `most_waiting` in bytes."""
        self._descriptor = descriptor
        self._encoding = encoding
        self._tell = tell
        self._backlog = Backlog(most_waiting)
        self._starting = threading.RLock()  # a signal handler may write, too
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Queue the text for writing, or drop it if too much waits."""
        data = text.encode(self._encoding, "backslashreplace")
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._start():
                    self._put(data)
                    return
        self._backlog.add(data)

    def _start(self) -> bool:
        """Start the thread; returns whether the system allowed another one."""
        # A daemon: the thread may be stuck, and the exit must not wait for it.
        thread = threading.Thread(target=self._run, name="writer", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return False
        self._thread = thread
        return True

    def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until all is written or the time is over; after a flush that timed out, do not wait again."""
        self._backlog.wait_empty(seconds)

    def _run(self) -> None:
        while True:
            text = self._backlog.take()
            dropped = self._backlog.done(text, written=self._put(text))
            if dropped and self._tell is not None:
                self._tell(dropped)

    def _put(self, text: bytes) -> bool:
        """Write it without a time limit; returns whether it was written."""
        while text:
            try:
                text = text[os.write(self._descriptor, text) :]
            except BlockingIOError:  # another process has made the shared descriptor non-blocking
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll()
            except OSError:
                return False
        return True
