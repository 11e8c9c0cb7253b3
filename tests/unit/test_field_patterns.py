from __future__ import annotations

from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.cache.bar_fields import field_name
from marketflow.adapters.cache.field_patterns import patterns_of
from marketflow.app.share.foreign_bars import LATEST
from marketflow.domain.periods import HOUR, MINUTE, SECOND, Span


@given(st.integers(0, LATEST // MINUTE - 10), st.integers(1, 10))
def test_patterns_match_the_bars_of_some_minutes_and_few_others(first, minutes):
    span = Span(first * MINUTE, (first + minutes) * MINUTE)
    patterns = [pattern.decode() for pattern in patterns_of(span)]
    assert len(patterns) <= 2

    def matches(second):
        return any(fnmatchcase(field_name((second, "boot1")).decode(), pattern) for pattern in patterns)

    assert all(matches(second) for second in range(span.start, span.end, SECOND))
    if first > 60:
        near = range(span.start - HOUR, span.end + HOUR, SECOND)
        assert sum(matches(second) for second in near) < 60 * minutes + 200
