"""Errors of clients' connections: logged, counted, and kept from the rest of the service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final

import h11
import structlog
import trio
import wsproto.utilities

from marketflow.app.instruments.seldom import Seldom

LOG_EVERY: Final = 1.0
"""The least number of seconds between two log lines, since a client can send nonsense at any rate."""

_CLIENTS_DOING: Final = (h11.ProtocolError, wsproto.utilities.ProtocolError, UnicodeError)
"""Errors that Hypercorn is known to raise when a client sends nonsense. Any other may be a bug of ours."""

_PASSED_ON: Final = (trio.Cancelled, KeyboardInterrupt, SystemExit, GeneratorExit)
"""These are about the whole task tree or the process, not about one connection."""

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an error into the part that must be passed on and the part that is the connection's own.

    A group can have both: one task of the connection fails while another one is being cancelled.
    """
    if isinstance(error, BaseExceptionGroup):
        return error.split(_PASSED_ON)
    return (error, None) if isinstance(error, _PASSED_ON) else (None, error)


class Fence:
    """A block in which a connection is served. The connection's own errors end with the block."""

    def __init__(self, report: Callable[[BaseException], None]) -> None:
        """`report` is called with each error that does not leave the block."""
        self._report = report

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        passed_on, own = split(error)
        if own is None:
            return False
        self._report(own)
        if passed_on is not None:
            raise passed_on
        return True


class ConnectionErrors:
    """Counts and logs connections that end because of an error."""

    def __init__(self) -> None:
        self.count = 0
        self._seldom = Seldom(LOG_EVERY)

    def add(self, error: BaseException, *, logged: bool = False) -> None:
        """Count a connection that failed, and log why, at most once in `LOG_EVERY` seconds.

        Args:
            error: the error that ended it.
            logged: whether the error was logged already.
        """
        self.count += 1
        if logged or (others := self._seldom.turn()) is None:
            return
        details = {"errors": [repr(each) for each in _leaves(error)], "others_since": others}
        if all(isinstance(each, _CLIENTS_DOING) for each in _leaves(error)):
            log.warning("connection failed", **details)
        else:
            log.error("connection failed", **details, exc_info=error)


class OneConnection:
    """The errors of one connection. Only the first is counted: it is the cause of the others."""

    def __init__(self, errors: ConnectionErrors) -> None:
        self._errors = errors
        self._failed = False

    def add(self, error: BaseException, *, logged: bool = False) -> None:
        """Count the connection as failed, unless it is already."""
        if not self._failed:
            self._failed = True
            self._errors.add(error, logged=logged)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """All errors in a group and its subgroups; an error that is not a group gives itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error
