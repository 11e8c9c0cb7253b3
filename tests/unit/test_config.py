"""Settings: their layers, their kinds, the errors, and that secrets stay secret."""

from __future__ import annotations

import json
import os
import tomllib
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

import attrs
import pytest
import redis
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from marketflow.adapters.cache.url import URL_OPTIONS
from marketflow.adapters.exchange.venues.registry import VENUES as REGISTRY
from marketflow.config import (
    ConfigError,
    ExchangeSettings,
    Loaded,
    PostgresSettings,
    RedisSettings,
    Settings,
    VenueSettings,
    load,
)
from marketflow.config.kinds import Text, UnexpectedError, duration, show_duration, show_size, size
from marketflow.config.redis_url import OPTIONS
from marketflow.config.secrets import MASK, mask_connection, mask_value
from marketflow.config.structuring import KEYS
from marketflow.config.venues import VENUES, VenueFacts

SHIPPED = Path(__file__).parents[2] / "config.toml"
NOTHING: MappingProxyType[str, str] = MappingProxyType({})
SECRET = "hunter2"  # noqa: S105

# The keys of the documentation, in its order.
DEFAULTS = {
    "mode": "live",
    "symbols": ("BTCUSDT", "DOGEUSDT", "TONUSDT", "SOLUSDT", "ETHUSDT"),
    "exchanges": (
        ("exchange1", "127.0.0.1", 40101, "lines", False),
        ("exchange2", "127.0.0.1", 40102, "lines", False),
        ("exchange3", "127.0.0.1", 40103, "lines", False),
    ),
    "http.host": "127.0.0.1",
    "http.port": 8080,
    "http.token": None,
    "http.allowed_hosts": (),
    "http.cors_origins": (),
    "http.max_stream_clients": 1_000,
    "http.max_connections": 2_000,
    "http.max_head_size": 16 * 1024,
    "http.max_body_size": 16 * 1024,
    "redis.url": None,
    "redis.host": "127.0.0.1",
    "redis.port": 6379,
    "redis.password": None,
    "redis.db": 0,
    "redis.nodes": (),
    "redis.timeout": 1_000,
    "postgres.dsn": None,
    "postgres.host": "127.0.0.1",
    "postgres.port": 5432,
    "postgres.user": "marketflow",
    "postgres.password": None,
    "postgres.database": "marketflow",
    "postgres.timeout": 5_000,
    "pipeline.workers_per_exchange": 5,
    "pipeline.max_pending_updates": 1_000_000,
    "pipeline.flush_interval": 50,
    "window.length": 60_000,
    "window.replay_memory": 64 * 1024 * 1024,
    "aggregation.interval": 60_000,
    "aggregation.grace": 2_000,
    "aggregation.lateness": 120_000,
    "aggregation.retention": None,
    "feeds.stale_after": 5_000,
    "feeds.idle_timeout": 30_000,
    "feeds.backoff_min": 250,
    "feeds.backoff_max": 2_000,
    "generator.exchanges": ("test1", "test2", "test3"),
    "generator.rate": 10.0,
    "cluster.enabled": False,
    "cluster.role": "all",
    "cluster.node": None,
    "cluster.lease_ttl": 3_000,
    "cluster.lease_renew": 1_000,
    "cluster.lease_scan": 250,
    "cluster.settle": 30_000,
    "cluster.standby": False,
    "state_dir": Path("/home/me/.local/state/marketflow"),
    "shutdown_timeout": 10_000,
}


class Place:
    """A working directory and an environment for a test."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self, toml="", *, config_file=None, flags=NOTHING, env=NOTHING, dotenv="") -> Loaded:
        """Load with these contents; an empty one means that the file does not exist."""
        for name, content in (("config.toml", toml), (".env", dotenv)):
            if content:
                (self.path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return load(config_file, flags, {"HOME": "/home/me", **env}, self.path)

    def errors(self, toml="", **layers) -> list[str]:
        """The lines of the error."""
        with pytest.raises(ConfigError) as caught:
            self.load(toml, **layers)
        return caught.value.lines


@pytest.fixture
def place(tmp_path) -> Place:
    """An empty Place."""
    return Place(tmp_path)


def value_of(settings: Settings, key: str) -> object:
    """The setting at a key like `http.port`, tables as tuples."""
    value: object = settings
    for name in key.split("."):
        value = getattr(value, name)
    if key == "exchanges":
        return tuple(attrs.astuple(each) for each in value)
    return value


# ---- real exchanges ----


def test_venue(place):
    """It has a kind of its own, and its own names for symbols."""
    loaded = place.load(
        """
        symbols = ["BTCUSDT", "ETHUSDT"]
        [[exchanges]]
        name = "krk"
        kind = "kraken"
        symbols = { BTCUSDT = "BTC/USDT" }
        url = "wss://localhost:1/v2"
        proxy = "http://me:hunter2@proxy:3128"
        [[exchanges]]
        name = "bin"
        kind = "binance"
        proxy = "http://hunter2@proxy:3128"
        [[exchanges]]
        name = "mine"
        kind = "lines"
        host = "h"
        port = 1
        """
    )

    assert loaded.settings.exchanges == (
        VenueSettings(
            "krk",
            "kraken",
            symbols={"BTCUSDT": "BTC/USDT"},
            url="wss://localhost:1/v2",
            proxy="http://me:hunter2@proxy:3128",
        ),
        VenueSettings("bin", "binance", proxy="http://hunter2@proxy:3128"),
        ExchangeSettings("mine", "h", 1),
    )
    shown = next(row.value for row in loaded.describe() if row.key == "exchanges")
    assert SECRET not in shown
    assert '"symbols": {"BTCUSDT": "BTC/USDT"}' in shown


def test_the_configuration_knows_all_venues():
    """It imports none of them, so it has a table of what depends on the kind."""
    venues = {
        kind: VenueFacts(
            spells_as_we_do=venue.spelling("BTCUSDT") is not None,
            most_symbols=venue.rules.symbols,
            schemes=("https://", "http://") if venue.token_path else ("wss://", "ws://"),
        )
        for kind, venue in REGISTRY.items()
    }
    assert dict(VENUES) == venues


def test_venue_takes_only_as_many_symbols_as_a_connection(place):
    symbols = [f"S{number}" for number in range(301)]
    names = ", ".join(f'{symbol} = "{symbol}-X"' for symbol in symbols)
    assert place.errors(
        f'symbols = {symbols}\nexchanges = [{{name = "a", kind = "kucoin", symbols = {{ {names} }}}}]'
    ) == [
        (
            "exchanges: a: 301 symbols are more than the 300 that kucoin allows on a connection: make it "
            "several exchanges (config.toml)"
        )
    ]


# ---- keys and defaults ----


def test_keys_are_those_of_the_documentation():
    """There are exactly these keys, in this order."""
    assert list(DEFAULTS) == list(KEYS)


@pytest.mark.parametrize("key", DEFAULTS)
def test_default(place, key):
    loaded = place.load()

    assert DEFAULTS[key] == value_of(loaded.settings, key)
    assert loaded.sources[key] == "default"


def test_shipped_file_is_the_defaults(tmp_path):
    """config.toml sets every key, each to its default."""
    shipped = load(SHIPPED, {}, {"HOME": "/home/me"}, tmp_path)

    assert load(None, {}, {"HOME": "/home/me"}, tmp_path).settings == shipped.settings
    assert {str(SHIPPED)} == set(shipped.sources.values())


def test_settings_stand_without_loading(monkeypatch):
    """Settings made by a program equal those loaded from nothing."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)

    assert load(None, {}, {"HOME": "/home/me"}, Path("/nowhere")).settings == Settings()


