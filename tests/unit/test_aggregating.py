from __future__ import annotations

import copy
import math
import random
from itertools import pairwise

import pytest
import trio
from builders import EXCHANGES, NOON, SEEDS, SYMBOLS, World, run_virtual, until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from marketflow.adapters.db.memory import MemoryStore
from marketflow.app.ports import Aggregate, RowsRefused, StoreAway, StoreTaken
from marketflow.app.share.due_rows import ROWS
from marketflow.app.share.row_writing import REFUSED_ROWS, REFUSED_SECONDS, REFUSED_WRITES
from marketflow.app.share.sequences import PER_MS
from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR, MINUTE, floor_to

PAIR = (EXCHANGES[0], SYMBOLS[0])


class WatchedStore(MemoryStore):
    """Records the time (seconds) of each write."""

    def __init__(self, interval):
        super().__init__(interval)
        self.batches = []

    async def write(self, aggregates):
        await super().write(aggregates)
        self.batches.append((trio.current_time(), list(aggregates)))


def world_of(*, interval=MINUTE, **options):
    return World(store=WatchedStore(interval), interval=interval, **options)


async def play(world, seconds, *, every=0.5, seed=1, oldest=0):
    """Traffic of two exchanges for a while, some of it up to `oldest` ms old."""
    rng, end = random.Random(seed), trio.current_time() + seconds
    while trio.current_time() < end:
        for exchange in EXCHANGES:
            ages = [rng.choice([0, 0, 0, rng.randint(0, oldest)]) for _ in range(3)]
            world.send(
                exchange, [(rng.choice(SYMBOLS), rng.uniform(1, 100), world.now - age) for age in ages]
            )
        await trio.sleep(every)


# ---- rows are true ----


async def test_rows_are_written_when_their_minute_closes(autojump_clock):
    """They are written within a second after the grace has passed, and equal a recomputation."""
    world = world_of()
    async with world.running() as nursery:
        nursery.start_soon(play, world, 190)
        for minute in range(1, 4):
            await trio.sleep(60 * minute + 1.9 - trio.current_time())
            assert not [key for key in world.store.rows if key[2] > world.now - 2_000]
            await trio.sleep(1.2)
            world.check_rows(NOON + minute * MINUTE)
            assert len([key for key in world.store.rows if key[2] == NOON + minute * MINUTE]) == 4


AGES = [0, 0, 100, 9_000]
FAULTS = ["window away", "window back", "window emptied", "store away", "store back", "restart"]


async def inflict(world, fault):
    """Cause an event."""
    match fault:
        case "window away":
            world.window.away = True
        case "window back":
            world.window.away = False
        case "window emptied" if world.standing.history_known:
            # Earlier it would take data that only the window had of the boot before.
            world.window.empty()
        case "store away":
            world.store.away = True
        case "store back":
            world.store.away = False
        case "restart":
            # A crash loses what the window never got; make sure that there is nothing.
            world.window.away = False
            await trio.sleep(2)
            # The lease of the boot that crashed may have to expire first.
            await until(lambda: world.flusher.up and world.book.flushes.drained, seconds=5)


