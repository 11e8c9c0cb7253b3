from __future__ import annotations

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.cache.foreign import Ignored
from marketflow.adapters.cache.members import (
    MEMBERS_PER_COMMAND,
    UpdatesPacker,
    field_name,
    in_twos,
    is_bar,
    pack,
    pack_bars,
    read_bar,
    read_bars,
    read_field,
    read_member,
    window_key,
)
from marketflow.app.ports import Written
from marketflow.app.share.foreign_bars import MOST_A_SECOND
from marketflow.app.share.sequences import MOST
from marketflow.domain.bars import Bar

PAIR = ("exchange1", "BTCUSDT")
KEY = b"prices:exchange1:BTCUSDT"
FIRST = 1_795_341_600_000_000
finite = st.floats(min_value=5e-324, max_value=1.7976931348623157e308)


def commands_of(data):
    """Commands as the server parses them: arrays of bulk strings."""
    reader = hiredis.Reader()
    reader.feed(data)
    commands = []
    while (command := reader.gets()) is not False:
        commands.append(command)
    return commands


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2**53), finite, st.integers(0, 10**15)), min_size=1, max_size=40),
        min_size=1,
        max_size=5,
    )
)
def test_runs_are_packed_as_the_updates_that_they_are(runs):
    """Every score, price and sequence is exact, in the order of the runs."""
    written = [
        Written(*PAIR, [FIRST + s for _, _, s in run], [t for t, _, _ in run], [p for _, p, _ in run])
        for run in runs
    ]
    data, number = UpdatesPacker(b"boot1").pack({KEY: written})
    commands = commands_of(data)
    assert len(commands) == number
    found = []
    for name, key, *arguments in commands:
        assert (name, key) == (b"ZADD", KEY)
        for score, member in in_twos(arguments):
            update = read_member(PAIR, member, float(score))
            assert member.endswith(b":oot1")
            assert float(member.split(b":")[0]) == update.price
            found.append((update.timestamp, update.price, update.sequence - FIRST))
    assert found == [update for run in runs for update in run]


