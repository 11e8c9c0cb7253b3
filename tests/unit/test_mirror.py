"""Mirrors: what a node knows of an exchange that another node has is what the window has acknowledged."""

from __future__ import annotations

import random

import attrs
import pytest
import trio
from builders import NOON, SEEDS, WallClock, run_virtual
from hypothesis import given

from marketflow.adapters.cache.memory_terms import FencedShelf, MemoryChanges, MemoryTermWindow
from marketflow.app.cluster.mirror import Mirror
from marketflow.app.cluster.mirror_view import view_of
from marketflow.app.ports import Flush, StoreAway, Term
from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR, MINUTE, SECOND, Span

EXCHANGE = "exchange1"
PAIRS = [(EXCHANGE, symbol) for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")]
BTC, ETH, SOL = PAIRS
ALL_TIME = Span(0, NOON + 24 * HOUR)


class Owner:
    """A term's window, and bars that grow."""

    def __init__(self, shelf: FencedShelf, epoch: int = 1) -> None:
        self.window = MemoryTermWindow(Term(EXCHANGE, epoch, f"term{epoch}"), shelf)
        self.term = f"term{epoch}"
        self.bars: dict[tuple[str, str], dict[tuple[int, str], Bar]] = {}

    async def seal(self) -> None:
        assert await self.window.take(await self.window.look())

    async def write(self, pair: tuple[str, str], price: float, *, at: int = NOON) -> None:
        """One more update of a pair."""
        field = at - at % SECOND, self.term
        known = self.bars.setdefault(pair, {}).get(field)
        bar = Bar.of_ascending([at], [price])
        whole = bar if known is None else known.followed_by(bar, known.count)
        self.bars[pair][field] = whole
        await self.window.write(self.window.encode(Flush((), [(pair, field, whole)])))


class Reading:
    """What a mirror reads: all bars, and how often each pair's were read."""

    def __init__(self, owner: Owner) -> None:
        self.window = owner.window
        self.read: list[tuple[str, str]] = []
        self.during = trio.lowlevel.checkpoint
        """Awaited before the bars are read."""
        self.afterwards = trio.lowlevel.checkpoint
        """Awaited before they are returned."""

    async def all_bars(self, pairs):
        await self.during()
        self.read += pairs
        found = await self.window.all_bars(pairs)
        await self.afterwards()
        return found


class Shard:
    """A shard with an owner, and a mirror elsewhere."""

    def __init__(self) -> None:
        self.shelf = FencedShelf()
        self.owner = Owner(self.shelf)
        self.reading = Reading(self.owner)
        self.changes = MemoryChanges({EXCHANGE: self.shelf})
        self.clock = WallClock()
        self.mirror = Mirror(EXCHANGE, window=self.reading, changes=self.changes, clock=self.clock)

    def known(self, pair: tuple[str, str]) -> int:
        """How many updates of the pair the mirror knows."""
        bar = self.mirror.bars.bar(pair, ALL_TIME)
        return 0 if bar is None else bar.count

    @property
    def away(self) -> bool:
        return self.changes.away

    @away.setter
    def away(self, away: bool) -> None:
        self.changes.away = self.owner.window.away = away


async def sealed_shard() -> Shard:
    """One whose owner may write."""
    shard = Shard()
    await shard.owner.seal()
    return shard


async def test_it_reads_what_is_asked_for_once_and_then_follows(autojump_clock):
    shard = await sealed_shard()
    await shard.owner.write(BTC, 1.0)
    await shard.owner.write(ETH, 1.0)
    await shard.mirror.catch_up([BTC])
    assert (shard.known(BTC), shard.known(ETH)) == (1, 0)
    await shard.owner.write(BTC, 2.0)
    await shard.owner.write(ETH, 2.0)
    await shard.mirror.catch_up([BTC])
    assert shard.known(BTC) == 2
    await shard.mirror.catch_up([BTC, ETH])
    assert (shard.known(BTC), shard.known(ETH)) == (2, 2)
    assert shard.reading.read == [BTC, ETH]
    assert shard.mirror.bars.newest_bars.of(BTC).close == 2.0


async def test_what_changes_while_it_reads_is_not_lost(autojump_clock):
    shard = await sealed_shard()

    async def change() -> None:
        await shard.owner.write(BTC, 3.0)

    await shard.owner.write(BTC, 1.0)
    shard.reading.during = shard.reading.afterwards = change
    await shard.mirror.catch_up([BTC])
    await shard.mirror.catch_up([BTC])
    assert shard.known(BTC) == 3
    assert shard.reading.read == [BTC]


async def test_a_hole_has_all_read_again(autojump_clock):
    shard = await sealed_shard()
    shard.shelf.most_changes = 3
    await shard.mirror.catch_up([BTC, ETH])
    for turn in range(10):  # more than are kept
        await shard.owner.write(BTC, 1.0 + turn)
    await shard.mirror.catch_up([BTC])
    assert shard.known(BTC) == 10
    await shard.owner.write(ETH, 1.0)
    await shard.mirror.catch_up([BTC])
    assert shard.known(ETH) == 1
    assert shard.reading.read == [BTC, ETH, BTC, ETH]


async def test_another_term_has_all_read_again(autojump_clock):
    shard = await sealed_shard()
    await shard.owner.write(BTC, 1.0)
    await shard.mirror.catch_up([BTC])
    successor = Owner(shard.shelf, epoch=2)
    await successor.seal()
    await successor.write(BTC, 2.0)
    await shard.mirror.catch_up([BTC])
    assert shard.known(BTC) == 2
    with pytest.raises(StoreAway):
        await shard.owner.write(BTC, 9.0)
    await shard.mirror.catch_up([BTC])
    assert shard.known(BTC) == 2


async def test_an_emptied_shard_with_a_term_of_an_earlier_epoch_is_noticed(autojump_clock):
    shard = await sealed_shard()
    later = Owner(shard.shelf, epoch=7)
    await later.seal()
    await later.write(BTC, 1.0)
    await shard.mirror.catch_up([BTC])
    shard.shelf.empty()
    first = Owner(shard.shelf, epoch=1)
    await first.seal()
    await first.write(BTC, 2.0)
    await shard.mirror.catch_up([BTC])
    assert shard.known(BTC) == 1
    assert shard.mirror.bars.newest_bars.of(BTC).close == 2.0


async def test_nothing_is_known_while_the_window_is_away(autojump_clock):
    shard = await sealed_shard()
    view = view_of(shard.mirror)
    await shard.owner.write(BTC, 1.0)
    assert not view.standing.history_known
    await view.bars.catch_up([BTC])
    assert view.standing.history_known
    shard.away = True
    await view.bars.catch_up([BTC])
    assert view.bars.newest(BTC) is None
    assert shard.mirror.bars is shard.mirror.bars, "the stream looks 100 times a second"
    assert not view.standing.history_known
    assert view.standing.known_from > NOON + HOUR
    shard.away = False
    await view.bars.catch_up([BTC])
    assert view.bars.newest(BTC).close == 1.0
    assert shard.reading.read == [BTC]


async def test_a_copy_stays_until_the_next_one_is_whole(autojump_clock):
    """A question that is being answered must not find half of the bars."""
    shard = await sealed_shard()
    await shard.owner.write(BTC, 1.0)
    await shard.mirror.catch_up([BTC])
    successor = Owner(shard.shelf, epoch=2)
    await successor.seal()
    await successor.write(BTC, 2.0)
    seen: list[int] = []

    async def look() -> None:
        seen.append(shard.known(BTC))

    shard.reading.during = look
    await shard.mirror.catch_up([BTC])
    assert (seen, shard.known(BTC)) == ([1], 2)


async def test_a_term_of_the_same_epoch_is_another_one(autojump_clock):
    """Both stores have forgotten the first. What follows at the next place does not belong to it."""
    shard = await sealed_shard()
    await shard.owner.write(BTC, 1.0)
    await shard.mirror.catch_up([BTC])
    await shard.owner.write(BTC, 2.0)
    await shard.mirror.catch_up([BTC])
    assert shard.reading.read == [BTC]
    await shard.owner.write(BTC, 3.0)
    shard.shelf.changes[-1] = attrs.evolve(shard.shelf.changes[-1], term="other")
    await shard.mirror.catch_up([BTC])
    assert shard.reading.read == [BTC, BTC]
    assert shard.known(BTC) == 3


async def test_one_read_serves_all_who_have_asked_before_it_began(autojump_clock):
    shard = await sealed_shard()
    await shard.owner.write(BTC, 1.0)
    asked: list[str] = []
    plain = shard.changes.after

    async def counted(exchange, place):
        asked.append("changes")
        return await plain(exchange, place)

    shard.changes.after = counted
    await shard.mirror.catch_up([BTC])
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(shard.mirror.catch_up, [BTC])
    assert 1 <= len(asked) <= 2


async def test_an_answer_has_what_was_acknowledged_before_the_question(autojump_clock):
    """Also if another question's read is under way, which may have begun too early."""
    shard = await sealed_shard()
    await shard.mirror.catch_up([BTC])
    plain, gate = shard.changes.after, trio.Event()

    async def slow(exchange, place):
        found = await plain(exchange, place)
        await gate.wait()
        return found

    shard.changes.after = slow
    async with trio.open_nursery() as nursery:
        nursery.start_soon(shard.mirror.catch_up, [BTC])
        await trio.testing.wait_all_tasks_blocked()
        await shard.owner.write(BTC, 1.0)
        shard.changes.after = plain
        nursery.start_soon(shard.mirror.catch_up, [BTC])
        await trio.testing.wait_all_tasks_blocked()
        gate.set()
    assert shard.known(BTC) == 1


async def test_a_read_of_other_pairs_says_nothing_of_ours(autojump_clock):
    """Our read fails, that of the next question succeeds: we still do not know whether there are updates."""
    shard = await sealed_shard()
    await shard.owner.write(BTC, 1.0)
    first, second = view_of(shard.mirror), view_of(shard.mirror)
    plain, failing = shard.changes.end, trio.Event()

    async def once_away(exchange):
        shard.changes.end = plain
        await failing.wait()
        raise StoreAway("one lost connection")

    shard.changes.end = once_away
    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.bars.catch_up, [BTC])
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(second.bars.catch_up, [ETH])
        await trio.testing.wait_all_tasks_blocked()
        failing.set()
    assert shard.reading.read == [ETH]
    assert (first.standing.history_known, second.standing.history_known) == (False, True)
    assert first.standing.known_from > NOON + HOUR
    assert not await first.standing.can_answer_from_redis()
    assert not await first.standing.flushed()
    await first.bars.catch_up([BTC])
    assert first.standing.known_from == 0
    assert first.bars.newest(BTC).close == 1.0


