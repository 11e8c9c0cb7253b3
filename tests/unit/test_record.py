"""Records: after the sifting exactly those updates are left that the last owner has not stored."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from marketflow.app.cluster.record import FOREVER, SKEW_SECONDS, Record, RecordState
from marketflow.app.cluster.tenancy import _Candidacy
from marketflow.app.ports import Batch, Identity, Updates
from marketflow.domain.bars import in_seconds
from marketflow.domain.columns import Columns
from marketflow.domain.periods import Span
from marketflow.domain.prices import PriceUpdate

NOON = 1_795_343_340_000
EXCHANGE = "exchange1"
KEYS = st.tuples(
    st.sampled_from(["BTCUSDT", "ETHUSDT"]), st.integers(NOON, NOON + 3), st.sampled_from([1.5, 2e-07])
)
"""So few that equal ones are frequent."""


def batch_of(*keys, number=0, at=0.0, identity=None, malformed=0, ignored_volumes=0):
    """A batch with these (symbol, timestamp, price)."""
    updates = []
    for symbol in dict.fromkeys(symbol for symbol, _, _ in keys):
        of_it = [(timestamp, price) for name, timestamp, price in keys if name == symbol]
        ids = [f"{number}-{place}" for place in range(len(of_it))] if identity else None
        columns = Columns([time for time, _ in of_it], [price for _, price in of_it], ids=ids)
        updates.append(Updates(symbol, columns, in_seconds(columns)))
    return Batch(
        exchange=EXCHANGE,
        number=number,
        received=len(keys) + malformed,
        rejected={"malformed": malformed} if malformed else {},
        updates=updates,
        received_at=NOON,
        received_monotonic=at,
        identity=identity,
        ignored_volumes=ignored_volumes,
    )


def stored(*keys):
    """The same as the window has them."""
    return [
        PriceUpdate(EXCHANGE, symbol, price, time, place) for place, (symbol, time, price) in enumerate(keys)
    ]


def keys_of(batches):
    """All updates of some batches, as a multiset."""
    return Counter(
        (each.symbol, timestamp, price)
        for batch in batches
        for each in batch.updates
        for timestamp, price in zip(each.columns.timestamps, each.columns.prices, strict=True)
    )


class Book:
    """Takes batches in."""

    def __init__(self):
        self.batches = []

    async def enter(self, batch):
        await trio.lowlevel.checkpoint()
        self.batches.append(batch)


def record(most=1_000, seconds=10.0):
    return Record(most=most, seconds=seconds)


@given(batches=st.lists(st.lists(KEYS, max_size=6), max_size=6), data=st.data())
async def test_what_the_window_lacks_enters_once(batches, data):
    """For any part of the record that the last owner has stored, in any order, beside what came before it."""
    everything = [key for batch in batches for key in batch]
    in_order = data.draw(st.permutations(everything))
    of_owner = in_order[: data.draw(st.integers(0, len(in_order)))]
    kept, book = record(), Book()
    for number, keys in enumerate(batches):
        await kept.enter(batch_of(*keys, number=number))
    before = [("BTCUSDT", NOON + 9, 1.5)]
    kept.sift(stored(*before, *of_owner), NOON)
    await kept.open(book.enter)
    assert keys_of(book.batches) + Counter(of_owner) == Counter(everything)
    assert [batch.number for batch in book.batches] == list(range(len(batches)))
    for batch in book.batches:
        assert batch.received == batch.accepted + sum(batch.rejected.values())
        for each in batch.updates:
            assert each.bars == in_seconds(each.columns)
    assert sum(batch.rejected.get("duplicate", 0) for batch in book.batches) == len(of_owner)


async def test_after_it_was_opened_batches_pass_in_order():
    kept, book = record(), Book()
    await kept.enter(batch_of(("BTCUSDT", NOON, 1.0), number=0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.open, book.enter)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(kept.enter, batch_of(("BTCUSDT", NOON, 2.0), number=1))
    assert kept.state is RecordState.PASSING
    assert [batch.number for batch in book.batches] == [0, 1]
    assert kept.kept.size == 0


async def test_a_batch_that_comes_while_the_record_enters_waits_for_those_before_it():
    kept, entered, going_on = record(), [], trio.Event()

    async def slow(batch):
        entered.append(batch.number)
        await going_on.wait()

    await kept.enter(batch_of(("BTCUSDT", NOON, 1.0), number=0))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.open, slow)
        nursery.start_soon(kept.enter, batch_of(("BTCUSDT", NOON, 2.0), number=1))
        await trio.testing.wait_all_tasks_blocked()
        assert kept.state is RecordState.ENTERING or entered == [0]
        going_on.set()
    assert entered == [0, 1]


async def test_an_update_that_reaches_us_after_the_owner_has_stored_it_is_known(autojump_clock):
    kept, book, key = record(), Book(), ("BTCUSDT", NOON, 1.0)
    kept.sift(stored(key), NOON)
    await kept.open(book.enter)
    await kept.enter(batch_of(key, key, at=trio.current_time()))
    assert keys_of(book.batches) == Counter([key])
    kept.sift(stored(key), NOON)
    await trio.sleep(SKEW_SECONDS)
    await kept.enter(batch_of(key, at=trio.current_time()))
    assert keys_of(book.batches) == Counter([key, key])


async def test_what_the_window_cannot_tell_is_counted():
    kept, book = record(), Book()
    old, new = ("BTCUSDT", NOON - 1, 1.0), ("BTCUSDT", NOON, 1.0)
    await kept.enter(batch_of(old, old, new, malformed=2, ignored_volumes=3))
    kept.sift(stored(old), NOON)
    await kept.open(book.enter)
    (batch,) = book.batches
    assert dict(batch.rejected) == {"duplicate": 1, "undecided": 1, "malformed": 2}
    assert (batch.received, batch.accepted, batch.ignored_volumes) == (5, 1, 1)


async def test_trades_with_ids_are_left_to_the_book():
    kept, book, key = record(), Book(), ("BTCUSDT", NOON, 1.0)
    await kept.enter(batch_of(key, identity=Identity(NOON)))
    kept.sift(stored(key), NOON)
    await kept.open(book.enter)
    assert keys_of(book.batches) == Counter([key])


async def test_batches_are_kept_for_some_time_and_up_to_a_number_of_updates():
    kept, key = record(most=3, seconds=10.0), ("BTCUSDT", NOON, 1.0)
    await kept.enter(batch_of(key, at=0.0))
    await kept.enter(batch_of(key, at=10.0))
    assert (kept.kept.size, kept.kept.dropped) == (2, 0)
    await kept.enter(batch_of(key, at=10.5))
    assert (kept.kept.size, kept.kept.dropped) == (2, 0)
    await kept.enter(batch_of(key, key, at=11.0))
    assert (kept.kept.size, kept.kept.dropped) == (3, 1)


async def test_it_tells_whether_all_of_the_last_seconds_is_kept(autojump_clock):
    kept, key = record(most=3, seconds=10.0), ("BTCUSDT", NOON, 1.0)
    for _ in range(4):
        assert kept.kept.reaches_back
        await kept.enter(batch_of(key, at=trio.current_time()))
    assert not kept.kept.reaches_back
    await trio.sleep(11.0)
    assert kept.kept.reaches_back
    kept.kept.keep_all()
    assert kept.kept.reaches_back


async def test_a_closed_record_forgets():
    kept, book, key = record(), Book(), ("BTCUSDT", NOON, 1.0)
    await kept.enter(batch_of(key))
    kept.close()
    await kept.enter(batch_of(key))
    assert (kept.state, kept.kept.size) == (RecordState.CLOSED, 0)
    opened = record()
    await opened.open(book.enter)
    opened.close()
    await opened.enter(batch_of(key))
    assert keys_of(book.batches) == Counter([key])


async def test_the_spans_hold_every_second_of_the_record_and_the_last_seconds_of_all_symbols():
    kept = record()
    times = [NOON + 5_999, NOON, NOON + 999, NOON + 1_000, NOON + 4_000]
    await kept.enter(batch_of(*[("BTCUSDT", time, 1.0) for time in times], ("ETHUSDT", NOON, 1.0)))
    assert kept.spans(["BTCUSDT", "ETHUSDT", "SOLUSDT"], NOON) == [
        ("BTCUSDT", Span(NOON, NOON + 1_000)),
        ("BTCUSDT", Span(NOON + 1_000, NOON + 2_000)),
        ("BTCUSDT", Span(NOON + 3_000, FOREVER)),
        ("ETHUSDT", Span(NOON, NOON + 1_000)),
        ("ETHUSDT", Span(NOON + 3_000, FOREVER)),
        ("SOLUSDT", Span(NOON + 3_000, FOREVER)),
    ]
    assert record().spans(["BTCUSDT"], NOON) == [("BTCUSDT", Span(NOON - 2_000, FOREVER))]


async def test_what_the_window_has_and_nothing_recorded_yet_is_not_taken_in_again():
    """It reaches this node just after the takeover, perhaps as the first update of its symbol."""
    kept, book, key = record(), Book(), ("BTCUSDT", NOON, 1.0)
    kept.sift(stored(key), NOON - 60_000)
    await kept.open(book.enter)
    await kept.enter(batch_of(key, at=trio.current_time()))
    assert not keys_of(book.batches)
    await kept.enter(batch_of(key, at=trio.current_time()))
    assert keys_of(book.batches) == Counter([key])


async def test_while_the_window_is_waited_for_nothing_becomes_too_old():
    kept, key = record(most=3, seconds=10.0), ("BTCUSDT", NOON, 1.0)
    await kept.enter(batch_of(key, at=0.0))
    kept.kept.keep_all()
    await kept.enter(batch_of(key, at=100.0))
    assert kept.kept.size == 2
    assert kept.kept.reaches_back
    await kept.enter(batch_of(key, key, at=200.0))
    assert not kept.kept.reaches_back


@pytest.mark.parametrize("subscribed", [True, False])
def test_of_a_venue_nothing_is_recorded_before_it_has_subscribed(subscribed):
    feeding, venue = SimpleNamespace(ready=True), SimpleNamespace(subscribed=subscribed)
    assert _Candidacy(None, feeding, venue).ready is subscribed
    assert _Candidacy(None, feeding, None).ready


async def test_nothing_gets_into_the_book_of_an_exchange_that_was_lost():
    kept, book, key = record(), Book(), ("BTCUSDT", NOON, 1.0)
    await kept.open(book.enter)
    kept.cut_off()
    await kept.enter(batch_of(key))
    assert not book.batches


# ---- beside what the last owner has spooled ----


async def test_what_a_spooled_bar_has_is_not_entered_a_second_time(autojump_clock):
    """Other seconds and symbols are not touched. Of trades with ids the book is to know the ids."""
    keys = ("BTCUSDT", NOON + 5, 1.5), ("ETHUSDT", NOON + 5, 1.5), ("BTCUSDT", NOON + 60_000, 1.5)
    spooled = {("BTCUSDT", NOON)}
    kept = record()
    await kept.enter(batch_of(*keys))
    assert list(kept.ids_of(spooled)) == []
    kept.sift([], 0, spooled)
    (batch,) = kept.kept.batches
    assert keys_of([batch]) == Counter(keys[1:])
    assert dict(batch.rejected) == {"undecided": 1}
    kept = record()
    await kept.enter(batch_of(*keys, number=7, identity=Identity(NOON)))
    assert list(kept.ids_of(spooled)) == [("BTCUSDT", ["7-0"])]


async def test_a_record_has_all_from_the_first_second_after_all_early_updates(autojump_clock):
    """Connections and clocks differ: an exchange's clock may be ahead of ours."""
    record = Record(most=100, seconds=12.0)
    await trio.sleep(5)
    began = trio.current_time()
    await record.enter(batch_of(("BTCUSDT", NOON + 9_500, 1.5), at=began + 1))
    await trio.sleep(5)
    await record.enter(batch_of(("BTCUSDT", NOON + 30_000, 1.5), at=began + 5))
    assert record.keep(began, NOON + 5_000) == NOON + 10_000
    record = Record(most=100, seconds=12.0)
    assert record.keep(began, NOON + 5_000) == NOON + 3_000
    record = Record(most=100, seconds=3.0)
    assert record.keep(began, NOON + 5_000) == NOON + 5_000
