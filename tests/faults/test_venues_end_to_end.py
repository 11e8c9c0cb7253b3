"""The service on real stores with fake venues, through faults: each trade once, and exact sums."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import attrs
import pytest
import redis
import trio
from rig import Sent, check_ledger, eventually, rows_are_right, service, settings_for

from marketflow.adapters.cache.members import read_id
from marketflow.adapters.exchange.fake_venues.server import FakeVenue
from marketflow.config import Settings, VenueSettings, load

KINDS = ("kraken", "binance", "okx")
BASES = ("BTC", "ETH", "SOL", "TON", "DOGE", "ADA", "XRP", "LTC", "DOT", "LINK", "UNI", "AVAX")
SYMBOLS = tuple(f"{base}USDT" for base in BASES)
SEPARATORS = {
    "binance": "",
    "bitstamp": "",
    "bybit": "",
    "coinbase": "-",
    "gateio": "_",
    "kraken": "/",
    "kucoin": "-",
    "okx": "-",
}


def spelling(kind: str, symbol: str) -> str:
    name = f"{symbol.removesuffix('USDT')}{SEPARATORS[kind]}USDT"
    return name.lower() if kind == "bitstamp" else name


@attrs.frozen
class Venue:
    """A fake venue, and the exchange that it is for the service."""

    kind: str
    fake: FakeVenue
    names: Mapping[str, str]
    """Our symbols by its spelling."""

    @property
    def settings(self) -> VenueSettings:
        symbols = {ours: theirs for theirs, ours in self.names.items()}
        return VenueSettings(self.kind, self.kind, symbols=symbols, url=self.fake.url)

    def symbols_stored(self, url: str) -> set[str]:
        """Those of which the window has trades."""
        return {symbol for symbol, _ in stored_ids(url, self.kind)}

    def sent(self, ids: Collection[tuple[str, str]] | None = None) -> list[Sent]:
        """The trades that it has made, or those with these symbols and ids."""
        return [
            Sent(
                exchange=self.kind,
                symbol=self.names[trade.symbol],
                price=float(trade.price),
                timestamp=trade.timestamp,
                order=trade.id,
                sent_at=0.0,
                volume=float(trade.size),
                side=trade.side,
            )
            for trade in self.fake.made
            if ids is None or (self.names[trade.symbol], str(trade.id)) in ids
        ]


@asynccontextmanager
async def venues(rate: float, kinds: Sequence[str] = KINDS) -> AsyncIterator[list[Venue]]:
    async with AsyncExitStack() as stack:
        made = []
        for seed, kind in enumerate(kinds):
            names = {spelling(kind, symbol): symbol for symbol in SYMBOLS}
            fake = FakeVenue(kind, symbols=list(names), rate=rate, seed=seed)
            made.append(Venue(kind, await stack.enter_async_context(fake), names))
        yield made


def settings_of(
    them: Sequence[Venue], redis_url: str, dsn: str, tmp_path: Path, symbols: Sequence[str] = SYMBOLS
) -> Settings:
    settings = settings_for([], redis_url, dsn, tmp_path)
    return attrs.evolve(settings, symbols=tuple(symbols), exchanges=tuple(each.settings for each in them))


def stored_ids(url: str, exchange: str) -> Counter[tuple[str, str]]:
    """Symbol and id of each member in the window."""
    found: Counter[tuple[str, str]] = Counter()
    with redis.Redis.from_url(url) as client:
        for symbol in SYMBOLS:
            members = client.zrange(f"prices:{exchange}:{symbol}", 0, -1)
            found.update((symbol, str(read_id(member))) for member in members)
    return found


async def wait_until_quiet(it, them: Sequence[Venue]) -> None:
    """Stop the trades, and wait until all that was sent is in the window."""
    for each in them:
        each.fake.rate = 0.0
        each.fake.faults.fractions.clear()
        for symbol in each.fake.symbols:  # a late trade is sent after the next one of its pair
            each.fake.trade(symbol=symbol)
    seen = [-1]

    def still() -> bool:
        updates = it.updates
        before, seen[0] = seen[0], updates.received
        return updates.pending == 0 and updates.received == before

    await eventually(still, every=0.3, within=15)


async def test_each_trade_once_through_faults_that_lose_nothing(redis_url, postgres_dsn, tmp_path):
    """Repeated and late trades, fragments, garbage: window and rows are as computed independently."""
    async with venues(rate=400) as them:
        kraken, _, okx = them
        kraken.fake.faults.fragments = 3
        kraken.fake.faults.resend = 5
        okx.fake.faults.deflate = False
        for each in them:
            each.fake.faults.fractions = {"duplicate": 0.03, "late": 0.03, "garbage": 0.005}
        async with service(
            settings_of(them, redis_url, postgres_dsn, tmp_path), [], all_received=False
        ) as it:
            await eventually(lambda: all(each.fake.count > 1_500 for each in them), within=30)
            await wait_until_quiet(it, them)
            health = (await it.get("/health"))["exchanges"]
            for each in them:
                wanted = Counter((sent.symbol, str(sent.order)) for sent in each.sent())
                assert stored_ids(redis_url, each.kind) == wanted
                counted = health[each.kind]["updates"]
                check_ledger(counted)
                assert counted["rejected"]["duplicate"] > 0
                assert (health[each.kind]["status"], health[each.kind]["gaps"]) == ("connected", 0)
                assert each.fake.violations == []
            await rows_are_right(postgres_dsn, [sent for each in them for sent in each.sent()])


async def test_lost_connections_lose_only_what_was_traded_meanwhile(redis_url, postgres_dsn, tmp_path):
    """Nothing is taken in twice, and what is missing is counted where ids are contiguous."""
    async with venues(rate=300) as them:
        for each in them:
            each.fake.faults.resend = 10
        kraken, binance, okx = them
        async with service(
            settings_of(them, redis_url, postgres_dsn, tmp_path), [], all_received=False
        ) as it:
            await eventually(lambda: all(each.fake.count > 300 for each in them), within=30)
            binance.fake.reset()
            okx.fake.cut(1012, "restart")
            kraken.fake.reset()
            await eventually(lambda: all(each.fake.connections >= 2 for each in them), within=40)
            count = {each.kind: each.fake.count for each in them}
            await eventually(
                lambda: all(each.fake.count > count[each.kind] + 300 for each in them), within=30
            )
            await trio.sleep(5.5)  # a gap is one if it has not been filled for 5 s
            await wait_until_quiet(it, them)
            health = (await it.get("/health"))["exchanges"]
            taken: list[Sent] = []
            for each in them:
                ids = stored_ids(redis_url, each.kind)
                assert set(ids.values()) == {1}
                made = {(sent.symbol, str(sent.order)) for sent in each.sent()}
                assert ids.keys() <= made
                assert health[each.kind]["updates"]["accepted"] == len(ids)
                assert health[each.kind]["reconnects"] >= 1
                taken += each.sent(ids.keys())
            lost = len(binance.sent()) - len(stored_ids(redis_url, "binance"))
            assert health["binance"]["gaps"] == lost
            assert lost > 0
            await rows_are_right(postgres_dsn, taken)


async def test_a_service_that_is_started_again_takes_no_trade_twice(redis_url, postgres_dsn, tmp_path):
    """Also if the venue sends the last trades again, and its clock is ahead of ours."""
    async with venues(rate=200, kinds=["okx"]) as them:
        (okx,) = them
        okx.fake.faults.resend = 20
        settings = settings_of(them, redis_url, postgres_dsn, tmp_path)
        async with service(settings, [], all_received=False) as it:
            await eventually(lambda: okx.fake.count > 200, within=20)
            await wait_until_quiet(it, them)
        before = stored_ids(redis_url, "okx")
        async with service(settings, [], all_received=False) as it:
            await eventually(lambda: it.updates.received >= len(SYMBOLS), within=20)
            okx.fake.rate = 200
            await eventually(lambda: it.updates.accepted > 50, within=20)
            await wait_until_quiet(it, them)
            after = stored_ids(redis_url, "okx")
        assert set(after.values()) == {1}
        assert len(after) == len(before) + it.updates.accepted


@pytest.mark.parametrize("kind", SEPARATORS)
async def test_a_rejected_symbol_is_named_and_harms_no_other(redis_url, postgres_dsn, tmp_path, kind):
    """In health and in the metrics. Bitstamp does not say that it lacks a symbol."""
    async with venues(rate=100, kinds=[kind]) as them:
        (venue,) = them
        venue.fake.delist(spelling(kind, "UNIUSDT"))
        settings = settings_of(them, redis_url, postgres_dsn, tmp_path)
        async with service(settings, [], all_received=False) as it:
            everyone = len(SYMBOLS) - 1
            await eventually(lambda: len(venue.symbols_stored(redis_url)) == everyone, within=40)
            rejected = [] if kind == "bitstamp" else ["UNIUSDT"]
            health = (await it.get("/health"))["exchanges"][kind]
            assert health["rejected_symbols"] == rejected
            assert health["status"] == "connected"
            metrics = await it.get("/metrics")
            assert f'marketflow_feed_symbols_rejected{{exchange="{kind}"}} {len(rejected)}.0' in metrics
            assert venue.fake.violations == []


async def test_a_venue_that_is_mute_is_connected_again(redis_url, postgres_dsn, tmp_path):
    """By the venue's own rule: Kraken sends something each second."""
    async with venues(rate=100, kinds=["kraken"]) as them:
        (kraken,) = them
        settings = settings_of(them, redis_url, postgres_dsn, tmp_path)
        async with service(settings, [], all_received=False) as it:
            await eventually(lambda: it.updates.accepted > 20, within=20)
            kraken.fake.mute()

            async def status() -> str:
                return str((await it.get("/health"))["exchanges"]["kraken"]["status"])

            async def has_left() -> bool:
                return await status() == "reconnecting"

            await eventually(has_left, within=15)
            kraken.fake.unmute()

            async def is_back() -> bool:
                return await status() == "connected"

            await eventually(is_back, within=30)
            accepted = it.updates.accepted
            await eventually(lambda: it.updates.accepted > accepted, within=10)


