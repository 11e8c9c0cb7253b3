"""A thread writes the output: in order, with a bounded queue, and without blocking its callers."""

from __future__ import annotations

import io
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from slow_machine import within

from marketflow.writing import DirectWriter, ThreadWriter, open_writer

LINE = "x" * 99 + "\n"


@pytest.fixture
def pipe():
    """Both ends. The writing end stays open: a thread may use it, and its number could be reused."""
    reading, writing = os.pipe()
    yield reading, writing
    with suppress(OSError):
        os.close(reading)


def read_all(descriptor, until):
    """The output of a pipe up to some text."""
    found = b""
    while until not in found:
        found += os.read(descriptor, 65_536)
    return found


def fill(writing):
    """Write to a pipe until it is full."""
    os.set_blocking(writing, False)
    for size in (65_536, 1):
        with suppress(BlockingIOError):
            while True:
                os.write(writing, b"x" * size)
    os.set_blocking(writing, True)


def eventually(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_all_is_written_in_order(tmp_path):
    with (tmp_path / "log").open("w", encoding="latin-1") as stream:
        writer = open_writer(stream)
        for number in range(1_000):
            writer.write(f"{number} ä €\n")
        writer.flush()
        written = (tmp_path / "log").read_text("latin-1")
    assert written == "".join(f"{number} ä \\u20ac\n" for number in range(1_000))


def test_a_blocked_pipe_holds_nobody_up(pipe):
    """Lines beyond the limit are dropped, which is reported once the pipe is read again."""
    reading, writing = pipe
    fill(writing)
    told = []
    writer = ThreadWriter(writing, tell=told.append, most_waiting=100_000)
    with within(5):
        for _ in range(10_000):
            writer.write(LINE)
    with within(5):  # It waits once, not again.
        writer.flush(0.2)
        writer.flush(60)
    assert told == []

    reader = threading.Thread(target=read_all, args=(reading, b"end\n"), daemon=True)
    reader.start()
    eventually(lambda: told)
    writer.flush(10)
    writer.write("end\n")
    writer.flush(10)
    # The next test's pipe may have the same number: it must not be read from here.
    reader.join(10)
    assert not reader.is_alive()
    assert told == [10_000 - 1_000]


def test_an_unread_terminal_gets_its_words_later(pipe):
    """Waiting lines are not lost if the terminal is read later."""
    reading, writing = pipe
    writer = ThreadWriter(writing)
    for _ in range(5_000):
        writer.write(LINE)
    writer.write("end\n")
    assert read_all(reading, b"end\n") == LINE.encode() * 5_000 + b"end\n"


def test_a_pipe_that_does_not_block(pipe):
    """Another process that shares the pipe has made it non-blocking."""
    reading, writing = pipe
    os.set_blocking(writing, False)
    writer = ThreadWriter(writing)
    for _ in range(5_000):
        writer.write(LINE)
    writer.write("end\n")
    assert len(read_all(reading, b"end\n")) == 500_004


def test_a_broken_pipe_and_a_closed_descriptor():
    reading, writing = os.pipe()
    told = []
    os.close(reading)
    writer = ThreadWriter(writing, tell=told.append)
    writer.write(LINE)
    writer.flush(10)
    os.close(writing)
    writer.write(LINE)
    writer.flush(10)
    assert told == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_that_has_room_again(tmp_path):
    """The number of lost lines is reported."""
    told = []
    with Path("/dev/full").open("w") as full, (tmp_path / "log").open("w") as file:
        writer = ThreadWriter(full.fileno(), tell=told.append)
        for _ in range(3):
            writer.write(LINE)
        writer.flush(10)
        assert told == []
        os.dup2(file.fileno(), full.fileno())
        writer.write(LINE)
        eventually(lambda: told)
    assert told == [3]
    assert (tmp_path / "log").read_text() == LINE


def test_what_the_system_does_not_know_is_written_at_once():
    stream = io.StringIO()
    writer = open_writer(stream)
    writer.write(LINE)
    assert stream.getvalue() == LINE
    stream.close()
    writer.write(LINE)
    writer.flush()
    assert isinstance(open_writer(None), DirectWriter)
    open_writer(None).write(LINE)


def test_without_a_thread_it_is_written_at_once(pipe, monkeypatch):
    """This happens if the system allows no more threads."""

    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    reading, writing = pipe
    writer = ThreadWriter(writing)
    writer.write(LINE)
    writer.write("end\n")
    writer.flush()
    assert read_all(reading, b"end\n") == LINE.encode() + b"end\n"
