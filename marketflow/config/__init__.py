"""Settings: defaults < config file < .env < environment < flags, each checked and each with its source."""

from marketflow.config.loading import ConfigError, Loaded, Row, load
from marketflow.config.settings import (
    AggregationSettings,
    ExchangeSettings,
    FeedSettings,
    GeneratorSettings,
    HttpSettings,
    PipelineSettings,
    PostgresSettings,
    RedisSettings,
    Settings,
    VenueSettings,
    WindowSettings,
)

__all__ = [
    "AggregationSettings",
    "ConfigError",
    "ExchangeSettings",
    "FeedSettings",
    "GeneratorSettings",
    "HttpSettings",
    "Loaded",
    "PipelineSettings",
    "PostgresSettings",
    "RedisSettings",
    "Row",
    "Settings",
    "VenueSettings",
    "WindowSettings",
    "load",
]
