from __future__ import annotations

import random

import pytest
import trio
from builders import EXCHANGES, NOON, SYMBOLS, World, play, until
from structlog.testing import capture_logs

from marketflow.adapters.db.memory import MemoryStore
from marketflow.app.ports import Aggregate
from marketflow.app.share import flushes
from marketflow.app.share.comparison_schedule import COMPARISON_SECONDS
from marketflow.app.share.sequences import PER_MS
from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR, MINUTE, SECOND, Range, Span

PAIR = (EXCHANGES[0], SYMBOLS[0])
REWRITTEN = "rows missing from PostgreSQL"


class OlderStore(MemoryStore):
    """Can return to an older state, as after a failover, and records writes."""

    def __init__(self, interval=MINUTE):
        super().__init__(interval)
        self.written = 0

    async def write(self, aggregates):
        await super().write(aggregates)
        self.written += len(aggregates)

    def fail_over(self, keep):
        """A standby takes over, which has only the rows that are to be kept."""
        self.rows = {key: row for key, row in self.rows.items() if keep(key)}
        self.away = True
        self.away = False


def world_of(**options):
    options.setdefault("flush_interval", 0.5)
    return World(store=OlderStore(), **options)


# ---- rows are made again ----


@pytest.mark.parametrize("window_away", [False, True])
@pytest.mark.parametrize(
    "keep",
    [
        pytest.param(lambda _: False, id="empty"),
        pytest.param(lambda key: key[2] <= NOON + 2 * MINUTE, id="older"),
        pytest.param(lambda key: key[1] == SYMBOLS[0] or key[2] % (2 * MINUTE), id="with holes"),
    ],
)
async def test_rows_that_the_store_has_lost_are_written_again(autojump_clock, keep, window_away):
    """All acknowledged rows whose bars the book still has are written, even without Redis."""
    world = world_of()
    async with world.running():
        await trio.sleep(60)  # A boot before may have updates of the first minute.
        await play(world, 5 * 60 + 3)
        world.check_rows(NOON + 6 * MINUTE)
        world.window.away = window_away
        await trio.sleep(3)
        with capture_logs() as logs:
            world.store.fail_over(keep)
            await trio.sleep(4)
        world.check_rows(NOON + 6 * MINUTE)
        assert [log["event"] for log in logs].count(REWRITTEN) == 1


async def test_rows_are_written_again_while_the_clock_is_days_ahead(autojump_clock):
    """The data decides what is compared, not a wrong clock."""
    world = world_of()
    async with world.running():
        await play(world, 2 * 60 + 3)
        world.clock.offset = 3 * 24 * HOUR
        await trio.sleep(2)
        world.store.fail_over(lambda _: False)
        await trio.sleep(4)
        world.check_rows(NOON + 2 * MINUTE)


async def test_rows_that_were_lost_while_the_clock_was_days_behind_are_written_again(autojump_clock):
    """They are looked for at once. By that clock their intervals are not closed yet."""
    world = world_of()
    async with world.running():
        await play(world, 2 * 60 + 3)
        world.clock.offset = -3 * 24 * HOUR
        await trio.sleep(2)
        world.store.fail_over(lambda _: False)
        await trio.sleep(4)
        world.clock.offset = 0
        await trio.sleep(4)
        world.check_rows(NOON + 2 * MINUTE)


async def bar_in_redis(world):
    """Our bar of the minute before us, with one update, once Redis has it."""
    await until(lambda: world.flusher.up)
    world.send_one(5.0, age=10 * SECOND)
    await until(lambda: world.book.flushes.drained)
    return world.book.bars.bar(PAIR, Span(NOON - MINUTE, NOON))


async def test_a_row_that_another_boot_has_made_of_our_bars_is_not_added_to_them(autojump_clock):
    """We stood still, and the other found our bars in Redis. It has written a row of the time before us."""
    world = world_of()
    world.store.away = True
    async with world.running():
        bar = await bar_in_redis(world)
        world.store.rows[*PAIR, NOON] = Aggregate(*PAIR, NOON, bar)
        world.store.away = False
        await trio.sleep(5)
    assert world.store.rows[*PAIR, NOON].bar.count == 1


