"""The command that runs a fake venue."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from marketflow.commands.options import AMOUNT, FRACTION, Run, log_options
from marketflow.commands.running import start_logging
from marketflow.commands.signals import until_signal

if TYPE_CHECKING:
    from marketflow.adapters.exchange.fake_venues.faults import Spoil
    from marketflow.adapters.exchange.fake_venues.plan import Plan
    from marketflow.adapters.exchange.fake_venues.server import FakeVenue

KINDS: Final = ("binance", "coinbase", "kraken", "okx", "bybit", "bitstamp", "gateio", "kucoin", "bitfinex")
KEPT: Final = 10_000
"""Trades that are kept in memory."""
SHOWN: Final = 20
"""The most violations in the summary."""


def _symbols(_: click.Context, option: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    symbols = [symbol.strip() for symbol in value.split(",")]
    if not all(symbols):
        raise click.BadParameter(f"{value!r} is no list like BTC-USDT,ETH-USDT.", param=option)
    return symbols


@click.command()
@click.argument("kind", type=click.Choice(KINDS))
@click.option("--host", metavar="H", default="127.0.0.1")
@click.option("--port", type=click.IntRange(0, 65_535), default=40111, help="0: any free one.")
@click.option(
    "--symbols", callback=_symbols, metavar="BTC-USDT,...", help="The pairs, as the venue spells them."
)
@click.option("--rate", type=AMOUNT, default=50.0, help="Trades a second of all pairs together.")
@click.option("--seed", type=int, default=0, help="Gives the same trades each time.")
@click.option(
    "--silence", type=AMOUNT, default=0.0, help="Seconds of traffic, then as many of silence, in turn."
)
@click.option(
    "--close-every", type=AMOUNT, default=0.0, help="Close each connection after this many seconds."
)
@click.option("--reset-every", type=AMOUNT, default=0.0, help="Reset all connections this often, in seconds.")
@click.option(
    "--maintain-every", type=AMOUNT, default=0.0, help="Announce a maintenance this often, in seconds."
)
@click.option("--refuse", type=FRACTION, default=0.0, help="The fraction of connections that are refused.")
@click.option(
    "--garbage", type=FRACTION, default=0.0, help="The fraction of trades with garbage before them."
)
@click.option("--oversize", type=FRACTION, default=0.0, help="The fraction with a giant message before them.")
@click.option("--nan", type=FRACTION, default=0.0, help="The fraction of trades whose price is NaN.")
@click.option("--unit", type=FRACTION, default=0.0, help="The fraction whose time is in a wrong unit.")
@click.option("--late", type=FRACTION, default=0.0, help="The fraction that comes after the next one.")
@click.option("--duplicate", type=FRACTION, default=0.0, help="The fraction that is sent twice.")
@click.option(
    "--resend", type=click.IntRange(0, 50), default=0, help="Old trades that a new subscriber gets."
)
@click.option("--fragments", type=click.IntRange(1, 100), default=1, help="The frames of each message.")
@click.option("--deflate/--no-deflate", default=True, help="Compress messages if the client wants it.")
@log_options("info")
@click.pass_obj
def venue(
    this: Run,
    /,
    *,
    kind: str,
    host: str,
    port: int,
    symbols: list[str] | None,
    rate: float,
    seed: int,
    silence: float,
    close_every: float,
    reset_every: float,
    maintain_every: float,
    refuse: float,
    resend: int,
    fragments: int,
    deflate: bool,
    **spoils: float,
) -> None:
    """Run a fake venue until SIGINT, SIGTERM or SIGHUP.

    It plays trades by the protocol of the real exchange, holds clients to the rules of that, and has the
    faults that you set. It prints the lines of config.toml that connect marketflow to it.
    """
    start_logging(this)
    host = host.removeprefix("[").removesuffix("]")  # IPv6 addresses have brackets in URLs
    this.address = host, str(port)

    import trio  # noqa: PLC0415

    from marketflow.adapters.exchange.fake_venues.faults import SPOILS, Faults  # noqa: PLC0415
    from marketflow.adapters.exchange.fake_venues.plan import Plan  # noqa: PLC0415
    from marketflow.adapters.exchange.fake_venues.server import FakeVenue  # noqa: PLC0415

    fractions: dict[Spoil, float] = {spoil: spoils[spoil] for spoil in SPOILS if spoils[spoil]}
    faults = Faults(
        refused=refuse,
        resend=resend,
        fragments=fragments,
        deflate=deflate,
        lifetime=close_every or None,
        fractions=fractions,
    )
    fake = FakeVenue(
        kind, symbols=symbols, rate=rate, seed=seed, host=host, port=port, faults=faults, keep=KEPT
    )
    plan = Plan(silence=silence, maintenance=maintain_every, reset=reset_every)
    trio.run(until_signal, partial(_run, fake, plan, kind))


async def _run(fake: FakeVenue, plan: Plan, kind: str) -> None:
    import trio  # noqa: PLC0415

    from marketflow.adapters.exchange.fake_venues.plan import follow  # noqa: PLC0415

    try:
        async with fake:
            click.echo(_introduction(fake, kind))
            await follow(plan, fake)
            await trio.sleep_forever()
    finally:
        if fake.url:
            click.echo(_summary(fake))


def _introduction(fake: FakeVenue, kind: str) -> str:
    symbols = ", ".join(f'{_ours(kind, symbol)} = "{symbol}"' for symbol in fake.symbols)
    return f"""\
{kind} listens at {fake.url}
These lines in config.toml connect marketflow to it:

[[exchanges]]
name = "{kind}"
kind = "{kind}"
url = "{fake.url}"
symbols = {{ {symbols} }}

Ctrl-C ends it."""


def _ours(kind: str, symbol: str) -> str:
    """A symbol as marketflow spells it."""
    letters = "".join(filter(str.isalnum, symbol))
    if kind == "bitfinex":  # `t` stands for a trading pair, and UST for USDT
        letters = re.sub("UST$", "USDT", letters.removeprefix("t"))
    return letters.upper()


def _summary(fake: FakeVenue) -> str:
    broken = fake.violations
    lines = [f"{fake.count} trades, {fake.connections} connections, {len(broken)} violations of the rules"]
    if len(broken) > SHOWN:
        lines.append(f"the last {SHOWN} violations:")
    return "\n".join([*lines, *broken[-SHOWN:]])
