"""The settings, their meaning and their defaults.

Durations are ms and sizes bytes, both as int. An empty text stands for None, where None is allowed. The
docstrings are the documentation: `nox -s reference` makes config.toml and docs/configuration.md from them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import quote

import attrs

from marketflow.config import kinds
from marketflow.config.redis_url import expected_of, unfit_for_cluster
from marketflow.config.venues import VENUES
from marketflow.domain.periods import DAY, HOUR, MINUTE, SECOND
from marketflow.domain.prices import SYMBOLS

Mode = Annotated[Literal["live", "test"], kinds.choice("live", "test")]
SYMBOL_PATTERN: Final = "[A-Z0-9]{2,20}"
Symbol = Annotated[str, kinds.pattern("a symbol", SYMBOL_PATTERN)]
ExchangeName = Annotated[str, kinds.pattern("a name", "[A-Za-z0-9_-]{1,32}")]
Host = Annotated[str, kinds.host()]
HostName = Annotated[str, kinds.host_name()]
Origin = Annotated[str, kinds.origin()]
ServerAddress = Annotated[str, kinds.address()]
Port = Annotated[int, kinds.integer(1, kinds.LAST_PORT)]
NODE_PATTERN: Final = r"[A-Za-z0-9_.:\[\]-]{1,128}"
Duration = Annotated[int, kinds.duration(1, HOUR)]
Password = Annotated[str | None, kinds.optional(kinds.secret(kinds.text()))]

LINES: Final = "lines"
"""The kind of an exchange that is no venue."""

LONGEST_LATENESS: Final = 30 * MINUTE
"""Bars are kept for an hour, so a minute must become final well before that."""


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/marketflow`, else `~/.local/state/marketflow`."""
    state_home = environ.get("XDG_STATE_HOME", "")
    # The XDG specification says that a relative path must be ignored.
    if not state_home.startswith("/"):
        state_home = expand_home("~/.local/state", environ)
    return Path(state_home) / "marketflow"


def expand_home(path: str, environ: Mapping[str, str]) -> str:
    """The path with a leading `~` or `~user` replaced, if that home directory is known."""
    home = environ.get("HOME")
    if home and (path == "~" or path.startswith("~/")):
        return home + path[1:]
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises where no home is known


@attrs.frozen
class ExchangeSettings:
    """An exchange that sends JSON lines over TCP."""

    name: ExchangeName
    """Its unique name in requests, answers and stores."""
    host: Host
    """The host on which it listens."""
    port: Port
    """The TCP port on which it listens."""
    kind: Annotated[Literal["lines"], kinds.choice(*VENUES, LINES)] = LINES
    """"lines": JSON lines over TCP. The others are real exchanges: they take the keys below, and neither
    `host`, `port` nor `shared`."""
    shared: Annotated[bool, kinds.boolean()] = False
    """Whether all connections to it carry the same updates, as those to `marketflow exchange` and to real
    exchanges do. A cluster then hands it over from node to node without losing any."""


@attrs.frozen
class VenueSettings:
    """A real exchange, over WebSocket."""

    name: ExchangeName
    """Its unique name in requests, answers and stores."""
    kind: Annotated[str, kinds.choice(*VENUES, also=(LINES,))]
    """The exchange whose protocol it has."""
    symbols: Annotated[
        Mapping[str, str] | None,
        kinds.optional(
            kinds.mapping(
                kinds.pattern("a symbol", SYMBOL_PATTERN),
                kinds.pattern("its name at the exchange", r"[!-~]{1,64}"),
            )
        ),
    ] = None
    """Of a real exchange: its symbols, as a table of our name and its own, `{ BTCUSDT = "BTC/USDT" }`. Empty:
    all of `symbols`, for exchanges that spell them as we do."""
    url: Annotated[str | None, kinds.optional(kinds.url("wss", "ws", "https", "http"))] = None
    """Of a real exchange: the URL to connect to; empty: its own."""
    proxy: Annotated[str | None, kinds.optional(kinds.proxy())] = None
    """Of a real exchange: the HTTP proxy to connect through, `http://host:port`; empty: none."""


AnyExchange = ExchangeSettings | VenueSettings


