"""The commands that query a running service: thin clients of its HTTP API."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from marketflow.client.requests import EXCHANGES, HEALTH, MODE, SYMBOLS, Request
from marketflow.commands.service import (
    Service,
    asking,
    complete_exchanges,
    complete_pair,
    from_dotenv,
)
from marketflow.domain.periods import CANDLE_INTERVALS

USUAL_PERIODS: Final = ("1s", "5s", "30s", "1m", "5m", "15m", "1h", "24h", "7d", "30d")
"""Suggestions for shell completion; other values are allowed."""

exchange_option = click.option(
    "--exchange", metavar="NAME", shell_complete=complete_exchanges, help="Only this exchange."
)


class _Moment(click.ParamType[int]):
    """A point in time: Unix ms, or ISO 8601, by default in UTC."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As Unix ms."""
        if isinstance(value, int) or (value.isascii() and value.isdigit()):
            return int(value)
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither Unix ms nor a time like 2026-01-31T12:00.", param, ctx)
        return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1_000)


def _pair_argument(*, required: bool) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def check(context: click.Context, _: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) > 2:  # noqa: PLR2004
            raise click.UsageError("only an exchange and a symbol can be named", context)
        return names

    metavar = "[EXCHANGE] SYMBOL" if required else "[[EXCHANGE] SYMBOL]"
    return click.argument(
        "names",
        nargs=-1,
        required=required,
        metavar=metavar,
        callback=check,
        shell_complete=complete_pair,
    )


def _complete_period(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(period) for period in USUAL_PERIODS if period.startswith(incomplete)]


_period_option = click.option(
    "--period",
    default="1m",
    metavar="N(s|m|h|d)",
    shell_complete=_complete_period,
    help="How far back from now; at most 30d.",
)


# ---- prices ----


@click.group(no_args_is_help=False)
def prices() -> None:
    """Show current and past prices of a running service.

    Without an exchange the answer covers all those of the mode. Without a symbol it is a list.
    """


@prices.command()
@_pair_argument(required=False)
@exchange_option
@asking
def latest(service: Service, /, *, names: tuple[str, ...], exchange: str | None) -> None:
    """The newest price, of any age."""
    from marketflow.client import answers, tables  # noqa: PLC0415

    request = Request(("prices", "latest", *names), {"exchange": exchange})
    if names:
        service.answer(request, answers.Price, tables.latest)
    else:
        service.answer(request, answers.Prices, tables.latest)


def _statistic(kind: str, summary: str) -> None:
    @prices.command(kind, help=summary)
    @_pair_argument(required=False)
    @_period_option
    @exchange_option
    @asking
    def statistic(service: Service, /, *, names: tuple[str, ...], period: str, exchange: str | None) -> None:
        from marketflow.client import answers, tables  # noqa: PLC0415

        request = Request(("prices", kind, *names), {"period": period, "exchange": exchange})
        if names:
            service.answer(request, answers.Statistic, tables.statistics)
        else:
            service.answer(request, answers.Statistics, tables.statistics)


_statistic("highest", "The highest price of a period.")
_statistic("lowest", "The lowest price of a period.")
_statistic("average", "The average over all updates of a period.")


@prices.command()
@_pair_argument(required=True)
@_period_option
@exchange_option
@asking
def aggregate(service: Service, /, *, names: tuple[str, ...], period: str, exchange: str | None) -> None:
    """Average, min, max, open and close of a period.

    Also shows the number of updates.
    """
    from marketflow.client import answers, tables  # noqa: PLC0415

    request = Request(("prices", "aggregate", *names), {"period": period, "exchange": exchange})
    service.answer(request, answers.Aggregate, tables.aggregate)


@click.command()
@_pair_argument(required=True)
@click.option(
    "--interval", type=click.Choice(list(CANDLE_INTERVALS)), default="1m", help="The length of a candle."
)
@click.option(
    "--start", type=_Moment(), metavar="TIME", help="Unix ms or ISO 8601; the newest candles without it."
)
@click.option("--end", type=_Moment(), metavar="TIME", help="Unix ms or ISO 8601; exclusive.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, help="The most candles to show.")
@exchange_option
@asking
def candles(
    service: Service,
    /,
    *,
    names: tuple[str, ...],
    interval: str,
    start: int | None,
    end: int | None,
    limit: int,
    exchange: str | None,
) -> None:
    """Show candles, oldest first."""
    from marketflow.client import answers, tables  # noqa: PLC0415

    given = {"interval": interval, "start": start, "end": end, "limit": limit, "exchange": exchange}
    service.answer(Request(("candles", *names), given), answers.Candles, tables.candles)


# ---- the service itself ----


@click.command()
@asking
def symbols(service: Service, /) -> None:
    """Show the symbols of a running service."""
    from marketflow.client import answers, tables  # noqa: PLC0415

    service.answer(SYMBOLS, answers.Symbols, tables.symbols)


@click.command()
@asking
def exchanges(service: Service, /) -> None:
    """Show the exchanges of a running service.

    Exchanges of both modes are listed; those of the other mode are off. If there are real exchanges, their
    connections are shown, too.
    """
    from marketflow.client import answers, tables  # noqa: PLC0415

    def with_venues(answer: answers.Exchanges) -> str:
        return tables.exchanges(answer, service.read(HEALTH, answers.Health))

    service.answer(EXCHANGES, answers.Exchanges, with_venues)


@click.command()
@click.argument("wanted", type=click.Choice(["live", "test"]), required=False, metavar="[live|test]")
@click.option(
    "--token",
    envvar="MARKETFLOW_TOKEN",
    default=partial(from_dotenv, "MARKETFLOW_TOKEN", None),
    show_envvar=True,
    show_default=False,
    help="The service's http.token, if it has one.",
)
@asking
def mode(service: Service, /, *, wanted: str | None, token: str | None) -> None:
    """Show the mode of a running service, or switch it."""
    from marketflow.client import answers, tables  # noqa: PLC0415

    if wanted is None:
        service.answer(MODE, answers.Mode, tables.mode)
    else:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = Request(("mode", wanted), method="POST", headers=headers)
        service.answer(request, answers.Mode, tables.switched)


@click.command()
@asking
def health(service: Service, /) -> None:
    """Show the health of a running service.

    Shows its stores, its exchanges, and the counters of received lines. Fails if it is unavailable.
    """
    from marketflow.client import answers, tables  # noqa: PLC0415
    from marketflow.client.errors import ClientError  # noqa: PLC0415

    report = service.answer(HEALTH, answers.Health, tables.health)
    if report.status == "unavailable":
        raise ClientError("the service is unavailable: it is starting, or stopping, or no store answers")
