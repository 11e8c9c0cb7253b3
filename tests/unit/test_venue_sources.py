"""The sources of venues share what their address may do."""

from __future__ import annotations

import random

import pytest

from marketflow.adapters.exchange.checks import Checks
from marketflow.adapters.exchange.venues.registry import VENUES
from marketflow.adapters.exchange.websocket.sources import VenueSources

PROXY = "http://user:word@10.0.0.1:3128"


class NoClock:
    def now(self):
        raise NotImplementedError


@pytest.fixture
def budget_of():
    """Gives the budget of a new source."""
    checks = Checks(frozenset({"BTCUSDT"}), 60_000, 120_000)
    sources = VenueSources(checks, NoClock(), random.Random(1))

    def budget(kind, **options):
        source = sources.source("exchange1", kind, symbols={"BTCUSDT": "BTC"}, **options)
        return source._maker.door.budget

    return budget


@pytest.mark.parametrize("kind", VENUES)
def test_sources_of_one_kind_and_address_share_their_budget(budget_of, kind):
    """Another URL is still the same kind of venue, whose hosts may count together."""
    budget = budget_of(kind)
    assert budget_of(kind) is budget
    assert budget_of(kind, url="wss://exchange.test") is budget


def test_sources_of_other_kinds_or_behind_a_proxy_do_not(budget_of):
    budgets = [
        budget_of("kraken"),
        budget_of("okx"),
        budget_of("kraken", proxy=PROXY),
        budget_of("kraken", proxy="http://10.0.0.2:3128"),
        budget_of("kraken", proxy="http://10.0.0.1:3129"),
    ]
    assert len({*map(id, budgets)}) == len(budgets)


def test_a_proxy_is_one_address_for_all_its_users(budget_of):
    assert budget_of("okx", proxy=PROXY) is budget_of("okx", proxy="http://other:name@10.0.0.1:3128")


def test_no_service_knows_the_budget_of_another(budget_of):
    other = VenueSources(Checks(frozenset({"BTCUSDT"}), 60_000, 120_000), NoClock(), random.Random(1))
    source = other.source("exchange1", "kraken", symbols={"BTCUSDT": "BTC/USDT"})
    assert source._maker.door.budget is not budget_of("kraken")


@pytest.mark.parametrize(("kind", "counts"), [("coinbase", True), ("okx", False), ("binance", False)])
def test_messages_are_counted_by_address_where_the_venue_does(budget_of, kind, counts):
    """OKX and Binance count those of each connection."""
    assert (budget_of(kind).requests is not None) == counts


def test_coinbase_gets_no_more_requests_from_an_address_than_it_allows():
    """Its 8 a second are all that an address sends: attempts, and messages on all connections."""
    rules = VENUES["coinbase"].rules
    assert (rules.attempts.seconds, rules.requests.seconds) == (1.0, 1.0)
    assert rules.attempts.most + rules.requests.most <= 8


def test_kraken_gets_one_attempt_in_five_seconds_from_all_its_sources():
    """That is its rule after maintenance, which all of them notice at the same time."""
    assert VENUES["kraken"].rules.attempts == (1, 5.0)
