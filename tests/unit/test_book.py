from __future__ import annotations

import pytest
import trio
from builders import EXCHANGES, NOON, World, batch_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from marketflow.adapters.cache.memory import MemoryWindow
from marketflow.app.share.book import Book
from marketflow.app.share.buffers import FLUSH_UPDATES
from marketflow.app.share.ledger import OVERFLOW, SHUTDOWN
from marketflow.app.share.sequences import PER_MS
from marketflow.domain.periods import MINUTE, Span

EVER = Span(0, 10**15)


def book_of(*, limit=1_000_000, boot="boot1"):
    book = Book(
        boot=boot,
        limits=dict.fromkeys(EXCHANGES, limit),
        window_length=MINUTE,
        replay_memory=2**20,
        interval=MINUTE,
    )
    book.begin(NOON)
    return book


class BookMachine(RuleBasedStateMachine):
    """The book alone, step by step: updates are pending, in flight, cached, expired or dropped."""

    LIMIT = 25

    def __init__(self):
        super().__init__()
        self.book = trio.run(limited_book, self.LIMIT)
        self.window = MemoryWindow(boot="boot1")
        self.now = NOON
        self.accepted = dict.fromkeys(EXCHANGES, 0)
        self.rejected = dict.fromkeys(EXCHANGES, 0)
        self.cached = dict.fromkeys(EXCHANGES, 0)
        self.dropping = False

    @rule(
        exchange=st.sampled_from(EXCHANGES),
        ages=st.lists(st.sampled_from([0, 1, 30_000, 59_999, 60_000, 60_001]), max_size=12),
        rejected=st.integers(0, 2),
    )
    def enter(self, exchange, ages, rejected):
        # last_accepted is in Trio's time; its value does not matter here.
        updates = [("BTCUSDT", float(n + 1), self.now - age) for n, age in enumerate(ages)]
        trio.run(enter_one, self.book, batch_of(exchange, updates, rejected=rejected))
        self.accepted[exchange] += len(ages)
        self.rejected[exchange] += rejected

    @rule(ms=st.sampled_from([1, 999, 20_000, 61_000]))
    def wait(self, ms):
        self.now += ms

    @precondition(lambda self: len(self.book.flushes.in_flight) < 2)
    @rule()
    def begin(self):
        before = list(self.book.flushes.in_flight)
        flush = self.book.flushes.next(self.window, self.now)
        assert list(self.book.flushes.in_flight) == before + ([flush] if flush else [])

    @precondition(lambda self: self.book.flushes.in_flight)
    @rule()
    def acknowledge(self):
        oldest, *others = self.book.flushes.in_flight
        for exchange, count in oldest.counts.items():
            self.cached[exchange] += count
        trio.run(acknowledge, self.book)
        assert list(self.book.flushes.in_flight) == others

    @rule()
    def expire(self):
        self.book.flushes.expire(self.now)

    @rule(dropping=st.booleans())
    def decide(self, dropping):
        self.book.buffers.set_dropping(dropping)
        self.dropping = dropping

    @rule()
    def give_up(self):
        self.book.flushes.drop_pending()
        assert all(ledger.pending == 0 for ledger in self.book.ledgers.values())

    @invariant()
    def both_equations_hold(self):
        for exchange, ledger in self.book.ledgers.items():
            assert ledger.accepted == self.accepted[exchange]
            assert ledger.rejected.total() == self.rejected[exchange]
            assert ledger.received == ledger.accepted + ledger.rejected.total()
            lost = ledger.expired + ledger.dropped.total()
            assert ledger.accepted == ledger.cached + lost + ledger.pending
            assert ledger.cached == self.cached[exchange]
            assert ledger.pending >= 0

    @invariant()
    def memory_is_bounded_while_the_window_is_away(self):
        if self.dropping:
            for exchange, ledger in self.book.ledgers.items():
                on_its_way = sum(flush.counts.get(exchange, 0) for flush in self.book.flushes.in_flight)
                assert ledger.pending <= max(self.LIMIT, on_its_way)

    @invariant()
    def the_bars_tell_of_every_accepted_update(self):
        for exchange, accepted in self.accepted.items():
            fields = self.book.bars.fields((exchange, "BTCUSDT"), EVER)
            assert sum(bar.count for bar in fields.values()) == accepted


async def limited_book(limit):
    return book_of(limit=limit)  # It notes when it began, in Trio's time.


