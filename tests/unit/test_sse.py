from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.client.sse import EventParser, EventTooLarge, ServerEvent


def model(data: bytes) -> list[ServerEvent]:
    """The rules of the HTML standard, line by line, with all bytes at hand."""
    text = data.decode(errors="replace").removeprefix("\ufeff")
    *lines, _unfinished = re.split("\r\n|\r|\n", text)
    events, kept, kind, last_id = [], [], "", ""
    for line in lines:
        if line == "":
            if kept:
                events.append(ServerEvent("\n".join(kept), kind or "message", last_id))
            kept, kind = [], ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            kept.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


# Few different parts, so that line ends, fields and half characters occur in all combinations.
raw = st.lists(
    st.sampled_from(
        [
            *[b"data", b"event", b"id", b"retry", b"x", b": ", b":", b" "],
            *[b"\n", b"\r", b"\r\n", b"\n\n"],
            *["é".encode(), b"\xc3", b"\xff", b"\0", b"\xef\xbb\xbf"],
        ]
    ),
    max_size=60,
).map(b"".join)


@given(data=raw, cuts=st.lists(st.integers(0, 200), max_size=20))
def test_any_split_gives_what_the_standard_says(data, cuts):
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    parser = EventParser()
    events = []
    for start, end in pairwise(places):
        events += parser.feed(data[start:end])

    assert events == model(data)


@given(events=st.lists(st.tuples(st.sampled_from(["price", "other"]), st.text("aé {}\n")), max_size=10))
def test_what_is_sent_comes_out(events):
    """Events are encoded as a service would, with comments in between."""
    sent = [
        [": heartbeat", "", f"event: {kind}", *(f"data: {line}" for line in text.split("\n")), ""]
        for kind, text in events
    ]
    stream = "".join(f"{line}\n" for lines in sent for line in lines).encode()

    assert [(each.type, each.data) for each in EventParser().feed(stream)] == events


def test_a_byte_at_a_time_costs_no_more_than_the_line():
    """An event is returned with its last byte, not later."""
    parser = EventParser()
    *most, last = [bytes([byte]) for byte in b"event: price\r\ndata: 1\r\n\r"]

    assert [event for byte in most for event in parser.feed(byte)] == []
    assert parser.feed(last) == [ServerEvent("1", "price")]
    assert parser.feed(b"\n") == []


@pytest.mark.parametrize(
    "data",
    [b"data: " + b"x" * 100, b"data: " + b"x" * 100 + b"\n\n", b"data: x\n" * 15, b"event: x\n:\n" * 15],
)
def test_an_event_without_end_is_refused(data):
    """For lines of any kind, nothing is kept beyond the limit."""
    with pytest.raises(EventTooLarge):
        EventParser(largest=90).feed(data)


def test_many_small_events_are_no_large_one():
    parser = EventParser(largest=90)

    assert sum(len(parser.feed(b"data: x\n\n")) for _ in range(100)) == 100
