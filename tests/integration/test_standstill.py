"""Waits on sockets in a process that is stopped (SIGSTOP) past their deadline, and continued."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

LIMIT = 1.5
"""The time limit of the child's wait, in seconds."""
RECEIVE = f"""
import sys, trio
from marketflow.patience import within

async def main():
    stream = await trio.open_tcp_stream("127.0.0.1", int(sys.argv[1]))
    print("waiting", flush=True)
    try:
        print((await within({LIMIT}, stream.receive_some)).decode())
    except trio.TooSlowError:
        print("nothing")

trio.run(main)
"""
CONNECT = f"""
import sys, trio
from marketflow.adapters.exchange.tcp import TcpSource

async def main():
    source = TcpSource("e", "127.0.0.1", int(sys.argv[1]), None, None, connect_timeout={LIMIT})
    print("waiting", flush=True)
    try:
        async with source.connect() as connection:
            print((await connection.receive()).decode())
    except TimeoutError:
        print("nothing")

trio.run(main)
"""

ASK_REDIS = f"""
import sys, trio
from marketflow.adapters.cache.redis import open_redis_window
from marketflow.app.ports import StoreAway
from marketflow.domain.periods import Span

async def main():
    url = f"redis://127.0.0.1:{{sys.argv[1]}}/0"
    async with open_redis_window(url, boot="boot", window_length=60_000, timeout={LIMIT}) as window:
        print("waiting", flush=True)
        try:
            print(await window.counts([(("e", "BTCUSDT"), Span(0, 1))]))
        except StoreAway:
            print("nothing")

trio.run(main)
"""


@contextmanager
def waiting(code: str, port: int) -> Iterator[subprocess.Popen[str]]:
    """A child process that has begun to wait."""
    command = [sys.executable, "-c", code, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "waiting\n"
            time.sleep(0.3)  # It prints a line just before it waits.
            yield child
        finally:
            child.kill()


@contextmanager
def stopped(child: subprocess.Popen[str]) -> Iterator[None]:
    """Freeze it during the block and until its deadline has passed."""
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    yield
    time.sleep(LIMIT + 0.5)
    child.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("sent", [b"data", b""], ids=["data", "nothing"])
def test_data_that_came_during_a_standstill_is_received(sent: bytes) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        waiting(RECEIVE, listener.getsockname()[1]) as child,
        listener.accept()[0] as peer,
    ):
        with stopped(child):
            peer.sendall(sent)
        assert child.communicate(timeout=10)[0].strip() == (sent.decode() or "nothing")


def test_a_connection_that_was_made_during_a_standstill_is_used() -> None:
    """The listener's backlog is full at first: the kernel connects with its next attempt, a second later."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = [socket.create_connection(listener.getsockname())]
        with waiting(CONNECT, listener.getsockname()[1]) as child:
            with stopped(child):
                for _ in fillers:
                    listener.accept()[0].close()
                listener.settimeout(10)
                peer, _ = listener.accept()
                peer.sendall(b"data")
            assert child.communicate(timeout=10)[0].strip() == "data"
            peer.close()
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("sent", [b":7\r\n", b""], ids=["reply", "nothing"])
def test_a_reply_of_redis_that_came_during_a_standstill_is_received(sent: bytes) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        waiting(ASK_REDIS, listener.getsockname()[1]) as child,
        listener.accept()[0] as peer,
    ):
        assert peer.recv(1_000).startswith(b"*4\r\n$6\r\nZCOUNT\r\n")
        with stopped(child):
            peer.sendall(sent)
        assert child.communicate(timeout=10)[0].strip() == ("[7]" if sent else "nothing")
