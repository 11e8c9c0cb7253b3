from __future__ import annotations

import contextlib
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.domain.periods import (
    CANDLE_INTERVALS,
    DAY,
    SECOND,
    BadPeriod,
    Range,
    Span,
    ceil_to,
    floor_to,
    parse_period,
)

timestamps = st.integers(-(10**15), 10**15)
UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


@given(timestamps, st.integers(1, 10**8))
def test_boundaries_lie_around_a_time(timestamp, interval):
    """They are multiples of the interval from the epoch; a boundary is its own floor and ceiling."""
    below, above = floor_to(timestamp, interval), ceil_to(timestamp, interval)
    assert below % interval == above % interval == 0
    assert below <= timestamp < below + interval
    assert above - interval < timestamp <= above
    assert (below == above) == (timestamp % interval == 0)


@given(st.integers(0, 10**6), st.sampled_from("smhd"))
def test_periods_are_a_whole_number_and_a_unit(number, unit):
    """They are valid from a second to thirty days."""
    text, period = f"{number}{unit}", number * UNITS[unit]
    if 0 < period <= 30 * DAY:
        assert parse_period(text) == period
    else:
        with pytest.raises(BadPeriod) as error:
            parse_period(text)
        assert error.value.text == text


NO_PERIODS = [
    "1",
    "m",
    "-1s",
    "+1s",
    "0s",
    "0d",
    "1.5m",
    "1e3s",
    "1M",
    "1ms",
    "1w",
    "31d",
    "721h",
    "1m30s",
    "0x1s",
    "9999999999s",
]


@pytest.mark.parametrize(
    "text", [*NO_PERIODS, "", " 1m", "1m ", "1m\n", "1 m", "\u0663s", "\uff11s", "9" * 10_000 + "s"]
)
def test_anything_else_is_no_period(text):
    with pytest.raises(BadPeriod):
        parse_period(text)


@given(st.text(max_size=12))
def test_any_text_is_a_period_or_a_bad_one(text):
    with contextlib.suppress(BadPeriod):
        assert SECOND <= parse_period(text) <= 30 * DAY


@given(timestamps, timestamps, timestamps)
def test_a_span_is_left_closed_and_right_open(start, end, timestamp):
    span = Span(start, end)
    assert (timestamp in span) == (start <= timestamp < end)
    assert span.empty == (not range(start, end))
    assert end not in span
    assert (start in span) == (not span.empty)


def test_candles_of_one_interval_cut_days_evenly():
    """So every candle can be merged from whole finer ones."""
    for text, interval in CANDLE_INTERVALS.items():
        if text != "1w":
            assert parse_period(text) == interval.width
            assert DAY % interval.width == interval.first == 0


@pytest.mark.parametrize(
    ("day", "monday"),
    [
        ("2026-11-23", "2026-11-23"),
        ("2026-11-29", "2026-11-23"),
        ("2026-11-30", "2026-11-30"),
        ("1970-01-05",) * 2,
    ],
)
def test_weeks_begin_on_monday_at_midnight(day, monday):
    week, at, start = CANDLE_INTERVALS["1w"], ms_of(day) + DAY - 1, ms_of(monday)
    assert week.floor(at) == week.floor(start) == week.ceil(start) == start
    assert week.ceil(start + 1) == start + 7 * DAY


def ms_of(day):
    return int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()) * SECOND


@given(st.integers(10**6, 10**15))
def test_a_range_never_reaches_beyond_now(now):
    for asked in (
        Range("5m"),
        Range(start=now - 7),
        Range("5m", end=now + 9),
        Range(start=now - 7, end=now + 9),
    ):
        assert asked.span(now).end == now
    assert Range("5m", end=now - 2).span(now) == Span(now - 2 - 5 * 60 * SECOND, now - 2)
    assert Range().span(now) == Span(now - 60 * SECOND, now)
    assert Range(start=3, end=5).named_period is None
    assert Range(start=now + 5).span(now) == Span(now, now)
    assert Range("5m", end=7).span(now) == Span(0, 7)