def test_a_command_holds_the_server_up_for_a_moment_only():
    count = 2 * MEMBERS_PER_COMMAND + 1
    data, number = UpdatesPacker(b"b").pack(
        {KEY: [Written(*PAIR, range(FIRST, FIRST + count), [1] * count, [1.0] * count)]}
    )
    assert number == 3
    assert [len(command) // 2 - 1 for command in commands_of(data)] == [MEMBERS_PER_COMMAND] * 2 + [1]


def test_of_equal_score_and_price_members_are_in_the_order_of_receipt():
    """Redis orders them as texts; this also holds if a sequence gets another digit."""
    sequences = [9, 10, 99, 100, 10**15, FIRST]
    data, _ = UpdatesPacker(b"boot1").pack({KEY: [Written(*PAIR, sequences, [1] * 6, [7.0] * 6)]})
    ((_, _, *arguments),) = commands_of(data)
    members = arguments[1::2]
    assert members == sorted(members)
    assert len(set(members)) == 6


@given(st.lists(finite, min_size=4, max_size=4), st.integers(1, MOST_A_SECOND), st.integers(0, MOST - 2))
def test_bars_are_stored_bit_by_bit(prices, count, sequence):
    low, average, price, high = sorted(prices)
    bar = Bar(count, average, low, high, price, 7_001, sequence, price, 7_002, sequence + 1)
    data, keys = pack_bars([(PAIR, (7_000, "boot1"), bar)])
    assert keys == [b"bars:exchange1:BTCUSDT"]
    ((name, key, field, value),) = commands_of(data)
    assert (name, key, field) == (b"HSET", keys[0], b"7:boot1")
    assert read_bar(value, 7_000) == bar


def test_bars_are_packed_by_exchange_and_symbol():
    """One command for each has all its fields; no bars give no command."""
    other = ("exchange2", "a b:c")
    places = [(PAIR, (1_000, "x")), (other, (1_000, "x")), (PAIR, (2_000, "x")), (PAIR, (1_000, "yy"))]
    bars = [
        (pair, field, Bar.of([field[0] + number], [float(number)]))
        for number, (pair, field) in enumerate(places, 1)
    ]
    data, keys = pack_bars(bars)
    found = {
        (pair, read_field(field)): read_bar(value, read_field(field)[0])
        for pair, (_, _, *items) in zip((PAIR, other), commands_of(data), strict=True)
        for field, value in in_twos(items)
    }
    assert found == {(pair, field): bar for pair, field, bar in bars}
    assert keys == [b"bars:exchange1:BTCUSDT", b"bars:exchange2:a b:c"]
    assert pack_bars([]) == (b"", ())


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, MEMBERS_PER_COMMAND), st.integers(0, 2**44)),
        min_size=1,
        max_size=7,
    )
)
def test_of_several_pairs_each_gets_its_own(runs):
    """They may be packed with any others, even with timestamps of other lengths."""
    groups: dict[bytes, list[Written]] = {}
    expected: dict[bytes, list[tuple[int, int]]] = {}
    sequence = FIRST
    for symbol, count, time in runs:
        pair = ("exchange1", symbol)
        sequences = range(sequence, sequence := sequence + count)
        key = window_key(pair).encode()
        groups.setdefault(key, []).append(Written(*pair, sequences, [time] * count, [1.5] * count))
        expected.setdefault(key, []).extend((time, s) for s in sequences)
    data, number = UpdatesPacker(b"boot1").pack(groups)
    commands = commands_of(data)
    assert len(commands) == number
    found: dict[bytes, list[tuple[int, int]]] = {}
    for _, key, *arguments in commands:
        assert len(arguments) <= 2 * MEMBERS_PER_COMMAND
        for score, member in in_twos(arguments):
            update = read_member(PAIR, member, float(score))
            found.setdefault(key, []).append((update.timestamp, update.sequence))
    assert found == expected


def test_of_no_updates_there_is_no_command():
    assert UpdatesPacker(b"boot1").pack({}) == (b"", 0)


@given(st.integers(0, 10**10), st.from_regex(r"[0-9a-f]{1,16}", fullmatch=True))
def test_fields_name_their_second_and_boot(second, boot):
    assert read_field(field_name((second * 1_000, boot))) == (second * 1_000, boot)


NO_BARS = [b"", b"[1]", b"{}", b"null", b"[1,2,3,4,5,6,7,8,9]", b"\xff", b"7"]
IMPOSSIBLE = [
    b"[%b]" % numbers
    for numbers in (
        b"0,1,1,1,1,7000,1,1,7000,1",
        b"-1,1,1,1,1,7000,1,1,7000,1",
        b"1,1,1,1,1,7000,%d,1,7000,1" % MOST,
        b"1,1,1,1,1,7000,1,1,8000,1",
        b"1,1,1,1,2,7000,1,1,7000,1",
    )
]


@pytest.mark.parametrize("value", [*NO_BARS, *IMPOSSIBLE])
def test_what_is_no_bar_is_told(value):
    """All of it is ignored, and a key with such a sample is none of ours."""
    with pytest.raises(ValueError, match=r"."):
        read_bar(value, 7_000)
    good, ignored = b"[1,1,1,1,1,7000,1,1,7000,1]", Ignored()
    found = read_bars(PAIR, [(b"7:a", value), (b"7:b", good), (b"7:c", value)], ignored)
    assert found == {(7_000, "b"): Bar.of([7_000], [1.0], 1)}
    assert (ignored.count, ignored.first) == (2, ("bars:exchange1:BTCUSDT", b"7:a"))
    assert is_bar(b"7:b", good)
    assert not is_bar(b"7:a", value)
    assert not is_bar(b"8:b", good)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_commands_are_packed_as_they_are(arguments):
    """Any bytes are allowed: the protocol uses lengths, not separators."""
    assert commands_of(pack(*arguments)) == [arguments]
