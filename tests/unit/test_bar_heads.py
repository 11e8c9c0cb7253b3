"""The heads of packed bars by column, against the bars."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.domain.bar_heads import BarHeads
from marketflow.domain.bars import Bar, in_seconds
from marketflow.domain.columns import Columns
from marketflow.domain.packed_bars import HEAD, pack_bar

SECOND = 7_000
sequences = st.one_of(st.integers(0, 2**40), st.sampled_from([0, 2**31 - 1, 2**31, 2**32, 2**56 - 1]))
counts = st.one_of(st.integers(1, 9), st.sampled_from([2**16 - 1, 2**16, 2**35]))


@st.composite
def bars(draw):
    """With and without volumes and sides, flat and not, with numbers of 8 bytes."""
    updates = draw(st.integers(1, 4))
    rng = random.Random(draw(st.integers(0, 2**32)))
    prices = [rng.choice([1.5, 2.25, rng.uniform(1, 9)]) for _ in range(updates)]
    volumes = [rng.choice([None, 0.5, rng.random()]) for _ in range(updates)]
    sides = [rng.choice(["buy", "sell", None]) for _ in range(updates)]
    (bar,) = in_seconds(Columns([SECOND] * updates, prices, volumes, sides)).values()
    return msgspec.structs.replace(
        bar, count=draw(counts), open_sequence=draw(sequences), close_sequence=draw(sequences)
    )


@given(st.lists(bars(), min_size=1, max_size=9), st.data())
def test_heads_say_what_the_bars_say(given_bars, data):
    packed = [pack_bar(bar, SECOND) for bar in given_bars]
    first = data.draw(st.integers(0, len(packed) - 1))
    last = data.draw(st.integers(first + 1, len(packed)))
    part, of_part = BarHeads(packed).part(first, last), given_bars[first:last]
    assert list(part.lengths) == [len(each) for each in packed[first:last]]
    assert part.last_sequence == max(max(bar.open_sequence, bar.close_sequence) for bar in of_part)
    if part.updates is None:
        assert any(bar.count >= 2**16 or bar.open_sequence != bar.close_sequence for bar in of_part)
    else:
        assert part.updates == sum(bar.count for bar in of_part)
    if all(bar.count < 2**16 and abs(bar.close_sequence - bar.open_sequence) < 2**31 for bar in of_part):
        assert part.updates is not None


@pytest.mark.parametrize(
    "other", [b"", b"\3", b"\2" + bytes(HEAD), b"\3" + bytes(HEAD - 2), b"\3" + bytes(255)]
)
def test_what_can_be_no_bar_has_no_head(other):
    good = pack_bar(Bar.of([SECOND], [1.0]), SECOND)
    with pytest.raises(ValueError, match=r"."):
        BarHeads([good, other, good])
