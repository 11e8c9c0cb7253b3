"""Faults, one at a time, and what each has cost."""

from __future__ import annotations

import math
import signal
from collections.abc import Collection

import attrs
import trio

from marketflow.adapters.cache.slots import slot_of
from tests.cluster.cluster_servers import Cluster, move_atomically, move_key_by_key
from tests.cluster.nodes import Node
from tests.cluster.pauses import Pauses, pauses
from tests.cluster.stage import GENERATED, SOON, Stage, Term, monotonic
from tests.cluster.stores import Direction
from tests.faults.rig import Sent, eventually, now_ms

BEFORE = 1.0
"""Seconds before a fault of which updates may be missing: what was not flushed yet, on a slow machine. On an
idle one these are 0.05 s."""
KEPT = 45.0
"""Seconds for which Redis must keep what it has, also if a part of it fails. Its window is 60 s long."""
SEEN = 8.0
"""Seconds after its start before which a node takes no exchange from another: two lease times, and more."""
STORES: tuple[tuple[str, ...], ...] = (("postgres",), ("redis",), ("postgres", "redis"))


@attrs.frozen
class Cost:
    """What a fault has cost an exchange."""

    exchange: str
    moved: bool
    """Whether another node has taken it."""
    seconds: float
    """From the fault to the first update that the next owner took in; 0 if it did not move."""
    missing: int
    unsaved: float
    """How many seconds before the fault the first missing update was sent; 0: none before."""
    pause: float = 0.0
    """For how many seconds an update had been sent that was not in Redis yet, at most, if anybody looked."""
    stale: float = 0.0
    """How many seconds before a question an update was sent that the answer did not know, at most."""
    of: str = ""
    """Which of the fault's exchanges it is, if they are not alike."""


def other(stage: Stage, name: str) -> Node:
    """The other node that takes exchanges."""
    return stage.nodes[{"one": "two", "two": "one"}[name]]


async def gathered(stage: Stage, name: str) -> dict[str, Term]:
    """Give one node all exchanges, by ending the other one for a while; returns the terms."""
    await stage.settled()
    if any(term.node != name for term in (await stage.terms()).values()):
        second = other(stage, name)
        assert await second.end(signal.SIGTERM) == 0, second.log.read_text()[-2_000:]
        await stage.settled(by=name)
        await stage.start(second.name)
    before = await stage.settled(by=name)
    await trio.sleep(max(0.0, other(stage, name).served_at + SEEN - monotonic()))
    return before


async def kill(stage: Stage, name: str) -> list[Cost]:
    """Kill the node that has all exchanges, and start it again when another one has them."""
    before, at = await gathered(stage, name), monotonic()
    await stage.nodes[name].end()
    after = await stage.settled(after=before)
    await stage.start(name)
    return await costs(stage, before, after, at)


async def freeze(stage: Stage, name: str) -> list[Cost]:
    """Stop the node that has all exchanges past its leases, then let it go on with what its sockets hold."""
    before, at = await gathered(stage, name), monotonic()
    stage.nodes[name].send(signal.SIGSTOP)
    frozen_at = monotonic()
    after = await stage.settled(after=before)
    marks = {term.mark for term in before.values()}
    await stage.windows.read()
    written = stage.windows.of_terms(marks)
    stage.nodes[name].send(signal.SIGCONT)
    await stage.nodes[name].serves()
    woken_at = monotonic()
    while monotonic() < woken_at + 2:  # It writes what it can.
        await stage.check_ledgers()
        await trio.sleep(0.2)
    await stage.windows.read()
    # Neither what it had not flushed when it was stopped, nor what its sockets held.
    zombies = stage.windows.of_terms(marks) - written
    assert not zombies, (
        f"{len(zombies)} updates were written by a node that had lost its exchanges: {zombies}"
    )
    for term in before.values():
        last = stage.last_of(term)
        assert last is None or last.sent_at <= frozen_at, f"{term} has taken in {last} after {frozen_at}"
    return await costs(stage, before, after, at)


async def cut(
    stage: Stage, name: str, stores: Collection[str], direction: Direction, seconds: float = 8.0
) -> list[Cost]:
    """Cut the node that has all exchanges off from these stores for so long."""
    before, at = await gathered(stage, name), monotonic()
    ways = [stage.nodes[name].ways[store] for store in stores]
    for way in ways:
        await way.cut(direction)
    await trio.sleep(seconds)
    await stage.nodes[name].ask("/health")  # It answers.
    for way in ways:
        way.mend()
    after = await stage.settled()
    return await costs(stage, before, after, at)


async def restart_all(stage: Stage) -> list[Cost]:
    """Stop and start one node after the other, each once the one before serves again."""
    before, at = await stage.settled(), monotonic()
    async with pauses(stage) as seen:
        for name in stage.nodes:
            async with stage.left_alone(name):
                node = stage.nodes[name]
                assert await node.end(signal.SIGTERM) == 0, node.log.read_text()[-2_000:]
                await stage.start(name)
        after = await stage.settled()
    return [
        attrs.evolve(cost, pause=seen.writes[cost.exchange], stale=seen.answers[cost.exchange])
        for cost in await costs(stage, before, after, at)
    ]


