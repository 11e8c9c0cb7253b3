"""What the log says about a feed's connections, without being flooded by a long outage."""

from __future__ import annotations

import math
import traceback
from typing import Final

import structlog
import trio

LOG_INTERVAL: Final = 60.0
"""Seconds between two lines of the same event in the log while an outage lasts."""

logger = structlog.get_logger()


class OutageLog:
    """Logs each event of an exchange once in `LOG_INTERVAL`, and the ones between on the level of debug."""

    def __init__(self, exchange: str) -> None:
        self._log = logger.bind(exchange=exchange)
        self._connections = 0
        """How many were made."""
        self._attempts = 0
        """How many have failed since the outage began."""
        self._last_lines: dict[str, float] = {}
        """By event, when it last had a line that was not of debug."""

    def end_outage(self) -> None:
        """Forget the outage: the next event of each kind is logged at once."""
        self._attempts = 0
        self._last_lines.clear()

    def connected(self, last_error: str | None = None) -> None:
        """There is a connection. `last_error`: why there was none before, if one has failed."""
        self._connections += 1
        self._line("info", "connected", **({} if last_error is None else {"last_error": last_error}))

    def failed(self, event: str, error: str, **facts: object) -> None:
        """The exchange could not be connected, or has ended the connection."""
        self._attempts += 1
        self._line("warning", event, error=error, attempts=self._attempts, **facts)

    def source_failed(self, error: BaseException, cause: BaseException, **facts: object) -> None:
        """A bug of the source has ended the connection: `cause`, which is the error or within its group."""
        self._attempts += 1
        self._bug("source failed", error, cause, attempts=self._attempts, **facts)

    def codec_failed(self, error: Exception, **facts: object) -> None:
        """A bug of the codec has cost a payload."""
        self._bug("codec failed", error, error, **facts)

    def source_abandoned(self, **facts: object) -> None:
        """A bug: the source had to be cancelled, because it did not return after a stop."""
        self._line("error", "source did not stop", **facts)

    def _bug(self, event: str, error: BaseException, cause: BaseException, **facts: object) -> None:
        """With the traceback, which the log shows on the level of debug only, and the place of the cause."""
        self._line("error", event, exc_info=error, where=_where(cause), **facts)

    def _line(self, level: str, event: str, **facts: object) -> None:
        now = trio.current_time()
        if now - self._last_lines.get(event, -math.inf) < LOG_INTERVAL:
            level = "debug"
        else:
            self._last_lines[event] = now
        getattr(self._log, level)(event, connection=self._connections, **facts)


def _where(error: BaseException) -> str | None:
    """The place in the code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}" if frames else None
