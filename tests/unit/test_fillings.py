"""All answers of questions and the live stream are tested with everything that fills their ports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

UNIT = Path(__file__).parent

OF_ANSWERS = (
    "test_spans",
    "test_candles",
    "test_queries",
    "test_consistent_answers",
    "test_past",
    "test_streaming",
)
"""Their tests run with each filling."""

OF_THE_BOOK = {
    "test_answers_of_the_book": "rows that are older than the bars and not written yet, and the lost lease",
    "test_adopted_rows": "how the book finds that Redis has lost bars",
    "test_believed_rows": "how the book finds that foreign bars have hidden what Redis has lost",
    "test_comparing": "how the book compares its bars with rows",
    "test_earlier_boots": "how the book reads the bars of other boots",
    "test_reading": "how the book reads the bars of the open minutes first",
    "test_sequences": "how the book numbers updates",
    "test_starting": "what the book knows before it has read anything",
    "test_measuring": "what the parts have counted, clients of the stream among them",
}
"""Modules that ask questions too, and what they are about. Only the book does that."""

ASKS = re.compile(r"\.queries\.[a-z]|\.spans\.of\(|PriceStream\(")


def arguments_of_tests(source: str) -> dict[str, set[str]]:
    """The names of the arguments of each test function."""
    return {
        each.name: {argument.arg for argument in (*each.args.args, *each.args.kwonlyargs)}
        for each in ast.walk(ast.parse(source))
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_")
    }


@pytest.mark.parametrize("module", OF_ANSWERS)
def test_each_answer_is_tested_with_each_filling(module: str) -> None:
    """The fixture `filling` runs a test once for each."""
    tests = arguments_of_tests((UNIT / f"{module}.py").read_text(encoding="utf-8"))
    assert tests
    assert [name for name, arguments in tests.items() if "filling" not in arguments] == []


def test_no_other_module_asks_questions() -> None:
    """A new one must run with each filling, or say here why only the book can answer it."""
    asking = {path.stem for path in UNIT.glob("test_*.py") if ASKS.search(path.read_text(encoding="utf-8"))}
    assert asking - {"test_fillings"} == {*OF_ANSWERS, *OF_THE_BOOK}
