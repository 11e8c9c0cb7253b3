"""The Redis serialization protocol (RESP2): replies out of bytes, commands into bytes.

`hiredis`, a C library, does both. Commands of the hot path are packed in `members`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Final

import hiredis

Command = tuple[str | bytes | int, ...]

_MORE: Final = object()
"""hiredis' answer when no further reply is complete."""

_ENDING_CODES: Final = frozenset({"LOADING", "NOAUTH", "WRONGPASS"})
"""First words of errors that concern the connection or the whole server, and not one command."""
_TOO_MANY: Final = "ERR max number of clients reached"
"""Another such error; its code is that of many errors."""


class ErrorReply(Exception):
    """An error that Redis replied."""

    @property
    def ends_connection(self) -> bool:
        """Whether no command can succeed on this connection now.

        Redis then counts as away. After any other error (out of memory, read-only, a forbidden command) the
        replies that follow count: the rest of a write may have taken effect.
        """
        text = str(self)
        return text.partition(" ")[0] in _ENDING_CODES or text == _TOO_MANY


class ProtocolError(Exception):
    """What came is no reply of Redis."""


class Replies:
    """Parses what a connection receives. Errors are replies, too; see `ErrorReply`."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader(
            protocolError=ProtocolError, replyError=ErrorReply, errors="replace", notEnoughData=_MORE
        )
        self.feed = self._reader.feed
        """Add received bytes."""

    def add_to(self, found: list[Any], wanted: int) -> None:
        """Append replies that are complete, until there are as many as wanted.

        Raises:
            ProtocolError: these bytes are no reply.
            ErrorReply: an error that ends the connection.
        """
        replies = list(islice(iter(self._reader.gets, _MORE), wanted - len(found)))
        for refusal in refusals_of(replies):
            if refusal.ends_connection:
                raise refusal
        found += replies

    @property
    def empty(self) -> bool:
        """Whether all received bytes were parsed."""
        return not self._reader.has_data()


def refusals_of(replies: Sequence[Any]) -> list[ErrorReply]:
    """The error replies among them."""
    if ErrorReply not in map(type, replies):
        return []
    return [reply for reply in replies if type(reply) is ErrorReply]


def pack_commands(commands: Iterable[Command]) -> bytes:
    """Commands of texts, bytes and numbers, as they are sent."""
    # Its type hints allow one argument only.
    return b"".join(hiredis.pack_command(command) for command in commands)  # type: ignore[arg-type]
