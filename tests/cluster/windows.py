"""What Redis has of the updates, read directly and independently of the code under test."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence

import attrs
import redis
import trio

from tests.faults.rig import BASE, Sent

READ_EVERY = 1.0
"""Seconds. Members stay for a minute."""

Key = tuple[str, str, int, float]
"""Exchange, symbol, timestamp, price: of one update only, since no two have the same price."""


def key_of(update: Sent) -> Key:
    """The update as its member shows it."""
    return update.exchange, update.symbol, update.timestamp, update.price


@attrs.frozen
class Windows:
    """All members that were ever seen in the windows."""

    url: str
    exchanges: Collection[str]
    members: defaultdict[Key, set[bytes]] = attrs.field(factory=lambda: defaultdict(set))
    """More than one: the update was taken in more than once."""

    async def watch(self) -> None:
        """Read again and again, until cancelled."""
        while True:
            await self.read()
            await trio.sleep(READ_EVERY)

    async def read(self) -> None:
        """Take over what is there now."""
        found = await trio.to_thread.run_sync(self._read)
        for (exchange, symbol), members in found.items():
            for member, timestamp in members:
                self.members[exchange, symbol, int(timestamp), float(member.split(b":")[0])].add(member)

    def _read(self) -> dict[tuple[str, str], Sequence[tuple[bytes, float]]]:
        pairs = [(exchange, symbol) for exchange in self.exchanges for symbol in BASE]
        with redis.Redis.from_url(self.url) as client, client.pipeline(transaction=False) as pipeline:
            for exchange, symbol in pairs:
                pipeline.zrange(f"prices:{{{exchange}}}:{symbol}", 0, -1, withscores=True)
            return dict(zip(pairs, pipeline.execute(), strict=True))

    async def of(self, exchange: str, symbol: str) -> list[int]:
        """The timestamps that the window of a pair has now."""

        def read() -> list[int]:
            with redis.Redis.from_url(self.url) as client:
                found = client.zrange(f"prices:{{{exchange}}}:{symbol}", 0, -1, withscores=True)
            return [int(timestamp) for _, timestamp in found]

        return await trio.to_thread.run_sync(read)

    def has(self, update: Sent) -> bool:
        """Whether the update was ever there."""
        return key_of(update) in self.members

    def terms_of(self, update: Sent) -> set[str]:
        """The ends of the ids of the terms that have written it."""
        return {member.split(b":")[2].decode() for member in self.members.get(key_of(update), ())}

    def of_terms(self, marks: Collection[str]) -> set[bytes]:
        """All members that these terms have written."""
        return {
            member
            for members in self.members.values()
            for member in members
            if member.split(b":")[2].decode() in marks
        }

    def twice(self) -> list[Key]:
        """Updates that were taken in more than once."""
        return [key for key, members in self.members.items() if len(members) > 1]
