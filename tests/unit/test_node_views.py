"""Which view of an exchange a node has: its share's, or a mirror's."""

from __future__ import annotations

from functools import partial

import attrs
import pytest
import trio
from builders import NOON, WallClock

from marketflow.adapters.cache.memory_terms import FencedShelf, MemoryChanges, MemoryTermWindow
from marketflow.app.answers import NothingCanAnswer
from marketflow.app.cluster.cluster_stream import STREAM_SECONDS, ClusterStream
from marketflow.app.cluster.mirror import Mirror
from marketflow.app.cluster.views import ClusterViews, OwnView
from marketflow.app.knowledge import View
from marketflow.app.ports import Flush, StoreAway, Term
from marketflow.app.questions.newest import NewestUpdates
from marketflow.domain.bars import Bar
from marketflow.domain.periods import HOUR, Span

PAIRS = [("exchange1", "BTCUSDT"), ("exchange2", "BTCUSDT")]
FIRST, SECOND = PAIRS


@attrs.define
class Known:
    """Fills both ports with one bar, or none."""

    price: float
    began_at: int | None = NOON
    history_known: bool = True
    known_from: int = 0
    forgotten_to: int = 0
    from_redis: bool = True
    asked: int = 0

    def newest(self, pair):
        return Bar.of_ascending([NOON], [self.price]) if pair[0] == "exchange1" else None

    async def catch_up(self, pairs):  # noqa: ARG002 - a port
        self.asked += 1
        await trio.lowlevel.checkpoint()

    async def wait_for_history(self, since):  # noqa: ARG002 - a port
        self.asked += 1
        await trio.lowlevel.checkpoint()

    async def can_answer_from_redis(self):
        await trio.lowlevel.checkpoint()
        return self.from_redis

    flushed = can_answer_from_redis


@attrs.define
class Share:
    """What decides whether a share answers."""

    known: Known
    confirmed: bool = True
    up: bool = True

    @property
    def view(self) -> OwnView:
        return OwnView(View(self.known, self.known), lambda: self.confirmed, lambda: self.up)


class Node:
    """Views of two exchanges over shards in memory."""

    def __init__(self) -> None:
        self.shelves = {exchange: FencedShelf() for exchange, _ in PAIRS}
        self.written = 0
        self.changes, self.clock = MemoryChanges(self.shelves), WallClock()
        self.windows = {
            exchange: MemoryTermWindow(Term(exchange, 1, f"{exchange}-term"), shelf)
            for exchange, shelf in self.shelves.items()
        }
        self.views = ClusterViews(
            {
                exchange: Mirror(exchange, window=window, changes=self.changes, clock=self.clock)
                for exchange, window in self.windows.items()
            }
        )

    async def write(self, pair, price: float) -> None:
        """An update by the node that has the exchange."""
        window = self.windows[pair[0]]
        await window.take(await window.look())
        self.written += 1
        bar = Bar.of_ascending([NOON + self.written], [price])
        await window.write(window.encode(Flush((), [(pair, (NOON, f"term{self.written}"), bar)])))


@pytest.mark.parametrize("confirmed", [False, True])
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("history_known", [False, True])
async def test_a_share_answers_if_it_knows_at_least_as_much(autojump_clock, confirmed, up, history_known):
    node, share = Node(), Share(Known(2.0, history_known=history_known), confirmed, up)
    await node.write(FIRST, 1.0)
    with node.views.owned("exchange1", share.view):
        view = node.views.of({"exchange1"})
        await view.bars.catch_up([FIRST])
        own = not up or (confirmed and history_known)
        assert view.bars.newest(FIRST).close == (2.0 if own else 1.0)
    view = node.views.of({"exchange1"})
    await view.bars.catch_up([FIRST])
    assert view.bars.newest(FIRST).close == 1.0


async def test_a_question_keeps_the_view_with_which_it_began(autojump_clock):
    node, share = Node(), Share(Known(2.0))
    with node.views.owned("exchange1", share.view):
        view = node.views.of({"exchange1", "exchange2"})
    assert view.bars.newest(FIRST).close == 2.0


@pytest.mark.parametrize("one", [True, False])
async def test_as_little_is_known_as_of_the_worst(autojump_clock, one):
    node = Node()
    first = Share(Known(1.0, began_at=NOON, forgotten_to=5))
    other = Known(2.0, began_at=NOON + 7, history_known=one, known_from=0 if one else 9, from_redis=one)
    with (
        node.views.owned("exchange1", first.view),
        node.views.owned("exchange2", attrs.evolve(first, known=other, up=False).view),
    ):
        view = node.views.of({"exchange1", "exchange2"})
        await view.standing.wait_for_history(0)
        await view.bars.catch_up(PAIRS)
        assert (first.known.asked, other.asked) == (2, 2)
        assert view.bars.forgotten_to == 5
        assert view.standing.began_at == NOON
        assert view.standing.history_known is one
        assert view.standing.known_from == (0 if one else 9)
        assert await view.standing.can_answer_from_redis() is one
        assert await view.standing.flushed() is one
        other.began_at = None
        assert view.standing.began_at is None