async def enter_one(book, batch):
    book.apply(batch)


async def acknowledge(book):
    book.flushes.acknowledge()


BookMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestBook = BookMachine.TestCase


async def test_sequences_grow_in_the_order_of_receipt(autojump_clock):
    """They grow over all symbols of an exchange, and are greater than those of earlier boots."""
    book, window = book_of(), MemoryWindow(boot="boot1")
    for n in range(6):
        updates = [("BTCUSDT", 1.0, NOON), ("ETHUSDT", 1.0, NOON)] * 2
        book.apply(batch_of(EXCHANGES[n % 2], updates, number=n // 2))
    flush = book.flushes.next(window, NOON).encoded.flush
    for exchange in EXCHANGES:
        sequences = [
            sequence for run in flush.updates if run.exchange == exchange for sequence in run.sequences
        ]
        assert sequences == sorted(set(sequences))
        assert len(sequences) == 12
        assert min(sequences) == NOON * PER_MS


async def test_a_flush_is_of_bounded_size_and_shared_by_the_exchanges(autojump_clock):
    """An exchange that floods does not make others wait for its millions of updates."""
    book, window = book_of(), MemoryWindow(boot="boot1")
    for _ in range(60):
        book.apply(batch_of("exchange1", [("BTCUSDT", 1.0, NOON)] * 1_000))
    book.apply(batch_of("exchange2", [("BTCUSDT", 1.0, NOON)] * 10))
    flush = book.flushes.next(window, NOON)
    assert flush.counts["exchange2"] == 10
    assert sum(flush.counts.values()) <= FLUSH_UPDATES
    book.flushes.acknowledge()
    written = flush.counts["exchange1"]
    while book.flushes.next(window, NOON):
        assert sum(book.flushes.in_flight[0].counts.values()) <= FLUSH_UPDATES
        written += book.flushes.in_flight[0].counts.get("exchange1", 0)
        book.flushes.acknowledge()
    assert written == 60_000
    assert book.flushes.drained


async def test_overflow_drops_the_oldest(autojump_clock):
    book, window = book_of(limit=10), MemoryWindow(boot="boot1")
    book.buffers.set_dropping(True)
    for n in range(5):
        book.apply(batch_of("exchange1", [("BTCUSDT", 10.0 * n + k, NOON) for k in range(1, 5)]))
    assert book.ledgers["exchange1"].dropped == {OVERFLOW: 10}
    kept = []
    while book.flushes.next(window, NOON):
        kept += [
            price for run in book.flushes.in_flight[0].encoded.flush.updates for price in run.columns.prices
        ]
        book.flushes.acknowledge()
    assert kept == [23.0, 24.0, 31.0, 32.0, 33.0, 34.0, 41.0, 42.0, 43.0, 44.0]


async def test_a_position_is_settled_when_all_up_to_it_is(autojump_clock):
    book, window = book_of(), MemoryWindow(boot="boot1")
    assert book.flushes.settled(book.flushes.position())
    book.apply(batch_of("exchange1", [("BTCUSDT", 1.0, NOON)]))
    position = book.flushes.position()
    assert not book.flushes.settled(position)
    book.flushes.next(window, NOON)
    book.apply(batch_of("exchange1", [("BTCUSDT", 1.0, NOON)]))
    assert not book.flushes.settled(position)
    book.flushes.acknowledge()
    assert book.flushes.settled(position)
    assert not book.flushes.settled(book.flushes.position())


async def test_what_expires_settles_nothing_that_came_before_it(autojump_clock):
    """A flush is in flight, and later updates are too old for the window."""
    book, window = book_of(), MemoryWindow(boot="boot1")
    book.apply(batch_of("exchange1", [("BTCUSDT", 1.0, NOON)]))
    position = book.flushes.position()
    book.flushes.next(window, NOON)
    book.apply(batch_of("exchange1", [("BTCUSDT", 1.0, NOON - 70_000)] * 5))
    book.flushes.next(window, NOON)
    assert book.ledgers["exchange1"].expired == 5
    assert not book.flushes.settled(position)
    assert not book.flushes.bars_settled(position)
    book.flushes.acknowledge()
    assert book.flushes.settled(position)
    assert book.flushes.bars_settled(position)
    assert not book.flushes.bars_settled(book.flushes.position())
    book.flushes.acknowledge()
    assert book.flushes.bars_settled(book.flushes.position())


async def test_bars_are_settled_when_all_of_them_are(autojump_clock, monkeypatch):
    """A flush takes a limited number, and forgotten bars are not waited for."""
    monkeypatch.setattr("marketflow.app.share.flushes.FLUSH_BARS", 2)
    book, window = book_of(), MemoryWindow(boot="boot1")
    book.apply(batch_of("exchange1", [("BTCUSDT", 1.0, NOON + second * 1_000) for second in range(5)]))
    position = book.flushes.position()
    for _ in range(2):
        book.flushes.next(window, NOON)
        book.flushes.acknowledge()
        assert book.flushes.settled(position)
        assert not book.flushes.bars_settled(position)
    book.bars.forget(NOON + 60_000)
    assert book.flushes.bars_settled(position)


async def test_what_was_given_up_on_its_way_is_counted_once(autojump_clock):
    """A late acknowledgement of dropped updates changes nothing."""
    book, window = book_of(), MemoryWindow(boot="boot1")
    book.apply(batch_of("exchange1", [("BTCUSDT", 1.0, NOON)] * 3))
    book.flushes.next(window, NOON)
    book.apply(batch_of("exchange1", [("BTCUSDT", 1.0, NOON)] * 2))
    book.flushes.drop_pending()
    book.flushes.acknowledge()
    ledger = book.ledgers["exchange1"]
    assert (ledger.cached, ledger.pending, ledger.dropped) == (0, 0, {SHUTDOWN: 5})


async def test_latency_is_from_receipt_to_acknowledgement(autojump_clock):
    """It is measured for every cached update, and not for expired, pending or dropped ones."""
    book, window = book_of(), MemoryWindow(boot="boot1")
    book.apply(batch_of("exchange1", [("BTCUSDT", 1.0, NOON), ("ETHUSDT", 1.0, NOON)]))
    book.apply(batch_of("exchange1", [("BTCUSDT", 1.0, NOON - 60_001)] * 5))
    await trio.sleep(0.25)
    book.apply(batch_of("exchange2", [("BTCUSDT", 1.0, NOON)] * 3))
    book.flushes.next(window, NOON)
    await trio.sleep(0.25)
    assert book.flushes.latency.read().count == 0
    book.apply(batch_of("exchange2", [("BTCUSDT", 1.0, NOON)] * 7))
    book.flushes.acknowledge()
    book.flushes.drop_pending()
    latency = book.flushes.latency.read()
    at_most = dict(latency.buckets)
    assert (at_most[0.1], at_most[0.25], at_most[0.5], latency.count) == (0, 3, 5, 5)
    assert latency.sum == 3 * 0.25 + 2 * 0.5


async def test_a_batch_without_updates_is_no_sign_of_life(autojump_clock):
    """An exchange that sends only garbage is stale."""
    world = World()
    await trio.sleep(5)
    world.send("exchange1", [], rejected=7)
    assert "exchange1" not in world.book.last_accepted
    world.send_one(1.0)
    assert world.book.last_accepted["exchange1"] == 5.0
    world.check_ledgers()


async def test_whoever_waits_for_room_can_be_cancelled(autojump_clock):
    """Then its batch has not entered, and nothing is counted."""
    book = book_of(limit=5)
    await book.enter(batch_of("exchange1", [("BTCUSDT", 1.0, NOON)] * 5))
    with pytest.raises(trio.TooSlowError), trio.fail_after(1):
        await book.enter(batch_of("exchange1", [("BTCUSDT", 1.0, NOON)]))
    assert book.ledgers["exchange1"].accepted == 5


async def test_any_number_of_flushes_may_have_expired():
    """After a long pause any number of updates may follow them."""
    book, window = book_of(limit=4), MemoryWindow(boot="boot1")
    for number in range(2_000):
        book.apply(batch_of("exchange1", [("BTCUSDT", 1.0, NOON)], number=number))
    book.apply(batch_of("exchange1", [("BTCUSDT", 2.0, NOON + MINUTE + 1)], number=2_000))
    book.bars.take_unflushed(10)
    flush = book.flushes.next(window, NOON + MINUTE + 1)
    assert flush.counts == {"exchange1": 1}
    assert book.ledgers["exchange1"].expired == 2_000
    assert book.flushes.next(window, NOON + MINUTE + 1) is None
