"""The user of Redis that docs/operations.md describes for a node of a cluster may do all that a node does."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis
from terms import EXCHANGE, TermsInRedis
from test_window_contract import NOON, bar, edge, put, run_of

from marketflow.app.ports import START
from marketflow.domain.periods import MINUTE, SECOND, Span

PAIR = (EXCHANGE, "BTCUSDT")
WHOLE = Span(NOON, NOON + MINUTE)


def rights(number):
    """The words of a line of the document: 0 for a service alone, 1 for a node."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("ACL SETUSER marketflow")]
    return lines[number].replace("PASSWORD", "secret").split()


async def use(place):
    """What a node asks of Redis, from a take to the questions of others."""
    bars = [(PAIR, (NOON, "t1"), bar(NOON))]
    async with place.open("t1") as window, place.node() as node:
        await put(window, run_of([NOON]), bars=bars)
        assert await put(window, run_of([NOON + 1], first=1))
        await window.write(window.encode_trim([PAIR], older_than=NOON + 1, bars=[]))
        assert (await edge(window, NOON, NOON + SECOND)).bar.count == 1
        assert await window.pairs_with_bars() == [PAIR]
        assert (await window.all_bars([PAIR]))[PAIR]
        assert (await window.bars_within([PAIR], WHOLE))[PAIR]
        assert await window.bars({PAIR: [(NOON, "t1")]})
        assert len((await window.ids([PAIR], 5))[PAIR]) == 0
        assert list(await node.reading.counts([(PAIR, WHOLE)])) == [1]
        assert [len(each) for each in await node.reading.prices([(PAIR, WHOLE)])] == [1]
        assert (await node.reading.all_bars([PAIR]))[PAIR]
        (change,) = await node.changes.after(EXCHANGE, START)
        assert await node.changes.end(EXCHANGE) == change.place
        await window.write(window.encode_trim([PAIR], older_than=NOON, bars=[(PAIR, (NOON, "t1"))]))


@pytest.fixture
def user(own_redis):
    """A place that is used with the rights of a node; and an administrator's client."""
    with redis.Redis.from_url(own_redis.url) as client:
        client.execute_command(*rights(1))
        yield TermsInRedis(own_redis.url.replace("//", "//marketflow:secret@")), client


async def test_a_node_needs_no_more_rights_than_the_document_lists(user):
    place, client = user
    await use(place)
    client.flushall()
    await use(place)
    assert {entry["object"] for entry in client.acl_log()} == set()


async def test_every_right_that_the_document_lists_is_needed(user):
    """Except for the commands of a password, a name, a database, and of clients that are read elsewhere."""
    place, client = user
    await use(place)
    used = {name.removeprefix("cmdstat_").lower() for name in client.info("commandstats")}
    listed = {word[1:] for word in rights(1) if word.startswith("+")}
    elsewhere = {"select", "client|setname", "config|get", "hrandfield", "hlen", "hscan"}
    assert listed - elsewhere <= used