async def test_a_failed_read_of_others_takes_nothing_from_us(autojump_clock):
    shard = await sealed_shard()
    await shard.owner.write(BTC, 1.0)
    view = view_of(shard.mirror)
    await view.bars.catch_up([BTC])
    shard.away = True
    await shard.mirror.catch_up([ETH])
    assert view.standing.history_known
    assert view.bars.newest(BTC).close == 1.0


async def test_a_window_that_hangs_fails_all_questions_together(autojump_clock):
    """Otherwise the last of many waits for one timeout after the other."""
    shard, seconds = await sealed_shard(), 1.0

    async def hang(exchange):
        await trio.sleep(seconds)
        raise StoreAway("no answer")

    shard.changes.end = hang
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for pair in PAIRS * 10:
            nursery.start_soon(shard.mirror.catch_up, [pair])
    assert trio.current_time() - began <= 2 * seconds


async def test_one_read_is_for_the_pairs_of_all(autojump_clock):
    shard = await sealed_shard()
    reads = 0

    async def count() -> None:
        nonlocal reads
        reads += 1
        await trio.sleep(1)

    shard.reading.during = count
    async with trio.open_nursery() as nursery:
        for pair in PAIRS:
            nursery.start_soon(shard.mirror.catch_up, [pair])
    assert reads <= 2
    assert sorted(shard.reading.read) == PAIRS


