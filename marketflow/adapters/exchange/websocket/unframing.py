"""From received bytes to the messages of a WebSocket. No I/O.

```
 bytes ──> Unframer ─┬─ text in one frame, not compressed ──────────────────────────> messages
                     └─ all other frames ──> protocol (pongs, close) ──> Assembler ──> messages
```
Exchanges mostly send each trade in a frame of its own. The protocol's generators take some 5 us for a frame,
which is more than all that is done with the trade. A frame of the common kind is only cut out of the bytes.
The protocol gets whole frames only, so it is always between two of them, and does not miss those that it
does not get.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Final

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

_WHOLE_TEXT: Final = 0x81
"""The first byte of a frame with a whole text, not compressed."""
_OPCODE: Final = 0x0F
_OPCODES: Final = frozenset(map(int, Opcode))
_LENGTH, _MASKED = 0x7F, 0x80
_SHORT, _IN_TWO_BYTES, _IN_EIGHT_BYTES = 126, 126, 127
"""Lengths below the first are the second byte of a frame; the others say where the length is."""


class Assembler:
    """Makes whole messages of frames. The protocol limits their size."""

    def __init__(self) -> None:
        self._begun = bytearray()
        """The fragments of a message that is not whole yet."""
        self.pings = 0
        """How many pings were among the frames so far."""

    def whole(self, events: Iterable[Event]) -> list[bytes]:
        """The messages that these frames complete. Binary ones are taken for text as UTF-8."""
        messages: list[bytes] = []
        for frame in events:
            if not isinstance(frame, Frame):
                continue
            if frame.opcode is Opcode.TEXT or frame.opcode is Opcode.BINARY:
                if frame.fin:
                    messages.append(bytes(frame.data))
                else:
                    self._begun = bytearray(frame.data)
            elif frame.opcode is Opcode.CONT:
                self._begun += frame.data
                if frame.fin:
                    messages.append(bytes(self._begun))
                    self._begun = bytearray()
            elif frame.opcode is Opcode.PING:
                self.pings += 1
        return messages


class Unframer:
    """The messages of one connection, from the first byte after its handshake on."""

    def __init__(self, protocol: ClientProtocol) -> None:
        """Its handshake is done, and nothing that came after it was fed to it."""
        self._protocol = protocol
        self._most = inf if protocol.max_message_size is None else protocol.max_message_size
        """Bytes of a message."""
        self._assembler = Assembler()
        self._rest = b""
        """The beginning of a frame that is not whole yet. The protocol limits its size."""

    @property
    def pings(self) -> int:
        """How many WebSocket pings have come."""
        return self._assembler.pings

    def received(self, data: bytes) -> list[bytes]:
        """The messages that are whole with these bytes; no bytes are the end of the connection."""
        protocol = self._protocol
        if not data:
            self._feed(self._rest)
            self._rest = b""
            protocol.receive_eof()
            return self._assembler.whole(protocol.events_received())
        if self._rest:
            data = self._rest + data
        # Within a fragmented message a whole text is an error, which the protocol finds.
        is_between = self._goes_on and protocol.current_size is None
        texts, place = _texts(data, self._most) if is_between else ([], 0)
        end = self._end_of_frames(data, place)
        self._feed(data[place:end])
        self._rest = data[end:]
        return texts + self._assembler.whole(protocol.events_received()) if end > place else texts

    @property
    def _goes_on(self) -> bool:
        """Whether the protocol still looks at what comes."""
        return self._protocol.close_rcvd is None and self._protocol.parser_exc is None

    def _feed(self, data: bytes) -> None:
        if data:
            self._protocol.receive_data(data)

    def _end_of_frames(self, data: bytes, place: int) -> int:
        """Where the last whole frame from a place on ends."""
        if not self._goes_on:
            return len(data)
        while place + 2 <= len(data):
            if _is_wrong(data, place):
                return len(data)  # the protocol finds that, and ends
            start, length = _header(data, place)
            if length > self._most:
                return len(data)  # this, too
            if start + length > len(data):
                break
            place = start + length
        return place


def _texts(data: bytes, most: float) -> tuple[list[bytes], int]:
    """The texts of the frames of the common kind at the beginning, and where these end.

    `most`: bytes of a text.
    """
    texts: list[bytes] = []
    place, size = 0, len(data)
    # The longest header of such a frame has 4 bytes.
    while place + 4 <= size and data[place] == _WHOLE_TEXT:
        length = data[place + 1]
        start = place + 2
        if length == _IN_TWO_BYTES:
            length = data[start] << 8 | data[start + 1]
            start += 2
        elif length > _SHORT:
            break
        end = start + length
        if end > size or length > most:
            break
        texts.append(data[start:end])
        place = end
    return texts, place


def _header(data: bytes, place: int) -> tuple[int, int]:
    """Where the content of a frame starts, and its length; past the end if that is not there yet."""
    length = data[place + 1] & _LENGTH
    start = place + 2
    if length >= _IN_TWO_BYTES:
        size = 2 if length == _IN_TWO_BYTES else 8
        length = int.from_bytes(data[start : start + size], "big") if start + size <= len(data) else 0
        start += size
    return start, length


def _is_wrong(data: bytes, place: int) -> bool:
    """Whether a frame is of no kind that there is, or is masked, as only ours are."""
    return data[place] & _OPCODE not in _OPCODES or data[place + 1] & _MASKED != 0
