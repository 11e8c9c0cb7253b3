"""Keeps bars as the service does for an hour, and tells the memory they take: a process of its own.

`python -m tests.bench.bars_kept PAIRS SECONDS TRACED` adds a bar for each pair and second, and after each
second does what the writers of Redis and of rows do: takes what changed, acknowledges it, and forgets what
is too old. Minutes are packed as often as in the service. It prints its results as JSON. If TRACED is 1,
memory is measured by tracemalloc, which makes it several times slower; otherwise by the growth of RSS.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import tracemalloc
from functools import partial

import attrs
import trio

from marketflow.app.share.flushes import FLUSH_BARS
from marketflow.app.share.rows import Rows
from marketflow.app.share.second_bars import SecondBars
from marketflow.app.share.sequences import PER_MS
from marketflow.app.share.share import PACK_SECONDS
from marketflow.domain.periods import MINUTE, SECOND
from tests.bench.children import child
from tests.bench.processes import rss
from tests.bench.stage import BenchError, symbols
from tests.bench.trades import UPDATES, bars

BEGIN = 30_000_000 * MINUTE
"""The first second (Unix ms), in January 2027: sequences are as large as those of a real boot."""
GRACE = 2 * SECOND
"""The setting aggregation.grace."""


@attrs.frozen
class Kept:
    """The results."""

    bars: int
    """How many are kept at the end."""
    memory: int
    """Bytes that they take."""
    seconds: float
    """Processor time for all that were added."""


def kept(pairs: int, seconds: int, *, traced: bool) -> Kept:
    """Keep bars of so many pairs and seconds in another process."""
    with child("tests.bench.bars_kept", pairs, seconds, int(traced), stdout=subprocess.PIPE) as process:
        said, _ = process.communicate()
    if not said:
        raise BenchError("the process that keeps bars has failed")
    return Kept(**json.loads(said))


class _Keeper:
    """The bars of a boot, and the parts of the service that take from them."""

    def __init__(self, pairs: int) -> None:
        self._bars = SecondBars(boot="0123abcd", interval=MINUTE)
        self._rows = Rows(self._bars)
        self._sources = {
            ("exchange1", symbol): bars(place, BEGIN) for place, symbol in enumerate(symbols(pairs))
        }
        self.kept = 0

    async def live(self, second: int) -> None:
        """Live through a second, from its start (Unix ms)."""
        for place, (pair, source) in enumerate(self._sources.items()):
            sequence = second * PER_MS + place * UPDATES
            self._bars.add(pair, second, next(source), sequence, second / SECOND)
        self._flush()
        if second % MINUTE == GRACE:
            self._write_rows(second - GRACE)
        if second % (PACK_SECONDS * SECOND) == 0:
            await self._bars.pack()
        self.kept += len(self._sources) - len(self._bars.prune(second + SECOND))

    def _flush(self) -> None:
        while self._bars.outbox.waiting:
            taken, version = self._bars.take_unflushed(FLUSH_BARS)
            self._bars.outbox.acknowledge([(pair, field) for pair, field, _ in taken], version)

    def _write_rows(self, end: int) -> None:
        due = self._rows.take_due(end)
        for row in due:
            self._rows.aggregate(row, {})
        self._rows.written(due)


async def _main(pairs: int, seconds: int, *, traced: bool) -> Kept:
    await _Keeper(1).live(BEGIN)  # What is loaded and made only once is not counted.
    if traced:
        tracemalloc.start()
    gc.collect()
    keeper = _Keeper(pairs)
    before, began = rss(os.getpid()), time.process_time()
    for number in range(seconds):
        await keeper.live(BEGIN + number * SECOND)
    took = time.process_time() - began
    gc.collect()
    memory = tracemalloc.get_traced_memory()[0] if traced else rss(os.getpid()) - before
    return Kept(keeper.kept, memory, took)


if __name__ == "__main__":
    wanted = partial(_main, int(sys.argv[1]), int(sys.argv[2]), traced=sys.argv[3] == "1")
    print(json.dumps(attrs.asdict(trio.run(wanted))))
