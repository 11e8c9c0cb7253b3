from __future__ import annotations

import pytest
from test_http_fakes import Questions


@pytest.fixture
def questions():
    """Fakes of the ports that the HTTP application uses."""
    return Questions()


@pytest.fixture
def client(questions):
    """A test client of the application with these fakes, without a server."""
    return questions.app().test_client()
