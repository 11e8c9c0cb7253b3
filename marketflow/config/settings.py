"""What can be set, and what it is when nobody sets it.

Durations are ms and sizes bytes, both as int. The order of the fields is that of the documentation.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import quote

import attrs

from marketflow.config import kinds
from marketflow.domain.periods import DAY, HOUR, MINUTE, SECOND
from marketflow.domain.prices import SYMBOLS

Mode = Annotated[Literal["live", "test"], kinds.choice("live", "test")]
Symbol = Annotated[str, kinds.pattern("a symbol", "[A-Z0-9]{2,20}")]
ExchangeName = Annotated[str, kinds.pattern("a name", "[A-Za-z0-9_-]{1,32}")]
Host = Annotated[str, kinds.host()]
Port = Annotated[int, kinds.integer(1, kinds.LAST_PORT)]
Duration = Annotated[int, kinds.duration(1, HOUR)]
Password = Annotated[str | None, kinds.optional(kinds.secret(kinds.text()))]

LONGEST_LATENESS: Final = 30 * MINUTE
"""Bars are kept an hour: a minute must be closed for good well before they go."""


def default_state_dir(environ: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/marketflow`, else `~/.local/state/marketflow`."""
    state_home = environ.get("XDG_STATE_HOME", "")
    # The specification wants a relative one ignored.
    if not state_home.startswith("/"):
        state_home = expand_home("~/.local/state", environ)
    return Path(state_home) / "marketflow"


def expand_home(path: str, environ: Mapping[str, str]) -> str:
    """The path with a leading `~` or `~user` replaced, where that home is known."""
    home = environ.get("HOME")
    if home and (path == "~" or path.startswith("~/")):
        return home + path[1:]
    return os.path.expanduser(path)  # noqa: PTH111 - Path.expanduser raises where no home is known


@attrs.frozen
class ExchangeSettings:
    """An exchange, and where it listens."""

    name: ExchangeName
    host: Host
    port: Port


@attrs.frozen
class HttpSettings:
    """Where questions are answered."""

    host: Host = "127.0.0.1"
    """Only this machine can ask unless it is set to something else."""
    port: Annotated[int, kinds.integer(0, kinds.LAST_PORT)] = 8080
    """0: any free one."""
    token: Annotated[str | None, kinds.optional(kinds.token())] = None
    """Switching the mode wants it as `Authorization: Bearer`; None: anybody may."""


@attrs.frozen
class RedisSettings:
    """The store of the window."""

    url: Annotated[str | None, kinds.optional(kinds.redis_url())] = None
    """Wins over host, port, password and db."""
    host: Host = "127.0.0.1"
    port: Port = 6379
    password: Password = None
    db: Annotated[int, kinds.integer(0, 1_000_000)] = 0
    timeout: Duration = 1 * SECOND
    """ms that a call may take before Redis counts as away."""

    @property
    def effective_url(self) -> str:
        """The URL, or one made of its parts."""
        password = "" if self.password is None else f":{quote(self.password, safe='')}@"
        return self.url or f"redis://{password}{_authority(self.host)}:{self.port}/{self.db}"


@attrs.frozen
class PostgresSettings:
    """The store of the aggregates."""

    dsn: Annotated[str | None, kinds.optional(kinds.postgres_dsn())] = None
    """A URL, or libpq's key=value. Wins over host, port, user, password and database."""
    host: Annotated[str, kinds.host(socket_directory=True)] = "127.0.0.1"
    """Or the directory of its Unix socket."""
    port: Port = 5432
    user: Annotated[str, kinds.text()] = "marketflow"
    password: Password = None
    database: Annotated[str, kinds.text()] = "marketflow"
    timeout: Duration = 5 * SECOND
    """ms that a call may take before PostgreSQL counts as away."""

    @property
    def effective_dsn(self) -> str:
        """The DSN, or one made of its parts."""
        password = "" if self.password is None else f":{quote(self.password, safe='')}"
        user, database = quote(self.user, safe=""), quote(self.database, safe="")
        return self.dsn or f"postgresql://{user}{password}@{_authority(self.host)}:{self.port}/{database}"


