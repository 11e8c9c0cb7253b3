"""Reads and merges the layers of settings."""

from __future__ import annotations

import difflib
import io
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import attrs
from dotenv.parser import parse_stream

from marketflow.config.files import SecretFile, is_out_of_reach
from marketflow.config.foreign import is_service_link
from marketflow.config.kinds import Text
from marketflow.config.settings import Settings
from marketflow.config.structuring import GROUPS, KEYS, fields, item_of, kind_of, table_of, tables_of

CONFIG_FILE: Final = "config.toml"
DOTENV: Final = ".env"

_PREFIX: Final = "MARKETFLOW_"
_TOML_PLACE: Final = re.compile(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", re.DOTALL)

Given = tuple[object, str]
"""A value and its source."""


def variable_of(key: str) -> str:
    """The environment variable of a key, or of a table of keys."""
    return _PREFIX + key.upper().replace(".", "__")


_OF_CLIENTS: Final = frozenset({"MARKETFLOW_URL", "MARKETFLOW_TOKEN"})
"""Variables of the client commands. They are not settings of the service."""
_VARIABLES: Final = {variable_of(key): key for key in (*GROUPS, *KEYS)}
_FILES: Final = {
    f"{variable_of(key)}_FILE": key
    for key in KEYS
    if (kind := kind_of(KEYS[key])) is not None and kind.secret
}
"""The variables that name a file with a secret, as Docker and Kubernetes mount it."""


@attrs.define
class Layers:
    """The effective values so far, and the problems found in their layers."""

    given: dict[str, Given] = attrs.field(factory=dict)
    problems: list[str] = attrs.field(factory=list)
    broken: bool = False
    """Whether a file could not be read, so that its settings are unknown."""

    def add_config_file(self, path: Path | None, cwd: Path) -> None:
        """Merge a TOML file over the values so far; without a path `config.toml`, if it exists."""
        source = CONFIG_FILE if path is None else str(path)
        content = self._read(cwd / source, source, required=path is not None)
        if content is None:
            return
        try:
            table = tomllib.loads(content)
        except (ValueError, RecursionError) as error:
            self._break(f"{source}: {_toml_problem(error, content)}")
        else:
            self._add_table(table, Settings, "", source)

    def add_dotenv(self, path: Path) -> None:
        """Merge `.env` over the values so far, if it exists."""
        content = self._read(path, DOTENV, required=False)
        variables = {}
        for binding in parse_stream(io.StringIO(content or "")):
            name, value = binding.key, binding.value
            if name is not None and value is not None:
                variables[name] = value
            elif binding.error or (name or "").startswith(_PREFIX):
                self._break(f"{DOTENV}: line {binding.original.line}: expected NAME=value")
        self.add_variables(variables, DOTENV)

    def add_variables(self, variables: Mapping[str, str], source: str | None) -> None:
        """Merge variables over the values so far; without a source each is named as its own source."""
        ours = {
            name: value
            for name, value in variables.items()
            if name.startswith(_PREFIX) and name not in _OF_CLIENTS
        }
        # Tables first, since a variable for one key overrides them. Files last, after it is known which
        # variables are empty: an empty variable counts as not set.
        for name in sorted(ours, key=lambda name: (name in _FILES, _VARIABLES.get(name) in KEYS)):
            key = _VARIABLES.get(name)
            if name in _FILES:
                self._add_file(name, ours, source)
            elif key is None and source is None and is_service_link(name, ours[name]):
                continue
            elif key is None:
                hint = _hint(name, _VARIABLES, _PREFIX)
                self.problems.append(f"{name}: unknown variable{hint} ({source or 'environment'})")
            else:
                self._add(key, Text(ours[name]), source or name)

    def _add_file(self, name: str, variables: Mapping[str, str], source: str | None) -> None:
        """Add a secret from a file. An empty name is ignored."""
        key = _FILES[name]
        if variables[name] and variables.get(variable_of(key)):
            where = source or "environment"
            self.problems.append(f"{key}: both {variable_of(key)} and {name} are set ({where})")
        elif variables[name]:
            self._add(key, SecretFile(variables[name]), source or name)

    def read_files(self, cwd: Path) -> None:
        """Replace names of secret files by their contents, where they take effect."""
        for key, (value, source) in list(self.given.items()):
            if isinstance(value, SecretFile):
                try:
                    self.given[key] = Text(value.read(cwd)), source
                except ValueError as error:
                    del self.given[key]
                    self.problems.append(f"{key}: {error} ({source})")

    def add_flags(self, flags: Mapping[str, object]) -> None:
        """Merge flags, given by key, over the values so far."""
        for key, value in flags.items():
            if value is not None:
                typed = Text(value) if isinstance(value, str) else value
                self._add(key, typed, f"--{key.rpartition('.')[2].replace('_', '-')}")

    def _add(self, key: str, value: object, source: str) -> None:
        if isinstance(value, Text) and (key in GROUPS or item_of(KEYS[key])):
            value = _from_json(value)
        self._add_table({key: value}, None, "", source)

    def _add_table(self, table: Mapping[str, object], cls: Any, prefix: str, source: str) -> None:
        """Add the values of a table of the class `cls`; without a class its names are whole keys."""
        known = fields(cls) if cls else {**KEYS, **GROUPS}
        for name, value in table.items():
            key = prefix + name
            if name not in known:
                hint = _hint(key, (*(prefix + each for each in known), *KEYS), prefix)
                self.problems.append(f"{prefix}{_toml_key(name)}: unknown key{hint} ({source})")
            elif key not in GROUPS:
                self._add_value(key, value, source)
            elif isinstance(value, dict):
                self._add_table(value, GROUPS[key], f"{key}.", source)
            else:
                # Do not repeat the value: `redis = "redis://:password@..."` is a likely mistake.
                wanted = "a table as JSON" if isinstance(value, Text) else "a table"
                self.problems.append(f"{key}: expected {wanted} ({source})")

    def _add_value(self, key: str, value: object, source: str) -> None:
        self.given[key] = value, source
        item = item_of(KEYS[key])
        if tables_of(item) and isinstance(value, list):
            # Values are checked only if they take effect, but an unknown key is always an error.
            for index, table in enumerate(value):
                known = fields(table_of(item, table))
                for name in table if isinstance(table, dict) else ():
                    if name not in known:
                        where = f"{key}[{index}]."
                        hint = _hint(where + name, [where + each for each in known], where)
                        self.problems.append(f"{where}{_toml_key(name)}: unknown key{hint} ({source})")

    def _read(self, path: Path, name: str, *, required: bool) -> str | None:
        try:
            # Some editors write a byte order mark at the beginning of a file.
            return path.read_bytes().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            self._break(f"{name}: line {line}: not UTF-8")
        except (FileNotFoundError, NotADirectoryError):
            if required:
                self._break(f"{name}: no such file (--config)")
        except (OSError, ValueError) as error:
            # Some people keep a virtual environment in a directory named .env.
            is_environment = name == DOTENV and isinstance(error, IsADirectoryError)
            if not required and (is_environment or is_out_of_reach(path)):
                return None
            reason = getattr(error, "strerror", None) or str(error)
            self._break(f"{name}: cannot be read: {reason.lower()}")
        return None

    def _break(self, problem: str) -> None:
        self.problems.append(problem)
        self.broken = True


def _toml_problem(error: Exception, content: str) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    match = _TOML_PLACE.fullmatch(str(error))
    if match is None:
        # Valid by the grammar but not a value, such as a number of thousands of digits, or 31 February.
        return f"not TOML: {error}"
    line = match[2] or content.count("\n") + 1
    return f"line {line}: {match[1][:1].lower()}{match[1][1:]}"


def _from_json(value: Text) -> object:
    try:
        decoded = json.loads(value)
    except (ValueError, RecursionError):
        return value
    # Plain text or a number is kept unchanged, for the message.
    return decoded if isinstance(decoded, list | dict) else value


def _hint(wrong: str, known: Iterable[str], prefix: str) -> str:
    """The known name that was probably meant, if there is a clear one; common parts do not count."""
    names = {each.removeprefix(prefix): each for each in known}
    near = difflib.get_close_matches(wrong.removeprefix(prefix), names, n=1, cutoff=0.7)
    return f"; did you mean {names[near[0]]}?" if near else ""


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def printable(text: str) -> str:
    """The text on one line, without terminal control characters."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
