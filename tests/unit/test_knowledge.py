from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.app.knowledge import BARS, ROWS, Knowledge, Part
from marketflow.app.ports import BARS_KEPT
from marketflow.domain.periods import DAY, HOUR, MINUTE, SECOND, Interval, Span, ceil_to, floor_to

NOON = 1_795_348_800_000
"""A multiple of an hour."""
NOW = NOON + 30 * SECOND
BEGAN = NOON - 10 * MINUTE + 12_345
"""Within an interval, and within a second."""
UNREAD = ceil_to(BEGAN, SECOND)
"""From when on all is known while nothing of earlier boots is."""
NEVER = 2**62


def known(now=NOW, *, retention=None, forgotten_to=0, known_from=0, began_at=BEGAN, interval=MINUTE):
    return Knowledge.at(
        now,
        interval=interval,
        retention=retention,
        forgotten_to=forgotten_to,
        known_from=known_from,
        began_at=began_at,
    )


@pytest.mark.parametrize(
    ("knowledge", "parts"),
    [
        pytest.param(known(), [(-HOUR, BARS), (-2 * HOUR, ROWS)], id="an hour of bars, rows before"),
        pytest.param(
            known(forgotten_to=NOON - 30 * MINUTE),
            [(-30 * MINUTE, BARS), (-2 * HOUR, ROWS)],
            id="bars were forgotten",
        ),
        pytest.param(
            known(forgotten_to=NOON + HOUR), [(0, BARS), (-2 * HOUR, ROWS)], id="the clock was set back"
        ),
        pytest.param(
            known(retention=90 * MINUTE),
            [(-HOUR, BARS), (-89 * MINUTE, ROWS), (-2 * HOUR, None)],
            id="old rows were deleted",
        ),
        pytest.param(
            known(retention=MINUTE), [(-HOUR, BARS), (-2 * HOUR, None)], id="rows are kept shorter than bars"
        ),
        pytest.param(
            known(known_from=UNREAD),
            [(-10 * MINUTE + 13 * SECOND, BARS), (-2 * HOUR, None)],
            id="the history is unread",
        ),
        pytest.param(
            known(known_from=NOON - 11 * MINUTE),
            [(-11 * MINUTE, BARS), (-2 * HOUR, None)],
            id="the newest bars have been read",
        ),
        pytest.param(
            known(known_from=NOON - 10 * MINUTE, began_at=NOON - 10 * MINUTE),
            [(-10 * MINUTE, BARS), (-2 * HOUR, None)],
            id="it is unread, and this boot began with an interval",
        ),
        pytest.param(
            known(known_from=UNREAD - 80 * MINUTE, began_at=BEGAN - 80 * MINUTE),
            [(-HOUR, BARS), (-89 * MINUTE, ROWS), (-2 * HOUR, None)],
            id="it is unread for more than an hour",
        ),
        pytest.param(
            known(known_from=NEVER, began_at=None), [(-2 * HOUR, None)], id="another boot may be running"
        ),
    ],
)
def test_what_answers_for_the_last_two_hours(knowledge, parts):
    """Each part by its start (ms from noon), the newest first."""
    found = knowledge.parts(Span(NOON - 2 * HOUR, NOW))
    assert [(part.span.start - NOON, part.origin) for part in reversed(found)] == parts
    assert found[-1].span.end == NOW


def test_unread_bars_tell_of_no_more_than_some_hours():
    """Redis has forgotten those of the time before, so rows tell of it although the history is unread."""
    whole, unread_from = Span(NOON - DAY, NOW), NOON - 10 * MINUTE - 3 * HOUR
    first = known(known_from=UNREAD).parts(whole)[0]
    assert first == Part(Span(whole.start, unread_from), ROWS)


@pytest.mark.parametrize(
    ("knowledge", "start", "expected"),
    [
        (known(), NOON - HOUR, NOON - HOUR),
        (known(), NOON - HOUR + 5, NOON - HOUR + 5),
        (known(), NOON - HOUR - 5, NOON - HOUR - MINUTE),
        (known(retention=90 * MINUTE), NOON - 2 * HOUR, NOON - 89 * MINUTE),
        (known(known_from=UNREAD), NOON - HOUR, NOON - 10 * MINUTE + 13 * SECOND),
        (
            known(known_from=UNREAD - 80 * MINUTE, began_at=BEGAN - 80 * MINUTE),
            NOON - 2 * HOUR,
            NOON - 89 * MINUTE,
        ),
        (
            known(known_from=NOON - 10 * MINUTE, began_at=NOON - 10 * MINUTE),
            NOON - HOUR,
            NOON - 10 * MINUTE,
        ),
    ],
)
def test_from_when_on_nothing_is_missing(knowledge, start, expected):
    assert knowledge.whole_from(start) == expected


