"""Rows in PostgreSQL equal the lines of their interval: none missing, none twice, never shrinking."""

from __future__ import annotations

import random

import attrs
import psycopg
import pytest
import trio
from asking import adds_up, eventually, stored_rows
from exchange_server import ExchangeServer
from serving import Service, running
from traffic import NAMES, SYMBOLS, Sent, any_lines, lines, now, rows, tick

from marketflow.app.ports import StoreTaken
from marketflow.app.share import lease
from marketflow.config import Settings
from marketflow.config.settings import AggregationSettings

Exchanges = dict[str, ExchangeServer]
Key = tuple[str, str, int]

GRACE = 200


def keep_history(dsn: str) -> None:
    """Make the database record each write of a row."""
    with psycopg.connect(dsn) as connection:
        connection.execute("CREATE TABLE history (key text, ends float8, updates bigint, at float8)")
        connection.execute(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " INSERT INTO history VALUES (NEW.pair_name || ' ' || NEW.exchange || ' ' || NEW.timestamp,"
            " extract(epoch FROM NEW.timestamp), NEW.update_count, extract(epoch FROM clock_timestamp()));"
            " RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER noting AFTER INSERT OR UPDATE ON price_aggregates"
            " FOR EACH ROW EXECUTE FUNCTION note()"
        )


def history(dsn: str) -> dict[str, list[tuple[float, int, float]]]:
    """The writes of each row, in order: the interval's end (s), the updates, and the time (s)."""
    with psycopg.connect(dsn) as connection:
        noted = connection.execute("SELECT key, ends, updates, at FROM history ORDER BY at").fetchall()
    found: dict[str, list[tuple[float, int, float]]] = {}
    for key, *rest in noted:
        found.setdefault(key, []).append((rest[0], rest[1], rest[2]))
    return found


async def rows_equal(dsn: str, sent: list[Sent], interval: int, *, within: float = 6) -> None:
    """Wait until the rows are exactly those of the lines."""
    wanted = rows(sent, interval)

    def differing() -> dict[Key, object]:
        stored = stored_rows(dsn)
        return {
            key: (stored.get(key), wanted.get(key))
            for key in {*stored, *wanted}
            if key not in stored or key not in wanted or not stored[key].equals(wanted[key])
        }

    last: dict[Key, object] = {}

    def none_differs() -> bool:
        nonlocal last
        last = differing()
        return not last

    try:
        await eventually(none_differs, within=within)
    except AssertionError:
        pytest.fail(f"{len(last)} of {len(wanted)} rows differ, such as {next(iter(last.items()))}")


async def play(service: Service, exchanges: Exchanges, sent: list[Sent], before: int) -> None:
    """Send lines, and wait until all that this boot sent (since `before`) are accepted."""
    for name, exchange in exchanges.items():
        await exchange.send(lines(each for each in sent[before:] if each.exchange == name))
    await service.accepted(len(sent) - before)


async def test_rows_equal_the_lines_across_a_restart(
    settings: Settings, exchanges: Exchanges, rng: random.Random
) -> None:
    """Rows are exact with late and disordered lines, before and after a restart within an interval."""
    dsn = settings.postgres.effective_dsn
    interval = settings.aggregation.interval
    sent: list[Sent] = []
    async with running(settings) as service:
        keep_history(dsn)
        at = now()
        open_interval = at - at % interval
        for name in NAMES:
            sent += any_lines(rng, name, 1_000, earliest=at - 30_000, latest=at)
            sent += any_lines(rng, name, 50, earliest=open_interval, latest=open_interval + interval - 1)
        await play(service, exchanges, sent, 0)
        # A part of it may be written by now, which must not matter.
    first_boot = len(sent)
    async with running(settings) as service:
        for name in NAMES:
            # The same interval continues, others are completed, new ones begin; older lines are sent last.
            sent += any_lines(rng, name, 50, earliest=open_interval, latest=open_interval + interval - 1)
            sent += any_lines(rng, name, 500, earliest=at - 40_000, latest=at)
            sent += tick(rng, name, now())
        await play(service, exchanges, sent, first_boot)
        await rows_equal(dsn, sent, interval)
        assert adds_up((await service.client.health())["updates"])
    async with running(settings):
        await rows_equal(dsn, sent, interval)
    for key, writes in history(dsn).items():
        assert all(at >= end + GRACE / 1_000 for end, _, at in writes), key
        counts = [updates for _, updates, _ in writes]
        assert counts == sorted(counts), f"{key} shrank: {counts}"
        assert len(counts) <= 4, f"{key} was written {len(counts)} times"


