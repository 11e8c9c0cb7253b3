"""Exchanges that this node records, or is just taking: a task for each.

```
 record: it may soon be ours        take                 had, and lost or given back
 ──────────────────────────> waiting ──> taking, having ──────────────────────────> over
                              │   ^        │
                dismissed     │   └────────┘ it could not be taken
        over <────────────────┘
```
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, suppress
from typing import Protocol

import attrs
import trio

from marketflow.app.cluster.hold import Ended, Hold
from marketflow.app.ports import Node, Term


class Candidacy(Protocol):
    """An exchange that this node may take. If it is shared, it is recorded."""

    @property
    def ready(self) -> bool:
        """Whether all that the exchange sends is recorded."""
        ...

    async def __call__(self, hold: Hold) -> Ended:
        """Have the exchange: it is fed into a share of its own. To be called once at most.

        Return when the exchange was lost, or, once it is to be given back, all is stored.
        """
        ...


class Tenures(Protocol):
    """What is done with exchanges before and while this node has them."""

    def candidacy(self, exchange: str, *, seals: bool) -> AbstractAsyncContextManager[Candidacy]:
        """Be ready to have an exchange. `seals`: it is only sealed then."""
        ...


@attrs.frozen
class Order:
    """To take an exchange."""

    after: Term | None
    """Its last term; None if it has had none."""
    node: Node
    """This one."""
    generation: int | None
    """Of the mode for which it is taken."""
    seals: bool = False
    """Whether it is only sealed, and given back at once."""


@attrs.define(eq=False)
class _Candidate:
    orders: trio.MemorySendChannel[Order]
    candidacy: Candidacy | None = None

    @property
    def ready(self) -> bool:
        return self.candidacy is not None and self.candidacy.ready


class Candidates:
    """Starts the tasks, and ends those that have taken nothing."""

    def __init__(self, tenures: Tenures, have: Callable[[str, Order, Candidacy], Awaitable[bool]]) -> None:
        """`have` takes an exchange and has it; it returns False at once if it could not be taken."""
        self._tenures = tenures
        self._have = have
        self._candidates: dict[str, _Candidate] = {}

    @property
    def ready(self) -> tuple[str, ...]:
        """Those of which all that comes is recorded."""
        return tuple(sorted(exchange for exchange, each in self._candidates.items() if each.ready))

    def record(self, exchanges: Collection[str], nursery: trio.Nursery) -> None:
        """Record these exchanges from now on, and no others. A term that has begun goes on."""
        for exchange in [name for name in self._candidates if name not in exchanges]:
            self._candidates.pop(exchange).orders.close()
        for exchange in [name for name in sorted(exchanges) if name not in self._candidates]:
            self._start(exchange, nursery, seals=False)

    def take(self, exchange: str, order: Order, nursery: trio.Nursery) -> None:
        """Take an exchange, recorded or not."""
        if exchange not in self._candidates:
            self._start(exchange, nursery, seals=order.seals)
        with suppress(trio.WouldBlock):  # It is just being taken.
            self._candidates[exchange].orders.send_nowait(order)

    def _start(self, exchange: str, nursery: trio.Nursery, *, seals: bool) -> None:
        send, receive = trio.open_memory_channel[Order](1)
        candidate = self._candidates[exchange] = _Candidate(send)
        nursery.start_soon(self._run, exchange, candidate, receive, seals)

    async def _run(
        self,
        exchange: str,
        candidate: _Candidate,
        orders: trio.MemoryReceiveChannel[Order],
        seals: bool,
    ) -> None:
        async with self._tenures.candidacy(exchange, seals=seals) as candidate.candidacy, orders:
            try:
                async for order in orders:
                    if await self._have(exchange, order, candidate.candidacy):
                        break
            finally:
                if self._candidates.get(exchange) is candidate:
                    del self._candidates[exchange]