@pytest.mark.parametrize(
    ("knowledge", "width", "expected"),
    [
        (known(NOW + 7 * MINUTE), 5 * SECOND, NOON - 53 * MINUTE),
        (known(NOW + 7 * MINUTE), HOUR, 0),
        (known(NOW, retention=90 * MINUTE), HOUR, NOON - HOUR),
        (known(NOW, retention=90 * MINUTE), DAY, ceil_to(NOON - 89 * MINUTE, DAY)),
        (known(NOW, retention=MINUTE), 5 * MINUTE, NOON - HOUR),
        (known(NOW + 4 * SECOND, interval=2 * SECOND), 5 * SECOND, NOON - HOUR + 35 * SECOND),
    ],
)
def test_the_first_bucket_that_has_its_beginning(knowledge, width, expected):
    """Buckets that cannot be made from rows begin with the bars."""
    assert knowledge.buckets_from(Interval(width)) == expected


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Span(NOON - DAY, NOON - 190 * MINUTE), False),
        (Span(NOON - DAY, NOON - 190 * MINUTE + 1), True),
        (Span(NOON - HOUR, NOON - 10 * MINUTE), True),
        (Span(NOON - 10 * MINUTE + 12_999, NOON), True),
        (Span(NOON - 10 * MINUTE + 13_000, NOON), False),
        (Span(NOON - 10 * MINUTE + 5, NOON - 10 * MINUTE + 5), False),
    ],
)
def test_what_earlier_boots_may_tell_of(span, expected):
    assert known(known_from=UNREAD).has_unread(span) is expected
    assert not known().has_unread(span)


TIMES = st.integers(NOON - 3 * HOUR, NOON + HOUR)
KNOWN = st.builds(
    known,
    TIMES,
    interval=st.sampled_from([2 * SECOND, 20 * SECOND, MINUTE, 5 * MINUTE]),
    retention=st.none() | st.integers(MINUTE, 3 * HOUR),
    forgotten_to=st.just(0) | TIMES.map(lambda time: floor_to(time, 5 * MINUTE)),
    known_from=st.just(0) | TIMES.map(lambda time: ceil_to(time, SECOND)) | st.just(NEVER),
    began_at=st.none() | TIMES,
)


@given(KNOWN, TIMES, TIMES)
def test_the_parts_make_up_the_span(knowledge, start, end):
    """There is no gap, neighbours differ, and rows answer for whole intervals before the bars."""
    span = Span(start, end)
    parts = knowledge.parts(span)
    if span.empty:
        assert parts == []
        return
    assert (parts[0].span.start, parts[-1].span.end) == (start, end)
    for first, second in pairwise(parts):
        assert first.span.end == second.span.start
        assert first.origin != second.origin
    for part in parts:
        assert not part.span.empty
        assert (part.origin == BARS) == (part.span.start >= knowledge.bars_from)
        if part.origin == ROWS:
            assert all(
                bound % knowledge.interval == 0 for bound in {part.span.start, part.span.end} - {start, end}
            )
            assert part.span.start >= knowledge.rows_from
            assert not knowledge.has_unread(part.span)


@given(KNOWN, TIMES, TIMES)
def test_from_there_on_all_is_known(knowledge, start, now):
    """Before it, if it is later than requested, something is unknown."""
    first = knowledge.whole_from(start)
    assert first >= floor_to(start, knowledge.interval)
    assert all(part.origin is not None for part in knowledge.parts(Span(first, now)))
    if first > start and first != knowledge.unread.end:
        assert knowledge.parts(Span(start, first))[-1].origin is None


@given(KNOWN, TIMES, st.sampled_from([SECOND, 5 * SECOND, MINUTE, 15 * MINUTE, HOUR]))
def test_a_bucket_that_is_not_unread_is_known_whole(knowledge, time, width):
    """Candles use the buckets from `buckets_from` on that no unread bar can affect."""
    start = max(floor_to(time, width), knowledge.buckets_from(Interval(width)))
    bucket = Span(start, start + width)
    if width % knowledge.interval and width < knowledge.interval:
        assert {part.origin for part in knowledge.parts(bucket)} == {BARS}
    elif width % knowledge.interval == 0 and not knowledge.has_unread(bucket):
        assert None not in {part.origin for part in knowledge.parts(bucket)}


@given(KNOWN)
def test_bars_are_known_for_an_hour_at_most(knowledge):
    assert knowledge.bars_from >= NOON - 3 * HOUR - BARS_KEPT - 5 * MINUTE
    assert knowledge.parts(Span(knowledge.bars_from, knowledge.bars_from + 1)) == [
        Part(Span(knowledge.bars_from, knowledge.bars_from + 1), BARS)
    ]


@given(KNOWN, TIMES, TIMES)
def test_what_is_known_up_to_an_earlier_time_is_not_less(knowledge, start, end):
    """Unread bars after that time do not matter."""
    first = knowledge.whole_from(start, end)
    assert floor_to(start, knowledge.interval) <= first <= knowledge.whole_from(start)
    assert all(part.origin is not None for part in knowledge.parts(Span(first, end)))
