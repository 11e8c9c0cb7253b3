from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import trio
from structlog.testing import capture_logs

from marketflow.adapters.state import spool as module
from marketflow.adapters.state.spool import FileSpool
from marketflow.app.ports import Scope
from marketflow.app.share.spooling import SpooledBar, SpoolFailed
from marketflow.domain.bars import Bar

ROOT = Path(__file__).parents[2]
STORES = "redis://127.0.0.1:6379/0 postgresql://marketflow:secret@127.0.0.1/marketflow"


BAR = Bar(3, 100150.75, 2e-07, 100250.1, 2e-07, 7, 1795341600000001, 1 / 3, 9, 1795341600000155)
EXTREMES = Bar(2**35, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, 1.0, 7, 2**53 + 1, 2.0, 9, 2**56 - 1)


def bars_of(count, bar=BAR):
    """One-second bars and bars of whole intervals; the times of the given bar are within its second."""
    start = 1_795_341_600_000
    return [
        SpooledBar(("exchange1", "BTCUSDT"), second, "boot1", moved(bar, second), whole=n % 2 == 0)
        for n, second in enumerate(range(start, start + count * 1_000, 1_000))
    ]


def moved(bar, second):
    times = second + bar.open_time, second + bar.close_time
    return msgspec.structs.replace(bar, open_time=times[0], close_time=times[1])


async def test_bars_come_back_as_they_were_saved(tmp_path):
    """A new object, as in another process, reads exactly the same bars."""
    await FileSpool(tmp_path, STORES).save(bars_of(5, EXTREMES))
    assert await FileSpool(tmp_path, STORES).load() == bars_of(5, EXTREMES)


async def test_nothing_was_saved(tmp_path):
    """A first start logs nothing about it."""
    with capture_logs() as logs:
        assert await FileSpool(tmp_path / "none", STORES).load() == []
    assert logs == []


async def test_saving_replaces_and_saving_nothing_removes(tmp_path):
    spool = FileSpool(tmp_path, STORES)
    await spool.save(bars_of(5))
    await spool.save(bars_of(2))
    assert await FileSpool(tmp_path, STORES).load() == bars_of(2)
    await spool.save([])
    await spool.save([])
    assert list(tmp_path.iterdir()) == []


async def test_the_directory_is_made(tmp_path):
    spool = FileSpool(tmp_path / "state" / "marketflow", STORES)
    await spool.save(bars_of(1))
    assert await spool.load() == bars_of(1)


async def test_other_stores_have_another_spool_and_no_secret_is_told(tmp_path):
    """Bars of one database must not get into another one."""
    await FileSpool(tmp_path, STORES).save(bars_of(1))
    assert await FileSpool(tmp_path, "others").load() == []
    (path,) = tmp_path.iterdir()
    assert "secret" not in path.name + path.read_text()


CONTENTS = [b"", b"{", b"null", b"[1]", b'[{"pair": ["a"]}]', b"\xff\xfe", b"[" * 100_000]
CONTENTS += [b"{}", b'{"form": 2}', b'{"form": 2, "bars": [1]}', b'{"form": "2", "bars": []}']


