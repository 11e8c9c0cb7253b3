from __future__ import annotations

import pytest
from test_http_fakes import Questions


@pytest.fixture
def questions():
    """What the HTTP application asks, faked."""
    return Questions()


@pytest.fixture
def client(questions):
    """Asks the application over these, without a server."""
    return questions.app().test_client()
