"""The spool of a term: what PostgreSQL takes is handed over; the disk keeps the rest."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from marketflow.app.cluster.handed_spool import HandedSpool
from marketflow.app.share.spooling import SpooledBar, SpoolFailed
from marketflow.domain.bars import Bar

EXCHANGE = "exchange1"
PAIR = (EXCHANGE, "BTCUSDT")
BAR = SpooledBar(PAIR, 60_000, "t1", Bar(1, 3.0, 3.0, 3.0, 3.0, 60_005, 0, 3.0, 60_005, 0), whole=False)
OTHER = SpooledBar(PAIR, 61_000, "t1", Bar(1, 3.0, 3.0, 3.0, 3.0, 61_005, 0, 3.0, 61_005, 0), whole=False)


class Spool:
    """Takes bars, unless it is away."""

    def __init__(self, *bars):
        self.bars = list(bars)
        self.away = False

    async def load(self):
        return list(self.bars)

    async def save(self, bars, within):
        assert within >= 0
        if self.away:
            raise SpoolFailed("there", "away")
        self.bars = list(bars)


async def save(bars, handed, disk):
    """Save these, and return the log."""
    with capture_logs() as lines:
        await HandedSpool(EXCHANGE, handed=handed, disk=disk).save(bars, 1.0)
    return [line["event"] for line in lines]


async def test_bars_are_handed_over_and_removed_from_the_disk():
    handed, disk = Spool(), Spool(OTHER)
    assert await save([BAR], handed, disk) == []
    assert (handed.bars, disk.bars) == ([BAR], [])


async def test_bars_that_cannot_be_handed_over_are_kept_on_the_disk_and_told():
    handed, disk = Spool(OTHER), Spool()
    handed.away = True
    assert await save([BAR], handed, disk) == ["spooled bars not handed over"]
    assert (handed.bars, disk.bars) == ([OTHER], [BAR])


async def test_with_both_away_the_save_fails():
    handed, disk = Spool(), Spool()
    handed.away = disk.away = True
    with pytest.raises(SpoolFailed):
        await save([BAR], handed, disk)


async def test_what_both_have_is_brought_in_and_removed():
    handed, disk = Spool(BAR), Spool(OTHER)
    assert await HandedSpool(EXCHANGE, handed=handed, disk=disk).load() == [BAR, OTHER]
    assert await save([], handed, disk) == []
    assert handed.bars == disk.bars == []


async def test_bars_that_cannot_be_removed_are_told():
    handed, disk = Spool(BAR), Spool(OTHER)
    handed.away = True
    assert await save([], handed, disk) == ["spool cannot be removed"]
    assert (handed.bars, disk.bars) == ([BAR], [])