async def test_a_read_that_was_cancelled_serves_nobody(autojump_clock):
    """The second question leaves while it reads. The third one was asked before that, and reads itself."""
    shard = await sealed_shard()
    await shard.mirror.catch_up([BTC])
    plain, gates = shard.changes.after, [trio.Event(), trio.Event()]
    waiting = iter(gates)

    async def slow(exchange, place):
        if (gate := next(waiting, None)) is not None:
            await gate.wait()
        return await plain(exchange, place)

    async def ask(scope: trio.CancelScope) -> None:
        with scope:
            await shard.mirror.catch_up([BTC])

    shard.changes.after = slow
    scopes = [trio.CancelScope() for _ in range(3)]
    async with trio.open_nursery() as nursery:
        for scope in scopes:
            nursery.start_soon(ask, scope)
            await trio.testing.wait_all_tasks_blocked()
        gates[0].set()
        await trio.testing.wait_all_tasks_blocked()
        await shard.owner.write(BTC, 1.0)
        scopes[1].cancel()
    assert shard.known(BTC) == 1


async def test_old_bars_are_forgotten(autojump_clock):
    shard = await sealed_shard()
    await shard.owner.write(BTC, 1.0, at=NOON - HOUR + 2 * MINUTE)
    await shard.mirror.catch_up([BTC])
    assert shard.known(BTC) == 1
    shard.clock.offset += 5 * MINUTE
    await shard.mirror.catch_up([BTC])
    assert shard.known(BTC) == 0
    assert shard.mirror.bars.forgotten_to >= NOON - HOUR + 3 * MINUTE


