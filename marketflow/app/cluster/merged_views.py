"""The views of several exchanges as one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

import trio

from marketflow.app.knowledge import KnownBars, Standing
from marketflow.domain.bars import Bar
from marketflow.domain.periods import Span
from marketflow.domain.prices import Pair, by_exchange


class MergedBars:
    """Fills the port KnownBars: each exchange has its own."""

    def __init__(self, bars: Mapping[str, KnownBars]) -> None:
        """By exchange."""
        self._bars = bars

    @property
    def forgotten_to(self) -> int:
        """Up to when (ms) any of them has forgotten its bars."""
        return max(bars.forgotten_to for bars in self._bars.values())

    async def catch_up(self, pairs: Sequence[Pair]) -> None:
        """Learn of all updates of these pairs, of all exchanges at the same time."""
        async with trio.open_nursery() as nursery:
            for exchange, of_exchange in by_exchange(pairs).items():
                nursery.start_soon(self._bars[exchange].catch_up, of_exchange)

    def newest(self, pair: Pair) -> Bar | None:
        """The bar with the newest update."""
        return self._bars[pair[0]].newest(pair)

    def bar(self, pair: Pair, span: Span) -> Bar | None:
        """The updates of the seconds that start within the span."""
        return self._bars[pair[0]].bar(pair, span)

    def seconds(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The bars of the seconds that start within the span."""
        return self._bars[pair[0]].seconds(pair, span)

    def minutes(self, pair: Pair, span: Span) -> list[tuple[int, Bar]]:
        """The same updates, with whole minutes merged."""
        return self._bars[pair[0]].minutes(pair, span)

    def unwritten(self, pair: Pair, span: Span) -> dict[int, Bar]:
        """By their start (ms) the bars of intervals whose rows are not up to date."""
        return self._bars[pair[0]].unwritten(pair, span)

    def may_lack(self, exchange: str) -> bool:
        """Whether updates of the exchange may be missing in the window for good."""
        return self._bars[exchange].may_lack(exchange)


class MergedStanding:
    """Fills the port Standing: as little is known as of the exchange of which least is known."""

    def __init__(self, standings: Sequence[Standing]) -> None:
        """Of each exchange."""
        self._standings = standings

    @property
    def began_at(self) -> int | None:
        """When the first of them began (Unix ms); None if one has not."""
        times = [standing.began_at for standing in self._standings]
        known = [time for time in times if time is not None]
        return min(known) if len(known) == len(times) else None

    @property
    def history_known(self) -> bool:
        """Whether the bars of the last hour are known of all."""
        return all(standing.history_known for standing in self._standings)

    @property
    def known_from(self) -> int:
        """From when on (ms) bars are known of all."""
        return max(standing.known_from for standing in self._standings)

    async def wait_for_history(self, since: int) -> None:
        """Wait until the history of each is known from `since` (ms) on, or cannot be read."""
        async with trio.open_nursery() as nursery:
            for standing in self._standings:
                nursery.start_soon(standing.wait_for_history, since)

    async def can_answer_from_redis(self) -> bool:
        """Whether Redis answers for all, and is complete."""
        return await _all([standing.can_answer_from_redis for standing in self._standings])

    async def flushed(self) -> bool:
        """Wait until the window holds all updates that were accepted; returns whether it does."""
        return await _all([standing.flushed for standing in self._standings])


async def _all(questions: Sequence[Callable[[], Awaitable[bool]]]) -> bool:
    """Ask all at the same time; returns whether all say yes."""
    answers: list[bool] = []

    async def ask(question: Callable[[], Awaitable[bool]]) -> None:
        answers.append(await question())

    async with trio.open_nursery() as nursery:
        for question in questions:
            nursery.start_soon(ask, question)
    return all(answers)
