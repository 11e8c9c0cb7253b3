"""Error messages for people, and their exit codes."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from marketflow.app.share.spooling import BarsLost

FAILED: Final = 1
WRONG_USAGE: Final = 2
"""The exit code for wrong usage or a wrong configuration."""


def problems_of(error: BaseException, address: tuple[str, str]) -> dict[str, int]:
    """A line for each error, also those in groups, with its exit code; nothing for a normal end.

    `address` is the host and port that the command listens on.
    """
    return dict(problem for each in _loud(error) for problem in _problems(each, address))


def _loud(error: BaseException) -> Iterator[BaseException]:
    """The error, or all errors in a group, except for those that are not failures."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _loud(each)
    # No failures: an interrupt before anything ran, and a stdout that its reader has closed.
    elif not (isinstance(error, KeyboardInterrupt) or _is_of_stdout(error)):
        yield error


def _problems(error: BaseException, address: tuple[str, str]) -> Iterator[tuple[str, int]]:
    """The message of an error, and its exit code."""
    from marketflow.client.errors import ClientError  # noqa: PLC0415

    if isinstance(error, ClientError):  # Checked first, since the imports below take longer than a request.
        yield str(error), FAILED
        return

    from marketflow.app.ports import IntervalMismatch, StoreAway, StoreTaken, StoreUnfit  # noqa: PLC0415
    from marketflow.app.share.spooling import BarsLost  # noqa: PLC0415
    from marketflow.config import ConfigError  # noqa: PLC0415
    from marketflow.config.secrets import mask_connection  # noqa: PLC0415
    from marketflow.embedded import EmbeddedError  # noqa: PLC0415

    match error:
        case ConfigError():
            for line in error.lines:
                yield line, WRONG_USAGE
        case IntervalMismatch():
            yield f"aggregation.interval: {error}", WRONG_USAGE
        case BarsLost():
            yield _of_lost(error), FAILED
        case StoreTaken():
            yield str(error) or "another marketflow is running on this database", FAILED
        case EmbeddedError() | StoreAway() | StoreUnfit():
            yield str(error), FAILED
        case OSError():
            yield _os_problem(error, *address), FAILED
        case _:
            yield f"internal error: {type(error).__name__}: {mask_connection(str(error))}", FAILED


def _of_lost(error: BarsLost) -> str:
    times = (datetime.fromtimestamp(each / 1_000, UTC) for each in (error.first, error.last))
    first, last = (f"{each:%Y-%m-%dT%H:%M:%SZ}" for each in times)
    bars = f"of {', '.join(error.exchanges)} from {first} to {last}"
    refused = "no store would take them, and"
    if (failure := error.failure) is None:
        other = "another marketflow was using the stores. Updates that it did not receive are lost"
        return f"{error.count} bars not kept, {bars}: {refused} {other}"
    where = f"they could not be written to {failure.place}: {failure.reason.lower()}"
    return f"{error.count} bars lost, {bars}: {refused} {where}"


def _os_problem(error: OSError, host: str, port: str) -> str:
    """The message of an operating system's error; without a file it is about listening at the address."""
    reason = error.strerror or str(error) or type(error).__name__
    if isinstance(error, socket.gaierror):
        return f"unknown host {host}: {reason}"
    if error.errno is None or reason != os.strerror(error.errno):
        return reason  # already a message for people
    if error.filename is not None:
        return f"{reason.lower()}: {error.filename}"
    words = {
        errno.EADDRINUSE: f"port {port} is in use on {host}",
        errno.EACCES: f"no permission to listen on port {port} on {host}",
        errno.EADDRNOTAVAIL: f"{host} is no address of this machine",
    }
    return words.get(error.errno, reason.lower())


def _is_of_stdout(error: BaseException) -> bool:
    """Whether stdout's reader has closed it; any other broken pipe is an error."""
    poll = select.poll()
    poll.register(1, 0)
    return isinstance(error, BrokenPipeError) and any(event & select.POLLERR for _, event in poll.poll(0))
