"""Carries out each kind of fault."""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable

import attrs
import psycopg
import redis
import trio

from tests.servers import TcpPostgres, TcpRedis
from tests.soak.clients import Refused, abusing, ask
from tests.soak.model import Model
from tests.soak.plan import CRASHES, Fault
from tests.soak.program import Exchanges, Program

TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@attrs.frozen
class Scene:
    """The parts that faults affect."""

    program: Program
    exchanges: Exchanges
    model: Model
    redis: TcpRedis
    postgres: TcpPostgres
    rng: random.Random
    wrong: Callable[[str], None]

    async def suffer(self, fault: Fault) -> None:
        """Carry out one fault, from its beginning to its end."""
        if fault.kind in CRASHES:
            await self._crash(fault)
        elif fault.kind.startswith("exchange_"):
            self._behave(fault.exchange, fault.kind.removeprefix("exchange_"))
            await trio.sleep(fault.length)
            self._behave(fault.exchange, "normal")
        else:
            carried_out: Callable[[Fault], Awaitable[None]] = getattr(self, f"_{fault.kind}")
            await carried_out(fault)

    def _behave(self, exchange: str, behaviour: str) -> None:
        self.model.add(self.exchanges.told(exchange, behaviour=behaviour))

    async def _crash(self, fault: Fault) -> None:
        frozen = fault.kind == "kill_postgres_frozen"
        if frozen:
            self.postgres.pause()
            await trio.sleep(fault.length / 2)
        try:
            if fault.kind == "stop":
                code = await self.program.end(signal.SIGTERM)
                if code:
                    self.wrong(f"SIGTERM ended it with {code}")
            else:
                await self.program.end(signal.SIGKILL)
        finally:
            if frozen:
                self.postgres.resume()
        await trio.sleep(fault.length / 4)
        await self.program.start()

    async def _redis_freeze(self, fault: Fault) -> None:
        self.redis.pause()
        await trio.sleep(fault.length)
        self.redis.resume()

    async def _redis_kill(self, fault: Fault) -> None:
        self.redis.kill()
        await trio.sleep(fault.length)
        self.redis.start()

    async def _redis_flush(self, _: Fault) -> None:
        with redis.Redis.from_url(self.redis.url) as client:
            await trio.to_thread.run_sync(client.flushall)

    async def _postgres_freeze(self, fault: Fault) -> None:
        self.postgres.pause()
        await trio.sleep(2 * fault.length)  # sometimes longer than its time limit
        self.postgres.resume()

    async def _postgres_terminate(self, _: Fault) -> None:
        def terminate() -> None:
            with psycopg.connect(self.postgres.dsn, autocommit=True) as connection:
                connection.execute(TERMINATE)

        await trio.to_thread.run_sync(terminate)

    async def _modes(self, fault: Fault) -> None:
        for mode in ("test", "live"):
            try:
                status, _, body = await ask(self.program.port, f"/mode/{mode}", "POST")
            except Refused as refused:
                self.wrong(f"POST /mode/{mode}: {refused}")
            else:
                if status != 200:
                    self.wrong(f"POST /mode/{mode} was answered {status}: {body!r}")
            await trio.sleep(fault.length / 2)

    async def _abusers(self, fault: Fault) -> None:
        await abusing(self.program.port, self.rng, fault.length)
