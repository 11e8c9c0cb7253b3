"""The planted bugs of planted.toml. Each must be found: `nox -s simulate -- --mutant NAME`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Final

from tests.simulation.mutants import Mutant

PLANTED: Final[dict[str, Mutant]] = {
    name: Mutant(fields["module"], fields["old"].rstrip("\n"), fields["new"].rstrip("\n"), fields["what"])
    for name, fields in tomllib.loads(Path(__file__).with_suffix(".toml").read_text()).items()
}
