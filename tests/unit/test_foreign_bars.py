from __future__ import annotations

import msgspec
import pytest
import trio
from builders import NOON, SEEDS, World, run_virtual, until
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marketflow.adapters.cache.bar_fields import read_bar
from marketflow.app.share.foreign_bars import LATEST, MOST_A_SECOND, is_foreign
from marketflow.app.share.second_bars import SecondBars
from marketflow.app.share.sequences import FOLLOWED, MOST
from marketflow.domain.bars import BAR_WIDTH, Bar, in_seconds
from marketflow.domain.columns import Columns
from marketflow.domain.packed_bars import FORM, pack_bar, unpack_bar
from marketflow.domain.packed_minute import by_minute
from marketflow.domain.periods import MINUTE, Span

PAIR = ("exchange1", "BTCUSDT")
SECOND = NOON - 10 * MINUTE
GOOD = Bar(2, 1.5, 1.0, 2.0, 1.0, SECOND, 5, 2.0, SECOND + 999, 6)

numbers = st.one_of(
    st.sampled_from(
        [
            0,
            1,
            -1,
            2,
            2**31,
            MOST_A_SECOND,
            2**53,
            FOLLOWED - 1,
            FOLLOWED,
            MOST - 1,
            MOST,
            2**63,
            2**64,
            10**30,
        ]
    ),
    st.integers(),
)
times = st.one_of(st.integers(SECOND - 1, SECOND + BAR_WIDTH), numbers)
prices = st.one_of(
    st.sampled_from([0.0, -1.0, 5e-324, 1.0, 2.0, 1.7976931348623157e308, float("inf"), float("nan")]),
    st.floats(),
)
any_bars = st.builds(Bar, numbers, prices, prices, prices, prices, times, numbers, prices, times, numbers)
"""Any ten values of the right types; few can be bars."""
sound = st.builds(
    lambda prices, count, times, sequences: Bar(
        count,
        prices[1],
        prices[0],
        prices[3],
        prices[2],
        min(times),
        min(sequences),
        prices[2],
        max(times),
        max(sequences),
    ),
    st.lists(st.floats(5e-324, 1.7976931348623157e308), min_size=4, max_size=4).map(sorted),
    st.integers(1, MOST_A_SECOND),
    st.tuples(*[st.integers(SECOND, SECOND + BAR_WIDTH - 1)] * 2),
    st.tuples(*[st.one_of(st.integers(0, MOST - 1), st.just(MOST - 1), st.just(FOLLOWED - 1))] * 2),
)
nearly = st.builds(
    lambda bar, changes: msgspec.structs.replace(bar, **changes),
    sound,
    st.fixed_dictionaries(
        {},
        optional={
            "count": numbers,
            "average": prices,
            "min": prices,
            "close": prices,
            "open_time": times,
            "open_sequence": numbers,
        },
    ),
)


@settings(deadline=None, max_examples=40)
@given(found=st.lists(st.one_of(any_bars, nearly, sound), min_size=1, max_size=4), seed=SEEDS)
@example(found=[msgspec.structs.replace(GOOD, count=0)] * 2, seed=1)
@example(found=[msgspec.structs.replace(GOOD, count=1), msgspec.structs.replace(GOOD, count=-1)], seed=1)
@example(found=[msgspec.structs.replace(GOOD, open_sequence=MOST - 1, close_sequence=MOST - 1)], seed=1)
@example(found=[msgspec.structs.replace(GOOD, count=MOST_A_SECOND)] * 4, seed=1)
@example(found=[msgspec.structs.replace(GOOD, count=MOST_A_SECOND + 1)], seed=1)
def test_any_bar_is_ignored_or_harms_nothing(found, seed):
    """It merges with any others, and what this boot makes beside it is no foreign bar to the next one."""

    async def play():
        world = World()
        for number, bar in enumerate(found):
            world.window.stored_bars.setdefault(PAIR, {})[SECOND, f"other{number}"] = bar
        good = [bar for bar in found if not is_foreign(bar, SECOND, BAR_WIDTH)]
        async with world.running():
            await until(lambda: world.standing.history_known)
            world.send_one(1.0)
            await until(lambda: world.flusher.up and world.book.flushes.drained)
            await trio.sleep(3)
            whole = world.book.bars.bar(PAIR, Span(SECOND, SECOND + BAR_WIDTH))
            assert (whole is None) == (not good)
            if whole is not None:
                assert whole.count == sum(bar.count for bar in good)
                assert not is_foreign(msgspec.structs.replace(whole, count=1), SECOND, BAR_WIDTH)
                (row,) = [row for row in world.store.rows.values() if row.end <= NOON]
                assert row.bar == msgspec.structs.replace(whole, open_sequence=0, close_sequence=0)
            following = world.book.bars.others.next_sequences.get(PAIR[0], 0)
            assert following <= FOLLOWED
            for _, (second, boot), bar in world.book.bars:
                if boot == world.book.boot:
                    assert not is_foreign(bar, second, BAR_WIDTH)
                    assert bar.open_sequence >= following

    run_virtual(play)


