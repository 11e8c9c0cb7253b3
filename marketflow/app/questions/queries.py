"""Answers questions about prices. Each answer is exact for the span that it names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby

from marketflow.app.answers import (
    AnswerSource,
    Candles,
    Latest,
    NoData,
    Statistic,
    Summary,
    UnknownExchange,
    UnknownSymbol,
    volumes_of,
)
from marketflow.app.interface import StatisticKind
from marketflow.app.ports import Clock
from marketflow.app.questions.candles import CandlePages
from marketflow.app.questions.newest import NewestUpdates
from marketflow.app.questions.spans import Covered, Spans
from marketflow.domain.bars import Bar, merged_over
from marketflow.domain.periods import parse_period
from marketflow.domain.prices import Pair, PriceUpdate


class Queries:
    """Fills the port PriceQuestions. An exchange of None means all exchanges of the current mode."""

    def __init__(
        self,
        *,
        symbols: Sequence[str],
        exchanges: Sequence[str],
        exchanges_of_mode: Callable[[], Sequence[str]],
        newest: NewestUpdates,
        spans: Spans,
        pages: CandlePages,
        clock: Clock,
    ) -> None:
        """`exchanges` are those of both modes."""
        self.symbols = tuple(symbols)
        self.exchanges = tuple(exchanges)
        self._exchanges_of_mode = exchanges_of_mode
        self._newest = newest
        self._spans = spans
        self._pages = pages
        self._clock = clock

    # ---- latest ----

    async def latest(self, symbol: str, exchange: str | None) -> Latest:
        """The update with the greatest timestamp.

        Of equal ones of an exchange it is the later received, over exchanges that of the later name.

        Raises:
            UnknownSymbol, UnknownExchange, NoData, NothingCanAnswer
        """
        pairs = self.pairs(symbol, exchange)
        found = await self._newest.of(pairs)
        if not found:
            raise NoData(f"no update of {symbol} was ever seen")
        newest = max(found, key=lambda pair: (found[pair][0].timestamp, pair[0]))
        return _latest(*found[newest])

    async def latest_of_all(self, symbol: str | None, exchange: str | None) -> list[Latest]:
        """The newest update of each exchange and symbol.

        Raises:
            UnknownSymbol, UnknownExchange, NothingCanAnswer
        """
        pairs = self.pairs(symbol, exchange)
        found = await self._newest.of(pairs)
        return [_latest(*found[pair]) for pair in pairs if pair in found]

    # ---- over a period ----

    async def statistic(
        self, kind: StatisticKind, symbol: str, exchange: str | None, period: str
    ) -> Statistic:
        """The highest, lowest or average price of [now - period, now).

        Raises:
            UnknownSymbol, UnknownExchange, BadPeriod, NoData, NothingCanAnswer
        """
        found = await self._over(self.pairs(symbol, exchange), period, kind)
        if not found.bars:
            raise _no_data(symbol, found)
        return _statistic(kind, found.bars, exchange, period, found)

    async def statistics(
        self, kind: StatisticKind, symbol: str | None, exchange: str | None, period: str
    ) -> list[Statistic]:
        """The highest, lowest or average price of each symbol that has updates in the span.

        Raises:
            UnknownSymbol, UnknownExchange, BadPeriod, NothingCanAnswer
        """
        found = await self._over(self.pairs(symbol, exchange), period, kind)
        by_symbol = {
            name: {pair: found.bars[pair] for pair in pairs}
            for name, pairs in groupby(found.bars, key=lambda pair: pair[1])
        }
        return [_statistic(kind, bars, exchange, period, found) for bars in by_symbol.values()]

    async def summary(self, symbol: str, exchange: str | None, period: str) -> Summary:
        """All statistics of [now - period, now) at once.

        Raises:
            UnknownSymbol, UnknownExchange, BadPeriod, NoData, NothingCanAnswer
        """
        found = await self._over(self.pairs(symbol, exchange), period)
        bar = _over_exchanges(found.bars)
        if bar is None:
            raise _no_data(symbol, found)
        return Summary(
            symbol=symbol,
            exchange=exchange,
            period=period,
            average_price=bar.average,
            min_price=bar.min,
            max_price=bar.max,
            open_price=bar.open,
            close_price=bar.close,
            updates=bar.count,
            **volumes_of(bar),
            start=found.span.start,
            end=found.span.end,
            source=found.source,
        )

    # ---- candles ----

    async def candles(
        self, symbol: str, exchange: str | None, interval: str, start: int | None, end: int | None, limit: int
    ) -> Candles:
        """A page of at most `limit` candles that begin within [start, end), oldest first.

        Raises:
            UnknownSymbol, UnknownExchange, NothingCanAnswer
        """
        pairs = self.pairs(symbol, exchange)
        return await self._pages.page(
            pairs,
            interval,
            exchange=exchange,
            start=start,
            end=end,
            limit=limit,
            now=self._clock.now(),
        )

    async def _over(self, pairs: Sequence[Pair], period: str, kind: StatisticKind | None = None) -> Covered:
        return await self._spans.of(pairs).until(parse_period(period), self._clock.now(), kind)

    # ---- exchanges and symbols ----

    def pairs(self, symbol: str | None, exchange: str | None) -> list[Pair]:
        """The exchanges and symbols that a question is about, in the order of the symbols.

        Raises:
            UnknownSymbol, UnknownExchange
        """
        if symbol is not None and symbol not in self.symbols:
            raise UnknownSymbol(symbol, self.symbols)
        if exchange is not None and exchange not in self.exchanges:
            raise UnknownExchange(exchange, self.exchanges)
        exchanges: Iterable[str] = self._exchanges_of_mode() if exchange is None else (exchange,)
        symbols = self.symbols if symbol is None else (symbol,)
        return [(name, of) for of in symbols for name in exchanges]


def _latest(update: PriceUpdate, source: AnswerSource) -> Latest:
    return Latest(update.symbol, update.exchange, update.price, update.timestamp, source, update.volume)


def _no_data(symbol: str, found: Covered) -> NoData:
    return NoData(f"there are no updates of {symbol} in [{found.span.start}, {found.span.end})")


def _over_exchanges(bars: Mapping[Pair, Bar]) -> Bar | None:
    """The bars of one symbol merged; None if there are none."""
    return merged_over({exchange: bar for (exchange, _), bar in bars.items()})


def _statistic(
    kind: StatisticKind, bars: Mapping[Pair, Bar], exchange: str | None, period: str, found: Covered
) -> Statistic:
    whole = _over_exchanges(bars)
    assert whole is not None, "only symbols with bars are answered for"  # noqa: S101
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
        period=period,
        price=price,
        updates=whole.count,
        start=found.span.start,
        end=found.span.end,
        source=found.source,
    )
