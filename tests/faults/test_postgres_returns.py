"""PostgreSQL away for several minutes: afterwards no row is missing, duplicate or smaller."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest
import trio
from outages import more_accepted, no_thread_left
from rig import (
    Service,
    all_sent,
    check_summary,
    differences,
    eventually,
    exchanges,
    expected_rows,
    now_ms,
    playing,
    rows_are_right,
    service,
    settings_for,
    spools,
    stored_rows,
    window_is_whole,
)
from slow_machine import SlowClock

from marketflow.embedded import EmbeddedPostgres, EmbeddedRedis

INTERVAL = 1_000


async def in_thread(call: object) -> None:
    """Run in a thread: ending a server takes a moment, in which the service must not be blocked."""
    await trio.to_thread.run_sync(call)


async def up(it: Service) -> None:
    """Wait until both stores are up."""

    def both() -> bool:
        report = it.running.report()
        return report.redis.status == report.postgres.status == "up"

    await eventually(both, within=6)


def lock_holders(dsn: str) -> int:
    """The number of connections that have the service's lock on a database."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        ).fetchone()
    assert row is not None
    return int(row[0])


ROLE = "limited"
DROPPED = "SELECT pg_terminate_backend(pid, 2000) FROM pg_stat_activity WHERE application_name = 'marketflow'"
SQL_FAULTS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "too many connections": (
        [f"ALTER ROLE {ROLE} CONNECTION LIMIT 0", DROPPED],
        [f"ALTER ROLE {ROLE} CONNECTION LIMIT -1"],
    ),
    "disk full": (
        [
            """CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$""",
            "CREATE TRIGGER full_disk BEFORE INSERT ON price_aggregates EXECUTE FUNCTION full_disk()",
        ],
        ["DROP TRIGGER full_disk ON price_aggregates"],
    ),
    "table renamed": (
        ["ALTER TABLE price_aggregates RENAME TO gone"],
        ["ALTER TABLE gone RENAME TO price_aggregates"],
    ),
    # The server accepts us but is read-only, until it becomes the new primary.
    "failover": (
        ["ALTER DATABASE marketflow SET default_transaction_read_only = on", DROPPED],
        ["ALTER DATABASE marketflow RESET default_transaction_read_only", DROPPED],
    ),
}
"""The statements that cause each fault, and those that end it."""


