from __future__ import annotations

import platform

import pytest

from tests.bench import versions
from tests.bench.report import Run


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        (
            {"CONFIG_ARGS": "'--enable-optimizations' '--with-lto' '--enable-shared'"},
            "optimised: PGO and LTO",
        ),
        ({"CONFIG_ARGS": "'--with-lto=full'"}, "optimised: LTO"),
        ({"CONFIG_ARGS": "'--prefix=/usr'"}, "not optimised"),
        ({"CONFIG_ARGS": "'--enable-optimizations'", "Py_DEBUG": 1}, "debug build"),
        ({"CONFIG_ARGS": None}, "unknown optimisation"),
    ],
)
def test_how_it_was_built(variables, told):
    assert versions.built(variables) == told


def test_the_interpreter_is_told():
    told = versions.python()
    assert told.startswith(f"CPython {platform.python_version()} (")
    assert platform.python_compiler() in told
    assert "GIL" in told


def test_valkey_is_told_from_redis():
    valkey = {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.0"}
    assert versions.store(valkey) == "Valkey 9.1.0"
    assert versions.store({"redis_version": "6.2.14"}) == "Redis 6.2.14"


@pytest.mark.parametrize(
    ("circumstances", "told"),
    [
        ({"python": "3.11.7"}, "at, Python 3.11.7, 2 processors"),
        (
            {"python": "CPython 3.14.0 (GCC)", "stores": "Valkey 9.1"},
            "at, CPython 3.14.0 (GCC), Valkey 9.1, 2",
        ),
    ],
)
def test_a_report_tells_it_also_of_earlier_runs(circumstances, told):
    beside = {"at": "at", "processors": 2, "load_average": (0.0,), "others_cores": 0, "stolen_cores": 0}
    assert Run(beside | circumstances, []).text.startswith(told)