def _authority(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("/") else quote(host, safe="")


@attrs.frozen
class PipelineSettings:
    """From the exchanges to Redis."""

    workers_per_exchange: Annotated[int, kinds.integer(1, 64)] = 5
    max_pending_updates: Annotated[int, kinds.integer(1, 1_000_000_000)] = 1_000_000
    """Accepted updates that may wait for Redis, shared out evenly among the exchanges."""
    flush_interval: Annotated[int, kinds.duration(1, 10 * SECOND)] = 50
    """ms between two writes to Redis: what a kill -9 can lose."""


@attrs.frozen
class WindowSettings:
    """The raw updates in Redis."""

    length: Annotated[int, kinds.duration(SECOND, HOUR)] = 60 * SECOND
    """ms that they are kept."""
    replay_memory: Annotated[int, kinds.size(1, 1024**4)] = 64 * 1024**2
    """Bytes of past writes that are held to be repeated when Redis comes back empty."""


@attrs.frozen
class AggregationSettings:
    """The rows in PostgreSQL."""

    interval: Annotated[int, kinds.duration(SECOND, MINUTE, whole=SECOND, divides=MINUTE)] = 60 * SECOND
    """ms that a row covers. The database remembers it and takes no other."""
    grace: Annotated[int, kinds.duration(0, LONGEST_LATENESS)] = 2 * SECOND
    """ms after its end until an interval is closed and written."""
    lateness: Annotated[int, kinds.duration(0, LONGEST_LATENESS)] = 120 * SECOND
    """ms after its end until which an interval still takes updates."""
    retention: Annotated[
        int | None, kinds.optional(kinds.duration(SECOND, 36_500 * DAY), none=("", "none"))
    ] = None
    """ms that rows are kept; None: for ever."""


@attrs.frozen
class FeedSettings:
    """How an exchange is kept connected."""

    stale_after: Duration = 5 * SECOND
    """ms without an accepted update until it is stale."""
    idle_timeout: Duration = 30 * SECOND
    """ms without a byte until the connection is made anew."""
    backoff_min: Duration = 250
    """ms that a second attempt waits at most; doubles with each further one."""
    backoff_max: Duration = 2 * SECOND
    """ms that any attempt waits at most."""


@attrs.frozen
class GeneratorSettings:
    """The exchanges of the test mode."""

    exchanges: tuple[ExchangeName, ...] = ("test1", "test2", "test3")
    rate: Annotated[float, kinds.number(0.001, 100_000)] = 10.0
    """Ticks a second; a tick is an update of each symbol."""


@attrs.frozen
class Settings:
    """All of them."""

    mode: Mode = "live"
    """What a start begins with."""
    symbols: tuple[Symbol, ...] = SYMBOLS
    """Updates of any other symbol are rejected."""
    exchanges: tuple[ExchangeSettings, ...] = (
        ExchangeSettings("exchange1", "127.0.0.1", 40101),
        ExchangeSettings("exchange2", "127.0.0.1", 40102),
        ExchangeSettings("exchange3", "127.0.0.1", 40103),
    )
    """Those of the live mode."""
    http: HttpSettings = HttpSettings()
    redis: RedisSettings = RedisSettings()
    postgres: PostgresSettings = PostgresSettings()
    pipeline: PipelineSettings = PipelineSettings()
    window: WindowSettings = WindowSettings()
    aggregation: AggregationSettings = AggregationSettings()
    feeds: FeedSettings = FeedSettings()
    generator: GeneratorSettings = GeneratorSettings()
    state_dir: Annotated[Path, kinds.directory()] = attrs.field(factory=lambda: default_state_dir(os.environ))
    """Where a stop leaves what no store would take, and where `--embedded` keeps its data."""
    shutdown_timeout: Duration = 10 * SECOND
    """ms that a stop may take."""


@attrs.frozen
class Clash:
    """Settings that are well-formed, and impossible together."""

    keys: tuple[str, ...]
    """Those involved."""
    message: str


def clashes(settings: Settings) -> Iterator[Clash]:
    """What no single value shows."""
    live = [exchange.name for exchange in settings.exchanges]
    generated = settings.generator.exchanges
    for key, names in (
        ("symbols", settings.symbols),
        ("exchanges", live),
        ("generator.exchanges", generated),
    ):
        if not names:
            yield Clash((key,), "there must be one at least")
        for name in _repeated(names):
            yield Clash((key,), f"{name} is there more than once")
    for name in sorted({*live} & {*generated}):
        yield Clash(("exchanges", "generator.exchanges"), f"{name} is in exchanges and generator.exchanges")
    most, count = settings.pipeline.max_pending_updates, len({*live, *generated})
    if most < count:
        yield Clash(
            ("pipeline.max_pending_updates", "exchanges", "generator.exchanges"),
            f"{most} pending updates cannot be shared out among {count} exchanges",
        )
    least, longest = settings.feeds.backoff_min, settings.feeds.backoff_max
    if least > longest:
        yield Clash(
            ("feeds.backoff_min", "feeds.backoff_max"),
            f"backoff_min {kinds.show_duration(least)} is more than "
            f"backoff_max {kinds.show_duration(longest)}",
        )


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]