# ---- layers ----

LAYERS = (
    ("config.toml", {"toml": "http.port = 1"}, 1),
    (".env", {"dotenv": "MARKETFLOW_HTTP__PORT=2"}, 2),
    ("MARKETFLOW_HTTP__PORT", {"env": {"MARKETFLOW_HTTP__PORT": "3"}}, 3),
    ("--port", {"flags": {"http.port": "4"}}, 4),
)


@pytest.mark.parametrize("count", range(1, len(LAYERS) + 1))
def test_later_layer_wins(place, count):
    """Flags > environment > .env > config file > defaults, and the winner is named."""
    layers = {name: content for _, layer, _ in LAYERS[:count] for name, content in layer.items()}
    source, _, port = LAYERS[count - 1]

    loaded = place.load(**layers)

    assert port == loaded.settings.http.port
    assert source == loaded.sources["http.port"]


def test_layers_merge_key_by_key(place):
    loaded = place.load(
        'http.host = "h"\nhttp.token = "t"', env={"MARKETFLOW_HTTP__PORT": "81"}, flags={"http.host": "g"}
    )

    assert loaded.settings.http.host == "g"
    assert loaded.settings.http.port == 81
    assert loaded.settings.http.token == "t"  # noqa: S105
    assert loaded.sources["http.token"] == "config.toml"


def test_list_is_replaced_whole(place):
    loaded = place.load(
        '[[exchanges]]\nname = "a"\nhost = "h"\nport = 1\n[[exchanges]]\nname = "b"\nhost = "h"\nport = 2',
        env={"MARKETFLOW_EXCHANGES": '[{"name": "c", "host": "127.0.0.1", "port": 3}]'},
    )

    assert [exchange.name for exchange in loaded.settings.exchanges] == ["c"]


def test_flag_of_none_was_not_given(place):
    loaded = place.load(flags={"http.port": None, "mode": "test"})

    assert loaded.settings.http.port == 8080
    assert (loaded.settings.mode, loaded.sources["mode"]) == ("test", "--mode")


def test_given_file_instead_of_the_one_here(place):
    """--config replaces ./config.toml, and is named as given."""
    other = place.path / "other.toml"
    other.write_text("http.port = 81")

    loaded = place.load("http.port = 82", config_file=other)

    assert loaded.settings.http.port == 81
    assert loaded.sources["http.port"] == str(other)


def test_table_as_json_in_the_environment(place):
    """A variable for one key overrides one for its table, in any order."""
    loaded = place.load(env={"MARKETFLOW_HTTP__PORT": "82", "MARKETFLOW_HTTP": '{"port": 81, "host": "::1"}'})

    assert (loaded.settings.http.host, loaded.settings.http.port) == ("::1", 82)


def test_dotenv_syntax(place):
    """Quotes, `export` and comments; dollars stay what they are; other programs' variables are not ours."""
    loaded = place.load(
        dotenv="# ours\nexport MARKETFLOW_REDIS__PASSWORD='a$HOME ${HOME}#b'\nPORT=x\nOTHER\n"
        'MARKETFLOW_SYMBOLS=["AB", "CD"] # two\n'
    )

    assert loaded.settings.redis.password == "a$HOME ${HOME}#b"  # noqa: S105
    assert loaded.settings.symbols == ("AB", "CD")


def test_directory_called_dotenv_is_none_of_ours(place):
    (place.path / ".env").mkdir()

    assert place.load().settings.http.port == 8080


def test_byte_order_mark_is_no_error(place):
    assert place.load(b"\xef\xbb\xbfhttp.port = 81\r\n").settings.http.port == 81


# ---- all errors at once ----


def test_all_errors_at_once(place):
    """One line each, with key and source; of a key in several layers only the effective value is checked."""
    lines = place.errors(
        'htp = 1\nhttp.port = "x"\nhttp.prt = 1\nmode = "dead"\nfeeds.backoff_min = 3\n'
        'redis.timeout = 0\n[[exchanges]]\nname = "a b"\nprot = 1\nhost = "h"',
        env={"MARKETFLOW_HTP__PORT": "1", "MARKETFLOW_REDIS__DB": "x"},
        dotenv="MARKETFLOW_MODE=live\nMARKETFLOW_NOTHING_LIKE_IT=1",
        flags={"http.port": "99999"},
    )

    assert sorted(lines) == [
        "MARKETFLOW_HTP__PORT: unknown variable; did you mean MARKETFLOW_HTTP__PORT? (environment)",
        "MARKETFLOW_NOTHING_LIKE_IT: unknown variable (.env)",
        "exchanges[0].name: expected a name [A-Za-z0-9_-]{1,32}, got 'a b' (config.toml)",
        "exchanges[0].port: missing (config.toml)",
        "exchanges[0].prot: unknown key; did you mean exchanges[0].port? (config.toml)",
        "feeds.backoff_min: backoff_min 3s is more than backoff_max 2s (config.toml)",
        "htp: unknown key; did you mean http? (config.toml)",
        "http.port: expected an integer from 0 to 65535, got 99999 (--port)",
        "http.prt: unknown key; did you mean http.port? (config.toml)",
        "redis.db: expected an integer, got 'x' (MARKETFLOW_REDIS__DB)",
        "redis.timeout: expected a duration from 1ms to 1h, got 0 (config.toml)",
    ]


