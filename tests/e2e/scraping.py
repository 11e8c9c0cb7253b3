"""The answers of /metrics as numbers."""

from __future__ import annotations

from collections import defaultdict

import attrs
from asking import Client
from prometheus_client.parser import text_string_to_metric_families


@attrs.frozen
class Scrape:
    """One answer of /metrics."""

    samples: dict[str, dict[tuple[tuple[str, str], ...], float]]
    """The samples by name, then by labels."""
    counters: frozenset[str]
    """The names of the counters, which may only grow."""

    def one(self, name: str, **labels: str) -> float:
        """The sample with exactly these labels."""
        return self.samples[name][tuple(sorted(labels.items()))]

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples that have these labels."""
        return sum(
            value for found, value in self.samples[name].items() if labels.items() <= dict(found).items()
        )

    def updates(self, exchange: str) -> dict[str, object]:
        """The ledger of an exchange in the form of /health, without reasons that have not occurred."""
        counts = {
            name: self.one(f"marketflow_updates_{name}_total", exchange=exchange)
            for name in ("received", "accepted", "cached", "expired")
        }
        reasons = {
            name: {
                dict(labels)["reason"]: value
                for labels, value in self.samples[f"marketflow_updates_{name}_total"].items()
                if dict(labels)["exchange"] == exchange and value
            }
            for name in ("rejected", "dropped")
        }
        return counts | reasons | {"pending": self.one("marketflow_updates_pending", exchange=exchange)}

    @property
    def exchanges(self) -> list[str]:
        return [dict(labels)["exchange"] for labels in self.samples["marketflow_feed_connected"]]


async def scrape(client: Client) -> Scrape:
    """Request /metrics and parse it."""
    status, body = await client.read("/metrics")
    assert status == 200
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
    counters: set[str] = set()
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            samples[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
            if family.type in {"counter", "histogram"}:
                counters.add(sample.name)
    return Scrape(dict(samples), frozenset(counters))
