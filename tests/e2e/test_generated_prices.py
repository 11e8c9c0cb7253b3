"""Prices of the test mode have the configured rate and are believable."""

from __future__ import annotations

import attrs
import trio
from asking import adds_up, eventually
from serving import running

from marketflow.config import Settings
from marketflow.config.settings import GeneratorSettings


async def test_hundreds_of_ticks_a_second(settings: Settings) -> None:
    """The generator has no pauses between reads, with which 1,200 ticks would take 15 s."""
    settings = attrs.evolve(
        settings, mode="test", generator=GeneratorSettings(exchanges=("test1",), rate=400.0)
    )
    lines = 1_200 * len(settings.symbols)
    async with running(settings) as service:
        began = trio.current_time()
        await eventually(lambda: service.report().updates.accepted >= lines, within=9)
        assert trio.current_time() - began > 2  # 3 s, minus the ticks that it catches up on
        assert adds_up((await service.client.health())["updates"])


async def test_generators_are_of_one_market(settings: Settings) -> None:
    """Their prices stay close to each other, and have as few digits as real ones."""
    settings = attrs.evolve(settings, mode="test", generator=GeneratorSettings(rate=100.0))
    async with running(settings) as service:
        await eventually(lambda: service.report().updates.accepted >= 1_500)
        for symbol in settings.symbols:
            _, answer = await service.client.get(f"/prices/latest?symbol={symbol}")
            prices = [each["price"] for each in answer["prices"]]
            assert len(prices) == len(settings.generator.exchanges)
            assert max(prices) / min(prices) < 1.003
            assert max(len(repr(price).partition(".")[2]) for price in prices) <= 5