@pytest.mark.parametrize("content", CONTENTS)
async def test_a_file_that_cannot_be_read_does_not_stop_the_start(tmp_path, content):
    """It is kept through later saves, and the log names it."""
    spool = FileSpool(tmp_path, STORES)
    await spool.save(bars_of(1))
    (path,) = tmp_path.iterdir()
    path.write_bytes(content)
    spool = FileSpool(tmp_path, STORES)
    with capture_logs() as logs:
        assert await spool.load() == []
    (said,) = logs
    assert (said["log_level"], said["event"], said["path"]) == ("warning", "spool cannot be read", str(path))
    await spool.save([])
    await spool.save(bars_of(2))
    assert path.read_bytes() == content
    assert await FileSpool(tmp_path, STORES).load() == bars_of(2), "one unreadable file hides no other"
    await spool.save([])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    "wrong",
    [{"count": 0}, {"count": -1}, {"open_sequence": 2**56}, {"open_time": -1}, {"close": 0.0}, {"min": 7e9}],
)
async def test_a_file_with_a_bar_that_no_boot_can_have_made_is_not_read(tmp_path, wrong, whole):
    """It would end the service when it is merged, or wrong all its sequences."""
    bad = msgspec.structs.replace(bars_of(1)[0].bar, **wrong)
    bars = [*bars_of(2), SpooledBar(("exchange1", "BTCUSDT"), 1_795_341_600_000, "boot2", bad, whole=whole)]
    await FileSpool(tmp_path, STORES).save(bars)
    with capture_logs() as logs:
        assert await FileSpool(tmp_path, STORES).load() == []
    assert [each["event"] for each in logs] == ["spool cannot be read"]
    assert "no boot can have made" in logs[0]["error"]


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")]
)
async def test_a_file_that_can_be_read_later_is_brought_in_then(tmp_path, monkeypatch, error):
    """After a failing disk or a wrong owner, the next start that can reads it, together with newer ones."""
    await FileSpool(tmp_path, STORES).save(bars_of(3))

    def refuse(_path):
        raise error

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(Path, "read_bytes", refuse)
        spool = FileSpool(tmp_path, STORES)
        assert await spool.load() == []
    assert [(each["event"], each["error"]) for each in logs] == [("spool cannot be read", error.strerror)]
    await spool.save(bars_of(1))
    assert len(list(tmp_path.iterdir())) == 2
    following = FileSpool(tmp_path, STORES)
    assert len(await following.load()) == 4
    await following.save([])
    assert list(tmp_path.iterdir()) == []


async def test_a_disk_that_does_not_answer_at_the_start(tmp_path, monkeypatch):
    """The start goes on, and the next stop does not overwrite the files."""
    await FileSpool(tmp_path, STORES).save(bars_of(3))
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    monkeypatch.setattr(module, "SPOOL_SECONDS", 0.2)
    released = trio.Event()
    spool = FileSpool(tmp_path, STORES)
    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(Path, "read_bytes", lambda _: trio.from_thread.run(released.wait))
        assert await spool.load() == []
        released.set()
    assert [(each["event"], each["error"]) for each in logs] == [
        ("spool cannot be read", "no answer within 0.2 s")
    ]
    await spool.save(bars_of(1), 5.0)
    assert path.read_bytes() == content


async def test_a_save_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    """Files are written under another name and renamed, so a full disk harms no old file."""
    spool = FileSpool(tmp_path, STORES)
    await spool.save(bars_of(3))

    def full(_descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SpoolFailed) as caught:
        await spool.save(bars_of(5))
    assert (caught.value.place, caught.value.reason) == (str(tmp_path), "No space left on device")
    assert await FileSpool(tmp_path, STORES).load() == bars_of(3)
    assert len(list(tmp_path.iterdir())) == 1, "no half a file is left"


async def test_a_directory_that_cannot_be_written_is_told_at_the_start(tmp_path):
    """The start warns of it, and a stop that needs it fails."""
    (tmp_path / "file").write_text("no directory")
    spool = FileSpool(tmp_path / "file" / "state", STORES)
    with capture_logs() as logs:
        assert await spool.load() == []
    assert {(each["log_level"], each["path"]) for each in logs} == {
        ("warning", str(tmp_path / "file" / "state"))
    }
    assert {each["event"] for each in logs} == {
        "spool cannot be read",
        "spool cannot be written",
    }
    with pytest.raises(SpoolFailed):
        await spool.save(bars_of(1))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_is_told_at_the_start(tmp_path, monkeypatch):
    """A file can be made there, but not written."""
    opened = Path.open

    def full(path, *arguments):
        opened(path, *arguments).close()
        return opened(Path("/dev/full"), "wb", 0)

    monkeypatch.setattr(Path, "open", full)
    with capture_logs() as logs:
        await FileSpool(tmp_path / "state", STORES).load()
    (said,) = logs
    assert said["event"] == "spool cannot be written"
    assert said["error"] == "No space left on device"
    assert list((tmp_path / "state").iterdir()) == []


async def test_a_disk_that_hangs_is_given_up_on(tmp_path, monkeypatch, clock):
    """The stop waits only for its time limit."""
    released = trio.Event()
    monkeypatch.setattr(os, "fsync", lambda _: trio.from_thread.run(released.wait))
    began = clock.seconds
    with pytest.raises(SpoolFailed) as caught:
        await FileSpool(tmp_path, STORES).save(bars_of(1), 0.2)
    assert clock.seconds - began < 2
    assert caught.value.reason == "no answer within 0.2 s"
    released.set()


