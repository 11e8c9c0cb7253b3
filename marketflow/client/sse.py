"""A sans-I/O parser of server-sent events, as defined by the HTML standard."""

from __future__ import annotations

import re
from typing import Final

import attrs

LARGEST_EVENT: Final = 1024 * 1024
"""In bytes. It is more than the service ever sends at once."""

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class EventTooLarge(ValueError):
    """An event exceeds the size limit."""


@attrs.frozen
class ServerEvent:
    """One event."""

    data: str
    """Lines, joined by newlines."""
    type: str = "message"
    id: str = ""
    """The last id in the stream so far, from this event or an earlier one."""


class EventParser:
    """Turns the bytes of a stream, split anywhere, into events."""

    def __init__(self, largest: int = LARGEST_EVENT) -> None:
        self._largest = largest
        self._rest = b""
        """The beginning of a line that has not ended."""
        self._at_start = True
        self._after_return = False
        """Whether the last byte was a carriage return: a newline that follows belongs to it."""
        self._data: list[str] = []
        self._type = ""
        self._id = ""
        self._size = 0
        """The size of the current event's lines so far, in bytes."""

    def feed(self, chunk: bytes) -> list[ServerEvent]:
        """The events that these bytes complete.

        Raises:
            EventTooLarge: the parser cannot be used any more.
        """
        if self._after_return and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_return = False
        if not chunk:
            return []
        self._after_return = chunk.endswith(b"\r")
        *lines, self._rest = _LINE_END.split(self._rest + chunk)
        events = [event for line in lines if (event := self._take(line)) is not None]
        if self._size + len(self._rest) > self._largest:
            raise EventTooLarge(f"an event of more than {self._largest} bytes")
        return events

    def _take(self, line: bytes) -> ServerEvent | None:
        """Process a line; returns the event that it completes."""
        if self._at_start:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._at_start = False
        if not line:
            return self._complete()
        self._size += len(line)
        if self._size > self._largest:
            raise EventTooLarge(f"an event of more than {self._largest} bytes")
        field, _, value = line.decode(errors="replace").partition(":")
        value = value.removeprefix(" ")
        match field:
            case "data":
                self._data.append(value)
            case "event":
                self._type = value
            case "id" if "\0" not in value:
                self._id = value
            case _:
                pass  # a comment (it begins with a colon), `retry`, or an unknown field
        return None

    def _complete(self) -> ServerEvent | None:
        data, kind = self._data, self._type or "message"
        self._data, self._type, self._size = [], "", 0
        return ServerEvent("\n".join(data), kind, self._id) if data else None
