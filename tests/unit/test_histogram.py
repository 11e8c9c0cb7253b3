from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.app.instruments.histogram import SECONDS, Distribution, Histogram

VALUES = st.lists(st.tuples(st.floats(0, 100) | st.sampled_from(SECONDS), st.integers(1, 1_000)))


@given(VALUES)
def test_each_bucket_counts_what_is_at_most_its_bound(values: list[tuple[float, int]]) -> None:
    """A value on a bound counts as below it, as in Prometheus; a value with weight n counts n times."""
    histogram = Histogram()
    for value, count in values:
        histogram.observe(value, count)
    found = histogram.read()
    assert [bound for bound, _ in found.buckets] == [*SECONDS, math.inf]
    for bound, at_most in found.buckets:
        assert at_most == sum(count for value, count in values if value <= bound)
    assert found.count == sum(count for _, count in values)
    assert found.sum == pytest.approx(math.fsum(value * count for value, count in values))


def test_what_was_read_stays_as_it_was() -> None:
    histogram = Histogram((1.0,))
    histogram.observe(0.5)
    before = histogram.read()
    histogram.observe(2.0, 3)
    assert before == Distribution([(1.0, 1), (math.inf, 1)], 0.5)
    assert histogram.read() == Distribution([(1.0, 1), (math.inf, 4)], 6.5)