def test_unknown_key_is_an_error_even_where_it_takes_no_effect(place):
    """This holds in every layer, and within a list that another layer replaces."""
    lines = place.errors(
        '[[exchanges]]\nname = 3\ncolour = "red"',
        env={"MARKETFLOW_EXCHANGES": '[{"name": "c", "host": "127.0.0.1", "port": 3}]'},
    )

    assert lines == ["exchanges[0].colour: unknown key (config.toml)"]


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ('http.port = "8080"', "http.port: expected an integer, got '8080' (config.toml)"),
        ("http.port = true", "http.port: expected an integer, got true (config.toml)"),
        ("http.port = 8080.0", "http.port: expected an integer, got 8080.0 (config.toml)"),
        ("http.port = -1", "http.port: expected an integer from 0 to 65535, got -1 (config.toml)"),
        ("http.port = 0x" + "f" * 6000, "http.port: expected an integer from 0 to 65535, got a huge number"),
        ("http.port = 2026-01-01", "http.port: expected an integer, got 2026-01-01"),
        ("http.port = {}", "http.port: expected an integer, got a table"),
        ("http.host = 1", "http.host: expected a host name or address, got 1"),
        ('http.host = "a b"', "http.host: expected a host name or address, got 'a b'"),
        ('http.host = ""', "http.host: expected a host name or address, got ''"),
        ("http = 3", "http: expected a table (config.toml)"),
        ("redis.port = 0", "redis.port: expected an integer from 1 to 65535, got 0"),
        ("generator.rate = true", "generator.rate: expected a number, got true"),
        ("generator.rate = 0", "generator.rate: expected a number from 0.001 to 100000, got 0"),
        ("generator.rate = nan", "generator.rate: expected a number from 0.001 to 100000, got nan"),
        ('mode = "LIVE"', "mode: expected live or test, got 'LIVE'"),
        ('symbols = "BTCUSDT"', "symbols: expected a list, got 'BTCUSDT'"),
        ('symbols = ["btcusdt"]', "symbols[0]: expected a symbol [A-Z0-9]{2,20}, got 'btcusdt'"),
        ('symbols = ["BTC\\n"]', "symbols[0]: expected a symbol [A-Z0-9]{2,20}, got 'BTC\\n'"),
        ("symbols = []", "symbols: there must be at least one"),
        ('symbols = ["AB", "CD", "AB"]', "symbols: AB is there more than once"),
        ("exchanges = []", "exchanges: there must be at least one"),
        ("exchanges = [1]", "exchanges[0]: expected a table, got 1"),
        ('generator.exchanges = ["a", "a"]', "generator.exchanges: a is there more than once"),
        ("generator.exchanges = []", "generator.exchanges: there must be at least one"),
        (
            'generator.exchanges = ["exchange2"]',
            "generator.exchanges: exchange2 is in exchanges and generator.exchanges",
        ),
        (
            'exchanges = [{name = "test1", host = "h", port = 1}]',
            "exchanges: test1 is in exchanges and generator.exchanges",
        ),
        (
            'exchanges = [{name = "a", host = "h", port = 1}, {name = "a", host = "h", port = 2}]',
            "exchanges: a is there more than once",
        ),
        (
            'exchanges = [{name = "' + "a" * 33 + '", host = "h", port = 1}]',
            "exchanges[0].name: expected a name [A-Za-z0-9_-]{1,32}, got",
        ),
        (
            'exchanges = [{name = "a", kind = "nyse"}]',
            "exchanges[0].kind: expected lines or binance or coinbase",
        ),
        (
            'exchanges = [{name = "a", kind = "binance", host = "h"}]',
            "exchanges[0].host: unknown key",
        ),
        (
            'exchanges = [{name = "a", kind = "kraken"}]',
            'exchanges: a: kraken spells symbols in its own way: set symbols = { BTCUSDT = "..." }',
        ),
        (
            'exchanges = [{name = "a", kind = "kraken", symbols = {XYUSDT = "XY/USDT"}}]',
            "exchanges: a: XYUSDT is not in symbols",
        ),
        (
            'exchanges = [{name = "a", kind = "kraken", symbols = {BTCUSDT = "B", ETHUSDT = "B"}}]',
            "exchanges: a: b is the name of more than one symbol",
        ),
        (
            'exchanges = [{name = "a", kind = "binance", symbols = {BTCUSDT = "x", ETHUSDT = "X"}}]',
            "exchanges: a: x is the name of more than one symbol",
        ),
        (
            'symbols = []\nexchanges = [{name = "a", kind = "kraken"}]',
            "symbols: there must be at least one",
        ),
        (
            'exchanges = [{name = "a", kind = "binance", url = "wss://h/x#f"}]',
            "exchanges[0].url: expected a URL like wss://host/path",
        ),
        (
            'exchanges = [{name = "a", kind = "kraken", symbols = {}}]',
            "exchanges: a: there must be at least one symbol",
        ),
        (
            'exchanges = [{name = "a", kind = "kraken", symbols = {BTCUSDT = 3}}]',
            "exchanges[0].symbols: expected its name at the exchange",
        ),
        (
            'exchanges = [{name = "a", kind = "kraken", symbols = "BTC/USDT"}]',
            "exchanges[0].symbols: expected a table of a symbol",
        ),
        (
            'exchanges = [{name = "a", kind = "binance", url = "https://h"}]',
            "exchanges: a: url: binance needs one that begins with wss:// or ws://",
        ),
        (
            'exchanges = [{name = "a", kind = "binance", url = "wss://user:hunter2@h"}]',
            "exchanges[0].url: expected a URL like wss://host/path, got '***@h'",
        ),
        (
            'exchanges = [{name = "a", kind = "binance", url = "wss://h:70000"}]',
            "exchanges[0].url: expected a URL like wss://host/path",
        ),
        (
            'exchanges = [{name = "a", kind = "binance", proxy = "socks5://h:1"}]',
            "exchanges[0].proxy: expected the URL of an HTTP proxy like http://host:port",
        ),
        (
            "pipeline.workers_per_exchange = 0",
            "pipeline.workers_per_exchange: expected an integer from 1 to 64",
        ),
        (
            "pipeline.workers_per_exchange = 65",
            "pipeline.workers_per_exchange: expected an integer from 1 to",
        ),
        (
            "pipeline.max_pending_updates = 5",
            "pipeline.max_pending_updates: 5 pending updates cannot be shared out among 6 exchanges",
        ),
        (
            "pipeline.flush_interval = 0",
            "pipeline.flush_interval: expected a duration from 1ms to 10s, got 0",
        ),
        ("pipeline.flush_interval = 10.001", "pipeline.flush_interval: expected a duration from 1ms to 10s"),
        (
            "pipeline.flush_interval = 0.0005",
            "pipeline.flush_interval: expected a duration in whole millisec",
        ),
        ("window.length = 0.5", "window.length: expected a duration from 1s to 1h, got 0.5"),
        ("window.length = 3601", "window.length: expected a duration from 1s to 1h, got 3601"),
        ('window.replay_memory = "64 MB"', "window.replay_memory: expected a size (bytes, or text like"),
        ("window.replay_memory = 1.5", "window.replay_memory: expected a size (bytes, or text like"),
        ("window.replay_memory = 0", "window.replay_memory: expected a size from 1 B to 1024 GiB, got 0"),
        ("aggregation.interval = 7", "aggregation.interval: expected a duration from 1s to 60s in whole"),
        ("aggregation.interval = 0.5", "aggregation.interval: expected a duration from 1s to 60s in whole"),
        ("aggregation.interval = 1.5", "aggregation.interval: expected a duration from 1s to 60s in whole"),
        ("aggregation.interval = 120", "aggregation.interval: expected a duration from 1s to 60s in whole"),
        ("aggregation.lateness = 1801", "aggregation.lateness: expected a duration from 0s to 30m, got 1801"),
        ("aggregation.grace = -1", "aggregation.grace: expected a duration from 0s to 30m, got -1"),
        ("aggregation.retention = 0", "aggregation.retention: expected a duration from 1s to"),
        ("feeds.stale_after = 0", "feeds.stale_after: expected a duration from 1ms to 1h, got 0"),
        ("feeds.stale_after = inf", "feeds.stale_after: expected a duration (seconds, or text like"),
        ("feeds.backoff_max = 0.1", "feeds.backoff_max: backoff_min 250ms is more than backoff_max 100ms"),
        ('redis.nodes = ["h:1"]', "redis.nodes: it is for nodes of a cluster: set cluster.enabled, or"),
        (
            'cluster.lease_renew = "200ms"',
            "cluster.lease_renew: lease_scan 250ms is more than lease_renew (200ms)",
        ),
        (
            'cluster.lease_ttl = "2s"\ncluster.lease_scan = "600ms"',
            "cluster.lease_scan: lease_scan 600ms is more than a quarter of lease_ttl (2s)",
        ),
        ('cluster.role = "api"', "cluster.role: it is for nodes of a cluster: set cluster.enabled, or"),
        ('cluster.node = "a"', "cluster.node: it is for nodes of a cluster: set cluster.enabled, or"),
        ('shutdown_timeout = "60"', "shutdown_timeout: expected a duration (seconds, or text like"),
        ("state_dir = 1", "state_dir: expected a directory, got 1"),
        ('state_dir = "~nobody_at_all/x"', "state_dir: expected a directory, got '~nobody_at_all/x'"),
        ('"http.port" = 1', '"http.port": unknown key; did you mean http.port? (config.toml)'),
        ('"a\\nb" = 1', '"a\\nb": unknown key (config.toml)'),
        ("[pipeline.flush_interval]\nms = 50", "pipeline.flush_interval: expected a duration (seconds, or"),
    ],
)
def test_wrong_value(place, toml, line):
    """One line that says what is wrong, and where."""
    lines = place.errors(toml)

    assert len(lines) == 1
    assert lines[0].startswith(line)
    assert lines[0].endswith("(config.toml)")


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("HTTP__PORT", "x", "http.port: expected an integer, got 'x'"),
        ("HTTP__PORT", "", "http.port: expected an integer, got ''"),
        ("HTTP__PORT", "80.0", "http.port: expected an integer, got '80.0'"),
        ("HTTP__PORT", "٨٠", "http.port: expected an integer, got '٨٠'"),
        ("HTTP__PORT", "9" * 5000, "http.port: expected an integer, got '" + "9" * 60 + "...'"),
        ("GENERATOR__RATE", "nan", "generator.rate: expected a number, got 'nan'"),
        ("SYMBOLS", "BTCUSDT,ETHUSDT", "symbols: expected a list as JSON, got 'BTCUSDT,ETHUSDT'"),
        ("SYMBOLS", '"BTCUSDT"', "symbols: expected a list as JSON, got '\"BTCUSDT\"'"),
        ("SYMBOLS", "[" * 100_000, "symbols: expected a list as JSON, got '" + "[" * 60 + "...'"),
        ("SYMBOLS", '{"a": 1}', "symbols: expected a list, got a table"),
        ("EXCHANGES", '[{"name": "a", "host": "h", "port": "1"}]', "exchanges[0].port: expected an integer"),
        ("EXCHANGES", '[{"name": null, "host": "h", "port": 1}]', "exchanges[0].name: expected a name"),
        ("HTTP", "8080", "http: expected a table as JSON"),
        ("HTTP__HOST", "a\udcffb", "http.host: expected a host name or address, got 'a\\udcffb'"),
        ("HTTP__HOST", "[::1", "http.host: expected a host name or address, got '[::1'"),
        ("HTTP__HOST", "[localhost]", "http.host: expected a host name or address, got '[localhost]'"),
        ("HTTP__HOST", "[127.0.0.1]", "http.host: expected a host name or address, got '[127.0.0.1]'"),
        ("HTTP__HOST", "[]", "http.host: expected a host name or address, got '[]'"),
        ("HTTP__HOST", "[::1]:80", "http.host: expected a host name or address, got '[::1]:80'"),
        ("HTTP__ALLOWED_HOSTS", '["h:80"]', "http.allowed_hosts[0]: expected a host name or address without"),
        (
            "HTTP__ALLOWED_HOSTS",
            '["http://h"]',
            "http.allowed_hosts[0]: expected a host name or address",
        ),
        ("HTTP__ALLOWED_HOSTS", '["h", "[::1]:80"]', "http.allowed_hosts[1]: expected a host name or"),
        ("HTTP__ALLOWED_HOSTS", '["*"]', "http.allowed_hosts[0]: expected a host name or address without"),
        (
            "HTTP__CORS_ORIGINS",
            '["h"]',
            "http.cors_origins[0]: expected an origin like https://example.com, or *",
        ),
        ("HTTP__CORS_ORIGINS", '["https://h/"]', "http.cors_origins[0]: expected an origin like"),
        ("HTTP__ALLOWED_HOSTS", "h", "http.allowed_hosts: expected a list as JSON, got 'h'"),
        ("http__port", "1", "MARKETFLOW_http__port: unknown variable"),
        ("HTTP_PORT", "1", "MARKETFLOW_HTTP_PORT: unknown variable; did you mean MARKETFLOW_HTTP__PORT?"),
        ("", "1", "MARKETFLOW_: unknown variable"),
    ],
)
def test_wrong_variable(place, variable, value, line):
    """One line that says what is wrong, and where."""
    name = f"MARKETFLOW_{variable}"
    lines = place.errors(env={name: value})

    assert len(lines) == 1
    assert lines[0].startswith(line)
    assert lines[0].endswith((f"({name})", "(environment)"))


