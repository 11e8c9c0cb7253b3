"""The hosts of a connection string, and their addresses.

The system's resolver cannot be interrupted and may take half a minute. So each name is looked up in a thread
of its own, at most one for each name, and a connection waits for it only as long as its time limit allows.
While the resolver is silent, the addresses of its last answer are used.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from itertools import zip_longest
from typing import Final

import attrs

SLICE: Final = 0.1
"""Seconds after which a waiting thread checks whether its result is still needed."""
_AVOIDED_SECONDS: Final = 60.0
"""How long an unreachable host is tried after the others."""


class Unresolved(Exception):
    """A host name has no address, or the resolver was too slow. The message says why."""


@attrs.frozen
class Host:
    """One host of the connection string. Parts that are None are left to libpq."""

    name: str | None
    address: str | None
    port: str | None

    def __str__(self) -> str:
        """For messages."""
        return self.name or self.address or "the local socket"


def hosts_of(given: dict[str, str]) -> list[Host]:
    """The hosts in the order of the connection string."""
    names, addresses, ports = (given.get(name, "").split(",") for name in ("host", "hostaddr", "port"))
    count = max(len(names), len(addresses))
    if len(ports) == 1:
        ports *= count
    # Hosts may have only names or only addresses, and there may be fewer ports than hosts.
    columns = [[value or None for value in values] for values in (names, addresses, ports)]
    return [Host(*parts) for parts, _ in zip(zip_longest(*columns), range(count), strict=False)]


class _Lookup:
    """The addresses of one name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._mutex = threading.Lock()
        self._asked: threading.Event | None = None
        """Set once the resolver has answered; None if no lookup is running."""
        self._known: list[str] = []
        self._error: OSError | None = None

    def addresses(self, until: float, wanted: Callable[[], bool]) -> list[str]:
        """The addresses; `until` is a time of the monotonic clock. Raises Unresolved."""
        with self._mutex:
            if self._asked is None:
                self._asked = threading.Event()
                threading.Thread(
                    target=self._ask, args=[self._asked], name=f"resolver {self._name}", daemon=True
                ).start()
            asked, known = self._asked, self._known
        if known:  # leave half of the time for connecting to them
            until -= (until - time.monotonic()) / 2
        while not asked.wait(max(0.0, min(SLICE, until - time.monotonic()))):
            if time.monotonic() >= until or not wanted():
                if known:
                    return known
                raise Unresolved("the resolver does not answer")
        with self._mutex:
            if self._error is None:
                return self._known
            # A temporary failure of the resolver: the name has probably not changed.
            if known and self._error.errno == socket.EAI_AGAIN:
                return known
            raise Unresolved(self._error.strerror or str(self._error)) from self._error

    def _ask(self, asked: threading.Event) -> None:
        try:
            found = socket.getaddrinfo(self._name, None, type=socket.SOCK_STREAM)
            known, error = list(dict.fromkeys(str(each[4][0]) for each in found)), None
        except OSError as failure:
            known, error = [], failure
        except UnicodeError:
            known, error = [], socket.gaierror(socket.EAI_NONAME, "no host name")
        with self._mutex:
            self._known, self._error = known or self._known, error
            self._asked = None
        asked.set()


class Hosts:
    """The hosts, their addresses and failures; shared by all connections of a store. Used from threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._lookups: dict[str, _Lookup] = {}
        self._failed_at: dict[Host, float] = {}

    def in_order(self, given: dict[str, str]) -> list[Host]:
        """The hosts of the connection string; those that failed a short time ago come last."""
        hosts = hosts_of(given)
        if given.get("load_balance_hosts") == "random":
            random.shuffle(hosts)
        since = time.monotonic() - _AVOIDED_SECONDS
        with self._mutex:
            return sorted(hosts, key=lambda host: self._failed_at.get(host, since) > since)

    def addresses(self, host: Host, until: float, wanted: Callable[[], bool]) -> list[str | None]:
        """The addresses to connect to; None leaves it to libpq. Raises Unresolved."""
        if host.address is not None:
            return [host.address]
        if host.name is None or host.name.startswith(("/", "@")):
            return [None]
        if _is_address(host.name):
            return [host.name]
        with self._mutex:
            lookup = self._lookups.setdefault(host.name, _Lookup(host.name))
        return [*lookup.addresses(until, wanted)]

    def worked(self, host: Host) -> None:
        """A connection to it was made."""
        with self._mutex:
            self._failed_at.pop(host, None)

    def failed(self, host: Host) -> None:
        """A connection to it could not be made."""
        with self._mutex:
            self._failed_at[host] = time.monotonic()


def _is_address(name: str) -> bool:
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
