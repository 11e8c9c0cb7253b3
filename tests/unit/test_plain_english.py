"""Words that make a sentence hard to read stay out of code, tests and documents."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

EVERYWHERE = (
    "whoever",
    "whither",
    "whence",
    "anew",
    "so-and-so",
    "as told",
    "by and by",
    "hence",
    "thereby",
    "thereof",
    "wherein",
    "lest",
    "no telling",
    "behind the back",
    "be had",
    "ill-willed",
    "all that there is",
)
"""Each has a plain form: "again", "the caller", "so", "the rest"."""

IN_THE_PRODUCT = (
    *EVERYWHERE,
    "whatever",
    "whichever",
    "wherever",
    "is told",
    "are told",
    "be told",
    "was told",
    "were told",
    "silent or mad",
    "goes mad",
    "what there is",
    "what has come in",
    "none of ours",
    "of no use",
    "as good as",
    "it is known what",
    "costs itself",
    "made whole",
    "making whole",
)
"""These hide who does what: name the caller, the client or the value, and say "gets", "reads" or "logs"."""


def offences(text: str, banned: Iterable[str]) -> list[str]:
    """The banned words and phrases in a text, also across the end of a line or a comment's next line."""
    flat = re.sub(r"\s+(?:#\s+|//\s+|\*\s+)?", " ", text).lower()
    return [phrase for phrase in banned if re.search(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])", flat)]


def _product() -> list[str]:
    files = [ROOT / "README.md", ROOT / "config.toml", ROOT / "noxfile.py"]
    for directory, patterns in (
        ("docs", ("*.md",)),
        ("deploy", ("*.md", "*.yml", "*.yaml", "*.service", "Dockerfile")),
        ("marketflow", ("*.py", "*.sql")),
        ("marketflow/adapters/http/dashboard", ("*.html",)),
        ("marketflow/adapters/http/dashboard/src", ("*.ts",)),
    ):
        for pattern in patterns:
            files += (ROOT / directory).rglob(pattern)
    names = {
        file.relative_to(ROOT).as_posix() for file in files if not {"node_modules", "dist"} & {*file.parts}
    }
    return sorted(names)


def _tests() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("name", _product())
def test_the_product_is_in_plain_english(name: str) -> None:
    assert offences((ROOT / name).read_text(encoding="utf-8"), IN_THE_PRODUCT) == []


@pytest.mark.parametrize("name", [name for name in _tests() if Path(name).name != Path(__file__).name])
def test_tests_are_in_plain_english(name: str) -> None:
    assert offences((ROOT / name).read_text(encoding="utf-8"), EVERYWHERE) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"""Whoever waits for it wakes up."""', ["whoever"]),
        ("    # Its connection is made\n    # anew.", ["anew"]),
        ("which caller is\ntold", ["is told"]),
        ("It adds up, as told.", ["as told"]),
        ("## Making whole", ["making whole"]),
        ("the price, and whither it went", ["whither"]),
        ("It is connected again, and the caller gets an error.", []),
        ("henceforth, renewed, holdest, whateverness", []),
    ],
)
def test_an_offence_is_found(text: str, found: list[str]) -> None:
    """It is found across lines, and only as whole words."""
    assert offences(text, IN_THE_PRODUCT) == found


SETTLED = ("flushes", "ledger", "rounds", "standing")
"""The modules of the share that speak of settled updates: updates that are not pending any more."""


def test_settled_has_one_meaning() -> None:
    """Switches, spools and the like are done, stored or gone, so that the word says the same everywhere."""
    users = {
        path.relative_to(ROOT / "marketflow").as_posix()
        for path in (ROOT / "marketflow").rglob("*.py")
        if re.search(r"settle", path.read_text(encoding="utf-8"), re.IGNORECASE)
    }
    # The setting `cluster.settle` is another thing, and has its name from outside.
    users -= {"config/settings.py", "cluster_assembly.py", "cluster_demo.py"}
    assert users == {f"app/share/{name}.py" for name in SETTLED}