@pytest.mark.parametrize("key", ["HTTP__HOST", "REDIS__HOST", "POSTGRES__HOST"])
@pytest.mark.parametrize(
    ("text", "host"), [("[::1]", "::1"), ("::1", "::1"), ("[fe80::1%eth0]", "fe80::1%eth0")]
)
def test_ipv6_with_and_without_brackets(place, key, text, host):
    settings = place.load(env={f"MARKETFLOW_{key}": text}).settings
    group, _, name = key.lower().partition("__")
    assert getattr(getattr(settings, group), name) == host


def test_origins_are_compared_as_browsers_send_them(place):
    settings = place.load(env={"MARKETFLOW_HTTP__CORS_ORIGINS": '["https://Example.com:8443", "*"]'}).settings
    assert settings.http.cors_origins == ("https://example.com:8443", "*")


def test_allowed_hosts(place):
    value = '["prices.example", "10.0.0.1", "[::1]", "2001:db8::1"]'
    settings = place.load(env={"MARKETFLOW_HTTP__ALLOWED_HOSTS": value}).settings
    assert settings.http.allowed_hosts == ("prices.example", "10.0.0.1", "::1", "2001:db8::1")


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("redis.db = 1", "redis.db: a Redis Cluster has only one database, 0 (config.toml)"),
        ('redis.url = "redis://h/1"', "redis.url: a Redis Cluster has only one database, 0 (config.toml)"),
        ('redis.url = "redis://h?db=1"', "redis.url: a Redis Cluster has only one database, 0 (config.toml)"),
        ('redis.url = "unix:///s"', "redis.url: a Redis Cluster is not on a Unix socket (config.toml)"),
    ],
)
def test_a_redis_cluster_has_hosts_and_one_database(place, toml, line):
    assert place.errors(f'cluster.enabled = true\nredis.nodes = ["h:1"]\n{toml}') == [line]


@pytest.mark.parametrize("url", ["redis://h", "redis://h/0", "rediss://h/", "redis://u:p@h?db=0"])
def test_a_url_that_fits_a_redis_cluster(place, url):
    settings = place.load(f'cluster.enabled = true\nredis.nodes = ["h:1"]\nredis.url = "{url}"').settings
    assert settings.redis.nodes == ("h:1",)


def test_clash_is_not_told_of_a_value_that_is_wrong_itself(place):
    """The default that replaces it does not cause another error."""
    assert len(place.errors('feeds.backoff_min = 5\nfeeds.backoff_max = "x"')) == 1


def test_clash_blames_what_was_set(place):
    """The error names the value that was set, and its source."""
    lines = place.errors(env={"MARKETFLOW_FEEDS__BACKOFF_MAX": "0.2"})

    assert lines == [
        "feeds.backoff_max: backoff_min 250ms is more than backoff_max 200ms (MARKETFLOW_FEEDS__BACKOFF_MAX)"
    ]


