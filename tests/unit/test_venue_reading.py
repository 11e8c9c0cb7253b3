"""What venues have in common: times, members of messages."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.exchange.venues.json_venue import all_have
from marketflow.adapters.exchange.venues.members import member, members, request_of, text_of
from marketflow.adapters.exchange.venues.times import all_ms_of, ms_of

SECONDS = st.integers(-(10**9), 10**10)
"""From 1938 to 2286."""


@given(seconds=SECONDS, digits=st.text("0123456789", min_size=1, max_size=9))
def test_a_time_is_read_to_the_ms(seconds: int, digits: str) -> None:
    """Rounded down, with any number of digits."""
    text = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{digits}Z"
    assert ms_of(text) == seconds * 1_000 + int(digits.ljust(3, "0")[:3])


@given(seconds=SECONDS, micros=st.integers(0, 999_999), minutes=st.integers(-1_439, 1_439))
def test_a_time_may_have_any_offset(seconds: int, micros: int, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    time = datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)
    assert ms_of(time.astimezone(zone).isoformat()) == seconds * 1_000 + micros // 1_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1795343351.548",
        "2026-11-22T10:29:11",
        "2026-11-22T10:29:11.548",
        "2026-11-22T10:29:11,548Z0",
        "2026-11-22T10:29:11 548634Z",
        "2026-11-22T10:29:11.54x634Z",
        "2026-11-22T10:29:11.548634Y",
        "2026-11-22T10:29:11.+48634Z",
        "2026-13-22T10:29:11.548634Z",
        "2026-11-22T24:29:11.548634Z",
        "2026-11-22T10:29:61.548634Z",
    ],
)
def test_what_is_no_time_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the text varies
        ms_of(text)


@given(st.text())
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    with suppress(ValueError, OverflowError):
        assert type(ms_of(text)) is int


FRACTIONS = st.text("0123456789", min_size=6, max_size=6) | st.text("01٣e+-. Z", min_size=1, max_size=7)
ENDINGS = st.sampled_from(["Z"] * 8 + ["", "Y", "+00:00", "+01:00", "Z "])


@given(
    second=SECONDS,
    parts=st.lists(st.tuples(st.sampled_from([0] * 9 + [1]), FRACTIONS, ENDINGS), min_size=1, max_size=20),
)
def test_times_together_are_those_one_by_one(second: int, parts: list[tuple[int, str, str]]) -> None:
    """Most of them within a second; some of other forms, or wrong."""
    texts = [
        f"{datetime.fromtimestamp(second + later, UTC):%Y-%m-%dT%H:%M:%S}.{fraction}{end}"
        for later, fraction, end in parts
    ]
    try:
        expected = [ms_of(text) for text in texts]
    except ValueError:
        with pytest.raises(ValueError):  # noqa: PT011 - the text varies
            all_ms_of(texts)
    else:
        assert all_ms_of(texts) == expected


@given(second=SECONDS, digits=st.integers(1, 9), fractions=st.lists(st.integers(0, 10**9 - 1), min_size=8))
def test_times_of_a_second_are_read_together(second: int, digits: int, fractions: list[int]) -> None:
    start = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
    texts = [f"{start}.{fraction:09}"[: 20 + digits] + "Z" for fraction in fractions]
    expected = [second * 1_000 + int(text[20:-1].ljust(3, "0")[:3]) for text in texts]
    assert all_ms_of(texts) == expected


def test_frames_begin_alike_and_have_something() -> None:
    assert all_have([], b"a", b"c")
    assert all_have([b"abc", b"a--c"], b"a", b"c")
    assert all_have([b"abc", b"a"], b"a")
    assert not all_have([b"abc", b"a--"], b"a", b"c")
    assert not all_have([b"abc", b"bca"], b"a", b"c")


def test_members_of_anything_are_looked_up() -> None:
    """Only objects have members."""
    message = members(b'{"a":{"b":[1],"c":"d"},"e":5}')
    assert message is not None
    assert member(message, "a", "c") == "d"
    assert member(message, "a", "x") is None
    assert member(message, "a", "b", "c") is None
    assert member(message, "e", "f") is None
    assert [members(frame) for frame in (b"", b"[]", b"5", b"{", b"[" * 10_000)] == [None] * 5


def test_texts_are_not_empty() -> None:
    assert [text_of(value, "none") for value in ("a", "", None, 5, ["a"])] == ["a", *["none"] * 4]


@pytest.mark.parametrize(
    ("value", "request_number"),
    [(7, 7), ("7", 7), ("007", 7), (True, None), (1.5, None), ("", None), ("-7", None), ("9" * 5_000, None)],
)
def test_the_number_of_a_request_may_be_a_text(value: object, request_number: int | None) -> None:
    assert request_of(value) == request_number
