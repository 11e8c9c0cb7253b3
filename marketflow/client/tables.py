"""Answers as text: aligned columns without colours, for people and for `cut`. Numbers are exact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from marketflow.client.answers import (
    Aggregate,
    Candles,
    ExchangeHealth,
    Exchanges,
    Health,
    Mode,
    Price,
    Prices,
    Statistic,
    Statistics,
    StoreHealth,
    Symbols,
    Updates,
    Volumes,
)
from marketflow.client.words import age, moment, plain

ALL: Final = "all"
"""Shown instead of an exchange's name if the answer covers all exchanges of the mode."""

_GAP: Final = "  "
_VENUES: Final = ("kind", "activity", "missing", "refuses")
_LEDGER: Final = ("received", "accepted", "rejected", "cached", "expired", "dropped", "pending")

Cell = str | float | None
"""None: the service has no value."""
Row = Sequence[Cell]


def latest(answer: Price | Prices) -> str:
    """The newest prices."""
    prices = answer.prices if isinstance(answer, Prices) else [answer]
    volumes = any(each.volume is not None for each in prices)
    rows = [
        (
            each.exchange,
            each.symbol,
            each.price,
            *([each.volume] if volumes else []),
            moment(each.timestamp),
            each.source or "",
        )
        for each in prices
    ]
    return table(("exchange", "symbol", "price", *(["volume"] if volumes else []), "time", "source"), rows)


def statistics(answer: Statistic | Statistics) -> str:
    """The highest, lowest or average prices."""
    prices = answer.prices if isinstance(answer, Statistics) else [answer]
    rows = [
        (
            each.exchange or ALL,
            each.symbol,
            each.price,
            each.updates,
            moment(each.start),
            moment(each.end),
            each.source,
        )
        for each in prices
    ]
    return table(("exchange", "symbol", "price", "updates", "from", "to", "source"), rows)


def aggregate(answer: Aggregate) -> str:
    """All statistics of a span, one on each line. Those about volumes are left out if there are none."""
    return fields(
        ("exchange", answer.exchange or ALL),
        ("symbol", answer.symbol),
        ("average", answer.average_price),
        ("min", answer.min_price),
        ("max", answer.max_price),
        ("open", answer.open_price),
        ("close", answer.close_price),
        ("updates", answer.updates),
        *_traded(answer),
        ("from", moment(answer.start)),
        ("to", moment(answer.end)),
        ("source", answer.source),
    )


def _traded(answer: Volumes) -> list[tuple[str, float]]:
    """The known statistics about volume."""
    found = [
        ("volume", answer.volume),
        ("quote_volume", answer.quote_volume),
        ("buy_volume", answer.buy_volume),
        ("sell_volume", answer.sell_volume),
        ("volume_updates", answer.volume_updates or None),
        ("vwap", answer.vwap),
    ]
    return [(name, value) for name, value in found if value is not None]


def candles(answer: Candles) -> str:
    """One candle on each line. A candle that may still change is marked as not closed.

    If there are volumes, they have columns; so has the number of updates with a volume, if not all have one.
    """
    volumes = any(each.volume_updates for each in answer.candles)
    partial = volumes and any(each.volume_updates < each.updates for each in answer.candles)
    about = [*(["volume", "vwap"] if volumes else []), *(["volume_updates"] if partial else [])]
    head = ("from", "open", "high", "low", "close", "average", "updates", *about, "closed")
    rows: list[Row] = [
        (
            moment(each.start),
            each.open,
            each.high,
            each.low,
            each.close,
            each.average,
            each.updates,
            *([each.volume, each.vwap] if volumes else []),
            *([each.volume_updates] if partial else []),
            "yes" if each.closed else "no",
        )
        for each in answer.candles
    ]
    more = "" if answer.next is None else f"\nmore with --start {answer.next}"
    return table(head, rows) + more


def symbols(answer: Symbols) -> str:
    """One symbol on each line."""
    return "\n".join(map(plain, answer.symbols))


