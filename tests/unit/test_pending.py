from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from marketflow.app.ports import Written
from marketflow.app.share.pending import PendingUpdates, UpdateRun
from marketflow.domain.columns import Columns


def waiting(sequences, timestamps=None):
    sequences = range(sequences.start, sequences.stop)
    timestamps = [0] * len(sequences) if timestamps is None else timestamps
    prices = [float(sequence) for sequence in sequences]
    return UpdateRun.of(Written("exchange1", "BTCUSDT", sequences, Columns(timestamps, prices)), 1.5)


def rows_of(runs):
    return [
        row
        for run in runs
        for row in zip(
            run.updates.sequences, run.updates.columns.timestamps, run.updates.columns.prices, strict=True
        )
    ]


@given(st.lists(st.integers(1, 9), max_size=10), st.lists(st.integers(0, 12), max_size=10))
def test_first_in_first_out_whatever_the_portions(sizes, limits):
    """Taken or discarded, each update occurs once, in order; runs are cut at the end of a portion."""
    pending, expected, first = PendingUpdates(), [], 0
    for size in sizes:
        pending.append(waiting(range(first, first + size)))
        expected += [(sequence, 0, float(sequence)) for sequence in range(first, first + size)]
        first += size
    for number, limit in enumerate(limits):
        assert bool(pending) == bool(expected)
        if number % 2:
            assert pending.discard(limit) == min(limit, len(expected))
        else:
            assert rows_of(pending.take(limit)) == expected[:limit]
        expected = expected[limit:]
    assert rows_of(pending.take(10**9)) == expected
    assert not pending


@given(st.lists(st.integers(0, 9), min_size=1, max_size=9), st.integers(0, 10))
def test_what_is_too_old_is_left_out(timestamps, oldest):
    run = waiting(range(len(timestamps)), timestamps)
    kept = run.since(oldest)
    expected = [row for row in rows_of([run]) if row[1] >= oldest]
    assert rows_of([kept] if kept else []) == expected
    assert (kept is run) == (len(expected) == len(timestamps))


def test_runs_are_discarded_where_they_are_too_old_as_a_whole():
    """Only at the oldest end: old updates behind a younger one have to wait."""
    pending = PendingUpdates()
    for timestamps in ([1, 2], [3, 9], [1, 1]):
        pending.append(waiting(range(2), timestamps))
    assert pending.discard_before(5) == 2
    assert [row[1] for row in rows_of(pending.take(9))] == [3, 9, 1, 1]


def test_when_it_was_received_stays_with_each_part():
    first, rest = waiting(range(5)).split(2)
    assert (first.length, rest.length) == (2, 3)
    assert first.received_monotonic == rest.received_monotonic == 1.5
