"""Exchanges that the test controls, real stores, and the settings of a service between them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis
from exchange_server import HOST, ExchangeServer, open_exchange
from traffic import NAMES

from marketflow.config import Settings
from marketflow.config.settings import (
    AggregationSettings,
    ExchangeSettings,
    HttpSettings,
    PostgresSettings,
    RedisSettings,
)


@pytest.fixture
def rng() -> random.Random:
    return random.Random(7)


@pytest.fixture
async def exchanges() -> AsyncIterator[dict[str, ExchangeServer]]:
    """exchange1 to exchange3."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(open_exchange()) for name in NAMES}


@pytest.fixture
def window(redis_url: str) -> Iterator[redis.Redis]:
    """A client of the Redis that the service uses."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def settings(
    redis_url: str, postgres_dsn: str, tmp_path: Path, exchanges: dict[str, ExchangeServer]
) -> Settings:
    """Settings for a service between the exchanges and the stores."""
    return Settings(
        exchanges=tuple(ExchangeSettings(name, HOST, server.port) for name, server in exchanges.items()),
        http=HttpSettings(port=0),
        redis=RedisSettings(url=redis_url),
        postgres=PostgresSettings(dsn=postgres_dsn),
        aggregation=AggregationSettings(interval=2_000, grace=200),
        state_dir=tmp_path,
    )
