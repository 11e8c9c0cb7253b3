"""Structured logging: one line an event, for people or for programs.

Logs of libraries (through `logging`) have the same form. A line that cannot be written is dropped and
counted; it never ends or blocks the program.

Clients, exchanges and foreign data in the stores decide how often some events happen. So each event has a
limit of lines a minute. The next line after that says how many were left out.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Final, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from marketflow.config.secrets import MASK, is_secret, mask_connection
from marketflow.writing import open_writer

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
TEXT: Final = "text"
JSON: Final = "json"
FORMATS: Final = (TEXT, JSON)

LINES: Final = 300
"""Lines of one event in `LINES_SECONDS`, except on the level of debug. Code whose events need fewer
lines has a lower limit of its own (`Seldom`)."""
LINES_SECONDS: Final = 60.0
_MOST_EVENTS: Final = 1_000
"""Events that are counted at a time. Ours are fewer; a library may put data into the name."""
_OTHERS: Final = ("", "")
"""All events beyond these, which have one limit together."""

_CONNECTIONS: Final = ("url", "dsn")


def configure(level: str, style: str, stream: TextIO | None = None) -> None:
    """Log events of `level` and above, as `text` or `json`, to the stream (by default the current stderr).

    Tracebacks are for `debug` only; otherwise an exception is one line.
    """
    stream = sys.stderr if stream is None else stream
    threshold = LEVELS[level]
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _add_timestamp,
        _mask_secrets,
    ]
    if threshold > logging.DEBUG:
        first.append(_shorten_exception)
    # Through `logging`, so that one handler writes everything, and handles failed writes in one place.
    structlog.configure(
        processors=[*first, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=first,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_renderers(style, stream)],
    )
    handler = _Handler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(_Flood())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(threshold)


def flush() -> None:
    """Wait briefly until all log lines are written, before the process exits."""
    for handler in logging.getLogger().handlers:
        handler.flush()


class _Handler(logging.Handler):
    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._writer = open_writer(stream, _tell_dropped)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the line for writing."""
        try:
            self._writer.write(f"{self.format(record)}\n")
        except Exception:  # noqa: BLE001 - a value that cannot be shown, for example
            self.handleError(record)

    def flush(self) -> None:
        """Wait for a short time until all lines are written."""
        self._writer.flush()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """No-op: there is no other place to report to."""


class _Flood(logging.Filter):
    """Leaves out lines of an event that has had too many in this minute."""

    def __init__(self) -> None:
        super().__init__()
        self._mutex = threading.RLock()
        self._ends = -math.inf
        """When the counts begin again (seconds of the monotonic clock)."""
        self._lines: Counter[tuple[str, str]] = Counter()
        """By logger and event."""
        self._left_out: Counter[tuple[str, str]] = Counter()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be written. Notes in it how many lines before it were left out."""
        if record.levelno <= logging.DEBUG:
            return True
        facts = record.msg if isinstance(record.msg, dict) else None
        named = record.msg if facts is None else facts.get("event")
        # Not its text: that may fail, and a call to the log must not.
        event = record.name, named if isinstance(named, str) else type(named).__name__
        with self._mutex:
            now = time.monotonic()
            if now >= self._ends:
                self._ends = now + LINES_SECONDS
                self._lines.clear()
            if event not in self._lines and len(self._lines) >= _MOST_EVENTS:
                event = _OTHERS
            self._lines[event] += 1
            if self._lines[event] > LINES:
                self._left_out[event] += 1
                return False
            left_out = self._left_out.pop(event, 0)
        if left_out and facts is not None:
            facts["lines_left_out"] = left_out
        elif left_out and isinstance(record.msg, str):
            record.msg = f"{record.msg} ({left_out} lines left out)"
        return True


def _tell_dropped(lines: int) -> None:
    structlog.get_logger("marketflow.logs").warning("log lines dropped", lines=lines)


def _renderers(style: str, stream: TextIO) -> list[Processor]:
    if style == JSON:
        return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    colors = _is_terminal(stream) and not os.environ.get("NO_COLOR")
    return [structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)]


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _add_timestamp(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    event["timestamp"] = now.replace("+00:00", "Z")
    return event


def _mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key, value in event.items():
        name = key.lower().rpartition(".")[2]
        if is_secret(name):
            event[key] = value if value is None else MASK
        elif isinstance(value, str) and name.endswith(_CONNECTIONS):
            event[key] = mask_connection(value)
    return event


def _shorten_exception(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event.setdefault("error", mask_connection(f"{type(error).__name__}: {error}"))
    return event
