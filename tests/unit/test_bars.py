from __future__ import annotations

import itertools
import random

import msgspec
from builders import Sent, summary_of
from hypothesis import given, settings
from hypothesis import strategies as st

from marketflow.domain.bars import Bar, by_second, merged

BTC = ("exchange1", "BTCUSDT")
ordinary = st.floats(min_value=1e-9, max_value=1e9)
extreme = st.one_of(
    st.sampled_from([5e-324, 1e-323, 2.2250738585072014e-308, 1e308, 1.7976931348623157e308]),
    st.floats(min_value=5e-324, max_value=1.7976931348623157e308, exclude_min=False),
)
times = st.one_of(st.integers(0, 3), st.integers(0, 5_000))
columns = st.lists(st.tuples(times, st.one_of(ordinary, extreme)), min_size=1, max_size=60)


def sent(updates):
    return [Sent(*BTC, price, timestamp, order) for order, (timestamp, price) in enumerate(updates)]


def bar_of(updates, first=0):
    return Bar.of([timestamp for timestamp, _ in updates], [price for _, price in updates], first)


def exact(bar):
    """The parts of a bar that must not depend on the order of merging."""
    return msgspec.structs.replace(bar, average=0.0)


def split(updates, cuts):
    """Parts of the updates, as bars with the sequences of the whole."""
    bounds = [0, *sorted({cut % len(updates) for cut in cuts} - {0}), len(updates)]
    return [bar_of(updates[a:b], a) for a, b in itertools.pairwise(bounds)]


@given(columns, st.integers(0, 2**60))
@settings(deadline=None, max_examples=150)
def test_a_bar_says_what_its_updates_say(updates, first):
    bar = bar_of(updates, first)
    assert summary_of(sent(updates)).says(bar)
    assert updates[bar.open_sequence - first] == (bar.open_time, bar.open)
    assert updates[bar.close_sequence - first] == (bar.close_time, bar.close)
    assert bar == bar_of(updates).shifted(first)


@given(columns, columns, st.integers(0, 2**60))
def test_what_is_received_later_follows(earlier, later, first):
    bar = bar_of(earlier, first)
    following = bar_of(later)
    sequence = first + len(earlier)
    assert bar.followed_by(following, sequence) == bar.merge(following.shifted(sequence))


@given(columns)
def test_ascending_columns_have_the_same_bars(updates):
    updates = sorted(updates, key=lambda update: update[0])
    timestamps, prices = ([update[place] for update in updates] for place in (0, 1))
    assert Bar.of_ascending(timestamps, prices) == Bar.of(timestamps, prices)
    assert by_second(timestamps, prices, ascending=True) == by_second(timestamps, prices)


@given(columns, st.lists(st.integers(0, 100), max_size=12), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_halves_merged_in_any_order_equal_the_whole(updates, cuts, rng):
    """They may be merged one by one, as a tree, or all at once."""
    whole, parts = bar_of(updates), split(updates, cuts)
    rng.shuffle(parts)
    at_once = merged(parts)
    while len(parts) > 1:
        one, other = parts.pop(rng.randrange(len(parts))), parts.pop(rng.randrange(len(parts)))
        parts.append(one.merge(other))
    for bar in (at_once, parts[0]):
        assert exact(bar) == exact(whole)
        assert summary_of(sent(updates)).says(bar)
        assert bar.min <= bar.average <= bar.max


@given(columns)
@settings(deadline=None, max_examples=150)
def test_seconds_are_the_bars_of_their_updates(updates):
    """They have the sequences of the columns, and each update is in exactly one."""
    bars = by_second([timestamp for timestamp, _ in updates], [price for _, price in updates])
    groups = {}
    for update in sent(updates):
        groups.setdefault(update.timestamp // 1_000 * 1_000, []).append(update)
    assert bars.keys() == groups.keys()
    for second, bar in bars.items():
        assert summary_of(groups[second]).says(bar)
    assert exact(merged(bars.values())) == exact(bar_of(updates))


def test_of_equal_timestamps_the_first_received_opens_and_the_last_closes():
    bar = Bar.of([5, 5, 5], [2.0, 3.0, 1.0], 7)
    assert (bar.open, bar.open_sequence, bar.close, bar.close_sequence) == (2.0, 7, 1.0, 9)
    earlier, later = Bar.of([5], [1.0], 1), Bar.of([5], [2.0], 2)
    for both in (earlier.merge(later), later.merge(earlier), merged([later, earlier])):
        assert (both.open, both.close) == (1.0, 2.0)


def test_nothing_merged_is_nothing():
    assert merged([]) is None
    bar = bar_of([(1, 2.0)])
    assert merged([bar]) == bar
    assert merged(iter([bar, bar])).count == 2


def test_sums_that_overflow_do_not_spoil_the_average():
    """1.8e308 is the greatest price; two of them have no finite sum."""
    greatest = 1.7976931348623157e308
    assert Bar.of([1, 2, 3], [greatest] * 3).average == greatest
    assert merged([Bar.of([n], [greatest]) for n in range(7)]).average == greatest
    assert Bar.of([1, 2], [1e308, 1e308]).merge(Bar.of([3], [1e308])).average == 1e308


def test_the_average_of_an_hour_of_merges_is_within_the_promise():
    """3,600 seconds of ten updates each are merged one by one."""
    rng = random.Random(1)
    updates = [(n * 100, rng.choice([1e-7, 1.0, 1e5, 1e9]) * rng.random() + 1e-9) for n in range(36_000)]
    whole = None
    for bar in by_second([time for time, _ in updates], [price for _, price in updates]).values():
        whole = bar if whole is None else whole.merge(bar)
    assert summary_of(sent(updates)).says(whole, tolerance=1e-12)