async def test_a_disk_that_hangs_once_the_bars_are_saved_loses_none(tmp_path, monkeypatch):
    """The old file stays, which does no harm; no loss of bars is reported."""
    released = trio.Event()
    spool = FileSpool(tmp_path, STORES)
    await spool.save(bars_of(3))
    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(Path, "unlink", lambda *_, **__: trio.from_thread.run(released.wait))
        await spool.save(bars_of(5), 0.5)
        assert [log["event"] for log in logs] == ["spool cannot be removed"]
        released.set()
    assert len(await FileSpool(tmp_path, STORES).load()) in {5, 8}


async def test_a_file_that_cannot_be_removed_is_told(tmp_path, monkeypatch):
    """It does no harm: bars that are imported twice count once."""
    spool = FileSpool(tmp_path, STORES)
    await spool.save(bars_of(1))

    def refuse(_path, **_options):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched, capture_logs() as logs:
        patched.setattr(Path, "unlink", refuse)
        await spool.save(bars_of(2))
    assert [(each["log_level"], each["event"]) for each in logs] == [("warning", "spool cannot be removed")]
    assert len(await FileSpool(tmp_path, STORES).load()) == 3


async def test_the_file_of_an_earlier_version_is_brought_in(tmp_path):
    """It is read under its old name, and then removed."""
    await FileSpool(tmp_path, "old name").save(bars_of(2))
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / f"{path.stem.rpartition('-')[0]}.json")
    spool = FileSpool(tmp_path, STORES, "old name")
    assert await spool.load() == bars_of(2)
    await spool.save([])
    assert list(tmp_path.iterdir()) == []


async def test_a_file_of_the_form_before_is_brought_in(tmp_path):
    """Version 0.1 has written a list of bars."""
    await FileSpool(tmp_path, STORES).save(bars_of(2))
    (path,) = tmp_path.iterdir()
    content = json.loads(path.read_text())
    assert content["form"] == 2
    path.write_text(json.dumps(content["bars"]))
    spool = FileSpool(tmp_path, STORES)
    assert await spool.load() == bars_of(2)
    await spool.save(bars_of(3))
    assert await FileSpool(tmp_path, STORES).load() == bars_of(3)


async def test_a_file_of_a_later_form_is_kept_and_told(tmp_path):
    await FileSpool(tmp_path, STORES).save(bars_of(2))
    (path,) = tmp_path.iterdir()
    path.write_text(later := path.read_text().replace('"form":2', '"form":3'))
    with capture_logs() as logs:
        spool = FileSpool(tmp_path, STORES)
        assert await spool.load() == []
        await spool.save([])
    assert [each["event"] for each in logs] == ["spool cannot be read"]
    assert "form 3, which only a later version can read" in logs[0]["error"]
    assert path.read_text() == later


async def test_spools_of_other_stores_are_told(tmp_path):
    """They may be ours under another name, for example after a change of the address."""
    await FileSpool(tmp_path, "others").save(bars_of(1))
    with capture_logs() as logs:
        await FileSpool(tmp_path, STORES).load()
    (said,) = logs
    assert said["event"] == "spool of other stores found"
    assert said["paths"] == [str(path) for path in tmp_path.iterdir()]


ONE, OTHER = Scope(frozenset({"exchange1"})), Scope(frozenset({"exchange2", "exchange3"}))


async def test_each_share_has_a_spool_of_its_own(tmp_path):
    """None reads, replaces or removes the bars of another. The log names files of other shares."""
    scopes = {name: {"scope": scope} for name, scope in (("one", ONE), ("other", OTHER))} | {"all": {}}
    spools = {name: FileSpool(tmp_path, STORES, **scope) for name, scope in scopes.items()}
    for count, spool in enumerate(spools.values(), start=1):
        await spool.save(bars_of(count))
    assert len(list(tmp_path.iterdir())) == 3
    for count, scope in enumerate(scopes.values(), start=1):
        with capture_logs() as logs:
            spool = FileSpool(tmp_path, STORES, **scope)
            assert await spool.load() == bars_of(count)
        assert [(each["event"], each["files"]) for each in logs] == [("spool of other exchanges found", 2)]
    await FileSpool(tmp_path, STORES, scope=Scope(frozenset({"exchange3", "exchange2"}))).load()
    await spools["one"].save(bars_of(5))
    await spools["other"].save([])
    assert await FileSpool(tmp_path, STORES, **scopes["one"]).load() == bars_of(5)
    assert await FileSpool(tmp_path, STORES, **scopes["other"]).load() == []
    assert await FileSpool(tmp_path, STORES).load() == bars_of(3)


