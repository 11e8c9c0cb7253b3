"""Answers questions about prices. Each answer is exact for the span that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from marketflow.app.answers import (
    AnswerSource,
    Candles,
    Latest,
    NoData,
    PriceAt,
    Statistic,
    Summary,
    UnknownExchange,
    UnknownSymbol,
    volumes_of,
)
from marketflow.app.interface import Names, StatisticKind, only
from marketflow.app.ports import Clock
from marketflow.app.questions.candles import CandlePages
from marketflow.app.questions.newest import NewestUpdates
from marketflow.app.questions.past import PastUpdates
from marketflow.app.questions.spans import Covered, Spans
from marketflow.domain.bars import Bar, merged_over
from marketflow.domain.periods import Range
from marketflow.domain.prices import Pair, PriceUpdate


class Queries:
    """Fills the port PriceQuestions."""

    def __init__(
        self,
        *,
        symbols: Sequence[str],
        exchanges: Sequence[str],
        exchanges_of_mode: Callable[[], Sequence[str]],
        newest: NewestUpdates,
        past: PastUpdates,
        spans: Spans,
        pages: CandlePages,
        clock: Clock,
    ) -> None:
        """`exchanges` are those of both modes."""
        self.symbols = tuple(symbols)
        self.exchanges = tuple(exchanges)
        self._exchanges_of_mode = exchanges_of_mode
        self._newest = newest
        self._past = past
        self._spans = spans
        self._pages = pages
        self._clock = clock

    # ---- one update ----

    async def latest(self, symbol: str, exchanges: Names) -> Latest:
        """The update with the greatest timestamp.

        Of equal ones of an exchange it is the later received, over exchanges that of the later name.

        Raises:
            UnknownSymbol, UnknownExchange, NoData, NothingCanAnswer
        """
        pairs = self.pairs((symbol,), exchanges)
        found = await self._newest.of(pairs)
        if not found:
            raise NoData(f"no update of {symbol} was ever seen")
        newest = max(found, key=lambda pair: (found[pair][0].timestamp, pair[0]))
        return _latest(*found[newest])

    async def latest_of_all(self, symbols: Names, exchanges: Names) -> list[Latest]:
        """The newest update of each exchange and symbol.

        Raises:
            UnknownSymbol, UnknownExchange, NothingCanAnswer
        """
        pairs = self.pairs(symbols, exchanges)
        found = await self._newest.of(pairs)
        return [_latest(*found[pair]) for pair in pairs if pair in found]

    async def at(self, symbol: str, exchanges: Names, time: int) -> PriceAt:
        """The last update at or before a time (Unix ms). A time that is yet to come stands for now.

        Raises:
            UnknownSymbol, UnknownExchange, NoData, NothingCanAnswer
        """
        pairs, now = self.pairs((symbol,), exchanges), self._clock.now()
        found = await self._past.at(pairs, min(time, now), now)
        if found is None:
            raise NoData(f"no update of {symbol} at or before {min(time, now)} is known")
        return found

    # ---- over a span ----

    async def statistic(self, kind: StatisticKind, symbol: str, exchanges: Names, asked: Range) -> Statistic:
        """The highest, lowest or average price of a span.

        Raises:
            UnknownSymbol, UnknownExchange, BadPeriod, NoData, NothingCanAnswer
        """
        found = await self._over((symbol,), exchanges, asked, kind)
        if not found.bars:
            raise _no_data(symbol, found)
        return _statistic(kind, found.bars, exchanges, asked, found)

    async def statistics(
        self, kind: StatisticKind, symbols: Names, exchanges: Names, asked: Range
    ) -> list[Statistic]:
        """The highest, lowest or average price of each symbol that has updates in the span.

        Raises:
            UnknownSymbol, UnknownExchange, BadPeriod, NothingCanAnswer
        """
        found = await self._over(symbols, exchanges, asked, kind)
        return [_statistic(kind, bars, exchanges, asked, found) for bars in _by_symbol(found)]

    async def summary(self, symbol: str, exchanges: Names, asked: Range) -> Summary:
        """All statistics of a span at once.

        Raises:
            UnknownSymbol, UnknownExchange, BadPeriod, NoData, NothingCanAnswer
        """
        found = await self._over((symbol,), exchanges, asked)
        if not found.bars:
            raise _no_data(symbol, found)
        return _summary(found.bars, exchanges, asked, found)

    async def summaries(self, symbols: Names, exchanges: Names, asked: Range) -> list[Summary]:
        """All statistics of each symbol that has updates in the span.

        Raises:
            UnknownSymbol, UnknownExchange, BadPeriod, NothingCanAnswer
        """
        found = await self._over(symbols, exchanges, asked)
        return [_summary(bars, exchanges, asked, found) for bars in _by_symbol(found)]

    async def _over(
        self, symbols: Names, exchanges: Names, asked: Range, kind: StatisticKind | None = None
    ) -> Covered:
        pairs, now = self.pairs(symbols, exchanges), self._clock.now()
        return await self._spans.of(pairs).over(asked.span(now), now, kind)

    # ---- candles ----

    async def candles(
        self, symbol: str, exchanges: Names, interval: str, start: int | None, end: int | None, limit: int
    ) -> Candles:
        """A page of at most `limit` candles that begin within [start, end), oldest first.

        Raises:
            UnknownSymbol, UnknownExchange, NothingCanAnswer
        """
        pairs = self.pairs((symbol,), exchanges)
        return await self._pages.page(
            pairs,
            interval,
            exchange=only(exchanges),
            start=start,
            end=end,
            limit=limit,
            now=self._clock.now(),
        )

    # ---- exchanges and symbols ----

    def pairs(self, symbols: Names, exchanges: Names) -> list[Pair]:
        """The exchanges and symbols that a question is about, in the order of the symbols.

        Raises:
            UnknownSymbol, UnknownExchange
        """
        for symbol in symbols or ():
            if symbol not in self.symbols:
                raise UnknownSymbol(symbol, self.symbols)
        for exchange in exchanges or ():
            if exchange not in self.exchanges:
                raise UnknownExchange(exchange, self.exchanges)
        of_each: Iterable[str] = self._exchanges_of_mode() if exchanges is None else exchanges
        return [(name, of) for of in (self.symbols if symbols is None else symbols) for name in of_each]


def _latest(update: PriceUpdate, source: AnswerSource) -> Latest:
    return Latest(update.symbol, update.exchange, update.price, update.timestamp, source, update.volume)


def _no_data(symbol: str, found: Covered) -> NoData:
    return NoData(f"no updates of {symbol} in [{found.span.start}, {found.span.end}) are known")


def _by_symbol(found: Covered) -> Iterator[Mapping[Pair, Bar]]:
    """The bars of each symbol, which are beside each other."""
    for _, pairs in groupby(found.bars, key=lambda pair: pair[1]):
        yield {pair: found.bars[pair] for pair in pairs}


def _over_exchanges(bars: Mapping[Pair, Bar]) -> Bar:
    """The bars of one symbol merged."""
    whole = merged_over({exchange: bar for (exchange, _), bar in bars.items()})
    assert whole is not None, "only symbols with bars are answered for"  # noqa: S101
    return whole


def _statistic(
    kind: StatisticKind, bars: Mapping[Pair, Bar], exchanges: Names, asked: Range, found: Covered
) -> Statistic:
    whole, exchange = _over_exchanges(bars), only(exchanges)
    match kind:
        case "highest":
            (exchange, _), price = max(sorted(bars), key=lambda pair: bars[pair].max), whole.max
        case "lowest":
            (exchange, _), price = min(sorted(bars), key=lambda pair: bars[pair].min), whole.min
        case "average":
            price = whole.average
    return Statistic(
        symbol=next(iter(bars))[1],
        exchange=exchange,
        period=asked.named_period,
        price=price,
        updates=whole.count,
        start=found.span.start,
        end=found.span.end,
        source=found.source,
    )


def _summary(bars: Mapping[Pair, Bar], exchanges: Names, asked: Range, found: Covered) -> Summary:
    whole = _over_exchanges(bars)
    return Summary(
        symbol=next(iter(bars))[1],
        exchange=only(exchanges),
        period=asked.named_period,
        average_price=whole.average,
        min_price=whole.min,
        max_price=whole.max,
        open_price=whole.open,
        close_price=whole.close,
        updates=whole.count,
        **volumes_of(whole),
        start=found.span.start,
        end=found.span.end,
        source=found.source,
    )
