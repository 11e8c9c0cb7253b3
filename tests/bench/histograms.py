"""Durations that the service itself reports: the histograms of /metrics."""

from __future__ import annotations

import re

Buckets = dict[float, int]
"""The number of values at or below each upper bound (seconds)."""

UPDATE_LATENCY = "marketflow_update_latency_seconds"
_BUCKET = re.compile(r'^(\w+)_bucket\{.*?le="([^"]+)".*?\} (\S+)', re.MULTILINE)


def read_buckets(text: str, name: str) -> Buckets:
    """The buckets of a histogram, over all its labels."""
    buckets: Buckets = {}
    for found, bound, count in _BUCKET.findall(text):
        if found == name:
            buckets[float(bound)] = buckets.get(float(bound), 0) + int(float(count))
    return buckets


def bound_of(before: Buckets, after: Buckets, part: float) -> float:
    """The least upper bound (ms) of that many percent of the values between two readings."""
    counts = {bound: count - before.get(bound, 0) for bound, count in sorted(after.items())}
    wanted = max(counts.values(), default=0) * part / 100
    return next((bound * 1_000 for bound, count in counts.items() if count and count >= wanted), 0.0)