@attrs.frozen
class HttpSettings:
    """The HTTP server."""

    host: Host = "127.0.0.1"
    """The address to listen on. With the default only this machine has access ("0.0.0.0": all interfaces)."""
    port: Annotated[int, kinds.integer(0, kinds.LAST_PORT)] = 8080
    """The TCP port to listen on; 0: any free one."""
    token: Annotated[str | None, kinds.optional(kinds.token())] = None
    """The token that `POST /mode/...` needs as `Authorization: Bearer`; empty: none. Better set in the
    environment."""
    allowed_hosts: tuple[HostName, ...] = ()
    """Further host names of the service, without a port, such as that of a proxy in front of it. Without a
    token, a switch of the mode is accepted only for one of these, for `host` or for loopback, since a page of
    another site may have sent a request for any other name."""
    cors_origins: tuple[Origin, ...] = ()
    """Sites whose pages may read answers in a browser, like "https://example.com"; "*": all. They may not
    switch the mode."""
    max_stream_clients: Annotated[int, kinds.integer(1, 1_000_000)] = 1_000
    """The most clients of `/stream` and `/ws` together; more are refused."""
    max_connections: Annotated[int, kinds.integer(1, 1_000_000)] = 2_000
    """The most connections at a time, including idle ones and those of the stream; one more is answered 503
    and closed."""
    max_head_size: Annotated[int, kinds.size(1024, 1024**2)] = 16 * 1024
    """The most bytes of a request's line and headers; 400 for more."""
    max_body_size: Annotated[int, kinds.size(0, 1024**3)] = 16 * 1024
    """The most bytes of a request's body (no route needs one); 413 for more."""


@attrs.frozen
class RedisSettings:
    """The store of the last minute's updates: Redis 6.2 or newer."""

    url: Annotated[str | None, kinds.optional(kinds.redis_url())] = None
    """`redis://`, `rediss://` or `unix://`. Allowed options are those for TLS, names and shorter time limits.
    Overrides `host`, `port`, `password` and `db`."""
    host: Host = "127.0.0.1"
    """The host on which it listens."""
    port: Port = 6379
    """The TCP port on which it listens."""
    password: Password = None
    """The password; empty: none. Better set in the environment."""
    db: Annotated[int, kinds.integer(0, 1_000_000)] = 0
    """The number of the database."""
    nodes: tuple[ServerAddress, ...] = ()
    """Some nodes of a Redis Cluster, as `host:port`, for `cluster`; `url` then only tells user, password and
    TLS. Empty: a single Redis."""
    timeout: Duration = 1 * SECOND
    """How long a call may take before Redis counts as away."""

    @property
    def effective_url(self) -> str:
        """The URL, or one made from the other settings."""
        password = "" if self.password is None else f":{quote(self.password, safe='')}@"
        return self.url or f"redis://{password}{_authority(self.host)}:{self.port}/{self.db}"


@attrs.frozen
class PostgresSettings:
    """The store of the aggregates: PostgreSQL 14 or newer."""

    dsn: Annotated[str | None, kinds.optional(kinds.postgres_dsn())] = None
    """A URL, or libpq's `key=value`. Overrides `host`, `port`, `user`, `password` and `database`."""
    host: Annotated[str, kinds.host(socket_directory=True)] = "127.0.0.1"
    """The host on which it listens, or the directory of its Unix socket."""
    port: Port = 5432
    """The TCP port on which it listens."""
    user: Annotated[str, kinds.text()] = "marketflow"
    """The role to connect as. It should own the database, since a start upgrades the schema."""
    password: Password = None
    """The password; empty: none. Better set in the environment."""
    database: Annotated[str, kinds.text()] = "marketflow"
    """The name of the database."""
    timeout: Duration = 5 * SECOND
    """How long a call may take before PostgreSQL counts as away."""

    @property
    def effective_dsn(self) -> str:
        """The DSN, or one made from the other settings."""
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        user, database = quote(self.user, safe=""), quote(self.database, safe="")
        return self.dsn or f"postgresql://{user}{password}@{_authority(self.host)}:{self.port}/{database}"


