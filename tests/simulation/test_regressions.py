"""Plans that once failed do not fail again."""

from __future__ import annotations

import tomllib

import pytest

from tests.simulation.history import run_history
from tests.simulation.plan import KINDS, Plan
from tests.simulation.regressions import frozen, read, regressions

KEPT = regressions()


@pytest.mark.parametrize("name", KEPT)
def test_it_does_not_fail_again(name):
    assert run_history(KEPT[name].plan).failure is None, KEPT[name].showed


@pytest.mark.parametrize("name", KEPT)
def test_it_fails_without_its_mend(name):
    """If this fails, find another plan with `nox -s simulate -- --mutant NAME`, or drop this one."""
    assert run_history(KEPT[name].plan, KEPT[name].mutant).failure


@pytest.mark.parametrize("name", KEPT)
def test_its_faults_still_exist(name):
    """A kind that was renamed must be renamed there as well."""
    assert KEPT[name].plan.kinds <= KINDS.keys()


@pytest.mark.parametrize("seed", range(20))
def test_a_plan_is_read_as_it_was_frozen(seed):
    plan = Plan.of(seed)
    (fields,) = tomllib.loads(frozen(plan, "name", "what", "bug")).values()
    kept = read(fields)
    assert (kept.plan, kept.showed, kept.mutant) == (plan, "what", "bug")