# ---- files that cannot be read ----


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("[http]\nport = \n", "config.toml: line 2: invalid value"),
        ("[http]\n\nport 8080\n", "config.toml: line 3: expected '=' after a key in a key/value pair"),
        ("a = 1\na = 2\n", "config.toml: line 2: cannot overwrite a value"),
        ("[http", "config.toml: line 1: expected ']' at the end of a table declaration"),
        ("x = " + "[" * 50_000, "config.toml: nested too deeply"),
        (b"a = 1\nb = '\xff'", "config.toml: line 2: not UTF-8"),
        ("x = " + "9" * 5000, "config.toml: not TOML: "),
    ],
)
def test_broken_file(place, content, line):
    """One line with the line's number, and no errors about values that the file might have set."""
    lines = place.errors(content, env={"MARKETFLOW_FEEDS__BACKOFF_MIN": "5"})

    assert len(lines) == 1
    assert lines[0].startswith(line)


def test_broken_file_hides_no_other_error(place):
    assert len(place.errors("x", env={"MARKETFLOW_HTTP__PORT": "x", "MARKETFLOW_X": ""})) == 3


def test_missing_file_that_was_asked_for(place):
    assert place.errors(config_file=Path("nope.toml")) == ["nope.toml: no such file (--config)"]


def test_directory_for_a_file(place):
    assert place.errors(config_file=place.path) == [f"{place.path}: cannot be read: is a directory"]


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('A=1\nMARKETFLOW_MODE="test\n', ".env: line 2: expected NAME=value"),
        ("MARKETFLOW_MODE\n", ".env: line 1: expected NAME=value"),
        (b"A=\xff", ".env: line 1: not UTF-8"),
    ],
)
def test_broken_dotenv(place, content, line):
    assert place.errors(dotenv=content) == [line]


@contextmanager
def powerless():
    """Become an account other than root, which could read everything."""
    was = os.geteuid()
    if was == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(was)


@pytest.mark.parametrize("mode", [0o000, 0o600])
def test_folder_that_cannot_be_read_holds_nothing_of_ours(place, mode):
    """For example with `sudo -u marketflow` in another user's home directory."""
    for name, content in ((".env", "MARKETFLOW_MODE=test"), ("config.toml", "mode = 'test'")):
        place.path.joinpath(name).write_text(content)
    place.path.chmod(mode)
    with powerless():
        assert place.load().settings.mode == "live"
        lines = place.errors(config_file=Path("config.toml"))
        assert lines == ["config.toml: cannot be read: permission denied"], "that one was asked for"
    place.path.chmod(0o700)


def test_file_that_cannot_be_read_in_a_folder_that_can(tmp_path, monkeypatch):
    """The file is meant for us, so its permissions are a mistake."""
    (tmp_path / ".env").touch(mode=0o000)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # its parents may be closed to other accounts
    with powerless():
        assert Place(Path()).errors() == [".env: cannot be read: permission denied"]


def test_folder_that_is_gone(tmp_path):
    gone = tmp_path / "gone"
    assert load(None, {}, {"HOME": "/home/me"}, gone).settings.mode == "live"


# ---- variables that Kubernetes makes ----

SERVICE_LINKS = {
    "_SERVICE_HOST": "10.0.0.1",
    "_SERVICE_PORT": "8080",
    "_SERVICE_PORT_HTTP": "8080",
    "_SERVICE_PORT_HTTP_METRICS_2": "9090",
    "_PORT": "tcp://10.0.0.1:8080",
    "_PORT_8080_TCP": "tcp://10.0.0.1:8080",
    "_PORT_8080_TCP_PROTO": "tcp",
    "_PORT_8080_TCP_PORT": "8080",
    "_PORT_8080_TCP_ADDR": "10.0.0.1",
    "_PORT_53_UDP": "udp://[fd00::1]:53",
    "_PORT_53_UDP_ADDR": "fd00::1",
    "_PORT_36412_SCTP_PROTO": "sctp",
}


@pytest.mark.parametrize("service", ["", "_REDIS", "_PROD_2", "_HTTP", "_POSTGRES_PORT"])
def test_service_links_are_passed_over(place, service):
    env = {f"MARKETFLOW{service}{name}": value for name, value in SERVICE_LINKS.items()}
    assert place.load(env=env) == place.load()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("_PORT", "8080"),
        ("_HTTP_PORT", "8080"),
        ("_PORT", "http://10.0.0.1:8080"),
        ("_PORT", "tcp://10.0.0.1"),
        ("_PORT", "tcp://somewhere:8080"),
        ("_PORT", "tcp://10.0.0.1:8080/x"),
        ("_SERVICE_HOST", "somewhere"),
        ("_SERVICE_PORT", "x"),
        ("_PORT_8080_TCP_PROTO", "http"),
        ("_PORT_8080_TCP_START", "8080"),
        ("_PORT_8080_HTTP", "tcp://10.0.0.1:8080"),
        ("_HTTP__PORTS", "8080"),
        ("_service_host", "10.0.0.1"),
    ],
)
def test_only_service_links_are_passed_over(place, name, value):
    """Any other unknown variable may be a mistake."""
    (line,) = place.errors(env={f"MARKETFLOW{name}": value})
    assert line.startswith(f"MARKETFLOW{name}: unknown variable")


def test_no_service_links_in_files(place):
    """Kubernetes does not write any into files."""
    assert len(place.errors(dotenv="MARKETFLOW_SERVICE_PORT=8080")) == 1


def test_a_setting_is_never_a_service_link(place):
    (line,) = place.errors(env={"MARKETFLOW_HTTP__PORT": "tcp://10.0.0.1:8080"})
    assert line.startswith("http.port: expected an integer")


# ---- secrets in files ----

IN_FILES = [
    ("HTTP__TOKEN", "http.token", SECRET),
    ("REDIS__PASSWORD", "redis.password", f" {SECRET} "),
    ("REDIS__URL", "redis.url", f"redis://:{SECRET}@h/1"),
    ("POSTGRES__PASSWORD", "postgres.password", SECRET),
    ("POSTGRES__DSN", "postgres.dsn", f"host=h password={SECRET}"),
]


@pytest.mark.parametrize(("variable", "key", "value"), IN_FILES)
@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("layer", ["env", "dotenv"])
def test_secret_in_a_file(place, variable, key, value, end, layer):
    """Its last line may have a line end. Its source is shown, the secret is not."""
    (place.path / "secret").write_bytes(f"{value}{end}".encode())
    name = f"MARKETFLOW_{variable}_FILE"
    given = {"env": {name: str(place.path / "secret")}} if layer == "env" else {"dotenv": f"{name}=secret"}
    loaded = place.load(**given)
    assert value_of(loaded.settings, key) == value
    row = next(row for row in loaded.describe() if row.key == key)
    assert row.source == (name if layer == "env" else ".env")
    assert MASK in row.value
    assert SECRET not in row.value


@pytest.mark.parametrize(("variable", "key", "value"), IN_FILES)
def test_secret_and_its_file(place, variable, key, value):
    """It is unclear which of the two is meant; but an empty variable counts as not set."""
    (place.path / "secret").write_text(value)
    name = f"MARKETFLOW_{variable}"
    assert place.errors(env={name: value, f"{name}_FILE": "secret"}) == [
        f"{key}: both {name} and {name}_FILE are set (environment)"
    ]
    for env in ({name: "", f"{name}_FILE": "secret"}, {name: value, f"{name}_FILE": ""}):
        assert value_of(place.load(env=env).settings, key) == value


