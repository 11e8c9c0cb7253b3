"""The errors of Trio's streams, as errors of the system with a clear text."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import trio


@contextmanager
def translated() -> Iterator[None]:
    """Raise ConnectionError for a stream that broke or was closed."""
    try:
        yield
    except trio.ClosedResourceError as error:
        raise ConnectionError("this connection was closed") from error
    except trio.BrokenResourceError as error:
        raise ConnectionError(reason_of(error)) from error


def reason_of(error: BaseException) -> str:
    """The first cause, in short words and without addresses."""
    while isinstance(cause := error.__cause__, OSError | BaseExceptionGroup):
        error = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS: {error.reason or error}"
        case socket.gaierror():
            return error.strerror or "no such host"
        case OSError(errno=int(number)) if number > 0:
            return os.strerror(number)
    return str(error) or "the connection broke"