@given(
    st.lists(
        st.one_of(
            st.sampled_from(FAULTS),
            st.integers(1, 10),  # updates
            st.sampled_from([0.3, 1.1, 4.0, 11.0]),  # seconds
        ),
        max_size=40,
    ),
    SEEDS,
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_rows_come_out_exact_whatever_happens_to_the_stores(steps, seed):
    """With outages of both, an emptied window, restarts and late updates, each row is exact in the end."""

    async def main():
        rng = random.Random(seed)
        world = world_of(interval=5_000, flush_interval=0.25)
        boots, left = 1, [*steps, "restart"]
        while left:
            async with world.running():
                while left:
                    step = left.pop(0)
                    if isinstance(step, str):
                        await inflict(world, step)
                        if step == "restart":
                            break
                    elif isinstance(step, int):
                        updates = [
                            (
                                rng.choice(SYMBOLS),
                                rng.uniform(1, 100),
                                world.now - rng.choice(AGES),
                            )
                            for _ in range(step)
                        ]
                        world.send(rng.choice(EXCHANGES), updates)
                    else:
                        await trio.sleep(step)
            boots += 1
            world = world.successor(f"boot{boots}", flush_interval=0.25)
        async with world.running():
            world.window.away = world.store.away = False
            await trio.sleep(9)
            world.check_rows(world.now - 3_000)

    run_virtual(main)


async def test_late_updates_rewrite_their_row_once_a_second_at_most(autojump_clock):
    world = world_of()
    async with world.running() as nursery:
        world.send_one(50.0)
        await trio.sleep(63)
        assert world.store.rows[*PAIR, NOON + MINUTE].bar.count == 1
        nursery.start_soon(trio.sleep, 0)
        for _ in range(200):
            world.send(PAIR[0], [(PAIR[1], 7.0, NOON + 1)])
            await trio.sleep(0.05)
        await trio.sleep(1.1)
        world.check_rows(NOON + MINUTE)
        times = [time for time, rows in world.store.batches if rows]
        assert 9 <= len(times) <= 13
        assert all(later - earlier > 0.99 for earlier, later in pairwise(times))


async def test_time_without_updates_writes_nothing(autojump_clock):
    world = world_of(flush_interval=1.0)
    async with world.running():
        world.send_one(1.0)
        await trio.sleep(600)
        assert len(world.store.batches) == 1


# ---- PostgreSQL away ----


async def test_a_store_that_gives_no_rows_is_away_until_it_does(autojump_clock, monkeypatch):
    """It is away although it accepts connections and nothing has to be written. This is logged once."""
    world = world_of()
    with capture_logs() as logs, monkeypatch.context() as patched:

        async def bars(*_):
            raise StoreAway("somebody has renamed the table")

        patched.setattr(world.store, "bars", bars)
        async with world.running():
            await trio.sleep(20)
            assert not world.postgres.up
            patched.undo()
            await trio.sleep(10)
            assert world.postgres.up
    told = [(log["event"], log["store"]) for log in logs if log["event"] in {"store up", "store away"}]
    assert [event for event, store in told if store == "postgres"] == ["store up", "store away", "store up"]


async def test_minutes_missed_in_an_outage_are_written_oldest_first_in_batches(autojump_clock):
    world = world_of(interval=1_000, flush_interval=0.5)
    async with world.running():
        await play(world, 3)
        world.store.away = True
        await play(world, 400, every=1.0)
        assert world.aggregator.pending > 2 * ROWS
        world.store.away = False
        before = len(world.store.batches)
        with capture_logs() as logged:
            await trio.sleep(3.1)
        world.check_rows(world.now - 3_000)
        batches = [rows for _, rows in world.store.batches[before:]]
        ends = [row.end for rows in batches for row in rows]
        assert ends[: 3 * ROWS] == sorted(ends[: 3 * ROWS])
        assert world.aggregator.pending == 0
        assert len(batches[0]) == len(batches[1]) == ROWS
        assert max(map(len, batches)) == ROWS
        # Logged at the beginning and at the end, not for every 500 rows.
        told = [(log["rows"], log["of"]) for log in logged if log["event"] == "missing aggregates written"]
        assert told[0][0] == ROWS
        assert told[-1][0] == told[-1][1] > 2 * ROWS
        assert len(told) <= 3


@pytest.mark.parametrize("window_away", [False, True])
async def test_minutes_longer_ago_than_bars_are_kept_are_written_exactly(autojump_clock, window_away):
    """In three hours without PostgreSQL unwritten minutes are folded to one bar each, and lose nothing."""
    world = world_of(flush_interval=30.0)
    async with world.running(slowly=True):
        await play(world, 90, every=5.0)
        world.store.away = True
        world.window.away = window_away
        await play(world, 3 * 3_600, every=17.0, oldest=100_000)
        assert sum(1 for _ in world.book.rows.folded()) > 2 * 60 * 3
        assert min(second for pair in world.pairs for second in seconds_of(world, pair)) >= (
            world.now - HOUR - 2 * MINUTE
        )
        world.store.away = world.window.away = False
        await trio.sleep(190)
        world.check_rows(world.now - 190_000)
        assert not list(world.book.rows.folded())


def seconds_of(world, pair):
    return [second for _, (second, _), _ in world.book.bars]


# ---- rows that PostgreSQL refuses ----


async def test_a_row_that_is_refused_holds_up_no_other(autojump_clock):
    """It is logged once, stays pending, is tried again each minute, and is written once it is accepted."""
    world = world_of()
    world.store.refuses = lambda row: (row.exchange, row.symbol) == PAIR
    with capture_logs() as logged:
        async with world.running() as nursery:
            nursery.start_soon(play, world, 200)
            await trio.sleep(4 * 60 + 4)
            assert world.aggregator.pending == 4
            expected = world.expected_rows(NOON + 4 * MINUTE)
            refused = {key for key in expected if key[:2] == PAIR}
            assert world.store.rows.keys() == expected.keys() - refused
            assert all(expected[key].says(row.bar) for key, row in world.store.rows.items())
            # The good rows are written on time.
            assert all(time % 60 < 3.2 for time, rows in world.store.batches if rows)
            world.store.refuses = lambda _: False
            await trio.sleep(62)
            assert world.aggregator.pending == 0
            world.check_rows(NOON + 5 * MINUTE)
            assert refused <= world.store.rows.keys()
    told = [(log["exchange"], log["symbol"], log["end"]) for log in logged if log["event"] == "row refused"]
    assert sorted(told) == sorted(refused)
    assert not any(log["event"] == "store away" for log in logged)


async def test_hundreds_of_refused_rows_take_no_time_from_others(autojump_clock):
    """A few of them are tried again each second, and all at once when they are accepted."""
    world = world_of(interval=1_000, flush_interval=0.5)
    tries = []

    def refuses(row):
        tries.append(trio.current_time())
        return row.symbol == SYMBOLS[0]

    world.store.refuses = refuses
    async with world.running():
        await play(world, 300, every=1.0)
        assert world.aggregator.pending > 300
        await trio.sleep(3)
        tries.clear()
        await trio.sleep(20)
        # A refused batch is tried in halves, down to single rows.
        assert 0 < len(tries) <= 20 * REFUSED_ROWS * 6
        world.store.refuses = lambda _: False
        await trio.sleep(61)
        assert world.aggregator.pending == 0
        world.check_rows(world.now - 3_000)


async def test_when_every_row_is_refused_the_state_says_so(autojump_clock):
    """The fault may be ours. It is reported until a row is accepted; one bad row among others is not."""
    world = world_of(interval=1_000, flush_interval=0.5)
    async with world.running() as nursery:
        nursery.start_soon(play, world, 400)
        world.store.refuses = lambda row: (row.exchange, row.symbol) == PAIR
        await trio.sleep(30)
        assert world.aggregator.refused > 20
        assert world.postgres.refusal is None
        world.store.refuses = lambda _: True
        await trio.sleep(3)
        assert (world.postgres.up, world.postgres.refusal) == (True, "told to refuse")
        await trio.sleep(100)
        assert (world.postgres.up, world.postgres.refusal) == (True, "told to refuse")
        world.store.refuses = lambda _: False
        await trio.sleep(3)
        assert world.postgres.refusal is None


async def test_the_search_for_refused_rows_is_bounded(autojump_clock):
    """Thousands are due and none is accepted: some dozens of writes a second, until they are accepted."""
    world = world_of(interval=1_000, flush_interval=0.5)
    tries = []
    write = world.store.write

    async def counted(aggregates):
        tries.append(trio.current_time())
        await write(aggregates)

    world.store.away = True
    world.store.write = counted
    async with world.running():
        await play(world, 400, every=1.0)
        assert world.aggregator.pending > 1_200
        world.store.refuses = lambda _: True
        world.store.away = False
        await trio.sleep(20)
        by_second = [sum(int(time) == second for time in tries) for second in {int(time) for time in tries}]
        assert 0 < max(by_second) <= REFUSED_WRITES + 10
        world.store.refuses = lambda _: False
        await trio.sleep(REFUSED_SECONDS + 10)
        assert world.aggregator.pending == 0


async def test_a_bad_pair_holds_up_no_other_after_an_outage(autojump_clock):
    """A quarter of thousands of rows is refused, all of one pair: the others are written within seconds."""
    world = world_of(interval=1_000, flush_interval=0.5)
    world.store.away = True
    world.store.refuses = lambda row: (row.exchange, row.symbol) == PAIR
    async with world.running():
        await play(world, 400, every=1.0)
        world.store.away = False
        await trio.sleep(8)
        expected = world.expected_rows(world.now - 4_000)
        missing = [key for key in expected if key[:2] != PAIR and key not in world.store.rows]
        assert missing == []
        assert world.postgres.up


async def test_a_deletion_that_is_refused_leaves_the_store_up(autojump_clock):
    """The cause is a trigger or a missing privilege. It is logged, and tried again after a minute."""
    world = world_of(retention=HOUR)
    tries = []

    async def refuse(end):
        tries.append(end)
        raise RowsRefused("never")

    world.store.delete_before = refuse
    with capture_logs() as logged:
        async with world.running(slowly=True) as nursery:
            nursery.start_soon(play, world, 600)
            await trio.sleep(600)
            assert world.postgres.up
    assert 2 <= len(tries) <= 10
    refused = [log["error"] for log in logged if log["event"] == "deletion of aggregates refused"]
    assert refused == ["never"] * len(tries)
    assert not any(log["event"] == "store away" for log in logged)


async def test_a_restart_writes_what_is_missing_as_long_as_the_window_has_the_bars(autojump_clock):
    world = world_of(flush_interval=10.0)
    world.store.away = True
    async with world.running(slowly=True):
        await play(world, 50 * 60, every=7.0)
        await trio.sleep(11)
    assert not world.store.rows
    world = world.successor("boot2", flush_interval=10.0)
    world.store.away = False
    async with world.running(slowly=True):
        await trio.sleep(190)
        world.check_rows(world.now - 190_000)
        assert len(world.store.rows) > 4 * 49


# ---- restarts ----


async def test_a_minute_that_began_before_the_boot_waits_for_the_window(autojump_clock):
    """Its row would be incomplete. Rows of later minutes are written on time."""
    first = world_of()
    async with first.running():
        await play(first, 30)
        await trio.sleep(1)
    second = first.successor("boot2")
    second.window.away = True
    async with second.running():
        await play(second, 100)
        ends = {key[2] for key in second.store.rows}
        assert ends == {NOON + 2 * MINUTE}
        second.window.away = False
        await trio.sleep(3)
        second.check_rows(second.now - 3_000)
        assert {key[2] for key in second.store.rows} == {NOON + MINUTE, NOON + 2 * MINUTE}


async def test_the_open_minute_goes_on_after_restarts(autojump_clock):
    """Three boots in a minute give one row of all updates, opened by the first and closed by the last."""
    world = world_of()
    for boot in range(2, 5):
        async with world.running():
            await play(world, 18, seed=boot)
            await trio.sleep(0.2)
        world = world.successor(f"boot{boot}")
    async with world.running():
        await trio.sleep(63 - trio.current_time())
        world.check_rows(NOON + MINUTE)
        assert sum(row.bar.count for row in world.store.rows.values()) == len(world.sent)


async def test_restarts_never_make_a_row_smaller(autojump_clock):
    """If the window has lost bars of a written minute, the fuller row stays."""
    world = world_of()
    async with world.running():
        await play(world, 63)
        await trio.sleep(1)
        rows = dict(world.store.rows)
    world.window.stored_bars[PAIR] = dict(list(world.window.stored_bars[PAIR].items())[30:])
    world = world.successor("boot2")
    async with world.running():
        await trio.sleep(10)
        assert {key: row for key, row in world.store.rows.items() if key[2] == NOON + MINUTE} == {
            key: row for key, row in rows.items() if key[2] == NOON + MINUTE
        }


# ---- the lock ----


async def test_the_start_waits_for_another_service_to_end(autojump_clock):
    world = world_of()
    world.store.taken = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.lease_database)
        await trio.sleep(8)
        assert nursery.child_tasks
        world.store.taken = False
        await trio.sleep(0.5)
        assert not nursery.child_tasks