def test_secret_of_a_later_layer_wins(place):
    """A file that has no effect is not read."""
    token, file = "MARKETFLOW_HTTP__TOKEN", "MARKETFLOW_HTTP__TOKEN_FILE"
    loaded = place.load(dotenv=f"{file}=nowhere", env={token: "here"})
    assert value_of(loaded.settings, "http.token") == "here"
    (place.path / "secret").write_text("in-a-file")
    loaded = place.load("http.token = 'x'", dotenv=f"{token}=y", env={file: "secret"})
    assert value_of(loaded.settings, "http.token") == "in-a-file"


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("nowhere", None, "nowhere cannot be read: no such file or directory"),
        (".", None, ". cannot be read: is a directory"),
        ("secret", b"", "secret is empty"),
        ("secret", b"\n", "secret is empty"),
        ("secret", b"\xff", "secret is not UTF-8"),
        ("secret", b"x" * 100_000, "secret is longer than 65536 bytes"),
        ("/dev/zero", None, "/dev/zero is longer than 65536 bytes"),
        ("secret", b"two\nlines", "expected visible ASCII characters without blanks"),
    ],
)
def test_file_that_holds_no_secret(place, name, content, line):
    """The error names the file, and shows nothing of its content."""
    if content is not None:
        (place.path / name).write_bytes(content)
    assert place.errors(env={"MARKETFLOW_HTTP__TOKEN_FILE": name}) == [
        f"http.token: {line} (MARKETFLOW_HTTP__TOKEN_FILE)"
    ]


def test_no_files_for_what_is_no_secret(place):
    (line,) = place.errors(env={"MARKETFLOW_HTTP__PORT_FILE": "secret"})
    assert line.startswith("MARKETFLOW_HTTP__PORT_FILE: unknown variable")


# ---- kinds ----


@pytest.mark.parametrize(
    ("written", "ms"),
    [
        (60, 60_000),
        (0.05, 50),
        (0.001, 1),
        (2.5, 2_500),
        ("60s", 60_000),
        ("60 s", 60_000),
        ("50ms", 50),
        ("0.25s", 250),
        ("1.5m", 90_000),
        ("2m", 120_000),
        ("1h", 3_600_000),
        ("7d", 604_800_000),
        (Text("60"), 60_000),
        (Text("0.05"), 50),
        (Text("50ms"), 50),
    ],
)
def test_duration(written, ms):
    read = duration(0, 10**10).read(written)

    assert ms == read
    assert type(read) is int


@pytest.mark.parametrize(
    "written",
    [
        True,
        None,
        "60",
        "s",
        "1 S",
        "1  s",
        "1e3s",
        "60sec",
        "1_000s",
        "٣s",
        "0.5ms",
        0.0001,
        -0.5,
        float("nan"),
        [],
    ],
)
def test_no_duration(written):
    with pytest.raises(UnexpectedError):
        duration(0, 10**10).read(written)


@given(st.integers(0, 10**12))
def test_shown_duration_is_read_back(ms):
    assert duration(0, 10**12).read(show_duration(ms)) == ms


@given(st.integers(0, 10**9))
def test_duration_in_seconds_is_exact(ms):
    """The text is converted to ms without rounding by a float."""
    assert duration(0, 10**9).read(float(Fraction(ms, 1000))) == ms
    assert duration(0, 10**9).read(Text(f"{ms // 1000}.{ms % 1000:03}")) == ms


@pytest.mark.parametrize(
    ("written", "size_bytes"),
    [
        (1024, 1024),
        ("64 MiB", 67_108_864),
        ("64MiB", 67_108_864),
        ("512KiB", 524_288),
        ("1GiB", 1_073_741_824),
        ("7 B", 7),
        (Text("1024"), 1024),
    ],
)
def test_size(written, size_bytes):
    assert size(0, 2**40).read(written) == size_bytes


@given(st.integers(1, 2**40))
def test_shown_size_is_read_back(size_bytes):
    assert size(1, 2**40).read(show_size(size_bytes)) == size_bytes


@given(
    st.sampled_from(sorted(KEYS)),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(SECRET),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["name", "host", "port", "x"]), inner)
        ),
    ),
)
def test_any_value_is_read_or_refused(key, value):
    """Every JSON value gives either settings or error lines."""
    name = "MARKETFLOW_" + key.upper().replace(".", "__")
    group, _, leaf = key.rpartition(".")
    env = {f"MARKETFLOW_{group.upper()}": json.dumps({leaf: value})} if group else {name: json.dumps(value)}
    lines: list[str] = []
    try:
        loaded = load(None, {}, {"HOME": "/home/me", **env}, Path("/nowhere"))
    except ConfigError as error:
        lines = error.lines
        loaded = None

    assert (loaded is None) == bool(lines)
    assert all(line.isprintable() for line in lines)
    assert loaded is None or set(loaded.sources.values()) == {"default", *env}


@pytest.mark.parametrize("written", ["", "none"])
def test_retention_for_ever(place, written):
    loaded = place.load('aggregation.retention = "7d"', env={"MARKETFLOW_AGGREGATION__RETENTION": written})

    assert loaded.settings.aggregation.retention is None


def test_empty_text_is_none(place):
    loaded = place.load('http.token = ""\nredis.url = ""', env={"MARKETFLOW_POSTGRES__PASSWORD": ""})

    assert loaded.settings.http.token is None
    assert loaded.settings.redis.url is None
    assert loaded.settings.postgres.password is None


def test_free_port_and_no_waiting_are_allowed(place):
    loaded = place.load("http.port = 0\naggregation.grace = 0\naggregation.lateness = 0")

    assert loaded.settings.http.port == 0
    assert loaded.settings.aggregation.grace == loaded.settings.aggregation.lateness == 0


# ---- where state is kept ----


@pytest.mark.parametrize(
    ("toml", "env", "path"),
    [
        ("", {"XDG_STATE_HOME": "/state"}, "/state/marketflow"),
        ("", {"XDG_STATE_HOME": "state"}, "/home/me/.local/state/marketflow"),
        ('state_dir = ""', {"XDG_STATE_HOME": "/state"}, "/state/marketflow"),
        ('state_dir = "~/x"', {}, "/home/me/x"),
        ('state_dir = "~"', {}, "/home/me"),
        ('state_dir = "/var/x"', {}, "/var/x"),
    ],
)
def test_state_dir(place, toml, env, path):
    assert place.load(toml, env=env).settings.state_dir == Path(path)


def test_relative_state_dir_starts_here(place):
    assert place.load('state_dir = "x"').settings.state_dir == place.path / "x"


# ---- stores ----


def test_effective_defaults():
    assert RedisSettings().effective_url == "redis://127.0.0.1:6379/0"
    assert PostgresSettings().effective_dsn == "postgresql://marketflow@127.0.0.1:5432/marketflow"


def test_whole_wins_over_parts():
    assert RedisSettings(url="redis://a/1", host="b").effective_url == "redis://a/1"
    assert PostgresSettings(dsn="host=a", host="b").effective_dsn == "host=a"


