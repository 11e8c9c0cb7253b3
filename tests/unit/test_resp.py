"""Replies are the same however their bytes come in, and errors are of two kinds."""

from __future__ import annotations

import pytest

from marketflow.adapters.cache.resp import ErrorReply, ProtocolError, Replies, pack_commands

SCALARS = b"+OK\r\n:1\r\n$-1\r\n$0\r\n\r\n$3\r\na\r\n\r\n*-1\r\n"
REPLIES = SCALARS + b"*2\r\n$1\r\na\r\n*1\r\n:2\r\n-OOM full \xff\r\n*0\r\n"


def all_of(replies: Replies, *, wanted: int = 100) -> list[object]:
    found: list[object] = []
    replies.add_to(found, wanted)
    return [f"error {reply}" if isinstance(reply, ErrorReply) else reply for reply in found]


EXPECTED = [b"OK", 1, None, b"", b"a\r\n", None, [b"a", [2]], "error OOM full \ufffd", []]


@pytest.mark.parametrize("cut", range(len(REPLIES) + 1))
def test_replies_may_be_cut_anywhere(cut: int) -> None:
    replies = Replies()
    replies.feed(REPLIES[:cut])
    found = all_of(replies)
    replies.feed(REPLIES[cut:])
    assert [*found, *all_of(replies)] == EXPECTED
    assert replies.empty


def test_replies_may_come_byte_by_byte() -> None:
    replies = Replies()
    found = []
    for place in range(len(REPLIES)):
        replies.feed(REPLIES[place : place + 1])
        found += all_of(replies)
    assert found == EXPECTED


def test_half_a_reply_is_not_empty() -> None:
    """A connection with the rest of a reply still to come is not to be used."""
    replies = Replies()
    assert replies.empty
    replies.feed(b"$3\r\na")
    assert all_of(replies) == []
    assert not replies.empty


def test_no_more_are_taken_than_wanted() -> None:
    """The others are of the next request."""
    replies = Replies()
    replies.feed(b":1\r\n:2\r\n:3\r\n")
    assert all_of(replies, wanted=2) == [1, 2]
    assert not replies.empty
    assert all_of(replies, wanted=2) == [3]


@pytest.mark.parametrize("data", [b"HTTP/1.1 400\r\n", b"$x\r\n", b":1.5\r\n", b"*-7\r\n", b"\r\n"])
def test_what_is_no_reply_is_an_error(data: bytes) -> None:
    replies = Replies()
    replies.feed(data)
    with pytest.raises(ProtocolError):
        all_of(replies)


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("LOADING Redis is loading the dataset in memory", True),
        ("LOADING", True),
        ("NOAUTH Authentication required.", True),
        ("WRONGPASS invalid username-password pair or user is disabled.", True),
        ("ERR max number of clients reached", True),
        ("ERR unknown command 'ZADD'", False),
        ("ERR max number of clients reached, or so", False),
        ("OOM command not allowed when used memory > 'maxmemory'.", False),
        ("READONLY You can't write against a read only replica.", False),
        ("NOPERM this user has no permissions to run the 'zadd' command", False),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", False),
        ("MISCONF Redis is configured to save RDB snapshots", False),
        ("MASTERDOWN Link with MASTER is down", False),
        ("CLUSTERDOWN The cluster is down", False),
        ("MOVED 1 127.0.0.1:1", False),
        ("ASK 1 127.0.0.1:1", False),
        ("TRYAGAIN Multiple keys request during rehashing of slot", False),
        ("CROSSSLOT Keys in request don't hash to the same slot", False),
        ("NOSCRIPT No matching script.", False),
        ("EXECABORT Transaction discarded because of previous errors.", False),
        ("BUSY Redis is busy running a script", False),
        ("NOREPLICAS Not enough good replicas to write.", False),
        ("UNKNOWN command", False),
        ("", False),
    ],
)
def test_errors_that_end_a_connection(text: str, ends: bool) -> None:
    """The others concern one command, and the replies after them count."""
    replies = Replies()
    replies.feed(f"-{text}\r\n:1\r\n".encode())
    if ends:
        with pytest.raises(ErrorReply, match=text[:5]):
            all_of(replies)
    else:
        assert all_of(replies) == [f"error {text}", 1]


def test_commands_are_packed() -> None:
    assert pack_commands([("GET", b"\r\n\xff"), ("PX", 12, "ä")]) == (
        b"*2\r\n$3\r\nGET\r\n$3\r\n\r\n\xff\r\n*3\r\n$2\r\nPX\r\n$2\r\n12\r\n$2\r\n\xc3\xa4\r\n"
    )
    assert pack_commands([]) == b""