async def test_names_of_the_share_of_all_exchanges_are_those_of_earlier_releases(tmp_path):
    """A file of the release before is read."""
    name = f"spool-{hashlib.sha256(STORES.encode()).hexdigest()[:16]}"
    await FileSpool(tmp_path, STORES).save(bars_of(2))
    (path,) = tmp_path.iterdir()
    assert re.fullmatch(f"{name}-[0-9a-f]{{8}}.json", path.name)
    path.rename(tmp_path / f"{name}-01234567.json")
    assert await FileSpool(tmp_path, STORES).load() == bars_of(2)


async def test_a_share_of_some_exchanges_does_not_read_the_file_of_version_0_1(tmp_path):
    """It has the bars of all."""
    await FileSpool(tmp_path, "old name").save(bars_of(2))
    (path,) = tmp_path.iterdir()
    path.rename(tmp_path / f"{path.stem.rpartition('-')[0]}.json")
    assert await FileSpool(tmp_path, STORES, "old name", scope=ONE).load() == []


async def test_the_log_names_only_some_of_many_files(tmp_path, monkeypatch):
    """Anybody may have filled the directory."""
    await FileSpool(tmp_path, STORES).save(bars_of(1))
    (good,) = tmp_path.iterdir()
    prefix = good.name.rpartition("-")[0]
    for number in range(100, 130):
        (tmp_path / f"{prefix}-{number}.json").write_text("{")
        (tmp_path / f"{prefix}.0123-{number}.json").write_text("{")
        (tmp_path / f"spool-0123-{number}.json").write_text("{")
    with capture_logs() as logs:
        assert await FileSpool(tmp_path, STORES).load() == bars_of(1)
    assert [each["event"] for each in logs] == [
        *["spool cannot be read"] * module.NAMED,
        "spool of other stores found",
        "spool of other exchanges found",
    ]
    assert {each["files"] for each in logs[:-2]} == {30}
    for each in logs[-2:]:
        assert (len(each["paths"]), each["files"]) == (module.NAMED, 30)


async def test_an_hour_of_bars_is_spooled_within_its_limit(tmp_path):
    """A stop with both stores away has to save a bar for each second of 15 pairs."""
    spool = FileSpool(tmp_path, STORES)
    bars = bars_of(54_000)
    with capture_logs() as logs:
        await spool.save(bars)
        assert len(await spool.load()) == 54_000
    assert logs == []
    (path,) = tmp_path.glob("spool-*.json")
    assert len(json.loads(path.read_text())["bars"]) == 54_000


SAVES = """
import sys
import trio
from pathlib import Path
from marketflow.adapters.state.spool import FileSpool
from tests.integration.test_spool import STORES, bars_of

async def main():
    spool = FileSpool(Path(sys.argv[1]), STORES)
    await spool.load()
    print("saving", flush=True)
    while True:
        for count in (20_000, 30_000):
            await spool.save(bars_of(count))

trio.run(main)
"""


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.12, 0.31])
async def test_killed_in_the_middle_of_a_save(tmp_path, seconds):
    """The next start finds only complete files: of the save before, of this one, or both."""
    await FileSpool(tmp_path, STORES).save(bars_of(10_000))
    command = [sys.executable, "-c", SAVES, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as saving:  # noqa: ASYNC220 - killed soon
        assert await trio.to_thread.run_sync(saving.stdout.readline) == b"saving\n"
        await trio.sleep(seconds)
        saving.kill()
    with capture_logs() as logs:
        spool = FileSpool(tmp_path, STORES)
        found = await spool.load()
    assert [each["event"] for each in logs] == []
    sizes = {10_000, 20_000, 30_000}
    assert len(found) in sizes | {one + other for one in sizes for other in sizes if one != other}
    await spool.save([])
    assert list(tmp_path.glob("*.json")) == []