@asynccontextmanager
async def away(how: str, server: EmbeddedPostgres) -> AsyncIterator[None]:
    """Make PostgreSQL fail in this way for so long."""

    def run(statements: Sequence[str]) -> None:
        with psycopg.connect(server.dsn, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            for statement in statements:
                connection.execute(statement)  # type: ignore[arg-type]

    async def drop_again_and_again() -> None:
        while True:
            await in_thread(partial(run, [DROPPED]))
            await trio.sleep(0.1)

    async with AsyncExitStack() as stack:
        if how in SQL_FAULTS:
            begin, end = SQL_FAULTS[how]
            await in_thread(partial(run, begin))
            stack.push_async_callback(in_thread, partial(run, end))
        elif how == "killed":
            await in_thread(server.kill)
            stack.callback(server.start)
        elif how == "paused":
            server.pause()
            stack.callback(server.resume)
        elif how == "table held":
            holding = stack.enter_context(psycopg.connect(server.dsn))
            await in_thread(partial(holding.execute, "LOCK TABLE price_aggregates"))
        else:
            nursery = await stack.enter_async_context(trio.open_nursery())
            nursery.start_soon(drop_again_and_again)
            stack.callback(nursery.cancel_scope.cancel)
        yield


@pytest.mark.parametrize("how", ["killed", "paused", *SQL_FAULTS, "table held", "dropping"])
async def test_postgres_comes_back(
    how: str, own_postgres: EmbeddedPostgres, redis_url: str, tmp_path: Path
) -> None:
    """Feeds and answers go on; rows are written oldest first when it is back, and the lock is taken again."""
    with psycopg.connect(own_postgres.dsn, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN")
        connection.execute(f"GRANT ALL ON SCHEMA public TO {ROLE}")
    dsn = own_postgres.dsn.replace("postgres@", f"{ROLE}@")
    async with exchanges("exchange1", "exchange2") as players:
        settings = settings_for(
            players,
            redis_url,
            dsn,
            tmp_path,
            aggregation={"interval": INTERVAL, "grace": 100},
            postgres={"timeout": 500},
        )
        async with service(settings, players) as it, playing(*players, behind=(0, 0, 40)):
            await eventually(lambda: stored_rows(own_postgres.dsn), within=4)
            async with away(how, own_postgres):
                if how != "dropping":  # a connection that broke between two calls is replaced before use
                    await eventually(lambda: it.running.report().postgres.status == "away", within=3)
                until, accepted = trio.current_time() + 2, it.updates.accepted
                states = set()
                while trio.current_time() < until:
                    async with it.still() as sent:
                        answer = await it.get("/prices/aggregate/BTCUSDT?period=1m")
                    check_summary(answer, sent)
                    if how != "dropping":  # now and then the history may have to be read again
                        assert answer["source"] == "redis"
                        states.add(it.running.report().postgres.status)
                    await trio.sleep(0.3)
                    await eventually(partial(more_accepted, it, accepted), within=1, what="the feeds go on")
                    accepted = it.updates.accepted
                assert states <= {"away"}
            back = now_ms()
            await up(it)
            await rows_are_right(own_postgres.dsn, all_sent(players), INTERVAL, until=back - INTERVAL)
            if how != "dropping":  # otherwise some rows were written meanwhile, and again later
                ends = [end for _, _, end in stored_rows(own_postgres.dsn)]
                assert ends == sorted(ends)
            # The last connection may have been dropped: a new one is made within a second.
            await eventually(lambda: lock_holders(own_postgres.dsn) == 1, within=5)
            await eventually(lambda: it.running.report().postgres.status == "up")
        await rows_are_right(own_postgres.dsn, all_sent(players), INTERVAL, until=now_ms() - 2 * INTERVAL)
        await no_thread_left()


async def test_a_row_that_postgres_refuses(
    own_postgres: EmbeddedPostgres, redis_url: str, tmp_path: Path
) -> None:
    """A constraint refuses one row: it is reported as pending, and other rows are written on time."""
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players, redis_url, own_postgres.dsn, tmp_path, aggregation={"interval": INTERVAL, "grace": 100}
        )
        async with service(settings, players) as it, playing(*players, behind=(0, 0, 40)):
            await eventually(lambda: stored_rows(own_postgres.dsn), within=4)
            with psycopg.connect(own_postgres.dsn, autocommit=True) as connection:
                connection.execute(
                    "ALTER TABLE price_aggregates"
                    " ADD CONSTRAINT no_doge CHECK (pair_name <> 'DOGEUSDT') NOT VALID"
                )
            since = now_ms()
            await trio.sleep(3)
            others = [each for each in all_sent(players) if each.symbol == "BTCUSDT"]
            stored = stored_rows(own_postgres.dsn)
            missing = differences(stored, expected_rows(others, INTERVAL))
            assert not [each for each in missing if each[0] == "missing" and each[1][2] < now_ms() - 1_500]
            assert not [key for key in stored if key[0] == "DOGEUSDT" and key[2] > since + INTERVAL]
            assert it.running.report().postgres.status == "up"
            metrics = (await it.get("/metrics")).splitlines()
            pending = next(line for line in metrics if line.startswith("marketflow_aggregates_pending "))
            assert float(pending.split()[1]) >= 2
            with psycopg.connect(own_postgres.dsn, autocommit=True) as connection:
                connection.execute("ALTER TABLE price_aggregates DROP CONSTRAINT no_doge")
        # They are tried again each minute, and by the next start, which finds their bars in Redis.
        async with service(settings, players):
            await rows_are_right(own_postgres.dsn, all_sent(players), INTERVAL)


@pytest.mark.parametrize("code", ["MF001", "42883", "2F005"])
async def test_every_row_is_refused(
    own_postgres: EmbeddedPostgres, redis_url: str, tmp_path: Path, code: str
) -> None:
    """A trigger refuses all rows, with any code: the service goes on, degraded, even after a restart."""
    async with exchanges("exchange1") as players:
        settings = settings_for(
            players, redis_url, own_postgres.dsn, tmp_path, aggregation={"interval": INTERVAL, "grace": 100}
        )

        def degraded(it: Service) -> bool:
            report = it.running.report()
            said = report.postgres.error
            return report.status == "degraded" and report.postgres.status == "up" and said is not None

        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: stored_rows(own_postgres.dsn), within=6)
            await eventually(lambda: it.running.report().status == "ok")
            with psycopg.connect(own_postgres.dsn, autocommit=True) as connection:
                connection.execute(
                    "CREATE FUNCTION never() RETURNS trigger LANGUAGE plpgsql AS"
                    f" $$ BEGIN RAISE EXCEPTION 'never' USING ERRCODE = '{code}'; END $$"
                )
                connection.execute(
                    "CREATE TRIGGER never BEFORE INSERT ON price_aggregates"
                    " FOR EACH ROW EXECUTE FUNCTION never()"
                )
            await eventually(lambda: degraded(it), within=6)
            assert "never" in str((await it.get("/health"))["postgres"]["error"])
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: degraded(it), within=6)
            with psycopg.connect(own_postgres.dsn, autocommit=True) as connection:
                connection.execute("DROP TRIGGER never ON price_aggregates")
            await eventually(lambda: it.running.report().status == "ok", within=6)
        async with service(settings, players):
            await rows_are_right(own_postgres.dsn, all_sent(players), INTERVAL)