async def test_the_start_gives_up_after_ten_seconds(autojump_clock):
    world = world_of()
    world.store.taken = True
    with pytest.raises(StoreTaken):
        await world.lease_database()
    assert 9.5 < trio.current_time() < 11


async def test_the_start_does_not_wait_for_a_store_that_is_away(autojump_clock):
    world = world_of()
    world.store.away = True
    await world.lease_database()
    assert trio.current_time() < 0.1
    assert not world.postgres.up


async def test_a_lock_that_another_service_keeps_ends_the_service(autojump_clock):
    """Two services on the same stores would spoil each other's rows: it ends within 2 s after it can know."""
    world = world_of()
    with pytest.RaisesGroup(StoreTaken, flatten_subgroups=True):
        async with world.running():
            await trio.sleep(5)
            world.store.away = True
            world.store.taken = True
            await trio.sleep(5)
            world.store.away = False
            world.send_one(1.0)
            await trio.sleep(20)
    assert 10 < trio.current_time() <= 12
    assert not world.store.rows


async def test_a_start_that_has_seen_another_does_not_serve_when_the_store_goes_away(autojump_clock):
    """Otherwise both would serve until the store is back."""
    world = world_of()
    world.store.taken = True
    async with trio.open_nursery() as nursery:

        async def start():
            with pytest.raises(StoreTaken):
                await world.lease_database()

        nursery.start_soon(start)
        await trio.sleep(1)
        world.store.away = True
    assert trio.current_time() == pytest.approx(10, abs=0.2)


