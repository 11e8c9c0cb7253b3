"""One run: the service under load and faults, with all checks."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import psycopg
import redis
import trio

from marketflow.domain.prices import SYMBOLS
from tests.bench.children import child
from tests.bench.starvation import noted
from tests.servers import PORTS, TcpPostgres, TcpRedis
from tests.soak.clients import asking, listening
from tests.soak.faults import Scene
from tests.soak.model import RIGHT, WAIT, Key, Model, Row
from tests.soak.plan import EXCHANGES, Fault
from tests.soak.program import Exchanges, Program
from tests.soak.samples import RSS_LIMIT, Sample, compared, look

INTERVAL = 5
GRACE = 1
WINDOW = 10
"""Seconds. With the default of 60 a short run would only see the window fill."""
WARM_UP = WINDOW + 3.0
OVERHEAD = 30.0
"""The approximate time (s) in addition to the faults: the warm-up, the last rows, the last stop."""
RECOVERY = 1.5
"""Seconds after a fault that do not count as undisturbed."""
ENOUGH = 12
"""The number of undisturbed samples, one a second, that a run needs before it ends."""
LISTENERS = 15
PATIENCE = 45.0
"""Seconds after the last fault until every row must be right."""
MOST_TOLD = 20

ROWS = """
    SELECT pair_name, exchange, (extract(epoch FROM timestamp) * 1000)::bigint,
           average_price, min_price, max_price, open_price, close_price, update_count,
           volume, quote_volume, buy_volume, sell_volume, volume_updates
    FROM price_aggregates WHERE exchange = ANY(%s) AND timestamp > to_timestamp(%s)
