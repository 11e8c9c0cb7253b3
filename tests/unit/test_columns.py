"""Updates as columns, and what they have traded, against an independent sum."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.domain.bars import Bar, by_second, in_seconds, merged
from marketflow.domain.columns import MOST_QUOTE, MOST_VOLUME, Columns, Traded, counts
from marketflow.domain.packed_bars import pack_bar, unpack_bar

volumes = st.one_of(st.none(), st.just(0.0), st.floats(1e-9, 1e6))
updates = st.lists(
    st.tuples(
        st.integers(0, 4_000),
        st.floats(1e-6, 1e6),
        volumes,
        st.sampled_from([None, "buy", "sell"]),
        st.one_of(st.none(), st.text(max_size=3)),
    ),
    min_size=1,
    max_size=40,
)


def columns_of(rows, *, told=True) -> Columns:
    timestamps, prices, volumes, sides, ids = (list(column) for column in zip(*rows, strict=True))
    if not told:
        return Columns(timestamps, prices)
    # Only an update with a volume has a side.
    sides = [side if volume is not None else None for side, volume in zip(sides, volumes, strict=True)]
    return Columns(timestamps, prices, volumes, sides, ids)


def exact(rows) -> tuple[int, Fraction, Fraction, Fraction | None, Fraction | None]:
    """Exact sums of the updates that told a volume."""
    told = [row for row in rows if row[2] is not None]
    sided = [row for row in told if row[3] is not None]

    def total(some):
        return sum((Fraction(row[2]) for row in some), Fraction(0))

    return (
        len(told),
        total(told),
        sum((Fraction(row[1]) * Fraction(row[2]) for row in told), Fraction(0)),
        total(row for row in sided if row[3] == "buy") if sided else None,
        total(row for row in sided if row[3] == "sell") if sided else None,
    )


def newest(rows) -> float | None:
    """The volume of the last update: of equal timestamps that received later."""
    return max(enumerate(rows), key=lambda numbered: (numbered[1][0], numbered[0]))[1][2]


def agree(traded: Traded | None, rows) -> None:
    """What was traded is what an exact sum says, within 1e-9."""
    count, *sums = exact(rows)
    assert (traded is None) == (count == 0)
    if traded is None:
        return
    assert traded.updates == count
    for found, right in zip((traded.volume, traded.quote, traded.buy, traded.sell), sums, strict=True):
        assert (found is None) == (right is None)
        if right is not None:
            assert found == pytest.approx(float(right), rel=1e-9, abs=0)


@given(updates)
def test_what_was_traded_is_the_exact_sum(rows):
    agree(columns_of(rows).traded, rows)
    assert columns_of(rows, told=False).traded is None


@given(updates, st.integers(0, 40))
def test_two_halves_merged_equal_the_whole(rows, place):
    whole = columns_of(rows)
    halves = [half for half in (whole.slice(slice(place)), whole.slice(slice(place, None))) if len(half)]
    bars = [bar for half in halves for bar in in_seconds(half).values()]
    bar = merged(bars)
    assert bar is not None
    agree(bar.traded, rows)
    assert merged(in_seconds(whole).values()).close_volume == newest(rows)
    if len(halves) == 2:
        assert halves[0].append(halves[1]) == whole.append(Columns([], []))


@given(updates)
def test_each_second_has_its_own(rows):
    bars = in_seconds(columns_of(rows))
    assert bars.keys() == by_second([row[0] for row in rows], [row[1] for row in rows]).keys()
    for second, bar in bars.items():
        within = [row for row in rows if row[0] // 1_000 * 1_000 == second]
        agree(bar.traded, within)
        assert bar.close_volume == newest(within)


@given(updates, updates)
def test_append_joins_columns_that_are_not_told_in_both(one, other):
    joined = columns_of(one).append(columns_of(other, told=False))
    assert joined.volumes == [*columns_of(one).volumes, *[None] * len(other)]
    assert len(joined) == len(one) + len(other)
    assert columns_of(one, told=False).append(columns_of(other, told=False)).volumes is None


@given(updates, st.data())
def test_take_and_slice_agree(rows, data):
    columns = columns_of(rows)
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(rows))] * 2)))
    assert columns.take(range(first, last)) == columns.slice(slice(first, last))


@given(st.lists(updates, min_size=1, max_size=4))
def test_bars_received_one_after_the_other(chunks):
    """As the book does it, for each chunk."""
    whole: Bar | None = None
    for rows in chunks:
        (bar,) = in_seconds(columns_of([(row[0] % 1_000, *row[1:]) for row in rows])).values()
        whole = bar if whole is None else whole.followed_by(bar, whole.count)
    assert whole is not None
    received = [(row[0] % 1_000, *row[1:]) for rows in chunks for row in rows]
    agree(whole.traded, received)
    assert whole.close_volume == newest(received)
    assert whole.shifted(5).traded == whole.traded
    assert whole.shifted(5).close_volume == whole.close_volume


@pytest.mark.parametrize("volume", [0, 0.0, 1, 0.5, MOST_VOLUME])
def test_what_counts(volume):
    assert counts(volume, 1.0)


@pytest.mark.parametrize("volume", [-1, -1e-300, math.nan, math.inf, 2e18, "1", None, True, [1], 10**400])
def test_what_does_not_count(volume):
    assert not counts(volume, 1.0)


def test_a_product_that_is_too_large_does_not_count():
    assert not counts(1e10, 1e275)
    assert counts(1e5, MOST_QUOTE / 1e5 / 2)


def test_vwap():
    assert Traded(2, 3.0, 6.0).vwap(1.0, 5.0) == 2.0
    assert Traded(2, 0.0, 0.0).vwap(1.0, 5.0) is None
    assert Traded(1, 3.0, 3.0 * 0.1).vwap(0.1, 0.1) == 0.1


@given(updates)
def test_a_packed_bar_has_it_too(rows):
    for second, bar in in_seconds(columns_of(rows)).items():
        assert unpack_bar(pack_bar(bar, second), second) == bar