async def test_restarted_while_postgres_is_away(
    own_postgres: EmbeddedPostgres, redis_url: str, tmp_path: Path
) -> None:
    """The next boot is ready without PostgreSQL, finds the bars in Redis, and writes the rows."""
    async with exchanges("exchange1") as players:
        settings = settings_for(players, redis_url, own_postgres.dsn, tmp_path)
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 20)
            await in_thread(own_postgres.kill)
            await trio.sleep(1)
        async with service(settings, players) as it, playing(*players):
            assert (await it.ask("/health/ready")).status == 200
            await trio.sleep(0.5)
            async with it.still() as sent:
                check_summary(await it.get("/prices/aggregate/BTCUSDT?period=1m"), sent)
            own_postgres.start()
            await up(it)
            await rows_are_right(own_postgres.dsn, all_sent(players), until=now_ms() - 3_000)
        assert not spools(tmp_path), "there was nothing to spool: Redis had it"


async def test_both_stores_away(
    own_redis: EmbeddedRedis, own_postgres: EmbeddedPostgres, tmp_path: Path, clock: SlowClock
) -> None:
    """Both are away at the start and again later, and come back in either order, with Redis empty.

    The service is ready at once, answers from memory, and in the end both stores have everything.
    """
    async with exchanges("exchange1", "exchange2") as players:
        settings = settings_for(players, own_redis.url, own_postgres.dsn, tmp_path)
        own_redis.kill()
        own_postgres.kill()
        started = clock.seconds
        async with service(settings, players) as it, playing(*players):
            assert clock.seconds - started < 2
            assert (await it.ask("/health/ready")).status == 200
            assert (await it.get("/health"))["status"] == "degraded"
            await trio.sleep(2.2)
            async with it.still() as sent:
                answer = await it.get("/prices/aggregate/BTCUSDT?period=1m")
            assert answer["source"] == "memory"
            # Older data is only in the stores, so the answer is 503.
            assert answer["end"] - answer["start"] < 10_000
            check_summary(answer, sent)
            own_redis.start()
            await trio.sleep(0.5)
            own_postgres.start()
            await up(it)
            # The history, from Redis and the rows, shows that there was nothing before the start.
            async with it.still() as sent:

                async def whole() -> bool:
                    answer = await it.get("/prices/aggregate/BTCUSDT?period=1m")
                    check_summary(answer, sent)
                    return answer["source"] == "redis" and answer["end"] - answer["start"] == 60_000

                await eventually(whole, within=1.5)

            own_redis.kill()
            await in_thread(own_postgres.kill)
            await trio.sleep(2.2)
            own_postgres.start()
            await trio.sleep(1)
            own_redis.start()
            await up(it)
            await window_is_whole(own_redis.url, players, within=2)
            await rows_are_right(own_postgres.dsn, all_sent(players), until=now_ms() - 3_000)
            assert lock_holders(own_postgres.dsn) == 1


@pytest.mark.parametrize(
    "lost",
    [
        "DELETE FROM price_aggregates WHERE timestamp > now() - interval '3 s'",
        "DELETE FROM price_aggregates WHERE pair_name = 'BTCUSDT'",
        "TRUNCATE price_aggregates",
    ],
)
async def test_it_comes_back_in_an_older_state(
    lost: str, redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """After a failover to a lagging standby, or a restored backup, missing rows are written again."""
    async with exchanges("exchange1", "exchange2") as players:
        settings = settings_for(
            players, redis_url, postgres_dsn, tmp_path, aggregation={"interval": INTERVAL, "grace": 100}
        )
        async with service(settings, players) as it:
            for _ in range(2):
                async with playing(*players):
                    await trio.sleep(3)
                await it.received_all()
                await rows_are_right(postgres_dsn, all_sent(players), INTERVAL)
                with psycopg.connect(postgres_dsn, autocommit=True) as connection:
                    connection.execute(lost)  # type: ignore[arg-type]
                    connection.execute(DROPPED + " AND datname = current_database()")
                await rows_are_right(postgres_dsn, all_sent(players), INTERVAL)
        # The next run gets their bars from Redis, and writes them too.
        with psycopg.connect(postgres_dsn, autocommit=True) as connection:
            connection.execute("TRUNCATE price_aggregates")
        async with service(settings, players):
            await rows_are_right(postgres_dsn, all_sent(players), INTERVAL)
