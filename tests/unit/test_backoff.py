from __future__ import annotations

import random

import pytest

from marketflow.app.ingest.backoff import Backoff


class LongestPause(random.Random):
    def uniform(self, a, b):
        assert a == 0
        return b


def test_the_limit_doubles_up_to_its_maximum_and_begins_again():
    backoff = Backoff(0.25, 2.0, LongestPause())
    assert [backoff.next() for _ in range(6)] == [0.25, 0.5, 1, 2, 2, 2]
    backoff.reset()
    assert [backoff.next() for _ in range(2)] == [0.25, 0.5]


def test_no_pause_is_shorter_than_the_floor_or_longer_than_the_most():
    backoff = Backoff(5.0, 60.0, LongestPause(), floor=5.0)
    assert [backoff.next() for _ in range(6)] == [10, 15, 25, 45, 60, 60]
    backoff = Backoff(5.0, 60.0, random.Random(1), floor=5.0)
    assert 5.0 <= min(backoff.next() for _ in range(1_000)) < 6.0


def test_a_pause_is_any_part_of_the_limit():
    backoff = Backoff(2.0, 2.0, random.Random(1))
    pauses = [backoff.next() for _ in range(1_000)]
    assert min(pauses) < 0.05
    assert max(pauses) > 1.95
    assert sum(pauses) / 1_000 == pytest.approx(1, abs=0.05)


def test_it_never_overflows():
    """Days of an outage would be more doublings than a float can represent."""
    backoff = Backoff(0.25, 2.0, LongestPause())
    assert {backoff.next() for _ in range(5_000)} == {0.25, 0.5, 1, 2}
