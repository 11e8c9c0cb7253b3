from __future__ import annotations

import pytest

from marketflow.client.words import age, moment, plain, rounded


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (100508.6038528067, "100508.60"),
        (1000, "1000.00"),
        (206.3976178, "206.3976"),
        (1, "1.0000"),
        (0.31049459, "0.3105"),
        (0.00031, "0.0003100"),
        (2e-07, "2.000e-07"),
    ],
)
def test_rounded(price, text):
    """Only useful digits are shown, even for tiny prices."""
    assert rounded(price) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0.0s"),
        (0.05, "0.0s"),
        (0.39, "0.3s"),
        (9.99, "9.9s"),
        (10, "10s"),
        (59.9, "59s"),
        (60, "1m"),
        (3599, "59m"),
        (7200, "2h"),
        (400_000, "4d"),
    ],
)
def test_age(seconds, text):
    """It has at most five characters, is never rounded up, and is never negative if a clock is ahead."""
    assert age(seconds) == text


def test_moment():
    assert moment(1795363327057) == "2026-11-22T16:02:07.057Z"
    assert moment(10**18) == str(10**18)


def test_what_a_terminal_would_obey_is_not_printed():
    assert plain("BTC\x1b[31m\nUSDT é") == "BTC�[31m�USDT é"
