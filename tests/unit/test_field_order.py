"""Hashes of bars in order, against their fields one by one."""

from __future__ import annotations

import random
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marketflow.adapters.cache import field_order
from marketflow.adapters.cache.bar_fields import field_name, read_bars, read_minutes
from marketflow.adapters.cache.field_order import FieldOrder
from marketflow.adapters.cache.foreign import Ignored
from marketflow.app.share.foreign_bars import LATEST
from marketflow.domain.bars import Bar
from marketflow.domain.packed_bars import pack_bar
from marketflow.domain.packed_minute import by_minute
from marketflow.domain.periods import SECOND

PAIR = ("exchange1", "BTCUSDT")
fields = st.tuples(st.integers(0, 300).map(lambda second: second * SECOND), st.sampled_from(["a", "b", "10"]))
hashes = st.lists(st.lists(fields, unique=True, max_size=30), max_size=6)


def value_of(field, price=1.5):
    return pack_bar(Bar.of([field[0] + 3], [price], field[0]), field[0])


def hash_of(of_fields):
    return {field_name(field): value_of(field) for field in of_fields}


@given(hashes, st.integers(0, 3))
def test_what_was_read_before_changes_no_minutes(several, spare):
    order = FieldOrder()
    with mock.patch.object(field_order, "SPARE", spare):
        for of_fields in several:
            values = hash_of(of_fields)
            expected = by_minute(read_bars(PAIR, values.items(), Ignored()))
            assert order.minutes(values) == expected
            found = order.minutes(values)
            assert {start: list(minute) for start, minute in found.items()} == {
                start: list(minute) for start, minute in expected.items()
            }


def test_an_order_does_not_keep_the_fields_of_all_hashes():
    """Else each hash would be searched for millions of fields."""
    order = FieldOrder()
    for number in range(50):
        order.minutes(hash_of([((number * 100 + second) * SECOND, "a") for second in range(100)]))
    assert len(order) <= 100 + 100 + field_order.SPARE


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"monday", value_of((7_000, "a"))),
        (b"7:a\n8:b", value_of((7_000, "a"))),
        (b"07:a", value_of((7_000, "a"))),
        (b"%d:a" % (LATEST // SECOND + 1), value_of((7_000, "a"))),
        (b"7:a", b""),
        (b"7:a", b"\3"),
        (b"7:a", b"[1,1,1,1,1,7000,1,1,7000,1]"),
        (b"7:a", value_of((7_000, "a")) + bytes(255)),
    ],
)
def test_other_hashes_are_read_bar_by_bar(name, value):
    """And the order of the next one is right."""
    order, rng = FieldOrder(), random.Random(1)
    several = [((second * SECOND, "b")) for second in range(100)]
    rng.shuffle(several)
    good = hash_of(several)
    with pytest.raises(ValueError, match=r"."):
        order.minutes(good | {name: value})
    found = read_minutes(PAIR, good | {name: value}, order, Ignored())
    right = read_bars(PAIR, (good | {name: value}).items(), Ignored())
    assert found == by_minute(right)
    assert order.minutes(good) == by_minute(read_bars(PAIR, good.items(), Ignored()))
