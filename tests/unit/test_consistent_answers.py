"""Rows show that Redis had lost bars just while a question reads: its answer mixes no two states."""

from __future__ import annotations

import attrs
import pytest
import trio
from builders import EXCHANGES, NOON, SYMBOLS, World, play, until

from marketflow.app.ports import BARS_KEPT
from marketflow.domain.periods import MINUTE, Range, Span

PAIR = (EXCHANGES[0], SYMBOLS[0])


async def updates_of(world, question):
    """How many updates the answer has."""
    match question:
        case "candles from a start":
            found = await world.queries.candles(PAIR[1], (PAIR[0],), "1m", NOON - 2 * BARS_KEPT, None, 500)
        case "the newest candles":
            found = await world.queries.candles(PAIR[1], (PAIR[0],), "1m", None, None, 500)
        case _:
            return (await world.queries.summary(PAIR[1], (PAIR[0],), Range(question))).updates
    return sum(candle.updates for candle in found.candles)


@pytest.mark.parametrize("question", ["candles from a start", "the newest candles", "120m", "1m"])
async def test_an_answer_is_all_from_before_or_all_from_after(autojump_clock, filling, monkeypatch, question):
    """Rows have twice the updates of the bars of the first minute, and are adopted while it waits."""
    world = World(filling=filling)
    async with world.running():
        await until(lambda: world.share.standing.history_known)
        await play(world, 63.5)
        await trio.sleep(0.123)  # Within a second, so that its edges are read.
        await world.answerable()
        key, span = (*PAIR, NOON + MINUTE), Span(NOON, NOON + MINUTE)
        row = world.store.rows[key]
        world.store.rows[key] = attrs.evolve(row, bar=row.bar.merge(row.bar))
        whole = row.bar.count * 2 + len(world.of(PAIR, Span(NOON + MINUTE, world.now + 1)))
        reads = {"bars": world.store.bars, "skip": world.store.skip, "edges": world.window.edges}

        def adopting(name):
            async def read(*args, **options):
                found = await reads[name](*args, **options)
                adopted = world.book.rows.adopted
                if adopted.of(PAIR, span.end) is None:
                    world.adopt_row(PAIR, span.end, world.store.rows[key].bar)
                return found

            return read

        monkeypatch.setattr(world.store, "bars", adopting("bars"))
        if question == "the newest candles":
            monkeypatch.setattr(world.store, "skip", adopting("skip"))
        monkeypatch.setattr(world.window, "edges", adopting("edges"))
        assert await updates_of(world, question) == whole
        assert len(world.book.rows.adopted) == 1
