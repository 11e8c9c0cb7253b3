from __future__ import annotations

import json
import os
import time

import pytest
import trio
from structlog.testing import capture_logs

from marketflow.adapters.state import spool as module
from marketflow.adapters.state.spool import FileSpool
from marketflow.app.spooling import SpooledBar
from marketflow.domain.bars import Bar

STORES = "redis://127.0.0.1:6379/0 postgresql://marketflow:secret@127.0.0.1/marketflow"


BAR = Bar(3, 100150.75, 99.5, 100250.1, 2e-07, 7, 1795341600000001, 1 / 3, 9, 1795341600000155)
EXTREMES = Bar(2**62, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, 1.0, 7, 2**53 + 1, 2.0, 9, 2**62)


def bars_of(count, bar=BAR):
    start = 1_795_341_600_000
    return [
        SpooledBar(("exchange1", "BTCUSDT"), start + n * 1_000, "boot1", bar, whole=n % 2 == 0)
        for n in range(count)
    ]


async def test_bars_come_back_as_they_were_saved(tmp_path):
    """Every bit of them, in another process: a new object reads the file."""
    await FileSpool(tmp_path, STORES).save(bars_of(5, EXTREMES))
    assert await FileSpool(tmp_path, STORES).load() == bars_of(5, EXTREMES)


async def test_nothing_was_saved(tmp_path):
    """A first start is quiet about it."""
    with capture_logs() as logs:
        assert await FileSpool(tmp_path / "none", STORES).load() == []
    assert logs == []


async def test_saving_replaces_and_saving_nothing_removes(tmp_path):
    spool = FileSpool(tmp_path, STORES)
    await spool.save(bars_of(5))
    await spool.save(bars_of(2))
    assert await spool.load() == bars_of(2)
    await spool.save([])
    await spool.save([])
    assert list(tmp_path.iterdir()) == []


async def test_the_directory_is_made(tmp_path):
    spool = FileSpool(tmp_path / "state" / "marketflow", STORES)
    await spool.save(bars_of(1))
    assert await spool.load() == bars_of(1)


async def test_other_stores_have_another_spool_and_no_secret_is_told(tmp_path):
    """Bars of one database must not go to another."""
    await FileSpool(tmp_path, STORES).save(bars_of(1))
    assert await FileSpool(tmp_path, "others").load() == []
    (path,) = tmp_path.iterdir()
    assert "secret" not in path.name + path.read_text()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"null", b"[1]", b'[{"pair": ["a"]}]', b"\xff\xfe", b"[" * 100_000]
)
async def test_a_file_that_cannot_be_read_does_not_stop_the_start(tmp_path, content):
    spool = FileSpool(tmp_path, STORES)
    await spool.save(bars_of(1))
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    with capture_logs() as logs:
        assert await spool.load() == []
    assert [(each["log_level"], each["event"]) for each in logs] == [("warning", "spool cannot be read")]


async def test_a_save_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    """Written beside and renamed: a full disk in the middle of it costs nothing that was there."""
    spool = FileSpool(tmp_path, STORES)
    await spool.save(bars_of(3))

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with capture_logs() as logs:
        await spool.save(bars_of(5))
    assert [each["event"] for each in logs] == ["bars cannot be spooled"]
    assert await spool.load() == bars_of(3)


async def test_a_directory_that_cannot_be_written_is_told_and_never_raised(tmp_path):
    (tmp_path / "file").write_text("no directory")
    with capture_logs() as logs:
        await FileSpool(tmp_path / "file" / "state", STORES).save(bars_of(1))
    assert logs[0]["log_level"] == "warning"


async def test_a_disk_that_hangs_is_given_up_on(tmp_path, monkeypatch):
    """The stop must not wait for it."""
    monkeypatch.setattr(module, "SPOOL_SECONDS", 0.2)
    released = trio.Event()
    monkeypatch.setattr(os, "fsync", lambda _: trio.from_thread.run(released.wait))
    began = time.monotonic()
    with capture_logs() as logs:
        await FileSpool(tmp_path, STORES).save(bars_of(1))
    assert time.monotonic() - began < 2
    assert logs[0]["event"] == "bars cannot be spooled"
    released.set()


async def test_an_hour_of_bars_is_spooled_within_its_limit(tmp_path):
    """15 pairs, each second: what a stop with both stores away has to save."""
    spool = FileSpool(tmp_path, STORES)
    bars = bars_of(54_000)
    with capture_logs() as logs:
        await spool.save(bars)
        assert len(await spool.load()) == 54_000
    assert logs == []
    (path,) = tmp_path.iterdir()
    assert len(json.loads(path.read_text())) == 54_000