def exchanges(answer: Exchanges, health: Health) -> str:
    """One exchange on each line. If one is a real exchange, there are columns about these."""
    venues = _any_venue(health.exchanges.values())
    rows = [
        (
            each.name,
            each.mode,
            each.status,
            *(_venue(health.exchanges.get(each.name)) if venues else ()),
        )
        for each in answer.exchanges
    ]
    return table(("exchange", "mode", "status", *(_VENUES if venues else ())), rows)


def mode(answer: Mode) -> str:
    """The name of the mode."""
    return plain(answer.mode)


def switched(answer: Mode) -> str:
    """The result of a switch."""
    return f"switched to {plain(answer.mode)}" if answer.changed else f"it was {plain(answer.mode)} already"


def health(answer: Health) -> str:
    """The whole report."""
    state = fields(
        ("status", answer.status),
        ("mode", answer.mode),
        ("version", answer.version),
        ("uptime", age(answer.uptime)),
        ("redis", _store(answer.redis)),
        ("postgres", _store(answer.postgres)),
    )
    venues = _any_venue(answer.exchanges.values())
    feeds: list[Row] = [
        (
            name,
            each.status,
            "-" if each.last_update_age is None else age(each.last_update_age),
            each.reconnects,
            *(_venue(each) if venues else ()),
        )
        for name, each in answer.exchanges.items()
    ]
    ledgers: list[Row] = [(name, *_ledger(each.updates)) for name, each in answer.exchanges.items()]
    parts = [
        state,
        table(("exchange", "status", "last update", "reconnects", *(_VENUES if venues else ())), feeds),
        table(("exchange", *_LEDGER), [*ledgers, (ALL, *_ledger(answer.updates))]),
    ]
    lost = {"rejected": answer.updates.rejected, "dropped": answer.updates.dropped}
    reasons = [
        (f"{what}: {reason}", count) for what, by in lost.items() for reason, count in by.items() if count
    ]
    if reasons:
        parts.append(fields(*reasons))
    return "\n\n".join(parts)


def _any_venue(exchanges: Iterable[ExchangeHealth]) -> bool:
    return any(each.symbols is not None for each in exchanges)


def _venue(exchange: ExchangeHealth | None) -> Row:
    """Kind, activity, missing trades and refused symbols; only the kind of an exchange that is no venue."""
    if exchange is None:
        return (None, None, None, None)
    if exchange.symbols is None:
        return (exchange.kind, None, None, None)
    return (exchange.kind, exchange.activity, exchange.gaps, ",".join(exchange.rejected_symbols) or None)


def _store(store: StoreHealth) -> str:
    words = f"{store.status} since {moment(store.since)}"
    return f"{words}: {store.error}" if store.error else words


def _ledger(updates: Updates) -> tuple[int, ...]:
    return (
        updates.received,
        updates.accepted,
        sum(updates.rejected.values()),
        updates.cached,
        updates.expired,
        sum(updates.dropped.values()),
        updates.pending,
    )


# ---- text ----


def fields(*pairs: tuple[str, Cell]) -> str:
    """One name and value on each line."""
    width = max(len(name) for name, _ in pairs)
    return "\n".join(f"{plain(name):<{width}}{_GAP}{_text(value)}" for name, value in pairs)


def table(head: Sequence[str], rows: Sequence[Row]) -> str:
    """Columns under a head; columns of numbers are right-aligned."""
    texts = [head, *([_text(value) for value in row] for row in rows)]
    right = [rows != [] and all(not isinstance(row[at], str) for row in rows) for at in range(len(head))]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    lines = (
        _GAP.join(
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(line, widths, right, strict=True)
        )
        for line in texts
    )
    return "\n".join(line.rstrip() for line in lines)


def _text(value: Cell) -> str:
    if value is None:
        return "-"
    return plain(value) if isinstance(value, str) else str(value)