def _authority(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("/") else quote(host, safe="")


@attrs.frozen
class PipelineSettings:
    """The pipeline from the exchanges to Redis."""

    workers_per_exchange: Annotated[int, kinds.integer(1, 64)] = 5
    """How many tasks decode and check the lines of an exchange."""
    max_pending_updates: Annotated[int, kinds.integer(1, 1_000_000_000)] = 1_000_000
    """How many accepted updates may wait for Redis, in equal shares for each exchange."""
    flush_interval: Annotated[int, kinds.duration(1, 10 * SECOND)] = 50
    """The time within which updates are written to Redis: the most that a `kill -9` can lose."""


@attrs.frozen
class WindowSettings:
    """The raw updates in Redis."""

    length: Annotated[int, kinds.duration(SECOND, HOUR)] = 60 * SECOND
    """How long updates are kept."""
    replay_memory: Annotated[int, kinds.size(1, 1024**4)] = 64 * 1024**2
    """The most memory for updates already written, which are written again when Redis comes back empty."""


@attrs.frozen
class AggregationSettings:
    """The rows in PostgreSQL."""

    interval: Annotated[int, kinds.duration(SECOND, MINUTE, whole=SECOND, divides=MINUTE)] = 60 * SECOND
    """The length of a row's span. A database keeps its interval and refuses any other."""
    grace: Annotated[int, kinds.duration(0, LONGEST_LATENESS)] = 2 * SECOND
    """How long after its end an interval is closed and written."""
    lateness: Annotated[int, kinds.duration(0, LONGEST_LATENESS)] = 120 * SECOND
    """How long after its end an interval still accepts updates; later ones are rejected as `late`."""
    retention: Annotated[
        int | None, kinds.optional(kinds.duration(SECOND, 36_500 * DAY), none=("", "none"))
    ] = None
    """How long rows are kept ("90d"); "none": for ever."""


@attrs.frozen
class FeedSettings:
    """The connections to the exchanges."""

    stale_after: Duration = 5 * SECOND
    """The time without an accepted update after which an exchange is stale."""
    idle_timeout: Duration = 30 * SECOND
    """The time without a byte after which the connection to an exchange is closed and made again."""
    backoff_min: Duration = 250
    """The delay between attempts to connect is random, up to a limit that starts at this and doubles."""
    backoff_max: Duration = 2 * SECOND
    """The largest value of that limit."""


@attrs.frozen
class GeneratorSettings:
    """The exchanges of the test mode, whose prices are generated."""

    exchanges: tuple[ExchangeName, ...] = ("test1", "test2", "test3")
    """The names of these exchanges, different from those in `exchanges`."""
    rate: Annotated[float, kinds.number(0.001, 100_000)] = 10.0
    """Ticks a second; a tick is an update of every symbol."""


@attrs.frozen
class ClusterSettings:
    """Several services, called nodes, that share the exchanges. They use the same stores and settings."""

    enabled: Annotated[bool, kinds.boolean()] = False
    """Whether this service is a node of a cluster. Alone on its stores, it needs none of these settings."""
    role: Annotated[Literal["all", "ingest", "api"], kinds.choice("all", "ingest", "api")] = "all"
    """"api": it takes no exchange, but answers all questions. "all" and "ingest": it takes exchanges, and
    answers as well."""
    node: Annotated[str | None, kinds.optional(kinds.pattern("a name", NODE_PATTERN))] = None
    """The unique name of this node; empty: `<host name>:<port>`."""
    lease_ttl: Annotated[int, kinds.duration(500, MINUTE)] = 3 * SECOND
    """How long a node has an exchange without renewing it. The same on all nodes, as are the next three."""
    lease_renew: Annotated[int, kinds.duration(100, MINUTE)] = 1 * SECOND
    """How often it renews."""
    lease_scan: Annotated[int, kinds.duration(10, MINUTE)] = 250
    """How often it looks whether an exchange is free; at most a quarter of `lease_ttl`."""
    settle: Annotated[int, kinds.duration(0, HOUR)] = 30 * SECOND
    """How long nothing must have changed before an exchange is moved to another node, to share evenly."""
    standby: Annotated[bool, kinds.boolean()] = False
    """Whether a second node reads each shared exchange all the time, so that nothing is lost if the first one
    dies. The same on all nodes."""


@attrs.frozen
class Settings:
    """All settings."""

    mode: Mode = "live"
    """The mode at the start: the exchanges ("live"), or generated prices ("test")."""
    symbols: tuple[Symbol, ...] = SYMBOLS
    """Updates of any other symbol are rejected."""
    exchanges: tuple[AnyExchange, ...] = (
        ExchangeSettings("exchange1", "127.0.0.1", 40101),
        ExchangeSettings("exchange2", "127.0.0.1", 40102),
        ExchangeSettings("exchange3", "127.0.0.1", 40103),
    )
    """The exchanges of the live mode."""
    http: HttpSettings = HttpSettings()
    redis: RedisSettings = RedisSettings()
    postgres: PostgresSettings = PostgresSettings()
    pipeline: PipelineSettings = PipelineSettings()
    window: WindowSettings = WindowSettings()
    aggregation: AggregationSettings = AggregationSettings()
    feeds: FeedSettings = FeedSettings()
    generator: GeneratorSettings = GeneratorSettings()
    cluster: ClusterSettings = ClusterSettings()
    state_dir: Annotated[Path, kinds.directory()] = attrs.field(factory=lambda: default_state_dir(os.environ))
    """The directory in which a stop saves bars that no store took, until the next start, and in which `serve
    --embedded` keeps its data. Empty: `$XDG_STATE_HOME/marketflow`, or else `~/.local/state/marketflow`."""
    shutdown_timeout: Duration = 10 * SECOND
    """How long a stop may take, including saving bars to `state_dir`."""


@attrs.frozen
class Clash:
    """Settings that are valid alone, but not together."""

    keys: tuple[str, ...]
    """The keys of the settings involved."""
    message: str


def clashes(settings: Settings) -> Iterator[Clash]:
    """The conflicts between several settings."""
    live = [exchange.name for exchange in settings.exchanges]
    generated = settings.generator.exchanges
    for key, names in (
        ("symbols", settings.symbols),
        ("exchanges", live),
        ("generator.exchanges", generated),
    ):
        if not names:
            yield Clash((key,), "there must be at least one")
        for name in _repeated(names):
            yield Clash((key,), f"{name} is there more than once")
    for name in sorted({*live} & {*generated}):
        yield Clash(("exchanges", "generator.exchanges"), f"{name} is in exchanges and generator.exchanges")
    for exchange in settings.exchanges:
        for message in _venue_problems(exchange, settings.symbols):
            yield Clash(("exchanges", "symbols"), f"{exchange.name}: {message}")
    most, count = settings.pipeline.max_pending_updates, len({*live, *generated})
    if most < count:
        yield Clash(
            ("pipeline.max_pending_updates", "exchanges", "generator.exchanges"),
            f"{most} pending updates cannot be shared out among {count} exchanges",
        )
    yield from _redis_problems(settings.redis)
    yield from _cluster_problems(settings.cluster)
    yield from _ignored_problems(settings)
    least, longest = settings.feeds.backoff_min, settings.feeds.backoff_max
    if least > longest:
        yield Clash(
            ("feeds.backoff_min", "feeds.backoff_max"),
            f"backoff_min {kinds.show_duration(least)} is more than "
            f"backoff_max {kinds.show_duration(longest)}",
        )


def _redis_problems(redis: RedisSettings) -> Iterator[Clash]:
    """What is wrong with the address of Redis."""
    if redis.url is None and expected_of(redis.effective_url) is not None:
        yield Clash(("redis.host",), "expected a host name or address")
    elif redis.nodes and (message := unfit_for_cluster(redis.effective_url)) is not None:
        yield Clash(("redis.db" if redis.url is None else "redis.url", "redis.nodes"), message)


def _cluster_problems(cluster: ClusterSettings) -> Iterator[Clash]:
    """What is wrong with the times of a cluster."""
    # A look that comes later than half a lease time after the one before counts as an outage of the database.
    for first, second, factor, part in (
        ("lease_renew", "lease_ttl", 2, "half of "),
        ("lease_scan", "lease_ttl", 4, "a quarter of "),
        ("lease_scan", "lease_renew", 1, ""),
    ):
        shorter, longer = getattr(cluster, first), getattr(cluster, second)
        if shorter * factor > longer:
            yield Clash(
                (f"cluster.{first}", f"cluster.{second}"),
                f"{first} {kinds.show_duration(shorter)} is more than {part}{second} "
                f"({kinds.show_duration(longer)})",
            )


def _ignored_problems(settings: Settings) -> Iterator[Clash]:
    """Settings that a single service would ignore, although they tell that a cluster is meant."""
    if settings.cluster.enabled:
        return
    for key, is_set in (
        ("redis.nodes", bool(settings.redis.nodes)),
        ("cluster.role", settings.cluster.role != "all"),
        ("cluster.node", settings.cluster.node is not None),
    ):
        if is_set:
            yield Clash((key,), "it is for nodes of a cluster: set cluster.enabled, or start with --role")


def _venue_problems(exchange: AnyExchange, symbols: Sequence[str]) -> Iterator[str]:
    """What is wrong with the symbols and the URL of a venue."""
    if not isinstance(exchange, VenueSettings) or not symbols:
        return
    facts = VENUES[exchange.kind]
    if exchange.url is not None and not exchange.url.startswith(facts.schemes):
        yield f"url: {exchange.kind} needs one that begins with {' or '.join(facts.schemes)}"
    if exchange.symbols is None:
        if not facts.spells_as_we_do:
            yield f'{exchange.kind} spells symbols in its own way: set symbols = {{ {symbols[0]} = "..." }}'
        count = len(symbols)
    else:
        for symbol in exchange.symbols:
            if symbol not in symbols:
                yield f"{symbol} is not in symbols"
        # Some venues write the same name in upper or lower case.
        for name in _repeated(name.casefold() for name in exchange.symbols.values()):
            yield f"{name} is the name of more than one symbol"
        count = len(exchange.symbols)
        if not count:
            yield "there must be at least one symbol"
    if count > facts.most_symbols:
        yield (
            f"{count} symbols are more than the {facts.most_symbols} that {exchange.kind} allows on a "
            "connection: make it several exchanges"
        )


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]
