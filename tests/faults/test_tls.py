"""TLS to both stores: the options of URL and DSN are honoured, and an untrusted server gets nothing."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import attrs
import pytest
import redis
import trio
import trustme
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from rig import Service, eventually, exchanges, http, playing, rows_are_right, service, settings_for
from slow_machine import SlowClock
from tls_front import HOST, tls_front

YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
SECRET = "hunter2"  # noqa: S105


@attrs.frozen
class Certificates:
    """Certificates for servers, and `trusted`: a file with the CA that clients trust."""

    trusted: Path
    ours: trustme.CA = attrs.field(factory=trustme.CA)
    theirs: trustme.CA = attrs.field(factory=trustme.CA)
    """A CA that no client trusts."""

    def context(self, kind: str) -> ssl.SSLContext:
        """A server's TLS context with a certificate of this kind."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        match kind:
            case "good":
                self.ours.issue_cert(HOST).configure_cert(context)
            case "untrusted":
                self.theirs.issue_cert(HOST).configure_cert(context)
            case "another host's":
                self.ours.issue_cert("example.org").configure_cert(context)
            case "too old":
                self.ours.issue_cert(HOST, not_after=YESTERDAY).configure_cert(context)
        return context


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    made = Certificates(tmp_path / "ca.pem")
    made.ours.cert_pem.write_to_path(str(made.trusted))
    return made


async def works_without(it: Service, store: str, *, said: str = "") -> None:
    """The store is away, with a reason that does not contain the password; the rest works."""

    async def told() -> bool:
        health = (await it.get("/health"))[store]
        reason = health["error"] or ""
        assert SECRET not in reason
        return health["status"] == "away" and bool(reason) and said in reason

    await eventually(told, what=f"{store} away")
    accepted = it.updates.accepted
    await eventually(lambda: it.updates.accepted > accepted)
    latest = await it.get("/prices/latest/BTCUSDT")
    assert latest["source"] == ("memory" if store == "redis" else "redis")
    assert (await http(it.url, "GET", "/health/ready")).status == 200


# ---- Redis ----


def port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


@pytest.mark.parametrize("wanted", ["", "&ssl_cert_reqs=required"])
async def test_redis_over_tls(
    redis_url: str, postgres_dsn: str, tmp_path: Path, certificates: Certificates, wanted: str
) -> None:
    """Everything goes through TLS: writes, questions, and reconnects after broken connections."""
    async with exchanges("exchange1") as players:
        async with tls_front(port_of(redis_url), certificates.context("good")) as front:
            url = f"rediss://{HOST}:{front.port}/0?ssl_ca_certs={certificates.trusted}{wanted}"
            # A handshake that is given up on a slow machine would count as refused.
            settings = settings_for(players, url, postgres_dsn, tmp_path, redis={"timeout": 10_000})
            async with service(settings, players) as it, playing(*players):
                await eventually(lambda: it.updates.cached > 20)
                summary = await it.get("/prices/aggregate/BTCUSDT?period=1m")
                assert summary["source"] == "redis"
                front.cut()
                cached = it.updates.cached
                await eventually(lambda: it.updates.cached > cached + 20)
        assert front.handshakes >= 2
        assert front.refused == 0
    with redis.Redis.from_url(redis_url) as client:
        assert client.zcard("prices:exchange1:BTCUSDT") > 10


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("untrusted", "ssl_ca_certs={trusted}", "certificate verify failed"),
        ("good", "", "certificate verify failed"),  # the system does not trust this CA
        ("another host's", "ssl_ca_certs={trusted}", "IP address mismatch"),
        ("too old", "ssl_ca_certs={trusted}", "expired"),
        ("good", "ssl_ca_certs=/nowhere.pem", "No such file"),
    ],
)
async def test_a_redis_that_is_not_trusted_gets_nothing(
    redis_url: str,
    postgres_dsn: str,
    tmp_path: Path,
    certificates: Certificates,
    kind: str,
    options: str,
    said: str,
) -> None:
    """It counts as away and never gets the password, which no message of ours contains."""
    options = options.format(trusted=certificates.trusted)
    async with (
        exchanges("exchange1") as players,
        tls_front(port_of(redis_url), certificates.context(kind)) as front,
    ):
        url = f"rediss://user:{SECRET}@{HOST}:{front.port}/0?{options}"
        settings = settings_for(players, url, postgres_dsn, tmp_path)
        async with service(settings, players) as it, playing(*players):
            await works_without(it, "redis", said=said)
        assert front.received == 0
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


