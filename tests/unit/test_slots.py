"""The slots of a Redis Cluster, and the answers that send a client elsewhere."""

from __future__ import annotations

import pytest

from marketflow.adapters.cache.keys import PLAIN, TAGGED, changes_key, fence_key, marker_key
from marketflow.adapters.cache.redirects import Address, Direction, direction_of, target_of
from marketflow.adapters.cache.resp import ErrorReply
from marketflow.adapters.cache.slots import SlotMap, slot_of

PAIR = ("exchange1", "BTCUSDT")
REPLY = [
    [0, 99, [b"10.0.0.1", 7001, b"id1", []], [b"10.0.0.4", 7004, b"id4", []]],
    [100, 16_383, [b"", 7002, b"id2", []], [None, 7003, b"id3", []], [b"?", 7005, b"id5", []]],
]


@pytest.mark.parametrize(
    ("name", "slot"),
    # As a Redis gives them for CLUSTER KEYSLOT.
    [("foo", 12_182), ("bar", 5_061), ("123456789", 12_739), ("user1000", 3_443)],
)
def test_the_slot_of_an_exchange_is_that_of_its_name(name, slot):
    assert slot_of(name) == slot


def test_keys_have_tags_in_a_cluster_alone():
    assert (PLAIN.window(PAIR), PLAIN.bars(PAIR)) == (b"prices:exchange1:BTCUSDT", b"bars:exchange1:BTCUSDT")
    assert (TAGGED.window(PAIR), TAGGED.bars(PAIR)) == (
        b"prices:{exchange1}:BTCUSDT",
        b"bars:{exchange1}:BTCUSDT",
    )
    assert (fence_key("a"), marker_key("a"), changes_key("a")) == (
        b"fence:{a}",
        b"marker:{a}",
        b"changes:{a}",
    )


@pytest.mark.parametrize("keys", [PLAIN, TAGGED])
def test_a_key_of_bars_names_its_pair(keys):
    assert keys.pair_of_bars(keys.bars(PAIR)) == PAIR
    other = TAGGED if keys is PLAIN else PLAIN
    assert keys.pair_of_bars(other.bars(PAIR)) is None
    for name in (b"bars:exchange1:btc", b"bars:{exchange1:BTCUSDT", b"prices:exchange1:BTCUSDT", b"\xff"):
        assert keys.pair_of_bars(name) is None


def test_a_map_tells_owners_and_all_servers():
    """A server that does not know its own host is on that of the one that has answered."""
    found = SlotMap(REPLY, "10.0.0.9")
    assert found.owner(99) == Address("10.0.0.1", 7001)
    assert found.owner(100) == Address("10.0.0.9", 7002)
    assert found.owners == [Address("10.0.0.1", 7001), Address("10.0.0.9", 7002)]
    assert [each.port for each in found.servers] == [7001, 7004, 7002, 7003, 7005]
    assert SlotMap(REPLY[:1], "h").owner(100) is None


def test_a_slot_that_has_moved_has_its_new_owner():
    found, new = SlotMap(REPLY, "h"), Address("10.0.0.7", 7007)
    assert found.moved(5, new)
    assert not found.moved(5, new)
    assert (found.owner(5), found.owner(6)) == (new, Address("10.0.0.1", 7001))
    assert new in found.owners


@pytest.mark.parametrize(
    ("text", "direction"),
    [
        ("MOVED 3999 127.0.0.1:6381", Direction.MOVED),
        ("ASK 3999 127.0.0.1:6381", Direction.ASK),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Direction.LATER),
        ("CLUSTERDOWN Hash slot not served", Direction.AWAY),
        ("READONLY You can't write against a read only replica.", Direction.AWAY),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", None),
        ("ERR unknown command", None),
    ],
)
def test_errors_that_send_elsewhere(text, direction):
    assert direction_of(ErrorReply(text)) is direction


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("MOVED 3999 127.0.0.1:6381", (3_999, Address("127.0.0.1", 6381))),
        ("ASK 1 redis-1.example:7", (1, Address("redis-1.example", 7))),
        ("MOVED 0 2001:db8::1:6381", (0, Address("2001:db8::1", 6381))),
        ("MOVED 0 :6381", (0, Address("", 6381))),
    ],
)
def test_what_such_an_error_names(text, target):
    assert target_of(ErrorReply(text)) == target


@pytest.mark.parametrize("text", ["MOVED", "MOVED x 127.0.0.1:1", "MOVED 1 nowhere", "ASK 1 h:1 more"])
def test_an_error_that_names_none(text):
    with pytest.raises(ValueError):  # noqa: PT011 - of any wording
        target_of(ErrorReply(text))
