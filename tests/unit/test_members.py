from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_commands import commands_of

from marketflow.adapters.cache.foreign import LaterForm
from marketflow.adapters.cache.keys import PLAIN
from marketflow.adapters.cache.members import (
    MEMBERS_PER_COMMAND,
    MOST_ID,
    UpdatesPacker,
    in_twos,
    pack,
    read_id,
    read_member,
)
from marketflow.app.ports import Written
from marketflow.domain.columns import MOST_VOLUME, Columns

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
        key = PLAIN.window(pair)
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


texts = st.text(st.sampled_from("0123456789abcdefXYZ_-.%"), min_size=1, max_size=MOST_ID)
volumes = st.none() | st.floats(0, MOST_VOLUME)


@given(
    st.lists(
        st.tuples(st.floats(1e-9, 1e9), volumes, st.sampled_from(["buy", "sell", None]), st.none() | texts),
        min_size=1,
        max_size=20,
    ),
    st.booleans(),
)
def test_volume_side_and_id_come_back(rows, plain_before):
    """Of each update those that it has, also beside updates that have none of them."""
    rows = [
        (price, volume, side if volume is not None else None, number) for price, volume, side, number in rows
    ]
    prices, told, sides, ids = (list(column) for column in zip(*rows, strict=True))
    columns = Columns([1] * len(rows), prices, told, sides, ids)
    runs = [Written(*PAIR, range(FIRST, FIRST + len(rows)), columns)]
    if plain_before:
        runs.insert(0, Written(*PAIR, [FIRST - 1], Columns([1], [7.0])))
    data, _ = UpdatesPacker(b"boot1").pack({KEY: runs})
    ((_, _, *arguments),) = commands_of(data)
    members = arguments[1::2][plain_before:]
    found = [read_member(PAIR, member, 1.0) for member in members]
    assert [(each.price, each.volume, each.side, each.id) for each in found] == rows
    assert [read_id(member) for member in members] == ids


@pytest.mark.parametrize(
    "told",
    [
        b"3",
        b"3:1.0",
        b"3:1.0:buy",
        b"3:1.0:buy:",
        b"3:1.0:bye:7",
        b"3::buy:7",
        b"3:-1:buy:7",
        b"3:x:buy:7",
        b"3:1.0:buy:7:8",
        b"3:1.0:buy:" + b"9" * (MOST_ID + 1),
        b"3:1.0:buy:\xff",
        b"3:nan::7",
    ],
)
def test_what_is_not_of_the_form_is_refused(told):
    with pytest.raises(ValueError):  # noqa: PT011 - any of them
        read_member(PAIR, b"1.5:00000000001:boot:" + told, 1.0)


def test_a_later_form_says_so():
    with pytest.raises(LaterForm):
        read_member(PAIR, b"1.5:00000000001:boot:4:1.0", 1.0)


def test_of_no_updates_there_is_no_command():
    assert UpdatesPacker(b"boot1").pack({}) == (b"", 0)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_commands_are_packed_as_they_are(arguments):
    """Any bytes are allowed: the protocol uses lengths, not separators."""
    assert commands_of(pack(*arguments)) == [arguments]
