"""config.toml and docs/configuration.md agree with the settings classes."""

from __future__ import annotations

import json
from pathlib import Path

import attrs
import pytest

from marketflow.config import load, reference
from marketflow.config.settings import Port
from marketflow.config.structuring import KEYS

ROOT = Path(__file__).parents[2]
HOME = {"HOME": "/home/me"}


@attrs.frozen
class Silent:
    """Settings without docstrings."""

    port: Port = 1


ENTRIES = {entry.key: entry for group in reference.groups() for entry in group.entries}


@pytest.mark.parametrize(
    ("path", "made"),
    [(reference.TOML, reference.toml), (reference.MARKDOWN, reference.markdown)],
    ids=["toml", "markdown"],
)
def test_file_is_up_to_date(path, made):
    text = (ROOT / path).read_text(encoding="utf-8")

    assert text == reference.rewritten(text, made()), "run `nox -s reference`"


def test_every_key_is_explained():
    assert ENTRIES.keys() == KEYS.keys()
    assert all(entry.meaning and entry.takes for entry in ENTRIES.values())


@pytest.mark.parametrize("key", KEYS)
def test_default_can_be_written_as_it_is_shown(key, tmp_path):
    """Setting it in the variable beside it changes nothing."""
    entry = ENTRIES[key]
    row = next(line for line in reference.markdown().splitlines() if line.startswith(f"| `{key}`"))
    variable = row.split("`")[3]
    written = entry.default if isinstance(entry.default, str) else json.dumps(entry.default)

    loaded = load(None, {}, {**HOME, variable: written}, tmp_path)

    assert loaded.settings == load(None, {}, HOME, tmp_path).settings
    assert loaded.sources[key] == variable


def test_what_is_written_by_hand_stays():
    text = f"# by hand\n# {reference.MADE}: so\n\nold\n"

    assert reference.rewritten(text, "new\n") == f"# by hand\n# {reference.MADE}: so\n\nnew\n"
    with pytest.raises(ValueError, match="there must be a line"):
        reference.rewritten("# by hand\n", "new\n")


def test_setting_without_a_meaning_is_found(monkeypatch):
    """A setting cannot be added without a docstring."""
    monkeypatch.setattr(reference, "fields", lambda _: {"silent": Silent})
    with pytest.raises(LookupError, match=r"silent\.port has no docstring"):
        reference.groups()
