"""What the commands do before they serve."""

from __future__ import annotations

import resource

import attrs
import pytest
from structlog.testing import capture_logs

from marketflow.commands.running import OTHER_FILES, with_open_files
from marketflow.config import Settings

NONE = resource.RLIM_INFINITY
WANTED = 1_000 + OTHER_FILES


@pytest.mark.parametrize(
    ("soft", "hard", "raised_to", "connections"),
    [
        (1_024, 1_000_000, WANTED, 1_000),
        (1_024, NONE, WANTED, 1_000),
        (NONE, NONE, None, 1_000),
        (WANTED, WANTED, None, 1_000),
        (1_024, WANTED - 1, WANTED - 1, 999),
        (1_024, 1_024, None, 512),
        (256, 256, None, 1),
    ],
)
def test_as_many_connections_as_files_may_be_open_for(monkeypatch, soft, hard, raised_to, connections):
    """The limit of open files is raised as far as possible, never lowered; a too low one is logged."""
    given = []
    monkeypatch.setattr(resource, "getrlimit", {resource.RLIMIT_NOFILE: (soft, hard)}.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: given.append((which, limits)))
    settings = attrs.evolve(Settings(), http=attrs.evolve(Settings().http, max_connections=1_000))
    with capture_logs() as logs:
        found = with_open_files(settings)
    assert found.http.max_connections == connections
    assert given == ([] if raised_to is None else [(resource.RLIMIT_NOFILE, (raised_to, hard))])
    assert bool(logs) == (connections < 1_000)
