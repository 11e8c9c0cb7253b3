"""Loads the settings from all layers, and checks them.

Flags > environment > `.env` > config file > defaults, key by key. A list or table is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs

from marketflow.config.layers import DOTENV, Layers, printable
from marketflow.config.settings import Clash, Settings, clashes, default_state_dir, expand_home
from marketflow.config.structuring import GROUPS, KEYS, fields, shown, structured

DEFAULT: Final = "default"

_WHOLES: Final = {"redis": "url", "postgres": "dsn"}
"""For each of these tables, the key that overrides the others, which are its parts."""
_OWN: Final = "timeout"
"""The key of these tables that is not such a part."""


class ConfigError(Exception):
    """The settings are wrong."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines
        """One line for each problem; without secrets."""


@attrs.frozen
class Row:
    """A setting in the output of `marketflow config`."""

    key: str
    value: str
    """The value, with secrets masked."""
    source: str


@attrs.frozen
class Loaded:
    """Settings, and the source of each."""

    settings: Settings
    sources: Mapping[str, str]
    """By key: a flag, a variable, `.env`, the config file, or `default`."""

    def describe(self) -> list[Row]:
        """Every setting, in the order of the documentation."""
        values = shown(self.settings)
        sources = dict(self.sources)
        for group, whole in _WHOLES.items():
            key = f"{group}.{whole}"
            parts = [f"{group}.{name}" for name in fields(GROUPS[group]) if name not in {whole, _OWN}]
            if getattr(getattr(self.settings, group), whole) is None:
                # Show the effective value instead of "not set".
                values[key] = shown(_with_whole(self.settings, group, whole))[key]
                given = [part for part in parts if sources[part] != DEFAULT]
                sources[key] = f"from {', '.join(given)}" if given else DEFAULT
            else:
                sources |= {part: f"{sources[part]}; not used: {key} wins" for part in parts}
        return [Row(key, printable(value), sources[key]) for key, value in values.items()]


def _with_whole(settings: Settings, group: str, whole: str) -> Settings:
    part = getattr(settings, group)
    composed = {whole: getattr(part, f"effective_{whole}")}
    return attrs.evolve(settings, **{group: attrs.evolve(part, **composed)})


def load(
    config_file: Path | None, flags: Mapping[str, object], environ: Mapping[str, str], cwd: Path
) -> Loaded:
    """Read, merge and check all layers.

    Args:
        config_file: must exist; None: `config.toml` in `cwd`, if it exists.
        flags: by key (`http.port`); None means not given. The name of a flag is the last part of its key.
        environ: the environment.
        cwd: the directory of `.env`; a relative `state_dir` is relative to it.

    Raises:
        ConfigError: has all problems.
    """
    layers = Layers()
    layers.add_config_file(config_file, cwd)
    layers.add_dotenv(cwd / DOTENV)
    layers.add_variables(environ, None)
    layers.add_flags(flags)
    layers.read_files(cwd)
    given = layers.given
    state_dir, source = given.get("state_dir", ("", DEFAULT))
    if isinstance(state_dir, str):
        state_dir = expand_home(state_dir, environ) if state_dir else str(default_state_dir(environ))
    given["state_dir"] = state_dir, source
    settings, wrong = structured({key: value for key, (value, _) in given.items()})
    problems = layers.problems
    for key in KEYS:
        problems += [f"{line} ({given[key][1]})" for line in wrong.get(key, ())]
    sources = {key: given[key][1] if key in given else DEFAULT for key in KEYS}
    if not layers.broken:
        problems += [_worded(clash, sources) for clash in clashes(settings) if not {*clash.keys} & {*wrong}]
    if problems:
        raise ConfigError([printable(problem) for problem in problems])
    return Loaded(attrs.evolve(settings, state_dir=cwd / settings.state_dir), sources)


def _worded(clash: Clash, sources: Mapping[str, str]) -> str:
    # Report the key that was set, not one with its default.
    key = next((key for key in clash.keys if sources[key] != DEFAULT), clash.keys[0])
    return f"{key}: {clash.message} ({sources[key]})"
