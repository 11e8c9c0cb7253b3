"""A Redis Cluster for tests: masters and replicas on free ports of this machine, formed by commands alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from marketflow.adapters.cache.redirects import Address
from marketflow.adapters.cache.slots import SLOTS, slot_of
from tests.servers import TcpRedis, free_port

MASTERS = 3
NODE_TIMEOUT = 5_000
"""How long (ms) a server must be silent before the others think that it is dead. A machine that stands still
for two seconds must kill none."""
WAIT = 60.0
"""Seconds that any change of the cluster may take."""


class Member(TcpRedis):
    """One server of a cluster."""

    bus_port = 0
    nameless = False
    """Whether it sends clients to other servers on the host by which they have reached it. So clients that
    have come through different proxies stay with them."""

    def _options(self) -> dict[str, list[str]]:
        self.bus_port = self.bus_port or free_port()
        return super()._options() | {
            "cluster-enabled": ["yes"],
            "cluster-config-file": ["nodes.conf"],
            "cluster-port": [str(self.bus_port)],
            "cluster-node-timeout": [str(NODE_TIMEOUT)],
            "cluster-require-full-coverage": ["no"],
            "cluster-preferred-endpoint-type": ["unknown-endpoint" if self.nameless else "ip"],
            "cluster-replica-validity-factor": ["0"],
            "cluster-allow-replica-migration": ["no"],
            "repl-diskless-sync-delay": ["0"],
        }

    @property
    def at(self) -> Address:
        """Where it listens."""
        return Address("127.0.0.1", self.port)

    def ask(self, *command: str | int) -> object:
        """Send a command, and return what it answers."""
        with self.client() as client:
            return client.execute_command(*command)

    @contextmanager
    def client(self) -> Iterator[redis.Redis]:
        """A client of this server alone."""
        with redis.Redis(port=self.port, socket_timeout=20, retry=Retry(NoBackoff(), 0)) as client:
            yield client

    @property
    def id(self) -> str:
        """Its name in the cluster."""
        return _text(self.ask("CLUSTER", "MYID"))

    @property
    def is_master(self) -> bool:
        """Whether it is a master, as it says itself."""
        with self.client() as client:
            return bool(client.info("replication")["role"] == "master")


class Cluster:
    """Masters, each with a replica."""

    def __init__(self, directory: Path, *, nameless: bool = False) -> None:
        """`nameless`: see `Member`."""
        self.members = [Member(directory / str(number)) for number in range(2 * MASTERS)]
        for member in self.members:
            member.nameless = nameless

    @property
    def nodes(self) -> list[Address]:
        """Where its servers listen."""
        return [member.at for member in self.members]

    def start(self) -> None:
        """Start all servers, and make a cluster of them."""
        for member in self.members:
            member.start()
        first, *others = self.members
        for other in others:
            other.ask("CLUSTER", "MEET", "127.0.0.1", first.port, first.bus_port)
        until(lambda: all(_known(member) == len(self.members) for member in self.members))
        masters, replicas = self.members[:MASTERS], self.members[MASTERS:]
        for number, master in enumerate(masters):
            begin, end = (SLOTS * each // MASTERS for each in (number, number + 1))
            master.ask("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
        ids = [master.id for master in masters]
        for replica, master_id in zip(replicas, ids, strict=True):
            until(lambda replica=replica, name=master_id: name in _text(replica.ask("CLUSTER", "NODES")))
            replica.ask("CLUSTER", "REPLICATE", master_id)
        self.until_whole()

    def until_whole(self) -> None:
        """Wait until all servers live, agree on the slots, and the replicas are in step."""
        until(lambda: all(_is_whole(member) for member in self.members))
        until(lambda: len({_owners(member) for member in self.members}) == 1)

    def owner(self, exchange: str) -> Member:
        """The master that has an exchange, as the first server says that answers."""
        slot = slot_of(exchange)
        for member in self.members:
            try:
                for first, last, (_, port, *_), *_ in member.ask("CLUSTER", "SLOTS"):
                    if first <= slot <= last:
                        return next(each for each in self.members if each.port == port)
            except redis.RedisError:
                continue
        raise AssertionError(f"nobody has {exchange}")

    def masters(self) -> list[Member]:
        """Those that live."""
        return [member for member in self.members if _answers(member) and member.is_master]

    def heal(self) -> None:
        """Start what was killed, end what is being moved, and remove all data."""
        for member in self.members:
            member.start()
        self.until_whole()
        for master in self.masters():
            with master.client() as client:
                client.flushall()

    def stop(self) -> None:
        """Stop and remove all."""
        for member in self.members:
            member.kill()
            member.remove()


def exchanges_of(cluster: Cluster) -> list[str]:
    """An exchange for each master, in the order of the masters' slots."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < MASTERS:
        number += 1
        name = f"exchange{number}"
        found.setdefault(cluster.owner(name).port, name)
    return sorted(found.values(), key=slot_of)


# ---- slots that move ----


def move_atomically(cluster: Cluster, slot: int, source: Member, target: Member) -> None:
    """As Valkey 9 does it."""
    source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)
    until(lambda: all(slot_owner(each, slot) == target.port for each in cluster.masters()))


def move_key_by_key(cluster: Cluster, slot: int, source: Member, target: Member) -> None:
    """As every Redis does it."""
    begin_move(slot, source, target)
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 1):
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
    end_move(cluster, slot, target)


def begin_move(slot: int, source: Member, target: Member) -> None:
    """From now on a key is on one server or on the other."""
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)


def end_move(cluster: Cluster, slot: int, target: Member) -> None:
    """All keys are there."""
    target.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)
    for master in cluster.masters():
        master.ask("CLUSTER", "SETSLOT", slot, "NODE", target.id)


def slot_owner(member: Member, slot: int) -> int | None:
    """The port of the slot's owner, as a server says; None if nobody has it."""
    return next(
        (servers[0][1] for first, last, *servers in member.ask("CLUSTER", "SLOTS") if first <= slot <= last),
        None,
    )


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, which may fail with an error of Redis meanwhile."""
    deadline = time.monotonic() + WAIT
    while not _holds(condition):
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.1)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except redis.RedisError:
        return False


def _answers(member: Member) -> bool:
    return _holds(lambda: member.ask("PING") is not None)


def _known(member: Member) -> int:
    with member.client() as client:
        return sum(
            "handshake" not in line for line in _text_lines(client.execute_command("CLUSTER", "NODES"))
        )


def _is_whole(member: Member) -> bool:
    with member.client() as client:
        if "cluster_state:ok" not in _text(client.execute_command("CLUSTER", "INFO")):
            return False
        nodes = _text_lines(client.execute_command("CLUSTER", "NODES"))
        if any("fail" in line for line in nodes):
            return False
        replication = client.info("replication")
        if replication["role"] == "master":
            return bool(replication["connected_slaves"] == 1)
        return bool(replication["master_link_status"] == "up")


def _owners(member: Member) -> str:
    slots = member.ask("CLUSTER", "SLOTS")
    return str(sorted((first, last, servers[0][1]) for first, last, *servers in slots))  # type: ignore[attr-defined]


def _text(reply: object) -> str:
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def _text_lines(reply: object) -> list[str]:
    if isinstance(reply, dict):  # redis-py parses some replies
        return [f"{key} {value}" for key, value in reply.items()]
    return _text(reply).splitlines()
