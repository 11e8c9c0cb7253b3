"""Lists as JSON, or as CSV for spreadsheets and data frames."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from csv import writer as csv_writer
from typing import Any, Final

import attrs
from quart import request
from quart.wrappers import Response
from quart_trio.wrappers import TrioResponse

from marketflow.adapters.http.parameters import choice
from marketflow.adapters.http.responses import as_json, encoded

FORMAT: Final = "format"
"""The parameter of every route that answers with a list."""
FORMATS: Final = ("json", "csv")
CSV: Final = "text/csv"
_JSON: Final = "application/json"


def wants_csv(given: Mapping[str, str]) -> bool:
    """Whether the request asks for CSV: by the parameter, else by its `Accept` header.

    Raises:
        BadParameter: the format is unknown.
    """
    if FORMAT in given:
        return choice(FORMAT, given[FORMAT], FORMATS) == "csv"
    offered: dict[str, float] = {}
    for written, quality in request.accept_mimetypes:
        offered.setdefault(written.partition(";")[0].strip().lower(), quality)
    any_type = max((offered.get(name, 0) for name in ("*/*", "application/*")), default=0)
    wanted = offered.get(CSV, 0)
    return wanted > offered.get(_JSON, 0) and wanted >= any_type


def as_list(name: str, rows: Sequence[Any], columns: type | Sequence[str], *, csv: bool) -> Response:
    """A list: `{"name": [...]}`, or in CSV a line for each row.

    Args:
        name: of the list in JSON.
        rows: attrs objects, or plain values if there is one column.
        columns: the class of the rows, or the names of the columns.
        csv: whether it was asked for as CSV.
    """
    return as_csv(rows, columns) if csv else in_json({name: rows})


def in_json(value: object) -> Response:
    """An answer as JSON that is also there as CSV."""
    return _by_accept(as_json(value))


def as_csv(rows: Iterable[Any], columns: type | Sequence[str]) -> Response:
    """A line with the names of the columns, then one for each row (RFC 4180).

    Values are written as in JSON: floats exactly, truth values as `true` and `false`. What is null in JSON is
    empty.
    """
    names = [field.name for field in attrs.fields(columns)] if isinstance(columns, type) else columns
    text = io.StringIO()
    writer = csv_writer(text)
    writer.writerow(names)
    for row in rows:
        values = [getattr(row, name) for name in names] if attrs.has(type(row)) else [row]
        writer.writerow(map(_cell, values))
    kind = f"{CSV}; charset=utf-8; header=present"
    return _by_accept(TrioResponse(text.getvalue(), content_type=kind))


def _by_accept(response: Response) -> Response:
    response.vary.add("Accept")
    return response


def _cell(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else encoded(value).decode()