secrets = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(secrets)
@example("p@ss/w:o?r#d %41")
def test_redis_parts_survive_the_url(password):
    url = urlsplit(RedisSettings(host="::1", port=7, password=password, db=3).effective_url)

    assert (url.hostname, url.port, url.path) == ("::1", 7, "/3")
    assert unquote(url.password) == password


@given(secrets, secrets, secrets)
def test_postgres_parts_survive_the_dsn(user, password, database):
    """The DSN gives libpq exactly what was set."""
    settings = PostgresSettings(host="/run/x", port=7, user=user, password=password, database=database)

    read = conninfo_to_dict(settings.effective_dsn)

    assert read == {"host": "/run/x", "port": "7", "user": user, "password": password, "dbname": database}


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis://h:1/2",
        "REDIS://h",
        "rediss://:p@[::1]:1",
        "unix:///run/redis.sock?db=1",
        "redis://u:p@h/",
        "redis://h?db=3",
        "redis://h?username=u&password=p%26&client_name=me&socket_keepalive=yes",
        "redis://h/0?socket_timeout=30&socket_connect_timeout=0.2",
        "rediss://h/0?ssl_cert_reqs=none&ssl_check_hostname=False&ssl_ca_certs=%2Fca.pem",
    ],
)
def test_redis_url(place, url):
    assert place.load(env={"MARKETFLOW_REDIS__URL": url}).settings.redis.effective_url == url


@pytest.mark.parametrize(
    "url",
    [
        *("h:6379", "http://h", "redis://", "redis://h:x", "redis://h:0", "redis://h/x", "unix:/run/x"),
        *(" redis://h", "redis://h ", "redis://h\t", "redis://[::zz]", "redis:///0", "unix://"),
    ],
)
def test_no_redis_url(place, url):
    assert place.errors(env={"MARKETFLOW_REDIS__URL": url}) == [
        "redis.url: expected a URL like redis://127.0.0.1:6379/0 (MARKETFLOW_REDIS__URL)"
    ]


ANYWHERE = "client_name, db, password, socket_connect_timeout, socket_keepalive, socket_timeout, username"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        *(
            (f"redis://h/0?{option}", f"a redis:// URL with no other options than {ANYWHERE}")
            for option in (
                *("protocol=3", "decode_responses=True", "ssl_cert_reqs=none", "timeout=5", "timeout"),
                *("health_check_interval=1", "retry_on_timeout=yes", "max_connections=1", "proto%63ol=3"),
                *("DB=1", "=", "host=other", "connection_class=x"),
            )
        ),
        (
            "unix:///run/x?socket_keepalive=1",
            f"a unix:// URL with no other options than {ANYWHERE.replace('socket_keepalive, ', '')}",
        ),
        ("redis://h?db=x", "a URL whose option db is the number of a database"),
        ("redis://h?db=", "a URL whose option db is the number of a database"),
        ("redis://h?db=-1", "a URL whose option db is the number of a database"),
        ("redis://h/1?db=1", "a URL that sets each option once"),
        ("redis://h?db=1&db=2", "a URL that sets each option once"),
        (
            "redis://h?client_name=a+b",
            "a URL whose option client_name is visible ASCII characters",
        ),
        ("redis://h?socket_keepalive=maybe", "a URL whose option socket_keepalive is true or false"),
        ("rediss://h?ssl_cert_reqs=NONE", "a URL whose option ssl_cert_reqs is none, optional or required"),
        *(
            (
                f"redis://h?socket_timeout={value}",
                "a URL whose option socket_timeout is a number of seconds above 0",
            )
            for value in ("0", "-1", "nan", "inf", "1e3", "x", "")
        ),
    ],
)
def test_options_of_a_redis_url(place, url, expected):
    """Options that would fail in redis-py, or change our time limits, are reported at the start."""
    assert place.errors(env={"MARKETFLOW_REDIS__URL": url}) == [
        f"redis.url: expected {expected} (MARKETFLOW_REDIS__URL)"
    ]


@pytest.mark.parametrize("kind", [redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection])
def test_the_adapter_of_redis_knows_the_options_that_may_be_set(kind):
    scheme = {redis.Connection: "redis", redis.SSLConnection: "rediss"}.get(kind, "unix")
    assert URL_OPTIONS[kind] == {*OPTIONS[scheme]}


@pytest.mark.parametrize("host", ["::zz", "1:2"])
def test_a_host_of_redis_that_no_url_can_hold(place, host):
    assert place.errors(env={"MARKETFLOW_REDIS__HOST": host}) == [
        "redis.host: expected a host name or address (MARKETFLOW_REDIS__HOST)"
    ]


@pytest.mark.parametrize("dsn", ["postgresql://u@h/d", "postgres://h", "host=h dbname=d", "service=x"])
def test_postgres_dsn(place, dsn):
    assert place.load(env={"MARKETFLOW_POSTGRES__DSN": dsn}).settings.postgres.effective_dsn == dsn


EXAMPLE = "a connection string like postgresql://user@127.0.0.1:5432/database"


@pytest.mark.parametrize("dsn", ["mysql://h", "host", "colour=red", "postgresql://h:p:p:p/", " "])
def test_no_postgres_dsn(place, dsn):
    assert place.errors(env={"MARKETFLOW_POSTGRES__DSN": dsn}) == [
        f"postgres.dsn: expected {EXAMPLE} (MARKETFLOW_POSTGRES__DSN)"
    ]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ("target_session_attrs=standby", "with target_session_attrs one of any, read-write, primary"),
        ("target_session_attrs=prefer-standby", "with target_session_attrs one of any, read-write, primary"),
        ("sslmode=on", "with sslmode one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("gssencmode=x", "with gssencmode one of disable, prefer, require"),
        ("channel_binding=x", "with channel_binding one of disable, prefer, require"),
        ("load_balance_hosts=x", "with load_balance_hosts one of disable, random"),
        ("replication=database", "with replication one of false, off, no, 0"),
        ("connect_timeout=5s", "with a whole number as connect_timeout"),
        ("keepalives=yes", "with a whole number as keepalives"),
        ("require_auth=x", "with require_auth of password, md5, gss, sspi, scram-sha-256, oauth, none"),
        ("port=1,2,3", "with one port, or as many as hosts"),
        ("port=0", "with ports from 1 to 65535"),
        ("hostaddr=10.0.0.1,10.0.0.2,10.0.0.3", "with as many hosts as addresses"),
    ],
)
def test_options_that_cannot_work_are_named(place, options, wanted):
    """Otherwise PostgreSQL would be away for ever: libpq only notices when it connects."""
    assert place.errors(env={"MARKETFLOW_POSTGRES__DSN": f"host=a,b {options}"}) == [
        f"postgres.dsn: expected a connection string {wanted} (MARKETFLOW_POSTGRES__DSN)"
    ]


@pytest.mark.parametrize(
    "options",
    [
        "target_session_attrs=read-write load_balance_hosts=random connect_timeout=2 port=5432,5433",
        "sslmode=verify-full channel_binding=require require_auth=!password,!md5 port=5432",
        "options='-c statement_timeout=1s' application_name=mine sslmode='' port=5432,",
    ],
)
def test_options_that_work(place, options):
    dsn = f"host=a,b {options}"
    assert place.load(env={"MARKETFLOW_POSTGRES__DSN": dsn}).settings.postgres.effective_dsn == dsn