@given(st.one_of(any_bars, nearly, sound))
def test_what_is_read_from_redis_is_what_is_not_foreign(bar):
    try:
        read = read_bar(msgspec.json.encode(msgspec.structs.astuple(bar)[:10]), SECOND)
    except ValueError:
        assert is_foreign(bar, SECOND, BAR_WIDTH)
    else:
        assert read == bar
        assert not is_foreign(bar, SECOND, BAR_WIDTH)


@given(sound)
def test_what_a_boot_can_make_is_read_as_it_was_packed(bar):
    packed = pack_bar(bar, SECOND)
    assert unpack_bar(packed, SECOND) == bar
    assert packed[0] == FORM
    if not is_foreign(bar, SECOND, BAR_WIDTH):
        assert read_bar(packed, SECOND) == bar


@given(st.binary(max_size=70).map(lambda data: bytes([FORM]) + data))
def test_any_bytes_are_no_bar_or_a_possible_one(data):
    try:
        read = read_bar(data, SECOND)
    except ValueError:
        return
    assert not is_foreign(read, SECOND, BAR_WIDTH)


@given(sound)
def test_whatever_a_boot_can_make_is_taken(bar):
    if bar.open_time == bar.close_time and bar.open_sequence > bar.close_sequence:
        return
    assert not is_foreign(bar, SECOND, BAR_WIDTH)
    assert is_foreign(bar, SECOND + BAR_WIDTH, BAR_WIDTH)
    assert is_foreign(bar, SECOND + 1, MINUTE)
    assert not is_foreign(bar, SECOND, MINUTE)


def test_the_last_second_that_there_is():
    last = LATEST - LATEST % BAR_WIDTH - BAR_WIDTH
    assert not is_foreign(Bar.of([last], [1.0], MOST - 1), last, BAR_WIDTH)
    assert is_foreign(Bar.of([last + BAR_WIDTH], [1.0]), last + BAR_WIDTH, BAR_WIDTH)


@pytest.mark.parametrize("sequence", [FOLLOWED, MOST - 1])
def test_one_great_sequence_does_not_keep_us_from_following_others(sequence):
    bars = SecondBars(boot="boot1", interval=MINUTE)
    fields = {(SECOND, "x"): Bar.of([SECOND], [1.0], sequence), (SECOND, "y"): Bar.of([SECOND], [1.0], 77)}
    bars.adopt(PAIR, fields)
    assert bars.others.next_sequences == {PAIR[0]: 78}
    assert len(bars.fields(PAIR, Span(SECOND, SECOND + 1))) == 2


@pytest.mark.parametrize("sequence", [FOLLOWED - 1, FOLLOWED, MOST - 1, 2**63])
async def test_foreign_bars_of_a_minute_do_not_steer_our_sequences(sequence):
    """Nor do they hide the others. Bars of whole minutes are looked at later."""
    bars = SecondBars(boot="boot1", interval=MINUTE)
    good = Bar.of([SECOND], [1.0], 77)
    foreign = msgspec.structs.replace(
        good, close_time=SECOND + 5_000, open_sequence=sequence, close_sequence=sequence
    )
    bars.adopt_minutes(PAIR, by_minute({(SECOND, "x"): foreign, (SECOND, "y"): good}).values())
    assert bars.others.next_sequences == {PAIR[0]: 78}
    assert bars.fields(PAIR, Span(SECOND, SECOND + 1)) == {(SECOND, "y"): good}


async def test_of_a_minute_of_foreign_bars_nothing_is_left():
    bars = SecondBars(boot="boot1", interval=MINUTE)
    foreign = msgspec.structs.replace(Bar.of([SECOND], [1.0], 77), close_time=SECOND + 5_000)
    bars.adopt_minutes(PAIR, by_minute({(SECOND, "x"): foreign}).values())
    assert bars.bar(PAIR, Span(SECOND, SECOND + 1)) is None
    assert not bars.pairs
    assert bars.newest_bars.of(PAIR) is None


def test_sums_of_the_greatest_volumes_are_possible():
    """Each addition is rounded, so a sum may be a little greater than its limit."""
    (one,) = in_seconds(Columns([SECOND], [1e262], [1e18], ["buy"])).values()
    bar = one
    for number in range(1, 34):
        bar = bar.followed_by(one, number)
    assert bar.traded.quote > 34 * 1e280
    assert not is_foreign(bar, SECOND, BAR_WIDTH)
