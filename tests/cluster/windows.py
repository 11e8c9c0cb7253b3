"""What Redis has of the updates, read directly and independently of the code under test."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Sequence

import attrs
import redis
import trio

from tests.cluster.stores import Redis
from tests.faults.rig import BASE, Sent

READ_EVERY = 1.0
"""Seconds. Members stay for a minute."""
PATIENCE = 10.0
"""Seconds after a failure for which a window may be away, and answers about it missing."""

Key = tuple[str, str, int, float]
"""Exchange, symbol, timestamp, price: of one update only, since no two have the same price."""
Pair = tuple[str, str]
Members = Sequence[tuple[bytes, float]]


def key_of(update: Sent) -> Key:
    """The update as its member shows it."""
    return update.exchange, update.symbol, update.timestamp, update.price


def mark_of(member: bytes) -> str:
    """The end of the id of the term that has written a member."""
    return member.split(b":")[2].decode()


@attrs.define
class Terms:
    """Which terms have written to a pair's window, as its members tell, read by read."""

    open: set[str] = attrs.field(factory=set)
    """Those of the newest read that has shown a new one, and later ones."""
    over: set[str] = attrs.field(factory=set)
    """Those that wrote before. They must never write again."""

    def read(self, marks: Collection[str]) -> set[str]:
        """Members of these terms have come; returns which of the terms were over before."""
        zombies = set(marks) & self.over
        if begun := set(marks) - self.open - self.over:
            self.over |= self.open
            self.open = begun
        return zombies


@attrs.frozen
class Windows:
    """All members that were ever seen in the windows."""

    redis: Redis
    exchanges: Collection[str]
    generated: Collection[str] = ()
    """Exchanges of test mode, of which only members tell what they have sent."""
    tagged: bool = True
    """Whether the windows are those of nodes, and not of a single service."""
    members: defaultdict[Key, set[bytes]] = attrs.field(factory=lambda: defaultdict(set))
    """More than one: the update was taken in more than once."""
    zombies: list[tuple[Pair, bytes]] = attrs.field(factory=list)
    """Members of a term that came when another one had written already."""
    now: dict[Pair, set[bytes]] = attrs.field(factory=dict)
    """The members that were there at the last read."""
    away_at: dict[str, float] = attrs.field(factory=dict)
    """When a window could not be read, the last time (monotonic seconds), by exchange."""
    _terms: defaultdict[Pair, Terms] = attrs.field(factory=lambda: defaultdict(Terms))
    _turn: trio.Lock = attrs.field(factory=trio.Lock)

    async def watch(self) -> None:
        """Read again and again, until cancelled."""
        while True:
            await self.read()
            await trio.sleep(READ_EVERY)

    async def read(self) -> None:
        """Take over what is there now. Windows that are away are left out."""
        async with self._turn:  # or an older read would come after a newer one
            for exchange in (*self.exchanges, *self.generated):
                found = await trio.to_thread.run_sync(self._read, exchange)
                for pair, members in found.items():
                    self._add(pair, members)

    def _add(self, pair: Pair, members: Members) -> None:
        exchange, symbol = pair
        new = []
        for member, timestamp in members:
            known = self.members[exchange, symbol, int(timestamp), float(member.split(b":")[0])]
            if member not in known:
                known.add(member)
                new.append(member)
        zombies = self._terms[pair].read({mark_of(member) for member in new})
        self.zombies.extend((pair, member) for member in new if mark_of(member) in zombies)
        self.now[pair] = {member for member, _ in members}

    def _read(self, exchange: str) -> dict[Pair, Members]:
        name = f"{{{exchange}}}" if self.tagged else exchange
        try:
            with self.redis.client(exchange) as client, client.pipeline(transaction=False) as pipeline:
                for symbol in BASE:
                    pipeline.zrange(f"prices:{name}:{symbol}", 0, -1, withscores=True)
                return {
                    (exchange, symbol): found for symbol, found in zip(BASE, pipeline.execute(), strict=True)
                }
        except (redis.RedisError, AssertionError):
            self.away_at[exchange] = time.monotonic()
            return {}

    async def of(self, exchange: str, symbol: str) -> list[int]:
        """The timestamps that the window of a pair has now; none if it is away."""
        found = await trio.to_thread.run_sync(self._read, exchange)
        return [int(timestamp) for _, timestamp in found.get((exchange, symbol), ())]

    def well(self, exchange: str) -> bool:
        """Whether the exchange's window has been there for some time."""
        return time.monotonic() > self.away_at.get(exchange, -PATIENCE) + PATIENCE

    def has(self, update: Sent) -> bool:
        """Whether the update was ever there."""
        return key_of(update) in self.members

    def has_now(self, update: Sent) -> bool:
        """Whether it was there at the last read."""
        members = self.members.get(key_of(update), set())
        return bool(members & self.now[update.exchange, update.symbol])

    def terms_of(self, update: Sent) -> set[str]:
        """The ends of the ids of the terms that have written it."""
        return {mark_of(member) for member in self.members.get(key_of(update), ())}

    def of_terms(self, marks: Collection[str]) -> set[bytes]:
        """All members that these terms have written."""
        return {member for members in self.members.values() for member in members if mark_of(member) in marks}

    def twice(self) -> list[Key]:
        """Updates that were taken in more than once."""
        return [
            key for key, members in self.members.items() if len(members) > 1 and key[0] not in self.generated
        ]

    def generated_updates(self) -> list[Sent]:
        """What the exchanges of test mode have sent, as far as it came here."""
        return [
            Sent(exchange, symbol, price, timestamp, int(member.split(b":")[1], 36), 0.0)
            for (exchange, symbol, timestamp, price), members in self.members.items()
            if exchange in self.generated
            for member in members
        ]