async def test_whoever_wants_it_can_do_without_a_check(
    redis_url: str, postgres_dsn: str, tmp_path: Path, certificates: Certificates
) -> None:
    async with (
        exchanges("exchange1") as players,
        tls_front(port_of(redis_url), certificates.context("untrusted")) as front,
    ):
        url = f"rediss://{HOST}:{front.port}/0?ssl_cert_reqs=none&ssl_check_hostname=false"
        settings = settings_for(players, url, postgres_dsn, tmp_path)
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 20)


@pytest.mark.parametrize("mismatch", ["TLS to a plain Redis", "a plain client to TLS"])
async def test_a_redis_that_speaks_otherwise(
    redis_url: str, postgres_dsn: str, tmp_path: Path, certificates: Certificates, mismatch: str
) -> None:
    async with (
        exchanges("exchange1") as players,
        tls_front(port_of(redis_url), certificates.context("good")) as front,
    ):
        url = redis_url.replace("redis://", "rediss://")
        if mismatch == "a plain client to TLS":
            url = f"redis://{HOST}:{front.port}/0"
        settings = settings_for(players, url, postgres_dsn, tmp_path, redis={"timeout": 500})
        async with service(settings, players) as it, playing(*players):
            await works_without(it, "redis")
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


async def test_a_redis_that_never_shakes_hands(postgres_dsn: str, tmp_path: Path, clock: SlowClock) -> None:
    """The time limit covers TLS: it is away in time, and does not delay a stop."""

    async def silent(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        await trio.sleep_forever()

    async with exchanges("exchange1") as players, trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host=HOST)
        nursery.start_soon(trio.serve_listeners, silent, listeners)
        url = f"rediss://{HOST}:{listeners[0].socket.getsockname()[1]}/0"
        settings = settings_for(players, url, postgres_dsn, tmp_path, redis={"timeout": 300})
        async with service(settings, players) as it, playing(*players):
            await works_without(it, "redis")
            began = clock.seconds
        assert clock.seconds - began < 5
        nursery.cancel_scope.cancel()


# ---- PostgreSQL ----


def through(dsn: str, port: int, **parameters: object) -> str:
    """The DSN with another port."""
    return make_conninfo(dsn, port=port, **parameters)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_postgresql_over_tls(
    redis_url: str, postgres_dsn: str, tmp_path: Path, certificates: Certificates, mode: str
) -> None:
    """Rows are written and read through TLS, also after the connections broke."""
    port = int(conninfo_to_dict(postgres_dsn)["port"])
    async with (
        exchanges("exchange1") as players,
        tls_front(port, certificates.context("good"), postgres=True) as front,
    ):
        dsn = through(postgres_dsn, front.port, sslmode=mode, sslrootcert=certificates.trusted)
        settings = settings_for(players, redis_url, dsn, tmp_path)
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.updates.cached > 20)
            front.cut()
            async with it.still() as sent:
                await rows_are_right(postgres_dsn, sent, within=8)
        assert front.handshakes >= 2
        assert (front.refused, front.in_clear) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "mode", "said"),
    [
        ("untrusted", "verify-full", "certificate verify failed"),
        ("another host's", "verify-full", "does not match host name"),
        ("too old", "verify-full", "certificate verify failed"),
        ("untrusted", "verify-ca", "certificate verify failed"),
    ],
)
async def test_a_postgresql_that_is_not_trusted_gets_nothing(
    redis_url: str,
    postgres_dsn: str,
    tmp_path: Path,
    certificates: Certificates,
    kind: str,
    mode: str,
    said: str,
) -> None:
    port = int(conninfo_to_dict(postgres_dsn)["port"])
    async with (
        exchanges("exchange1") as players,
        tls_front(port, certificates.context(kind), postgres=True) as front,
    ):
        dsn = through(
            postgres_dsn, front.port, sslmode=mode, sslrootcert=certificates.trusted, password=SECRET
        )
        settings = settings_for(players, redis_url, dsn, tmp_path)
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.running.report().redis.status == "up")
            await works_without(it, "postgres", said=said)
        assert front.received == 0


async def test_no_way_back_to_a_connection_in_clear(
    redis_url: str, postgres_dsn: str, tmp_path: Path
) -> None:
    """The embedded PostgreSQL has no TLS: a client that requires it gets an error, and sends nothing."""
    async with exchanges("exchange1") as players:
        dsn = make_conninfo(postgres_dsn, sslmode="require", password=SECRET)
        settings = settings_for(players, redis_url, dsn, tmp_path)
        async with service(settings, players) as it, playing(*players):
            await eventually(lambda: it.running.report().redis.status == "up")
            await works_without(it, "postgres", said="server does not support SSL, but SSL was required")
