"""Faults, one at a time, and what each has cost."""

from __future__ import annotations

import signal
from collections.abc import Collection
from typing import Literal

import attrs
import trio

from tests.cluster.nodes import Node
from tests.cluster.stage import SOON, Stage, Term, monotonic
from tests.faults.rig import Sent, eventually

BEFORE = 1.0
"""Seconds before a fault of which updates may be missing: what was not flushed yet, on a slow machine. On an
idle one these are 0.05 s."""
SEEN = 8.0
"""Seconds after its start before which a node takes no exchange from another: two lease times, and more."""
Direction = Literal["requests", "answers", "refused"]
DIRECTIONS: tuple[Direction, ...] = ("requests", "answers", "refused")
LINKS: tuple[tuple[str, ...], ...] = (("postgres",), ("redis",), ("postgres", "redis"))


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
    links = [stage.nodes[name].links[store] for store in stores]
    for link in links:
        if direction == "refused":
            link.refusing = True
            await link.drop()
        else:
            link.losing.value = direction
    await trio.sleep(seconds)
    await stage.nodes[name].ask("/health")  # It answers.
    for link in links:
        link.refusing, link.losing.value = False, None
    after = await stage.settled()
    return await costs(stage, before, after, at)


async def costs(stage: Stage, before: dict[str, Term], after: dict[str, Term], at: float) -> list[Cost]:
    """Wait until all that is to come has come; returns what was lost from the fault on.

    That may only be what was sent between the fault and the next owner's first update; or nothing, if an
    exchange has the same owner.
    """
    first = {exchange: stage.first_of(term) for exchange, term in after.items()}
    until = {
        exchange: update.sent_at if update is not None and after[exchange] != before[exchange] else at
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
        lost = [each for each in stage.missing(exchange, at - BEFORE) if each.sent_at < until[exchange]]
        seconds, unsaved = until[exchange] - at, at - lost[0].sent_at if lost else 0.0
        found.append(Cost(exchange, term != before[exchange], seconds, len(lost), max(0.0, unsaved)))
    return found
