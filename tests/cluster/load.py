"""Terms in a cluster, and a writer for each exchange that goes on after failures as the flusher does."""

from __future__ import annotations

from contextlib import asynccontextmanager

import trio
from redis_filling import fields_of
from terms import TermsInRedis, Traffic, sure

from marketflow.app.ports import StoreAway, Term
from marketflow.app.share.fence import Seen, seen

START = 1_795_343_400_000


class TermsInCluster(TermsInRedis):
    """A cluster."""

    def __init__(self, cluster, timeout=10.0):
        super().__init__("redis://nowhere:1", timeout, cluster.nodes)
        self._cluster = cluster

    def empty(self):
        for master in self._cluster.masters():
            master.ask("FLUSHALL")

    def forget_fence(self):
        raise NotImplementedError


async def eventually(condition):
    """Wait until it holds."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - nothing tells when
            await trio.sleep(0.01)


class Load:
    """Writes random flushes of one exchange, one after the other, until it is cancelled."""

    def __init__(self, node, exchange, seed):
        self.exchange = exchange
        self.failures: list[StoreAway] = []
        self.acknowledged = 0
        self._node = node
        self._term = Term(exchange, 1, f"{seed:08x}")
        self._model = Traffic(self._term.id, seed, exchange=exchange, start=START)
        self._written = []
        self._stopping = trio.Event()
        self._stopped = trio.Event()

    async def run(self, task_status=trio.TASK_STATUS_IGNORED):
        async with self._node.window(self._term, sure) as window:
            await self._seal(window)
            task_status.started()
            while not self._stopping.is_set():
                flush, written = self._model.flush()
                encoded = window.encode(flush)
                await self._write(window, encoded)
                self._written.append(encoded)
                written()
                self.acknowledged += 1
        self._stopped.set()

    async def _write(self, window, encoded):
        while True:
            try:
                if not await window.write(encoded) and self._written:
                    # Something may have been lost.
                    for each in (*self._written, encoded):
                        await window.write(each)
            except StoreAway as error:
                self.failures.append(error)
                await self._seal(window)
            else:
                return

    async def _seal(self, window):
        while True:
            try:
                sight = await window.look()
                match seen(sight.holder, self._term):
                    case Seen.OURS:
                        return
                    case Seen.EARLIER:
                        if await window.take(sight):
                            return
                    case Seen.LATER:
                        raise AssertionError(sight)
            except StoreAway:
                await trio.sleep(0.02)

    async def goes_on(self, writes=20):
        """Wait until so many more were acknowledged."""
        wanted = self.acknowledged + writes
        await eventually(lambda: self.acknowledged >= wanted)

    async def stop(self):
        """Stop after the write that is on its way."""
        self._stopping.set()
        with trio.fail_after(60):
            await self._stopped.wait()

    def check(self, cluster):
        """Compare what the cluster has with what was acknowledged, and the changes with the bars."""
        with cluster.owner(self.exchange).client() as client:
            self._model.check(client)

    async def check_bars(self):
        """The bars are those that were written, and no change of the last ones is missing."""
        assert fields_of(await self._node.reading.all_bars(list(self._model.bars))) == self._model.bars


@asynccontextmanager
async def loads(node, exchanges):
    """A load for each exchange; all are stopped at the end."""
    made = [Load(node, exchange, number) for number, exchange in enumerate(exchanges, 1)]
    async with trio.open_nursery() as nursery:
        for each in made:
            await nursery.start(each.run)
        yield made
        for each in made:
            await each.stop()
