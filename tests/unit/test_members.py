from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from wire_commands import commands_of

from marketflow.adapters.cache.members import (
    MEMBERS_PER_COMMAND,
    UpdatesPacker,
    in_twos,
    pack,
    read_member,
    window_key,
)
from marketflow.app.ports import Written
from marketflow.domain.columns import Columns

PAIR = ("exchange1", "BTCUSDT")
KEY = b"prices:exchange1:BTCUSDT"
FIRST = 1_795_341_600_000_000
finite = st.floats(min_value=5e-324, max_value=1.7976931348623157e308)


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
        Written(
            *PAIR, [FIRST + s for _, _, s in run], Columns([t for t, _, _ in run], [p for _, p, _ in run])
        )
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
        {KEY: [Written(*PAIR, range(FIRST, FIRST + count), Columns([1] * count, [1.0] * count))]}
    )
    assert number == 3
    assert [len(command) // 2 - 1 for command in commands_of(data)] == [MEMBERS_PER_COMMAND] * 2 + [1]


def test_of_equal_score_and_price_members_are_in_the_order_of_receipt():
    """Redis orders them as texts; this also holds if a sequence gets another digit."""
    sequences = [9, 10, 99, 100, 10**15, FIRST]
    data, _ = UpdatesPacker(b"boot1").pack({KEY: [Written(*PAIR, sequences, Columns([1] * 6, [7.0] * 6))]})
    ((_, _, *arguments),) = commands_of(data)
    members = arguments[1::2]
    assert members == sorted(members)
    assert len(set(members)) == 6


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
        groups.setdefault(key, []).append(Written(*pair, sequences, Columns([time] * count, [1.5] * count)))
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


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_commands_are_packed_as_they_are(arguments):
    """Any bytes are allowed: the protocol uses lengths, not separators."""
    assert commands_of(pack(*arguments)) == [arguments]