@given(seed=SEEDS)
def test_it_equals_the_window_whatever_happens(seed):
    """Writes, holes, new terms, outages and an emptied shard in any order, with questions in between."""

    async def play() -> None:
        rng, shard = random.Random(seed), Shard()
        shard.shelf.most_changes = rng.choice([2, 5, 50])
        await shard.owner.seal()
        epoch = 1
        for _ in range(60):
            match rng.choices(["write", "ask", "term", "away", "empty"], [12, 8, 1, 1, 1])[0]:
                case "write" if not shard.away:
                    at = NOON - rng.randrange(3 * MINUTE)
                    await shard.owner.write(rng.choice(PAIRS), rng.uniform(1, 9), at=at)
                case "term" if not shard.away:
                    epoch += 1
                    shard.owner = Owner(shard.shelf, epoch)
                    await shard.owner.seal()
                    shard.reading.window = shard.owner.window
                case "away":
                    shard.away = not shard.away
                case "empty" if not shard.away:
                    shard.shelf.empty()
                    epoch += 1
                    shard.owner = Owner(shard.shelf, epoch)
                    await shard.owner.seal()
                    shard.reading.window = shard.owner.window
                    await shard.owner.write(rng.choice(PAIRS), rng.uniform(1, 9))
                case "ask":
                    pairs = rng.sample(PAIRS, rng.randint(1, len(PAIRS)))
                    await shard.mirror.catch_up(pairs)
                    assert shard.mirror.answers is not shard.away
                    if not shard.away:
                        for pair in pairs:
                            assert shard.mirror.bars.fields(pair, ALL_TIME) == shard.shelf.bars.get(pair, {})

    run_virtual(play)
