"""Time for tests of venues."""

from __future__ import annotations

import pytest
from trio.testing import MockClock


@pytest.fixture
def virtual_clock() -> MockClock:
    """Time stands still while bytes are on their way, so hours pass at once."""
    return MockClock(autojump_threshold=0.01)
