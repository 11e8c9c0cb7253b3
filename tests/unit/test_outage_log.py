from __future__ import annotations

import pytest
import trio
from structlog.testing import capture_logs

from marketflow.app.ingest.outage_log import LOG_INTERVAL, OutageLog

BUG = ValueError("bug")
EVENTS = {
    "connected": lambda log: log.connected(),
    "cannot connect": lambda log: log.failed("cannot connect", "refused"),
    "disconnected": lambda log: log.failed("disconnected", "reset", seconds=1.0),
    "source failed": lambda log: log.source_failed(BUG, BUG, bugs=1),
    "codec failed": lambda log: log.codec_failed(ValueError("bug"), bugs=1),
    "source did not stop": lambda log: log.source_abandoned(bugs=1),
}


@pytest.mark.parametrize("event", EVENTS)
async def test_each_event_has_one_line_in_an_interval(autojump_clock, event):
    """Each kind counts separately; the events in between are logged at debug level."""
    log = OutageLog("exchange1")
    with capture_logs() as lines:
        for _ in range(30):
            for make in EVENTS.values():
                make(log)
            await trio.sleep(LOG_INTERVAL / 10)
    levels = [line["log_level"] for line in lines if line["event"] == event]
    assert len(levels) == 30
    assert [number for number, level in enumerate(levels) if level != "debug"] == [0, 10, 20]


async def test_after_an_outage_everything_is_logged_again(autojump_clock):
    log = OutageLog("exchange1")
    with capture_logs() as lines:
        for _ in range(2):
            log.failed("cannot connect", "refused")
            log.failed("cannot connect", "refused")
            log.end_outage()
    assert [(line["log_level"], line["attempts"]) for line in lines] == [
        ("warning", 1),
        ("debug", 2),
        ("warning", 1),
        ("debug", 2),
    ]


async def test_a_reconnect_says_why_it_was_not_connected():
    """The lines of the failures may be at debug level by then."""
    log = OutageLog("exchange1")
    with capture_logs() as lines:
        log.connected()
        log.end_outage()
        log.connected("reset")
    assert [line.get("last_error", "none") for line in lines] == ["none", "reset"]


async def test_a_bug_has_its_traceback_and_its_place():
    """The traceback is that of the whole group, the place that of the bug in it."""
    log = OutageLog("exchange1")
    with capture_logs() as lines:
        try:
            async with trio.open_nursery():
                raise ValueError("bug")
        except ExceptionGroup as group:
            error = group
            log.source_failed(group, group.exceptions[0], bugs=3)
    [line] = lines
    assert (line["log_level"], line["exc_info"], line["bugs"]) == ("error", error, 3)
    assert f"{__file__}:" in line["where"]
    assert line["where"].endswith("in test_a_bug_has_its_traceback_and_its_place")