@pytest.fixture
async def node_and_stream(nursery):
    node = Node()
    stream = ClusterStream(node.views, PAIRS, began_at=NOON)
    nursery.start_soon(stream.run)
    return node, stream


async def test_the_stream_follows_the_best_view(autojump_clock, node_and_stream):
    """Its number grows with each update, also from a share's to a mirror's and back."""
    (node, stream), share = node_and_stream, Share(Known(5.0))
    assert stream.arrived > NOON
    seen = stream.arrived
    await node.write(FIRST, 1.0)
    for turn in range(3):
        before, seen = seen, await stream.wait_for_updates(seen)
        assert seen > before
        assert stream.newest(FIRST).close == 1.0 + turn
        await node.write(FIRST, 2.0 + turn)
    seen = await stream.wait_for_updates(seen)
    with node.views.owned("exchange1", share.view):
        seen = await stream.wait_for_updates(seen)
        assert stream.newest(FIRST).close == 5.0
    seen = await stream.wait_for_updates(seen)
    assert stream.newest(FIRST).close == 4.0
    with trio.move_on_after(60) as quiet:
        await stream.wait_for_updates(seen)
    assert quiet.cancelled_caught


async def test_an_exchange_whose_shard_hangs_does_not_slow_the_stream_of_others(
    autojump_clock, node_and_stream
):
    node, stream = node_and_stream
    plain = node.changes.after

    async def after(exchange, place):
        if exchange == "exchange1":
            await trio.sleep(1)
            raise StoreAway("no answer")
        return await plain(exchange, place)

    await node.write(FIRST, 1.0)
    await stream.catch_up(PAIRS)
    seen = await stream.wait_for_updates(0)
    node.changes.after = after
    for turn in range(100):
        await node.write(SECOND, 2.0 + turn)
        began = trio.current_time()
        while (known := stream.newest(SECOND)) is None or known.close != 2.0 + turn:
            seen = await stream.wait_for_updates(seen)
        assert trio.current_time() - began <= 2 * STREAM_SECONDS


async def test_the_stream_looks_at_nothing_while_nobody_waits(autojump_clock, node_and_stream):
    node, stream = node_and_stream
    await node.write(FIRST, 1.0)
    await trio.sleep(10)
    assert stream.newest(FIRST) is None
    await stream.wait_for_updates(stream.arrived)
    assert stream.newest(FIRST).close == 1.0


async def test_a_mirror_answers_whole_questions(autojump_clock):
    node = Node()
    await node.write(FIRST, 1.0)
    await node.write(SECOND, 3.0)
    view = node.views.of({"exchange1", "exchange2"})
    await view.bars.catch_up(PAIRS)
    span = Span(NOON - HOUR, NOON + HOUR)
    assert [view.bars.bar(pair, span).max for pair in PAIRS] == [1.0, 3.0]
    assert view.standing.history_known
    node.changes.away = True
    await view.bars.catch_up(PAIRS)
    assert not view.standing.history_known


class SlowRows:
    """Fills what the newest rows are read with: it has none, and takes a while to say so."""

    async def newest(self, pairs):  # noqa: ARG002 - a port
        await trio.sleep(0.1)
        return {}


async def test_nothing_is_said_of_a_pair_that_could_not_be_read(autojump_clock):
    """Not that it has no updates, either, although another question has read another pair meanwhile."""
    node, plain, failing = Node(), MemoryChanges.end, trio.Event()
    other = ("exchange1", "ETHUSDT")
    await node.write(FIRST, 1.0)
    await node.write(other, 2.0)

    async def once_away(exchange):
        node.changes.end = partial(plain, node.changes)
        await failing.wait()
        raise StoreAway("one lost connection")

    async def fails() -> None:
        with pytest.raises(NothingCanAnswer):
            await newest.of([FIRST])

    node.changes.end = once_away
    newest = NewestUpdates(views=node.views, store=SlowRows())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(newest.of, [other])
        await trio.testing.wait_all_tasks_blocked()
        failing.set()
    [(update, _)] = (await newest.of([FIRST])).values()
    assert update.price == 1.0