async def test_a_row_that_another_boot_has_made_of_some_of_our_bars_is_not_added_to_them(autojump_clock):
    """We were cut off from both stores, and have the database back first. Only Redis shows who wrote it."""
    world = world_of()
    world.store.away = True
    async with world.running():
        bar = await bar_in_redis(world)
        world.window.away, world.store.taken, world.store.away = True, True, False
        await until(lambda: world.share.leases.database.another)
        world.send_one(6.0, age=20 * SECOND)
        world.store.rows[*PAIR, NOON] = Aggregate(*PAIR, NOON, bar)
        theirs = Bar.of([NOON - 30 * SECOND] * 2, [7.0, 8.0], (NOON + 1) * PER_MS)
        world.window.stored_bars[PAIR][NOON - 30 * SECOND, "theirs"] = theirs
        world.store.taken = False
        await trio.sleep(8)
        world.window.away = False
        await trio.sleep(8)
    assert world.store.rows[*PAIR, NOON].bar.count == 2 + 2


@pytest.mark.parametrize("ahead", [-HOUR // 2, HOUR // 2], ids=["behind", "ahead"])
async def test_late_updates_are_added_to_a_row_whose_bars_redis_has_lost(autojump_clock, ahead):
    """Also behind a boot whose clock was ahead: its sequences are greater than those that we began with."""
    world = world_of()
    second = NOON - 90 * SECOND
    before = Bar.of([second + 5], [1.0], (NOON + ahead) * PER_MS)
    world.window.stored_bars.setdefault(PAIR, {})[second, "before"] = before
    row = Bar.of([NOON - 30 * SECOND + number for number in range(100)], [2.0] * 100)
    world.store.rows[*PAIR, NOON] = Aggregate(*PAIR, NOON, row)
    world.store.away = True
    async with world.running():
        for number in range(40):
            world.send_one(5.0, age=10 * SECOND + number)
        await until(lambda: world.book.flushes.drained)
        world.store.away = False
        await trio.sleep(8)
    assert world.store.rows[*PAIR, NOON].bar.count == 140


async def test_with_redis_away_nothing_waits_for_rows_that_cannot_tell(autojump_clock):
    """Another boot had the database for a moment. Rows of the time before us wait, and questions do not."""
    world = world_of()
    world.store.away = True
    async with world.running():
        await until(lambda: world.flusher.up)
        world.window.away, world.store.taken, world.store.away = True, True, False
        await until(lambda: world.share.leases.database.another)
        world.store.taken = False
        await play(world, 130)
        began = trio.current_time()
        assert (await world.queries.summary(SYMBOLS[0], None, Range("30s"))).updates
        assert trio.current_time() - began < 0.1
        assert world.store.rows, "minutes that began after us are written"
        world.window.away = False
        await until(lambda: world.standing.history_known and not world.aggregator.pending, seconds=10)


async def test_a_row_with_fewer_updates_is_written_again(autojump_clock):
    """It was rewritten for a late update, and the standby has the version before."""
    world = world_of()
    async with world.running():
        await play(world, 70)
        before = dict(world.store.rows)
        world.send(PAIR[0], [(PAIR[1], 7.0, NOON + 5)])
        await trio.sleep(2)
        assert world.store.rows != before
        world.store.rows = before
        world.store.fail_over(lambda _: True)
        await trio.sleep(4)
        world.check_rows(NOON + MINUTE)


async def test_rows_of_earlier_boots_are_written_again(autojump_clock):
    """Their bars were read from Redis; if Redis is away, they are read as soon as it is back."""
    world = world_of()
    async with world.running():
        await play(world, 190)
        await trio.sleep(2)
    world = world.successor("boot2", flush_interval=0.5)
    async with world.running():
        await trio.sleep(10)
        world.check_rows(NOON + 3 * MINUTE)
        world.window.away = True
        await trio.sleep(1)
        world.store.fail_over(lambda _: False)
        await trio.sleep(15)
        world.window.away = False
        await trio.sleep(COMPARISON_SECONDS + 3)
        world.check_rows(NOON + 3 * MINUTE)


async def test_a_start_writes_no_row_that_is_right_already(autojump_clock):
    """Though the rows of an hour were due before the bars of the earlier boot were compared with them."""
    world = world_of()
    async with world.running():
        await play(world, 190)
        await trio.sleep(60)
    rows, written = dict(world.store.rows), world.store.written
    assert len(rows) > 3
    world = world.successor("boot2", flush_interval=0.5)
    async with world.running():
        await until(lambda: world.standing.history_known)
        await trio.sleep(5)
        assert not world.aggregator.pending
    assert (world.store.rows, world.store.written) == (rows, written)


async def test_nothing_is_written_again_without_need(autojump_clock):
    """Not for ten broken connections, for rows with more updates than ours, or for rows past retention."""
    world = world_of(retention=2 * MINUTE)
    async with world.running():
        await play(world, 5 * 60 + 3)
        await trio.sleep(MINUTE // 1_000)
        key = max(world.store.rows)
        row = world.store.rows[key]
        world.send(key[0], [(key[1], 1.0, world.now)])
        fuller = type(row)(row.exchange, row.symbol, row.end, row.bar.merge(row.bar))
        world.store.rows[key] = fuller
        written = world.store.written
        rows = dict(world.store.rows)
        with capture_logs() as logs:
            for _ in range(10):
                world.store.fail_over(lambda _: True)
                await trio.sleep(4)
        assert REWRITTEN not in [log["event"] for log in logs]
        assert world.store.written - written <= 1
        assert rows[key] == world.store.rows[key] == fuller


async def test_rows_that_somebody_deletes_stay_deleted(autojump_clock):
    """As long as the connection lasts, the deletion may be intended."""
    world = world_of()
    async with world.running():
        await play(world, 130)
        del world.store.rows[*PAIR, NOON + MINUTE]
        await trio.sleep(30)
        assert (*PAIR, NOON + MINUTE) not in world.store.rows


async def test_a_store_that_fails_meanwhile_is_compared_later(autojump_clock, monkeypatch):
    world = world_of()
    async with world.running():
        await play(world, 130)
        await trio.sleep(3)
        with monkeypatch.context() as patched:

            async def bars(*_):
                world.store.away = True
                await world.store.lease()

            patched.setattr(world.store, "bars", bars)
            world.store.fail_over(lambda _: False)
            await trio.sleep(2)
        world.store.away = False
        await trio.sleep(5)
        world.check_rows(NOON + 2 * MINUTE)


# ---- rows and the bars in Redis ----


class CheckedStore(MemoryStore):
    """Records rows with updates whose bars are not in Redis when they are written."""

    def __init__(self, interval=MINUTE):
        super().__init__(interval)
        self.window = None
        self.ahead = []
        self.checked = 0

    async def write(self, aggregates):
        for row in aggregates:
            bars = self.window.stored_bars.get((row.exchange, row.symbol), {})
            known = sum(
                bar.count for (second, _), bar in bars.items() if row.end - MINUTE <= second < row.end
            )
            self.checked += 1
            if known < row.bar.count:
                self.ahead.append((row, known))
        await super().write(aggregates)


@pytest.mark.parametrize("write_seconds", [0.0, 0.02, 0.1])
async def test_no_row_before_its_bars_are_in_redis(autojump_clock, monkeypatch, write_seconds):
    """With late updates all the time, some too old for the window, and more bars than a flush takes."""
    monkeypatch.setattr(flushes, "FLUSH_BARS", 20)
    store = CheckedStore()
    world = World(store=store, window_length=10_000)
    store.window = world.window
    world.window.write_seconds = write_seconds
    rng = random.Random(3)
    async with world.running():
        for _ in range(1_000):
            ages = [rng.choice([0, 5_000, 9_990, 11_000, 62_000, 90_000, 115_000]) for _ in range(8)]
            updates = [(rng.choice(SYMBOLS), 1.0, world.now - age + rng.randint(0, 999)) for age in ages]
            world.send(rng.choice(EXCHANGES), updates)
            await trio.sleep(rng.choice([0.01, 0.2]))
    assert store.checked > 100
    assert not store.ahead


async def test_without_redis_rows_are_on_time_all_the_same(autojump_clock):
    store = CheckedStore()
    world = World(store=store)
    store.window = world.window
    async with world.running():
        world.send_one(1.0)
        await trio.sleep(1)
        world.window.away = True
        world.send_one(2.0)
        await trio.sleep(63 - trio.current_time())
        world.check_rows(NOON + MINUTE)


async def test_an_hour_is_compared_in_turns_with_others(autojump_clock):
    """Only rows of the last hour are compared: without bars in the book a row cannot be made again."""
    world = world_of(flush_interval=30.0)
    async with world.running(slowly=True):
        await play(world, 90 * 60, every=20.0)
        world.store.fail_over(lambda _: False)
        await trio.sleep(130)
        ends = {key[2] for key in world.store.rows}
        assert min(ends) <= NOON + 91 * MINUTE - HOUR + MINUTE
        expected = world.expected_rows(NOON + 90 * MINUTE)
        assert all(expected[key].says(row.bar) for key, row in world.store.rows.items() if key in expected)
        assert {key for key in expected if key[2] >= min(ends)} <= world.store.rows.keys()