# ---- what people see ----


def rows(loaded: Loaded) -> dict[str, tuple[str, str]]:
    """Value and source by key."""
    return {row.key: (row.value, row.source) for row in loaded.describe()}


def test_described_in_order(place):
    assert list(DEFAULTS) == [row.key for row in place.load().describe()]


def test_described(place):
    described = rows(place.load("pipeline.flush_interval = 0.05", flags={"http.port": "81"}))

    assert described["http.port"] == ("81", "--port")
    assert described["pipeline.flush_interval"] == ("50ms", "config.toml")
    assert described["window.length"] == ("60s", "default")
    assert described["window.replay_memory"] == ("64 MiB", "default")
    assert described["aggregation.retention"] == ("none", "default")
    assert described["generator.exchanges"] == ('["test1", "test2", "test3"]', "default")
    assert described["generator.rate"] == ("10", "default")
    assert described["redis.url"] == ("redis://127.0.0.1:6379/0", "default")


def test_described_values_are_read_back(place):
    """Each displayed value, put into the environment, gives the same settings."""
    toml = SHIPPED.read_text().replace('"none"', '"90d"').replace("rate = 10", "rate = 0.1")
    loaded = place.load(toml)
    shown = {
        f"MARKETFLOW_{row.key.upper().replace('.', '__')}": "" if row.value == "none" else row.value
        for row in loaded.describe()
        if row.key not in {"redis.url", "postgres.dsn"}
    }

    assert load(None, {}, shown, Path("/nowhere")).settings == loaded.settings


def test_described_parts_of_a_store(place):
    """A composed value names its parts; an overridden one says so."""
    described = rows(
        place.load(
            f'redis.password = "{SECRET}"\nredis.host = "r"', env={"MARKETFLOW_POSTGRES__DSN": "host=h"}
        )
    )

    assert described["redis.url"] == ("redis://:***@r:6379/0", "from redis.host, redis.password")
    assert described["postgres.dsn"] == ("host=h", "MARKETFLOW_POSTGRES__DSN")
    assert described["postgres.user"] == ("marketflow", "default; not used: postgres.dsn wins")


SECRETIVE = [
    ("HTTP__TOKEN", SECRET),
    ("REDIS__PASSWORD", SECRET),
    ("POSTGRES__PASSWORD", SECRET),
    ("REDIS__URL", f"redis://:{SECRET}@h"),
    ("REDIS__URL", f"redis://u:{SECRET}@h/1"),
    ("REDIS__URL", f"redis://h?password={SECRET}&db=1"),
    ("REDIS__URL", f"redis://h?db=1&pass%77ord={SECRET}"),
    ("POSTGRES__DSN", f"postgresql://u:{SECRET}@h/d"),
    ("POSTGRES__DSN", f"postgresql://u@h/d?password={SECRET}"),
    ("POSTGRES__DSN", f"postgresql://u@h/d?sslpassword={SECRET}"),
    ("POSTGRES__DSN", f"host=h password={SECRET}"),
    ("POSTGRES__DSN", f"host=h password = 'x {SECRET}'"),
    ("POSTGRES__DSN", rf"host=h password='\'{SECRET}'"),
    ("POSTGRES__DSN", rf"host=h password=\ {SECRET}"),
]


@pytest.mark.parametrize(("variable", "value"), SECRETIVE)
def test_secret_is_not_described(place, variable, value):
    described = place.load(env={f"MARKETFLOW_{variable}": value}).describe()

    assert not [row for row in described if SECRET in row.value]
    assert [row for row in described if MASK in row.value]


@pytest.mark.parametrize("name", ["MARKETFLOW_URL", "MARKETFLOW_TOKEN"])
def test_variables_of_the_client_are_none_of_ours(place, name):
    """A user of the client may also run a service, in the same shell or with the same `.env`."""
    assert place.load(dotenv=f"{name}=x", env={name: "y"}) == place.load()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HTTP__TOKEN", f"{SECRET} with blanks"),
        ("REDIS__URL", f"rdis://:{SECRET}@h"),
        ("REDIS__URL", f"redis://:{SECRET}@h:x"),
        ("REDIS", f"redis://:{SECRET}@h"),
        ("REDIS", f'{{"passwrd": "{SECRET}"}}'),
        ("REDIS", f'{{"password": ["{SECRET}"]}}'),
        ("REDIS", f'{{"password": "{SECRET}"'),
        ("REDIS__HOST", f"redis://:{SECRET}@h"),
        ("REDIS__HOST", f":{SECRET}@h"),
        ("REDIS__PORT", f"redis://h?password={SECRET}"),
        ("REDIS__PASSWRD", SECRET),
        ("REDIS__URL_FILE", f"redis://:{SECRET}@h"),
        ("POSTGRES", f"postgresql://u:{SECRET}@h"),
        ("POSTGRES__DSN", f"postgresql://u:{SECRET}@h:x"),
        ("POSTGRES__DSN", f"host=h password={SECRET} {SECRET}"),
        ("POSTGRES__HOST", f"host=h password={SECRET}"),
        ("POSTGRES__PASSWORD", f"{SECRET}\udcff"),
        ("EXCHANGES", f'[{{"name": "a", "host": "u:{SECRET}@h", "port": 1}}]'),
    ],
)
def test_secret_is_not_in_an_error(place, variable, value):
    assert SECRET not in "\n".join(place.errors(env={f"MARKETFLOW_{variable}": value}))


@pytest.mark.parametrize("broken", [f'password = "{SECRET}', f"password = {SECRET}", f'"{SECRET}'])
def test_secret_is_not_in_the_error_of_a_broken_file(place, broken):
    assert SECRET not in "\n".join(place.errors(f"[redis]\n{broken}"))
    assert SECRET not in "\n".join(place.errors(dotenv=f'MARKETFLOW_REDIS__PASSWORD="{SECRET}'))


@given(secrets)
@example("'")
@example("\\")
@example(" x=y ")
def test_password_of_a_connection_string_is_masked(password):
    """In both forms, everything that libpq reads as the password; the rest is still a connection string."""
    for text in (
        make_conninfo(host="h", password=password, user="u"),
        PostgresSettings(password=password).effective_dsn,
    ):
        masked = mask_connection(text)

        assert conninfo_to_dict(masked) == {**conninfo_to_dict(text), "password": MASK}
        assert mask_connection(masked) == masked


def test_all_that_libpq_holds_secret_is_masked():
    """The test uses libpq's own list, which marks secret parameters with an asterisk."""
    hidden = [option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.dispchar == b"*"]

    assert hidden
    for name in hidden:
        assert mask_connection(f"host=h {name}={SECRET}") == f"host=h {name}={MASK}"


@given(st.text(), st.sampled_from(["redis://u:", "postgresql://u:", "u:", "//:"]))
def test_text_before_an_at_sign_is_never_shown(rest, before):
    """This holds for any broken URL around a password."""
    assert SECRET not in mask_value(f"{before}{rest}{SECRET}@host")


def test_shipped_file_documents_every_key():
    """The file can be read as the documentation."""
    table = tomllib.loads(SHIPPED.read_text())
    flat = [
        f"{name}.{inner}" if isinstance(value, dict) else name
        for name, value in table.items()
        for inner in (value if isinstance(value, dict) else [name])
    ]

    assert sorted(flat) == sorted(KEYS)