async def test_a_lock_that_is_free_again_in_time_is_taken(autojump_clock):
    """The other may have written to the window meanwhile, so its bars are read before rows can be trusted."""
    world = world_of()
    async with world.running():
        world.send_one(1.0)
        await trio.sleep(5)
        world.store.away = world.store.taken = True
        await trio.sleep(0.9)
        world.store.away = False  # Within a tenth of a second the start sees that the lock is taken.
        await trio.sleep(0.5)
        second = floor_to(world.now, 1_000)
        world.window.stored_bars[PAIR][second, "other"] = Bar.of([second + 5], [99.0], (NOON + 1) * PER_MS)
        world.store.taken = False
        await trio.sleep(63 - trio.current_time())
        row = world.store.rows[*PAIR, NOON + MINUTE]
        assert (row.bar.count, row.bar.max, row.bar.close) == (2, 99.0, 99.0)


# ---- the end, and old rows ----


async def test_what_closed_just_before_the_stop_is_written(autojump_clock):
    """The last flush is written first, so the row is complete."""
    world = world_of(flush_interval=5.0)
    async with trio.open_nursery() as nursery:
        await world.lease_database()
        nursery.start_soon(world.aggregator.run)
        nursery.start_soon(world.flusher.run)
        await play(world, 61.9)
        await trio.sleep(0.15)
        world.send(PAIR[0], [(PAIR[1], 7.0, NOON + 1)])
        world.book.end()
    assert trio.current_time() < 63
    world.check_rows(NOON + MINUTE)


