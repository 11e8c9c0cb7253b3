"""Makes a connection, in a thread, within a time limit that all hosts share.

psycopg gives each host of a connection string, and each address of a name, the whole time limit, which is at
least 2 s. If the first one is silent, the second would never be tried. So this module drives libpq itself.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from marketflow.adapters.db.hosts import SLICE, Host, Hosts, Unresolved
from marketflow.adapters.db.parameters import check_target, effective
from marketflow.adapters.db.pins import Pins
from marketflow.adapters.db.verdicts import NoAnswer
from marketflow.app.ports import StoreAway

CONNECT_SHARE: Final = 0.8
"""The share of the remaining time that connecting may take; the rest is for the query."""


def always() -> bool:
    """The default of `wanted`: the attempt is never abandoned."""
    return True


class Connector:
    """Makes connections, all with the same parameters and settings."""

    def __init__(self, parameters: dict[str, Any], hosts: Hosts, pins: Pins, *, writes: bool = False) -> None:
        """With `writes`, look for a host that accepts writes, unless the user's settings say otherwise."""
        self._parameters = parameters
        self._hosts = hosts
        self._pins = pins
        self._writes = writes
        self.password: str | None = parameters.get("password")
        """The password, which must never be shown."""

    def connect(
        self, until: float, wanted: Callable[[], bool] = always, *, pinned: bool = True
    ) -> psycopg.Connection:
        """A new connection in autocommit mode.

        Args:
            until: when to give up; a time of the monotonic clock.
            wanted: returns whether the connection is still wanted.
            pinned: whether to set the session settings that our statements rely on.

        Raises:
            StoreAway: no host accepts a connection. NoAnswer if a host was silent.
            StoreUnfit: the parameters can only lead to servers that cannot be written to.
            psycopg.Error: the settings were refused.
        """
        given = effective(self._parameters)
        self.password = given.get("password", self.password)
        check_target(given)
        until -= (until - time.monotonic()) * (1 - CONNECT_SHARE)
        connection = self._first_of(self._hosts.in_order(given), given, until, wanted)
        try:
            connection.autocommit = True
            if pinned:
                self._pins.set(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _first_of(
        self, hosts: list[Host], given: dict[str, str], until: float, wanted: Callable[[], bool]
    ) -> psycopg.Connection:
        """A connection to the first host that accepts one; each host has its share of the remaining time."""
        limit = _own_limit(given)
        several = len(hosts) > 1
        attributes = {}
        if self._writes and several and given.get("target_session_attrs", "any") == "any":
            attributes["target_session_attrs"] = "read-write"
        errors: list[tuple[Host, StoreAway]] = []
        for left, host in zip(range(len(hosts), 0, -1), hosts, strict=True):
            now = time.monotonic()
            share = (until - now) / left
            if limit is not None and limit > share:
                self._pins.tell({"connect_timeout": (f"{limit:g}s", f"{share:.3g}s")})
            try:
                found = self._to_host(host, attributes, now + min(share, limit or share), wanted)
            except StoreAway as error:
                self._hosts.failed(host)
                errors.append((host, error))
                if not wanted():
                    break
            else:
                self._hosts.worked(host)
                return found
        silent = any(isinstance(error, NoAnswer) for _, error in errors)
        text = "; ".join(f"{host}: {error}" if several else str(error) for host, error in errors)
        if self.password:
            text = text.replace(self.password, "***")
        raise (NoAnswer if silent else StoreAway)(text)

    def _to_host(
        self, host: Host, attributes: dict[str, Any], until: float, wanted: Callable[[], bool]
    ) -> psycopg.Connection:
        try:
            addresses = self._hosts.addresses(host, until, wanted)
        except Unresolved as error:
            raise StoreAway(f"no address of host {host}: {error}") from error
        last = StoreAway(f"host {host} has no address")
        for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            now = time.monotonic()
            # Set empty values too, so that a service file or the environment cannot supply others.
            place = {"host": host.name or "", "hostaddr": address or "", "port": host.port or ""}
            conninfo = make_conninfo(**(self._parameters | attributes | place))
            try:
                return _connect(conninfo, now + (until - now) / left, wanted)
            except StoreAway as error:
                last = error
        raise last


def _own_limit(given: dict[str, str]) -> float | None:
    """The user's connect_timeout in seconds; 0 and less mean none, as in libpq."""
    with suppress(ValueError):
        limit = float(given.get("connect_timeout", ""))
        return limit if limit > 0 else None
    return None


def _connect(conninfo: str, until: float, wanted: Callable[[], bool]) -> psycopg.Connection:
    started = time.monotonic()
    pgconn = pq.PGconn.connect_start(conninfo.encode())
    try:
        while True:
            event = _next_event(pgconn)
            if event is None:
                break
            _wait(pgconn.socket, event, started, until, wanted)
        pgconn.nonblocking = 1
        return psycopg.Connection(pgconn)
    except BaseException:
        pgconn.finish()
        raise


def _next_event(pgconn: pq.abc.PGconn) -> int | None:
    """Continue connecting; returns the event to wait for, or None if connected."""
    if pgconn.status != pq.ConnStatus.BAD:
        match pgconn.connect_poll():
            case pq.PollingStatus.OK:
                return None
            case pq.PollingStatus.READING:
                return select.POLLIN
            case pq.PollingStatus.WRITING:
                return select.POLLOUT
    raise StoreAway(" ".join(pgconn.get_error_message("utf-8").split()) or "connection failed")


def _wait(descriptor: int, event: int, started: float, until: float, wanted: Callable[[], bool]) -> None:
    """Wait for an event on a descriptor. Raises NoAnswer if time is up or the result is no longer wanted."""
    poll = select.poll()
    poll.register(descriptor, event)
    while True:
        now = time.monotonic()
        if now >= until:
            raise NoAnswer(f"no answer within {until - started:.3g} s")
        if not wanted():
            raise NoAnswer("given up while connecting")
        if poll.poll(max(1, round(min(SLICE, until - now) * 1_000))):
            return