async def test_the_example_of_the_documents(redis_url, postgres_dsn, tmp_path):
    """The lines of docs/venues.md connect, with other addresses."""
    text = (Path(__file__).parents[2] / "docs" / "venues.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```toml\n(.*?)```", text, flags=re.DOTALL)
    (tmp_path / "config.toml").write_text(example, encoding="utf-8")
    configured = load(None, {}, {"HOME": "/home/me"}, tmp_path).settings
    async with AsyncExitStack() as stack:
        exchanges = []
        for each in configured.exchanges:
            fake = FakeVenue(each.kind, symbols=list(each.symbols.values()), rate=100)
            await stack.enter_async_context(fake)
            exchanges.append(attrs.evolve(each, url=fake.url))
        settings = attrs.evolve(
            settings_for([], redis_url, postgres_dsn, tmp_path),
            symbols=configured.symbols,
            exchanges=tuple(exchanges),
        )
        async with service(settings, [], all_received=False) as it:

            async def all_there() -> bool:
                answer = await it.ask("/prices/latest")  # 503 as long as nothing is known
                wanted = sum(len(each.symbols) for each in exchanges)
                return answer.status == 200 and len(answer.body["prices"]) == wanted

            await eventually(all_there, within=20)


@pytest.mark.parametrize("kind", ["okx", "bitstamp", "binance", "kraken"])
async def test_an_announced_end_loses_nothing(redis_url, postgres_dsn, tmp_path, kind):
    """The next connection is there before the venue cuts this one, and each trade counts once."""
    async with venues(rate=300, kinds=[kind]) as them:
        (venue,) = them
        settings = settings_of(them, redis_url, postgres_dsn, tmp_path)
        async with service(settings, [], all_received=False) as it:
            await eventually(lambda: len(venue.symbols_stored(redis_url)) == len(SYMBOLS), within=20)
            venue.fake.maintain(after=15)
            await eventually(lambda: venue.fake.connections == 2 and venue.fake.open == 1, within=40)
            count = venue.fake.count
            await eventually(lambda: venue.fake.count > count + 100, within=10)
            await wait_until_quiet(it, them)
            wanted = Counter((sent.symbol, str(sent.order)) for sent in venue.sent())
            assert stored_ids(redis_url, kind) == wanted
            exchange = (await it.get("/health"))["exchanges"][kind]
            assert (exchange["reconnects"], exchange["gaps"], exchange["activity"]) == (0, 0, "live")
