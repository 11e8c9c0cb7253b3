"""The cluster itself, before anything is tested on it."""

from __future__ import annotations

import pytest
from cluster_servers import MASTERS

pytestmark = pytest.mark.alone


def test_it_has_masters_and_replicas(cluster, exchanges):
    assert len(cluster.masters()) == MASTERS
    assert len({cluster.owner(exchange).port for exchange in exchanges}) == MASTERS
