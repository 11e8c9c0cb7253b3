"""Plans that once failed, kept as data: what a seed means changes when a kind of fault is added.

Each names the planted bug that takes its mend out. With that bug it must fail again: a plan that does not
proves nothing any more, since the service or its surroundings have changed.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Final

import attrs

from tests.simulation.plan import Fault, Plan

FILE: Final = Path(__file__).with_suffix(".toml")


@attrs.frozen
class Regression:
    """A plan, and the fault of the product that it has shown."""

    showed: str
    mutant: str
    """The planted bug that takes the mend out."""
    plan: Plan


def regressions() -> dict[str, Regression]:
    """All that are kept, by name."""
    return {name: read(fields) for name, fields in tomllib.loads(FILE.read_text()).items()}


def read(fields: dict[str, Any]) -> Regression:
    """An entry of the file. What is left out of a plan is None."""
    fields = {"retention": None, "volumes": None, "ids": None} | fields
    showed, mutant = str(fields.pop("showed")), str(fields.pop("mutant"))
    faults = tuple(Fault(*each) for each in fields.pop("faults"))
    lists = {name: tuple(fields[name]) for name in ("symbols", "ids") if fields[name] is not None}
    return Regression(showed, mutant, Plan(**(fields | lists | {"faults": faults})))


def frozen(plan: Plan, name: str, showed: str, mutant: str) -> str:
    """A plan as an entry of the file."""
    lines = [f"[{name}]", f"showed = {json.dumps(showed)}", f"mutant = {json.dumps(mutant)}"]
    for field, value in attrs.asdict(plan, recurse=False).items():
        if field != "faults" and value is not None:
            lines.append(f"{field} = {json.dumps(list(value) if isinstance(value, tuple) else value)}")
    lines += ["faults = [", *(f"    {json.dumps(attrs.astuple(fault))}," for fault in plan.faults), "]"]
    return "\n".join(lines) + "\n"
