"""The bars of a pair against a plain dictionary: packing changes nothing that is read."""

from __future__ import annotations

import tracemalloc

import pytest
import trio
from builders import NOON
from hypothesis import given
from hypothesis import strategies as st

from marketflow.app.share.pair_bars import PairBars
from marketflow.app.share.second_bars import SecondBars
from marketflow.domain.bars import Bar, in_seconds, merged
from marketflow.domain.columns import Columns
from marketflow.domain.packed_minute import PackedMinute, by_minute
from marketflow.domain.periods import MINUTE, SECOND, Span, floor_to

PAIR = ("exchange1", "BTCUSDT")
EVER = Span(0, 10**15)
seconds = st.integers(0, 240).map(lambda second: NOON + second * SECOND)
boots = st.sampled_from(["one", "two", "three"])
spans = st.tuples(seconds, seconds).map(lambda ends: Span(min(ends), max(ends)))


def bar_of(second: int, price: float, volume: float | None) -> Bar:
    (bar,) = in_seconds(Columns([second], [price], [volume], ["buy"])).values()
    return bar.shifted(10**15 + int(price))


def foreign_of(adopted: dict[tuple[int, str], Bar]) -> dict[tuple[int, str], Bar]:
    """Bars of the same seconds that no boot can have made."""
    return {(second, "foreign"): Bar.of([second], [-1.0], 1) for second, _ in adopted}


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), seconds, boots, st.sampled_from([1.5, 2.25, 7.0]), st.booleans()),
        st.tuples(st.just("adopt"), st.lists(st.tuples(seconds, boots), min_size=1, max_size=4)),
        st.tuples(st.just("pack")),
        st.tuples(st.just("take"), st.integers(0, 4)),
    ),
    max_size=40,
)


@given(steps, spans, seconds, boots)
def test_packing_changes_nothing_that_is_read(steps, span, second, boot):
    bars, model = PairBars(), {}
    for name, *rest in steps:
        if name == "put":
            at, of_boot, price, told = rest
            new = bar_of(at, price, 0.5 if told else None)
            known = bars.boots(at).get(of_boot)
            assert known == model.get((at, of_boot))
            model[at, of_boot] = new if known is None else known.followed_by(new, known.count)
            bars.boots(at)[of_boot] = model[at, of_boot]
        elif name == "adopt":
            adopted = {field: bar_of(field[0], 3.5, 2.0) for field in rest[0]}
            known = {floor_to(at, MINUTE) for at, _ in model}
            for start, minute in by_minute(adopted | foreign_of(adopted)).items():
                assert bars.adopt(minute) == (start not in known)
            model |= {field: bar for field, bar in adopted.items() if floor_to(field[0], MINUTE) not in known}
        elif name == "pack":
            bars.pack()
        else:
            horizon = NOON + rest[0] * MINUTE
            taken = {(at, of_boot): bar for at, of_boot, bar in bars.take_before(horizon)}
            assert taken == {field: bar for field, bar in model.items() if field[0] < horizon}
            model = {field: bar for field, bar in model.items() if field[0] >= horizon}
    within = {field: bar for field, bar in model.items() if field[0] in span}
    assert {(at, of_boot): bar for at, of_boot, bar in bars.within(span)} == within
    assert {(at, of_boot): count for at, of_boot, count in bars.counts(span)} == {
        field: bar.count for field, bar in within.items()
    }
    assert sum(count for _, count in bars.totals(span)) == sum(bar.count for bar in within.values())
    assert sum(count for _, count in bars.totals(span, without=boot)) == sum(
        bar.count for (_, of_boot), bar in within.items() if of_boot != boot
    )
    assert dict(bars.of_boot(boot)) == {at: bar for (at, of_boot), bar in model.items() if of_boot == boot}
    assert {(at, of_boot): bar for at, of_boot, bar in bars} == model
    assert bars.empty == (not model)
    agree(bars.bar(span), merged(within.values()))
    if (second, boot) in model:
        assert bars.get(second, boot) == model[second, boot]
    else:
        with pytest.raises(KeyError):
            bars.get(second, boot)


def agree(found: Bar | None, right: Bar | None) -> None:
    """The sums may be rounded differently."""
    if found is None or right is None:
        assert found is right
        return
    assert found.average == pytest.approx(right.average, rel=1e-12)
    assert (found.count, found.min, found.max, found.open, found.close, found.close_volume) == (
        *(right.count, right.min, right.max, right.open, right.close, right.close_volume),
    )
    assert (found.traded is None) == (right.traded is None)
    if found.traded is not None:
        assert found.traded.volume == pytest.approx(right.traded.volume)


def test_a_minute_is_packed_when_it_does_not_change_any_more():
    bars = PairBars()
    bars.boots(NOON)["one"] = bar_of(NOON, 1.0, None)
    assert bars.pack() == 0
    bars.boots(NOON)["two"] = bar_of(NOON, 2.0, None)
    assert bars.pack() == 0
    assert bars.pack() == 2
    assert bars.pack() == 0
    bars.boots(NOON)  # opens it
    bars.pack()
    assert bars.pack() == 2


def test_bytes_that_stand_across_two_entries_are_no_entry():
    """The index is searched for two bytes, and those of an end may look like a second and a boot."""
    fields = {
        (NOON + second * SECOND, "one"): bar_of(NOON + second * SECOND, 1.0, None) for second in range(60)
    }
    minute = PackedMinute.of(NOON, fields)
    for second, boot in fields:
        assert minute.get(second, boot).count == 1
        with pytest.raises(KeyError):
            minute.get(second, "two")
    half = PackedMinute.of(NOON, dict(list(fields.items())[::2]))
    for second in range(1, 60, 2):
        with pytest.raises(KeyError):
            half.get(NOON + second * SECOND, "one")


async def test_an_hour_takes_few_bytes(autojump_clock):
    """The bars of an hour with volumes, as the service adds and packs them."""
    bars = SecondBars(boot="mine", interval=MINUTE)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3_600):
            second = NOON + number * SECOND
            times = [second + place * 90 for place in range(10)]
            prices = [60_000 + (number * 7 + place * 31) % 997 / 100 for place in range(10)]
            volumes = [(number + place * 13) % 89 / 1_000 for place in range(10)]
            sides = ["sell" if place % 3 else "buy" for place in range(10)]
            (bar,) = in_seconds(Columns(times, prices, volumes, sides)).values()
            bars.add(PAIR, second, bar, 10**15 + number * 10)
            _, version = bars.take_unflushed(100)
            bars.outbox.acknowledge([(PAIR, (second, "mine"))], version)
            if number % 10 == 0:
                await bars.pack()
                await trio.sleep(1)
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / 3_600 < 150
    assert len(bars.fields(PAIR, EVER)) == 3_600
    assert floor_to(NOON, MINUTE) == NOON
