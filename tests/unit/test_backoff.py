from __future__ import annotations

import random
from types import MappingProxyType

import pytest

from marketflow.app.ingest.backoff import Backoff
from marketflow.assembly import last_well_of


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


@pytest.mark.parametrize(
    ("accepted_at", "own", "expected"),
    [(None, None, None), (3.0, None, 3.0), (None, 4.0, 4.0), (3.0, 4.0, 4.0), (5.0, 4.0, 5.0)],
)
def test_a_venue_is_well_by_its_updates_or_by_its_own_rule(accepted_at, own, expected):
    class Quiet:
        exchange = "kraken"
        kind = activity = ""
        subscribed = True
        decode = run = len
        symbols = rejected_symbols = MappingProxyType({})
        pauses = (1.0, 2.0)
        silence = 5.0
        heard_at = 9.0
        well_at = own

    accepted = {} if accepted_at is None else {"kraken": accepted_at}
    assert last_well_of(Quiet(), accepted | {"other": 8.0}) == expected
