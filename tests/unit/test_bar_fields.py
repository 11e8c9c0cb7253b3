"""One-second bars in Redis: their fields, and the forms of their values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_commands import commands_of

from marketflow.adapters.cache.bar_fields import (
    field_name,
    is_bar,
    pack_bars,
    pack_items,
    read_bar,
    read_bars,
    read_field,
)
from marketflow.adapters.cache.foreign import Ignored, LaterForm
from marketflow.adapters.cache.keys import PLAIN
from marketflow.adapters.cache.members import in_twos, read_member
from marketflow.app.share.foreign_bars import MOST_A_SECOND
from marketflow.app.share.sequences import MOST
from marketflow.domain.bars import Bar, in_seconds
from marketflow.domain.columns import Columns
from marketflow.domain.packed_bars import pack_bar, unpack_bar

PAIR = ("exchange1", "BTCUSDT")
finite = st.floats(min_value=5e-324, max_value=1.7976931348623157e308)


@given(st.lists(finite, min_size=4, max_size=4), st.integers(1, MOST_A_SECOND), st.integers(0, MOST - 2))
def test_bars_are_stored_bit_by_bit(prices, count, sequence):
    low, average, price, high = sorted(prices)
    bar = Bar(count, average, low, high, price, 7_001, sequence, price, 7_002, sequence + 1)
    data, keys = pack_bars(pack_items([(PAIR, (7_000, "boot1"), bar)]), PLAIN)
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
    data, keys = pack_bars(pack_items(bars), PLAIN)
    found = {
        (pair, read_field(field)): read_bar(value, read_field(field)[0])
        for pair, (_, _, *items) in zip((PAIR, other), commands_of(data), strict=True)
        for field, value in in_twos(items)
    }
    assert found == {(pair, field): bar for pair, field, bar in bars}
    assert keys == [b"bars:exchange1:BTCUSDT", b"bars:exchange2:a b:c"]
    data, keys = pack_bars({}, PLAIN)
    assert not data
    assert not keys


@given(st.integers(0, 10**10), st.from_regex(r"[0-9a-f]{1,16}", fullmatch=True))
def test_fields_name_their_second_and_boot(second, boot):
    assert read_field(field_name((second * 1_000, boot))) == (second * 1_000, boot)


CUT_OFF = pack_bar(Bar.of([7_000], [1.0]), 7_000)[:-1]
NO_BARS = [b"", b"[1]", b"{}", b"null", b"[1,2,3,4,5,6,7,8,9]", b"\xff", b"7", b"\0", b"\1\0"]
NO_BARS += [b"\2", b"\2\1", b"\2\xff", b"\3", b"\3\1\0", b"\3\xff\xff", CUT_OFF]
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
    assert (ignored.foreign.count, ignored.foreign.first) == (2, (PAIR, b"7:a"))
    assert not ignored.later.count
    assert is_bar(b"7:b", good)
    assert not is_bar(b"7:a", value)
    assert not is_bar(b"8:b", good)


@pytest.mark.parametrize("form", [4, 31])
def test_a_bar_of_a_later_version_is_told_apart(form):
    """It is no bar of ours yet, but its pair is one of ours."""
    value, ignored = bytes([form]) + b"anything", Ignored()
    with pytest.raises(LaterForm, match=f"form {form} "):
        read_bar(value, 7_000)
    assert read_bars(PAIR, [(b"7:a", value), (b"monday", b"closed")], ignored) == {}
    assert (ignored.later.count, ignored.later.first) == (1, (PAIR, b"7:a"))
    assert ignored.foreign.count == 1
    assert is_bar(b"7:a", value)
    assert not is_bar(b"monday", value)


def bar_of(updates, *, prices, volumes):
    times = [7_000 + 7 * number for number in range(updates)]
    sides = ["sell" if number % 3 else "buy" for number in range(updates)]
    columns = Columns(times, prices, [0.1 * number + 0.1 for number in range(updates)], sides)
    if not volumes:
        columns = Columns(times, prices)
    (bar,) = in_seconds(columns).values()
    return bar.shifted(10**15)


@pytest.mark.parametrize(
    ("updates", "volumes", "scaled", "most"),
    [
        (1, False, True, 29),
        (1, True, True, 37),
        (2, False, False, 45),
        (2, True, False, 77),
        (100, False, True, 40),
        (100, True, True, 80),
        (100, False, False, 61),
        (100, True, False, 101),
    ],
)
def test_a_bar_takes_few_bytes(updates, volumes, scaled, most):
    prices = [100.0 + number * 31 % 57 / (100 if scaled else 3) for number in range(updates)]
    bar = bar_of(updates, prices=prices, volumes=volumes)
    packed = pack_bar(bar, 7_000)
    assert unpack_bar(packed, 7_000) == bar
    assert len(packed) <= most


@given(
    st.lists(st.integers(0, 10**7), min_size=1, max_size=5),
    st.integers(0, 10**11),
    st.sampled_from([1, 100, 1_000, 10**4, 10**8, 10**12]),
    st.booleans(),
)
def test_prices_of_few_digits_are_packed_exactly(steps, least, unit, volumes):
    bar = bar_of(len(steps), prices=[(least + step) / unit for step in steps], volumes=volumes)
    assert unpack_bar(pack_bar(bar, 7_000), 7_000) == bar


def test_what_version_0_1_has_written_is_read():
    """These bytes are its own."""
    name = b"1795353812:a1b2c3d4"
    value = (
        b"[3,5.992310449541053e307,2e-7,1.7976931348623157e308,104586.36139215008,1795353812005,"
        b"1795353800000123,1.7976931348623157e308,1795353812977,1795353800000125]"
    )
    prices = [104586.36139215008, 2e-07, 1.7976931348623157e308]
    bar = Bar.of([1795353812005, 1795353812005, 1795353812977], prices, 1795353800000123)
    assert read_bars(PAIR, [(name, value)], Ignored()) == {(1795353812000, "a1b2c3d4"): bar}
    member = b"104586.36139215008:0hoee5duwsb:c3d4"
    update = read_member(PAIR, member, 1795353812005.0)
    assert (update.price, update.sequence) == (prices[0], 1795353800000123)