"""


class Soak:
    """The state of a run."""

    def __init__(self, scene: Scene, faults: Sequence[Fault], problems: Counter[str]) -> None:
        self.scene, self.faults, self.problems = scene, faults, problems
        self.samples: list[Sample] = []
        self.fault: Fault | None = None
        self.calm_since = trio.current_time()
        self.rows: dict[Key, Row] = {}
        self._sending = True

    async def run(self) -> None:
        """Warm up, carry out all faults, and wait until everything is right."""
        scene = self.scene
        await scene.program.start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            rng = random.Random(scene.rng.random())

            def wanted() -> int:
                return scene.program.starts if scene.program.wanted else 0

            nursery.start_soon(partial(asking, scene.program.port, wanted=wanted, wrong=scene.wrong, rng=rng))
            for _ in range(LISTENERS):
                nursery.start_soon(listening, scene.program.port, random.Random(scene.rng.random()))
            self._say("warming up")
            await trio.sleep(WARM_UP)
            for number, fault in enumerate(self.faults):
                await trio.sleep(fault.calm)
                self._say(f"{number + 1} of {len(self.faults)}: {fault.kind}")
                self.fault = fault
                await scene.suffer(fault)
                self.fault, self.calm_since = None, trio.current_time()
            self._say("undisturbed for a moment, then the last rows")
            await self._compared()
            self._sending = False
            scene.model.add(scene.exchanges.told(*EXCHANGES, behaviour="silent"))
            await self._last_rows()
            nursery.cancel_scope.cancel()
        code = await scene.program.end(signal.SIGTERM)
        if code:
            scene.wrong(f"the last stop ended with {code}")
        await self._judge_all()

    def _say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)

    async def _watch(self) -> None:
        """Once a second: take a sample, record what was sent, and check the rows."""
        scene = self.scene
        while True:
            scene.model.add(scene.exchanges.told())
            if scene.program.ended:
                raise RuntimeError(f"the service has ended:\n{scene.program.log.read_text()[-3_000:]}")
            if scene.program.wanted and self.fault is None and self._sending:
                with suppress(OSError, redis.RedisError):
                    await self._sample()
            if self.fault is None:
                with suppress(psycopg.Error):
                    await trio.to_thread.run_sync(self._read_rows)
            await trio.sleep(1)

    async def _sample(self) -> None:
        program = self.scene.program
        now = trio.current_time()
        rss, threads, files = look(program.pid)
        calm = now - self.calm_since > RECOVERY and now - program.up_since > WARM_UP
        with redis.Redis.from_url(self.scene.redis.url, socket_timeout=1) as client:
            memory: int = (await trio.to_thread.run_sync(client.info, "memory"))["used_memory"]
        self.samples.append(Sample(program.starts, calm, rss, threads, files, memory))
        if rss > RSS_LIMIT:
            self.scene.wrong(f"RSS over {RSS_LIMIT // 1_000_000} MB")

    def _read_rows(self, since: float | None = None) -> None:
        """Check the rows of the last two minutes: none may lose updates, or have more than were sent."""
        since = time.time() - 120 if since is None else since
        with psycopg.connect(self.scene.postgres.dsn, connect_timeout=2) as connection:
            connection.execute("SET statement_timeout = 2000")
            found = connection.execute(ROWS, [list(EXCHANGES), since]).fetchall()
        for row in found:
            key, values = row[:3], row[3:]
            before = self.rows.get(key)
            if before is not None and before[5] > values[5]:
                self.scene.wrong(f"{key} has shrunk from {before[5]} to {values[5]}")
            self.rows[key] = values

    async def _compared(self) -> None:
        """Wait until the last start has enough samples."""
        with trio.move_on_after(PATIENCE):
            enough = False
            while not enough:
                await trio.sleep(0.5)
                last = self.scene.program.starts
                enough = sum(each.calm and each.run == last for each in self.samples) >= ENOUGH

    async def _last_rows(self) -> None:
        """Wait until no row is missing that may still come."""
        end = int(time.time() * 1_000) + INTERVAL * 1_000
        with trio.move_on_after(PATIENCE):
            await trio.sleep(INTERVAL + GRACE)
            while True:
                self._read_rows()
                model = self.scene.model
                recent = [key for key in model.keys(end) if key[2] > end - 60_000]
                waiting = 0
                for key in recent:
                    waiting += model.judge(key, self.rows.get(key)) == WAIT
                    await trio.lowlevel.checkpoint()
                if not waiting:
                    return
                await trio.sleep(1)

    async def _judge_all(self) -> None:
        self._read_rows(0)
        model = self.scene.model
        keys = set(model.keys(int(time.time() * 1_000) + INTERVAL * 1_000))
        for key in sorted(keys, key=lambda key: key[2]):
            await trio.lowlevel.checkpoint()
            verdict = model.judge(key, self.rows.get(key))
            if verdict == WAIT:
                row = self.rows.get(key)
                verdict = f"has {row[5] if row else 'no row'}, {model.count_of(key)} were sent"
            if verdict != RIGHT:
                self.scene.wrong(f"row {key}: {verdict}")
        for key in self.rows.keys() - keys:
            self.scene.wrong(f"row {key}: nothing was sent")

    def told(self) -> str:
        """The table of the verdict."""
        table, grown = compared(self.samples)
        for each in grown:
            self.scene.wrong(each)
        model = self.scene.model
        kinds = Counter(fault.kind for fault in self.faults)
        return (
            f"\n{table}\n\n{model.sent:,} updates sent, {len(self.rows):,} rows compared, "
            f"{self.scene.program.starts} starts\n"
            f"faults: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}\n"
            f"missing before the end of a torn connection: at most {model.longest_missing} ms of updates"
        )


async def soak(faults: Sequence[Fault], rate: float, seed: int) -> list[str]:
    """The whole run; returns the list of problems."""
    problems: Counter[str] = Counter()
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="marketflow-soak-", ignore_cleanup_errors=True)
        directory = Path(stack.enter_context(temporary))
        directory.chmod(0o711)  # noqa: ASYNC240 - nothing runs yet. PostgreSQL runs as another user when we are root.
        redis_server = stack.enter_context(TcpRedis(directory / "redis"))
        postgres = TcpPostgres(directory / "postgres", durable=False)
        stack.callback(postgres.remove)
        stack.enter_context(postgres)
        *ports, own = _free_ports(len(EXCHANGES) + 1)
        listening_at = dict(zip(EXCHANGES, ports, strict=True))
        arguments = json.dumps({"ports": listening_at, "symbols": SYMBOLS, "rate": rate})
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        sender = stack.enter_context(child("tests.soak.sender", arguments, **pipes))
        settings = {
            "SYMBOLS": list(SYMBOLS),
            "EXCHANGES": [
                {"name": name, "host": "127.0.0.1", "port": port} for name, port in listening_at.items()
            ],
            "REDIS__URL": redis_server.url,
            "POSTGRES__DSN": postgres.dsn,
            "STATE_DIR": str(directory / "state"),
            "AGGREGATION__INTERVAL": f"{INTERVAL}s",
            "AGGREGATION__GRACE": f"{GRACE}s",
            "WINDOW__LENGTH": f"{WINDOW}s",
        }
        program = Program(directory, own, settings)
        stack.callback(program.kill)

        def pids() -> list[int]:
            """The processes that can delay an update. Redis and the service are started repeatedly."""
            with suppress(RuntimeError):
                return [sender.pid, *program.pids, redis_server.pid]
            return [sender.pid, *program.pids]

        starvation = stack.enter_context(noted(pids))

        def starved(start: int, end: int) -> float:
            shift = time.monotonic() - time.time()
            return 1_000 * starvation.between(start / 1_000 + shift, end / 1_000 + shift)

        scene = Scene(
            program=program,
            exchanges=Exchanges(sender),
            model=Model(list(SYMBOLS), INTERVAL * 1_000, starved),
            redis=redis_server,
            postgres=postgres,
            rng=random.Random(seed),
            wrong=lambda text: problems.update([text]),
        )
        run = Soak(scene, faults, problems)
        await run.run()
        print(run.told())
    told = [f"{text} ({times} times)" if times > 1 else text for text, times in problems.items()]
    return told if len(told) <= MOST_TOLD else [*told[:MOST_TOLD], f"and {len(told) - MOST_TOLD} more"]


def _free_ports(count: int) -> list[int]:
    """Free ports below the ephemeral ones, so that no client gets one while an exchange is down."""
    found: list[int] = []
    while len(found) < count:
        port = random.choice(PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    return list(found)
