from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.exchange.lines import LINE_LIMIT, LineFramer

LIMIT = 8


def framed(pieces: list[bytes], limit: int = LIMIT) -> tuple[bytes, int]:
    """All lines and the number of oversized ones of one connection."""
    framer = LineFramer(limit)
    results = [framer.push(piece) for piece in pieces]
    results.append(framer.finish())
    for lines, _ in results:
        assert not lines or lines.endswith(b"\n")
    return b"".join(lines for lines, _ in results), sum(oversized for _, oversized in results)


def model(data: bytes, limit: int = LIMIT) -> tuple[bytes, int]:
    """The same, computed with all bytes at hand."""
    *ended, rest = data.split(b"\n")
    if rest.strip(b" \t\r") or len(rest.removesuffix(b"\r")) > limit:
        ended.append(rest)
    good = [line + b"\n" for line in ended if len(line.removesuffix(b"\r")) <= limit]
    return b"".join(good), len(ended) - len(good)


# Few different parts, so that line ends, carriage returns and long lines occur in all combinations.
raw = st.lists(
    st.sampled_from([b"a", b"bcd", b"\n", b"\r\n", b"\r", b" ", b"x" * 7, b"y" * 9]), max_size=40
).map(b"".join)


@given(data=raw, cuts=st.lists(st.integers(0, 200), max_size=20))
def test_any_split_gives_what_the_whole_gives(data, cuts):
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in itertools.pairwise(bounds)]
    assert framed(pieces) == model(data)


def test_halves_are_put_together():
    framer = LineFramer()
    assert framer.push(b'{"a"') == (b"", 0)
    assert framer.push(b':1}\n{"b":2}\n{"c') == (b'{"a":1}\n{"b":2}\n', 0)
    assert framer.push(b'":3}\n') == (b'{"c":3}\n', 0)
    assert framer.finish() == (b"", 0)


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 100, 65_536, 1_000_000])
def test_the_longest_line_is_good_and_one_byte_more_is_not(end, size):
    data = b"a" * LINE_LIMIT + end + b"b" * (LINE_LIMIT + 1) + end + b"good\n"
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert framed(pieces, LINE_LIMIT) == (b"a" * LINE_LIMIT + end + b"good\n", 1)


def test_an_oversized_line_is_counted_when_it_is_found_and_never_kept():
    framer = LineFramer()
    counts = []
    for _ in range(100):
        counts.append(framer.push(b"x" * 10_000)[1])
        assert len(framer._rest) <= LINE_LIMIT
    assert counts == [0] * 6 + [1] + [0] * 93
    assert framer.push(b"yet\ngood\n") == (b"good\n", 0)


def test_good_lines_around_oversized_ones_in_one_piece_are_kept():
    giant = b"x" * 9 + b"\n"
    assert LineFramer(8).push(b"a\n" + giant + b"b\n" + giant + giant + b"c\n") == (b"a\nb\nc\n", 3)


def test_one_giant_piece_without_an_end():
    framer = LineFramer()
    assert framer.push(b"good\n" + b"x" * 10_000_000) == (b"good\n", 1)
    assert len(framer._rest) == 0
    assert framer.finish() == (b"", 0)


def test_what_is_unfinished_at_the_end_is_a_line():
    framer = LineFramer()
    framer.push(b"a\nhalf")
    assert framer.finish() == (b"half\n", 0)
    assert framer.finish() == (b"", 0)


@pytest.mark.parametrize("rest", [b"", b" ", b"\r", b"\t \r"])
def test_a_blank_rest_is_nothing(rest):
    framer = LineFramer()
    framer.push(b"a\n" + rest)
    assert framer.finish() == (b"", 0)


def test_after_the_end_a_framer_is_as_new():
    """This holds for any rest of the last connection, even half of a giant line."""
    framer = LineFramer(8)
    assert framer.push(b"x" * 9) == (b"", 1)
    assert framer.finish() == (b"", 0)
    assert framer.push(b"good\n") == (b"good\n", 0)
