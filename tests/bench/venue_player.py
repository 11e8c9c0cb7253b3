"""Fake venues that trade at a rate: one separate process for all of them.

`players.py` starts it and sends commands to its stdin; it answers each by a line of JSON. Trades
come at any time, as those of real venues do.
"""

from __future__ import annotations

import json
import logging
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import structlog
import trio

from marketflow.adapters.exchange.fake_venues.server import FakeVenue

STEP = 0.001
"""The mean pause between two writes at high rates, in seconds. A shorter one would take the core of what is
measured."""
CATCH_UP = 0.5
"""Seconds. Trades that are later than this are skipped."""
KEPT = 1_000
"""Trades that are kept in memory."""


class Player:
    """The trades of one venue."""

    def __init__(self, venue: FakeVenue) -> None:
        self.venue = venue
        self.rate = 0.0
        """Trades a second."""
        self._rng = random.Random(1)
        self._rated = trio.Event()

    def play(self, rate: float) -> None:
        """Trade at another rate from now on."""
        self.rate = rate
        self._rated.set()

    async def run(self) -> None:
        """Trade until it is cancelled."""
        while True:
            while not self.rate:
                self._rated = trio.Event()
                await self._rated.wait()
            due = trio.current_time()
            while self.rate:
                await trio.sleep(self._rng.expovariate(1 / max(STEP, 1 / self.rate)))
                now = trio.current_time()
                due = max(due, now - CATCH_UP)
                count = int((now - due) * self.rate)
                if count:
                    due += count / self.rate
                    self.venue.trade(count)


async def play(kinds: Sequence[str]) -> None:
    """Play these kinds of venues until stdin ends."""
    async with AsyncExitStack() as stack:
        players = {
            kind: Player(await stack.enter_async_context(FakeVenue(kind, keep=KEPT))) for kind in kinds
        }
        nursery = await stack.enter_async_context(trio.open_nursery())
        for player in players.values():
            nursery.start_soon(player.run)
        venues = {kind: [each.venue.url, list(each.venue.symbols)] for kind, each in players.items()}
        print(json.dumps(venues), flush=True)
        unread = b""
        async with trio.lowlevel.FdStream(sys.stdin.fileno()) as stdin:
            while data := await stdin.receive_some(65_536):
                *commands, unread = (unread + data).split(b"\n")
                for command in commands:
                    print(json.dumps(_obey(players, json.loads(command))), flush=True)
        nursery.cancel_scope.cancel()


def _obey(players: Mapping[str, Player], rates: Mapping[str, float]) -> dict[str, Any]:
    """Set the rates by kind; returns the trades that each has made, and the rules that were broken."""
    for kind, rate in rates.items():
        players[kind].play(rate)
    return {
        kind: {"made": player.venue.count, "violations": list(player.venue.violations)}
        for kind, player in players.items()
    }


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR)
    )  # it goes to stdout
    trio.run(play, sys.argv[1].split(","))