async def test_what_comes_in_while_the_last_rows_are_written_is_written_too(autojump_clock, monkeypatch):
    """The store is slow, and the stop comes during a write."""
    world, writing = world_of(), trio.Event()
    write = world.store.write

    async def write_slowly(rows):
        writing.set()
        await trio.sleep(0.6)
        await write(rows)

    monkeypatch.setattr(world.store, "write", write_slowly)
    async with trio.open_nursery() as nursery:
        await world.lease_database()
        nursery.start_soon(world.aggregator.run)
        nursery.start_soon(world.flusher.run)
        await play(world, 61)
        await writing.wait()
        world.send(PAIR[0], [(PAIR[1], 7.0, NOON + 1)])
        world.book.end()
    world.check_rows(NOON + MINUTE)


async def test_a_store_that_hangs_does_not_hold_up_a_stop(autojump_clock, monkeypatch):
    """It is given what is left of the stop's time, and not a moment more: a stop cut short is an error."""

    async def hang(_rows):
        await trio.sleep_forever()

    world = world_of()
    monkeypatch.setattr(world.store, "write", hang)
    with trio.move_on_after(math.inf) as stages:
        async with trio.open_nursery() as nursery:
            await world.lease_database()
            nursery.start_soon(world.aggregator.run)
            nursery.start_soon(world.flusher.run)
            await play(world, 63)
            stages.deadline = trio.current_time() + 7
            world.book.end()
        ended = trio.current_time()
    assert not stages.cancelled_caught
    assert stages.deadline - 0.3 < ended < stages.deadline - 0.2
    assert "before the stop" in world.postgres.error
    assert world.aggregator.pending


async def test_rows_past_their_retention_are_deleted(autojump_clock):
    world = world_of(flush_interval=30.0, retention=HOUR)
    async with world.running(slowly=True):
        await play(world, 3 * 3_600, every=20.0)
        oldest = min(key[2] for key in world.store.rows)
        assert world.now - 2 * HOUR - MINUTE <= oldest <= world.now - HOUR
        await until(lambda: not world.postgres.error)