async def test_each_boundary_brings_its_rows_in_time(
    settings: Settings, exchanges: Exchanges, rng: random.Random
) -> None:
    """With live traffic each interval's row is written within a second of its grace, and not again."""
    grace = 1_200
    settings = attrs.evolve(settings, aggregation=AggregationSettings(interval=1_000, grace=grace))
    dsn = settings.postgres.effective_dsn
    sent: list[Sent] = []
    async with running(settings) as service:
        keep_history(dsn)
        began = now()
        while now() < began + 1_500:
            before = len(sent)
            for name, exchange in exchanges.items():
                sent += tick(rng, name, now())
                await exchange.send(lines(each for each in sent[before:] if each.exchange == name))
            await service.accepted(len(sent))
        await rows_equal(dsn, sent, 1_000, within=3.5)
    for key, writes in history(dsn).items():
        end, _, at = writes[0]
        assert len(writes) <= 1, f"{key} was written {len(writes)} times"
        assert grace / 1_000 <= at - end < grace / 1_000 + 1.0, key


async def test_a_late_line_rewrites_its_row_at_most_once_a_second(
    settings: Settings, exchanges: Exchanges, rng: random.Random
) -> None:
    dsn = settings.postgres.effective_dsn
    interval = settings.aggregation.interval
    exchange = exchanges["exchange1"]
    async with running(settings) as service:
        keep_history(dsn)
        began = now()
        at = began - began % interval - 3 * interval
        sent: list[Sent] = []

        async def send_one() -> None:
            sent.append(Sent("exchange1", "ETHUSDT", rng.uniform(3_000, 3_100), at + rng.randrange(interval)))
            await exchange.send(sent[-1].line)
            await service.accepted(len(sent))

        await send_one()
        await rows_equal(dsn, sent, interval, within=2)
        while now() < began + 2_500:
            await send_one()
        await rows_equal(dsn, sent, interval, within=2)
    (writes,) = history(dsn).values()
    assert len(sent) > 20
    assert 2 <= len(writes) <= 6


async def test_past_the_lateness_a_row_stays_as_it_is(settings: Settings, exchanges: Exchanges) -> None:
    settings = attrs.evolve(
        settings, aggregation=AggregationSettings(interval=1_000, grace=GRACE, lateness=30_000)
    )
    dsn = settings.postgres.effective_dsn
    async with running(settings) as service:
        at = now() - 29_000
        good = [Sent("exchange1", symbol, 1.5, at) for symbol in SYMBOLS]
        late = [Sent("exchange1", symbol, 1.0, at - 3_000) for symbol in SYMBOLS]
        await exchanges["exchange1"].send(lines(good) + lines(late))
        await service.accepted(5)
        await rows_equal(dsn, good, 1_000)
        updates = (await service.client.health())["updates"]
        assert updates["rejected"] == {"late": 5}
        assert updates["received"] == 10


async def test_a_second_service_on_the_same_stores_does_not_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the first to end, then gives up; the first one is not affected."""
    monkeypatch.setattr(lease, "LEASE_PATIENCE", 0.3)
    async with running(settings) as first:
        with pytest.RaisesGroup(StoreTaken, flatten_subgroups=True):
            async with running(settings):
                pytest.fail("it started")
        assert first.report().postgres.status == "up"


async def test_the_next_service_takes_over(
    settings: Settings, exchanges: Exchanges, rng: random.Random, nursery: trio.Nursery
) -> None:
    """If it is started while another runs, it serves once that has stopped, and continues the interval."""
    sent: list[Sent] = []
    at = now()
    serves = trio.Event()
    finish = trio.Event()

    async def next_service() -> None:
        async with running(settings) as service:
            serves.set()
            before = len(sent)
            for name in NAMES:
                sent.extend(any_lines(rng, name, 100, earliest=at - 3_000, latest=at))
            await play(service, exchanges, sent, before)
            await rows_equal(settings.postgres.effective_dsn, sent, settings.aggregation.interval)
            finish.set()

    async with running(settings) as first:
        nursery.start_soon(next_service)
        for name in NAMES:
            sent += any_lines(rng, name, 100, earliest=at - 3_000, latest=at)
        await play(first, exchanges, sent, 0)
        assert not serves.is_set()
    await finish.wait()
