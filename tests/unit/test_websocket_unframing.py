"""The messages of a WebSocket, however its bytes are split."""

from __future__ import annotations

import struct
from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import OPEN
from websockets.uri import parse_uri

from marketflow.adapters.exchange.websocket.unframing import Assembler, Unframer

MOST = 2_000
"""Bytes of a message."""


def opened(*, compressed: bool = False) -> ClientProtocol:
    protocol = ClientProtocol(parse_uri("ws://exchange.test/"), max_size=MOST, state=OPEN)
    if compressed:
        protocol.extensions = [PerMessageDeflate(True, True, 15, 15)]  # noqa: FBT003 - it has no names
    return protocol


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


CONTENT = st.integers(0, 300).map(lambda size: b"x" * size) | st.binary(max_size=130)
COMMON = CONTENT.map(lambda data: frame(Opcode.TEXT, data))
WHOLE = st.one_of(
    COMMON,
    COMMON,
    CONTENT.map(lambda data: frame(Opcode.BINARY, data)),
    st.binary(max_size=125).map(lambda data: frame(Opcode.PING, data)),
    st.just(frame(Opcode.PONG, b"")),
    st.lists(CONTENT, min_size=2, max_size=4).map(
        lambda parts: b"".join(
            frame(Opcode.CONT if place else Opcode.TEXT, part, fin=place == len(parts) - 1)
            for place, part in enumerate(parts)
        )
    ),
)
ENDS = st.sampled_from(
    [
        frame(Opcode.CLOSE, Close(1001, "bye").serialize()),
        frame(Opcode.CONT, b"of nothing"),
        frame(Opcode.TEXT, b"begun", fin=False) + frame(Opcode.TEXT, b"whole"),
        frame(Opcode.TEXT, b"x" * (MOST + 1)),
        b"\x81\x7e" + struct.pack("!H", MOST + 1),
        b"\x81\x7f" + struct.pack("!Q", 2**40),
        b"\x81\x85mask12345",
        b"\xc1\x01x",
        b"\x83\x00",
        b"\xff\xff\xff\xff",
        b"\x81\x05cut",
        b"\x81",
        b"",
    ]
)


@given(
    frames=st.lists(WHOLE, max_size=12),
    end=ENDS,
    after=COMMON,
    cuts=st.lists(st.integers(0, 3_000), max_size=8),
)
@example(frames=[frame(Opcode.TEXT, b"x" * 126)] * 3, end=b"", after=b"", cuts=[130, 132, 133])
def test_it_finds_what_the_protocol_finds(
    frames: list[bytes], end: bytes, after: bytes, cuts: list[int]
) -> None:
    """Messages, pings, answers, and why the connection ends."""
    data = b"".join(frames) + end + after
    expected, assembler = opened(), Assembler()
    expected.receive_data(data)
    messages = assembler.whole(expected.events_received())
    answers = expected.data_to_send()
    expected.receive_eof()

    protocol = opened()
    unframer = Unframer(protocol)
    found: list[bytes] = []
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    for start, stop in pairwise(places):
        if start < stop:
            found += unframer.received(data[start:stop])
    assert found == messages
    assert unframer.pings == assembler.pings
    # Masks are random.
    assert [each[:2] for each in protocol.data_to_send()] == [each[:2] for each in answers]
    found += unframer.received(b"")
    assert found == messages
    assert (protocol.close_rcvd, protocol.state) == (expected.close_rcvd, expected.state)
    assert repr(protocol.parser_exc) == repr(expected.parser_exc)


def test_compressed_messages_are_left_to_the_protocol() -> None:
    """Between others that are not."""
    other = PerMessageDeflate(True, True, 15, 15)  # noqa: FBT003
    packed = [
        Frame(Opcode.TEXT, text).serialize(mask=False, extensions=[other])
        for text in (b"one" * 50, b"three" * 50)
    ]
    unframer = Unframer(opened(compressed=True))
    data = packed[0] + frame(Opcode.TEXT, b"two") + packed[1] + frame(Opcode.TEXT, b"four")
    assert [
        message for place in range(len(data)) for message in unframer.received(data[place : place + 1])
    ] == [b"one" * 50, b"two", b"three" * 50, b"four"]


def test_a_whole_text_costs_the_protocol_nothing() -> None:
    protocol = opened()
    unframer = Unframer(protocol)
    assert unframer.received(frame(Opcode.TEXT, b"trade") * 3 + b"\x81") == [b"trade"] * 3
    assert unframer.received(b"\x01x") == [b"x"]
    assert not protocol.events_received()
    assert not protocol.reader.buffer