@pytest.mark.parametrize("generating", [False, True])
async def test_a_clock_that_is_days_ahead_deletes_nothing(autojump_clock, generating):
    """Neither old rows nor bars of the last hour are deleted, even with a wrong clock from the start.

    Meanwhile every update of an exchange is late; a generator takes its time from that clock.
    """
    world = world_of(flush_interval=1.0, retention=24 * HOUR)
    async with world.running():
        await play(world, 150, every=2.0)
        await trio.sleep(3)
        rows, bars = dict(world.store.rows), copy.deepcopy(world.window.stored_bars)
        assert len(rows) > 4
    for boot in ("boot2", "boot3"):
        world = world.successor(boot, flush_interval=1.0, retention=24 * HOUR)
        async with world.running():
            await trio.sleep(5)
            world.clock.offset = 3 * 24 * HOUR
            for _ in range(200):
                if generating:
                    world.send_one(1.0, exchange="test1")
                await trio.sleep(1)
            assert rows.items() <= world.store.rows.items()
            for pair, of_pair in bars.items():
                assert of_pair.items() <= world.window.stored_bars[pair].items()


async def test_old_rows_are_deleted_as_soon_as_it_is_known_that_they_are_old(autojump_clock):
    """Stored rows and new updates show the time of the data: at the start the rows may be the only data."""
    world = world_of(retention=HOUR)
    old, older = (row_at(world.now - age) for age in (2 * HOUR, 4 * HOUR))
    world.store.rows.update({key_of(row): row for row in (old, older)})
    async with world.running():
        await trio.sleep(5)
        assert list(world.store.rows) == [key_of(old)]
        world.send_one(1.0)
        await trio.sleep(5)
        assert not world.store.rows


def key_of(row):
    return row.exchange, row.symbol, row.end


def row_at(end):
    end = floor_to(end, MINUTE)
    return Aggregate(*PAIR, end, Bar.of([end - 5], [1.0], 0))


# ---- symbols that are not configured any more ----

GONE = [("exchange9", "BTCUSDT"), ("exchange1", "GONEUSDT")]


def leave_bars(world, pairs):
    """Put bars of an earlier boot with other symbols into the window."""
    seconds = [NOON + second for second in range(0, 50_000, 1_000)]
    for pair in pairs:
        bars = {(second, "boot0"): Bar.of([second + 5], [3.0], second) for second in seconds}
        world.window.stored_bars[pair] = bars
    return len(seconds)


async def test_rows_of_pairs_that_were_removed_are_written(autojump_clock):
    """Their bars are kept, rewritten and removed like all others; the next boot adopts them too."""
    world = world_of()
    count = leave_bars(world, GONE)
    async with world.running():
        await trio.sleep(70)
        for pair in GONE:
            assert world.store.rows[*pair, NOON + MINUTE].bar.count == count
        world.window.empty()
        await trio.sleep(2)
        assert all(len(world.window.stored_bars[pair]) == count for pair in GONE)
        with pytest.raises(KeyError):
            world.book.ledgers["exchange9"]
    world = world.successor("boot2", flush_interval=5.0)
    world.store.rows.clear()
    async with world.running():
        await trio.sleep(10)
        assert {key[:2] for key in world.store.rows} == set(GONE)
        for _ in range(140):
            world.send_one(1.0)
            await trio.sleep(30)
        assert not any(world.window.stored_bars[pair] for pair in GONE)
        assert world.book.bars.pairs <= set(world.pairs)


async def test_spooled_bars_of_pairs_that_were_removed_become_rows(autojump_clock):
    """Spooled bars and bars in Redis of the same minute become one row."""
    await trio.sleep(57)
    world = world_of()
    count = leave_bars(world, GONE)
    world.book.bars.adopt(GONE[0], {(NOON + 55_000, "boot0"): Bar.of([NOON + 55_001], [9.0], 7)})
    world.window.away = True
    async with world.running():
        await trio.sleep(20)
        assert not world.store.rows
        world.window.away = False
        await trio.sleep(5)
        assert world.store.rows[*GONE[0], NOON + MINUTE].bar.count == count + 1
        assert world.store.rows[*GONE[1], NOON + MINUTE].bar.count == count
        assert len(world.store.batches) == 1