async def kill_master(stage: Stage, cluster: Cluster, exchange: str) -> list[Cost]:
    """Kill the Redis that has an exchange, and start it again once its replica is written to."""
    before = await stage.settled()
    async with pauses(stage) as seen:
        await trio.sleep(1)
        owner, at = await trio.to_thread.run_sync(cluster.owner, exchange), monotonic()
        await trio.to_thread.run_sync(owner.kill)

        async def written_again() -> bool:
            await stage.windows.read()
            return any(stage.windows.has(each) for each in stage.sent_by(exchange) if each.sent_at > at)

        await eventually(written_again, within=SOON, every=0.1, what=f"{exchange} is written again")
        await trio.sleep(2)
    owner.start()  # not in a thread: the server would end with it
    await trio.to_thread.run_sync(cluster.until_whole)
    return await _of_one(stage, before, exchange, at, seen)


async def move_slot(stage: Stage, cluster: Cluster, exchange: str, *, atomically: bool) -> list[Cost]:
    """Move the slot of an exchange to another master."""
    before = await stage.settled()
    source = await trio.to_thread.run_sync(cluster.owner, exchange)
    masters = sorted(await trio.to_thread.run_sync(cluster.masters), key=lambda each: each.port)
    target = masters[(masters.index(source) + 1) % len(masters)]
    move = move_atomically if atomically else move_key_by_key
    async with pauses(stage) as seen:
        await trio.sleep(1)
        at = monotonic()
        await trio.to_thread.run_sync(move, cluster, slot_of(exchange), source, target)
        await trio.sleep(2)
    return await _of_one(stage, before, exchange, at, seen)


async def _of_one(
    stage: Stage, before: dict[str, Term], exchange: str, at: float, seen: Pauses
) -> list[Cost]:
    """What has happened to the exchange of a part of Redis, and to the others."""
    found = await costs(stage, before, await stage.settled(), at)
    asked_at = monotonic()
    gone: list[Sent] = []

    async def still_there() -> bool:
        await stage.windows.read()
        gone[:] = [
            each
            for each in stage.sent
            if monotonic() - KEPT < each.sent_at < asked_at - 1 and not stage.windows.has_now(each)
        ]
        return not gone

    try:
        await eventually(still_there, within=SOON, every=0.3)
    except AssertionError:
        raise AssertionError(f"Redis has lost {len(gone)} updates for good, such as {gone[:3]}") from None
    return [
        attrs.evolve(
            cost,
            pause=seen.writes[cost.exchange],
            of="its own" if cost.exchange == exchange else "the others",
        )
        for cost in found
    ]


async def switch_modes(stage: Stage, name: str) -> list[Cost]:
    """Kill the node that has all exchanges, switch to test mode at once, and back, before it lives again.

    The seconds are those until a switch was answered.
    """
    await gathered(stage, name)
    await stage.nodes[name].end()
    found = []
    for mode, exchanges in (("test", GENERATED), ("live", stage.exchanges)):
        at = monotonic()
        answer = await stage.asked.post(f"/mode/{mode}")
        assert answer.status == 200, answer
        seconds = monotonic() - at
        asked_at = now_ms()

        async def newer(asked_at: int = asked_at, exchanges: Collection[str] = exchanges) -> bool:
            answers = [await stage.asked.ask(f"/prices/latest/{each}/BTCUSDT") for each in exchanges]
            return all(each.status == 200 and each.body["timestamp"] > asked_at for each in answers)

        await eventually(newer, within=SOON, every=0.1, what=f"prices of mode {mode}")
        found.append(Cost(mode, moved=True, seconds=seconds, missing=0, unsaved=0.0, of=f"to {mode}"))
    after = await stage.settled()
    await stage.start(name)
    await _nothing_more_missing(stage, after)
    return found


async def _nothing_more_missing(stage: Stage, terms: dict[str, Term]) -> None:
    """From the first update of these terms on, none is missing."""
    await costs(stage, {}, terms, monotonic())


async def costs(stage: Stage, before: dict[str, Term], after: dict[str, Term], at: float) -> list[Cost]:
    """Wait until all that is to come has come; returns what was lost from the fault on.

    That may only be what was sent between the fault and the next owner's first update; or nothing, if an
    exchange has the same owner.
    """
    first = {exchange: stage.first_of(term) for exchange, term in after.items()}
    until = {
        exchange: update.sent_at if update is not None and after[exchange] != before.get(exchange) else at
        for exchange, update in first.items()
    }
    asked_at = monotonic()
    late: list[Sent] = []

    async def there() -> bool:
        await stage.windows.read()
        late[:] = [
            update
            for exchange in after
            for update in stage.missing(exchange, until[exchange])
            if update.sent_at < asked_at
        ]
        return not late

    try:
        await eventually(there, within=SOON, every=0.2)
    except AssertionError:
        raise AssertionError(f"{len(late)} updates of {after} are missing, such as {late[:3]}") from None
    found = []
    for exchange, term in after.items():
        since = max(at - BEFORE, _taken_at(stage, before.get(exchange)))
        lost = [each for each in stage.missing(exchange, since) if each.sent_at < until[exchange]]
        seconds, unsaved = until[exchange] - at, at - lost[0].sent_at if lost else 0.0
        found.append(Cost(exchange, term != before.get(exchange), seconds, len(lost), max(0.0, unsaved)))
    return found


def _taken_at(stage: Stage, term: Term | None) -> float:
    """When a term's first update was sent. No later fault has lost what was sent before."""
    first = stage.first_of(term) if term else None
    return first.sent_at if first else -math.inf
