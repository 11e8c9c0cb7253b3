"""All answers of questions and the live stream are tested with everything that fills their ports."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

MODULES = ("test_spans", "test_candles", "test_queries", "test_consistent_answers", "test_streaming")
"""The answers that only the book can give are in test_answers_of_the_book."""


def arguments_of_tests(source: str) -> dict[str, set[str]]:
    """The names of the arguments of each test function."""
    return {
        each.name: {argument.arg for argument in (*each.args.args, *each.args.kwonlyargs)}
        for each in ast.walk(ast.parse(source))
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_")
    }


@pytest.mark.parametrize("module", MODULES)
def test_each_answer_is_tested_with_each_filling(module: str) -> None:
    """The fixture `filling` runs a test once for each."""
    tests = arguments_of_tests((Path(__file__).parent / f"{module}.py").read_text())
    assert tests
    assert [name for name, arguments in tests.items() if "filling" not in arguments] == []
