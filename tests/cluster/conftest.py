"""A cluster for the tests of this directory."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_servers import Cluster, exchanges_of

# Terms, and the contract of a window.
sys.path.append(str(Path(__file__).parents[1] / "integration"))


@pytest.fixture(scope="session")
def _servers() -> Iterator[Cluster]:
    directory = Path(tempfile.mkdtemp(prefix="marketflow-"))
    directory.chmod(0o755)
    made = Cluster(directory)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory)


@pytest.fixture
def cluster(_servers: Cluster) -> Cluster:
    """An empty cluster of three masters and three replicas, whose servers the test may kill."""
    _servers.heal()
    return _servers


@pytest.fixture
def exchanges(cluster: Cluster) -> list[str]:
    """An exchange on each master."""
    return exchanges_of(cluster)
