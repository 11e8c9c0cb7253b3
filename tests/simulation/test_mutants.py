"""The planted bugs fit the sources, and some of them are found here as well. `nox -s simulate` tries each."""

from __future__ import annotations

import pytest

from marketflow.app.share.ledger import Ledger
from tests.simulation.history import run_history, shrunk
from tests.simulation.mutants import Mutant, mutated
from tests.simulation.plan import Plan
from tests.simulation.planted import PLANTED

EXPIRE = Mutant("app.share.ledger", "self.expired += count", "self.cached += count", "expired is cached")


@pytest.mark.parametrize("name", PLANTED)
def test_each_changes_the_product(name):
    """If this fails the product has changed: let the mutant follow."""
    assert PLANTED[name].changes()


def test_a_bug_is_there_only_as_long_as_it_is_planted():
    def expire():
        ledger = Ledger(pending=3)
        ledger.expire(2)
        return ledger.expired, ledger.cached

    with mutated(EXPIRE):
        assert expire() == (0, 2)
    assert expire() == (2, 0)


@pytest.mark.parametrize("old", ["self.nothing += count", "self.pending -= count"])
def test_a_piece_that_is_not_there_once_is_an_error(old):
    with pytest.raises(ValueError, match="times in the source"):
        Mutant("app.share.ledger", old, "pass", "").changes()


def test_what_changes_no_function_is_an_error():
    with pytest.raises(ValueError, match="no function changes"):
        Mutant("app.share.ledger", "Dropped to keep memory", "Kept to drop memory", "").changes()


@pytest.mark.parametrize("name", ["dropped-acknowledgement", "average-of-averages", "span-too-long"])
def test_a_planted_bug_is_found_and_its_faults_are_shrunk(name):
    found = next(seed for seed in range(40) if run_history(Plan.of(seed), name).failure)
    plan, history = shrunk(Plan.of(found), name)
    assert history.failure
    assert len(plan.faults) <= len(Plan.of(found).faults)
    assert run_history(plan).failure is None
