"""Tests that Hypothesis repeats also try different orders of Trio's tasks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import trio
from builders import SEEDS, run_virtual
from hypothesis import given, settings
from hypothesis import strategies as st

TESTS = Path(__file__).parents[1]
DRAWN = ("SEEDS", "random_module")


def schedules(seeds: st.SearchStrategy[object]) -> set[tuple[int, ...]]:
    """The orders in which five tasks that are ready at the same time run, over some examples."""
    seen = set()

    @given(seeds)
    @settings(max_examples=20, database=None)
    def play(_: object) -> None:
        order: list[int] = []

        async def take_a_turn(number: int) -> None:
            await trio.sleep(1)
            order.append(number)

        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(take_a_turn, number)

        run_virtual(main)
        seen.add(tuple(order))

    play()
    return seen


def test_examples_are_played_in_different_orders() -> None:
    """A seed for our own random numbers is not enough: Hypothesis gives Trio the same seed each time."""
    assert len(schedules(SEEDS)) >= 5
    assert len(schedules(st.integers())) == 1


def fixed_schedules(source: str) -> set[str]:
    """Tests with `given` that run tasks on a virtual clock without drawing a seed for their order."""
    found = set()
    for test in ast.walk(ast.parse(source)):
        if isinstance(test, ast.FunctionDef | ast.AsyncFunctionDef):
            drawn = [ast.unparse(each) for each in test.decorator_list if "given(" in ast.unparse(each)]
            virtual = any(name in ast.unparse(test) for name in ("run_virtual(", "autojump_clock"))
            if drawn and virtual and not any(name in drawn[0] for name in DRAWN):
                found.add(test.name)
    return found


@pytest.mark.parametrize("path", sorted(TESTS.rglob("test_*.py")), ids=lambda path: path.stem)
def test_no_test_explores_one_order_only(path: Path) -> None:
    if path != Path(__file__):
        assert fixed_schedules(path.read_text()) == set()


def test_a_fixed_order_is_found() -> None:
    """The check finds such a test."""
    source = """
@given(st.integers())
async def test_a(autojump_clock, n): ...
@given(SEEDS)
async def test_b(autojump_clock, seed): ...
@given(st.integers())
def test_c(n): run_virtual(main)
@given(n=st.integers(), schedule=st.random_module())
def test_d(n, schedule): run_virtual(main)
@given(st.integers())
async def test_e(n): ...
"""
    assert fixed_schedules(source) == {"test_a", "test_c"}
