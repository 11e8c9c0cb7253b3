"""The schemas of answers: generated from the encoded classes, with a description for each field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from marketflow.adapters.http.description.values import JSON, Json, ref
from marketflow.adapters.http.kinds import KINDS
from marketflow.app.answers import Candles, Latest, PriceAt, Statistic, Summary
from marketflow.app.interface import ExchangeState, HealthReport, NodeReport
from marketflow.app.share.ledger import FENCED, OVERFLOW, SHUTDOWN
from marketflow.domain.prices import REASONS


def answers(*, in_cluster: bool = False) -> dict[str, Json]:
    """The schemas of whole answers and of their parts, by name.

    `in_cluster`: those of a node of a cluster, which tells more of its health.
    """
    report = NodeReport if in_cluster else HealthReport
    _, classes = msgspec.json.schema_components(
        (Latest, PriceAt, Statistic, Summary, Candles, report, ExchangeState),
        ref_template="#/components/schemas/{name}",
    )
    classes["HealthReport"] = classes.pop(report.__name__)
    more = CLUSTER_WORDS if in_cluster else {}
    for name, schema in classes.items():
        words = {**EVERYWHERE, **WORDS.get(name, {}), **more.get(name, {})}
        schema["properties"] = {
            field: _explained(generated, words[field]) for field, generated in schema["properties"].items()
        }
        # Fields with a default in the class are always encoded, too.
        schema["required"] = list(schema["properties"])
    # Except for this one, which is left out if it has no value.
    classes["Candles"]["required"].remove("known_from")
    return {**classes, **_BY_HAND}


def _explained(generated: Json, words: Json) -> Json:
    """A field's schema with its description. If that has a reference, it replaces the generated schema."""
    if "$ref" in words or "anyOf" in words or "type" in words:
        return words
    return {name: value for name, value in generated.items() if name != "default"} | words


def _number(text: str) -> Json:
    return {"description": text, "minimum": 0}


def _price(text: str) -> Json:
    return {"description": text, "exclusiveMinimum": 0}


def _sum(text: str, *, of: str = "a volume") -> Json:
    return {"description": f"{text}; null if no update has {of}.", "minimum": 0}


def _value(name: str, text: str) -> Json:
    return {**ref(name), "description": text}


def _value_or_null(name: str, text: str) -> Json:
    return {"anyOf": [ref(name), {"type": "null"}], "description": text}


EVERYWHERE: Final[Mapping[str, Json]] = {
    "symbol": _value("Symbol", "The symbol."),
    "exchange": _value_or_null("Exchange", "The requested exchange; null: all exchanges of the mode."),
    "source": _value("Source", "Where the answer comes from."),
    "period": _value_or_null("Period", "The requested period; null: a start was requested."),
    "updates": {"description": "The number of updates in the span.", "minimum": 1},
    "start": _value("Timestamp", "The beginning of the span (inclusive)."),
    "end": _value("Timestamp", "The end of the span (exclusive)."),
    "mode": _value("Mode", "The current mode."),
}
"""The fields that have the same meaning in every schema."""

_VOLUMES: Final[Mapping[str, Json]] = {
    "volume": _sum("What was traded, in the base currency"),
    "quote_volume": _sum("The sum of price times volume"),
    "buy_volume": _sum("The volume of updates whose taker bought", of="a side"),
    "sell_volume": _sum("The volume of updates whose taker sold", of="a side"),
    "volume_updates": _number(
        "The number of updates with a volume. If it is less than `updates`, the volumes are those of a part "
        "of the market."
    ),
    "vwap": {
        "description": "The average price weighted by volume; null if `volume` is null or 0.",
        "exclusiveMinimum": 0,
    },
}

WORDS: Final[Mapping[str, Mapping[str, Json]]] = {
    "Latest": {
        "exchange": _value("Exchange", "The exchange that sent it."),
        "price": _price("The price, as the exchange sent it."),
        "timestamp": _value("Timestamp", "The exchange's own time of the update."),
        "volume": {
            "description": "The volume of this update, in the base currency; null if its exchange did not "
            "send one, or if only the row of its minute is left.",
            "minimum": 0,
        },
    },
    "PriceAt": {
        "exchange": _value("Exchange", "The exchange that sent it."),
        "price": _price("The price, as the exchange sent it."),
        "timestamp": _value("Timestamp", "The exchange's own time of the update."),
        "time": _value("Timestamp", "The requested time; now, if that is yet to come."),
        "resolution": {
            "description": "`exact`, or the length of the bar or row whose close it is, the last one that "
            "ended by the time: `1s`, or the interval of the aggregates.",
            "examples": ["exact", "1s", "1m"],
        },
    },
    "Statistic": {
        "exchange": _value_or_null(
            "Exchange",
            "The exchange with the highest or lowest price. For an average it is the requested exchange; "
            "null: all exchanges of the mode.",
        ),
        "price": _price("The highest or lowest price, or the mean over all updates of the span."),
    },
    "Summary": {
        "average_price": _price("The mean over all updates."),
        "min_price": _price("The lowest price."),
        "max_price": _price("The highest price."),
        "open_price": _price("The first price."),
        "close_price": _price("The last price."),
        **_VOLUMES,
    },
    "Candle": {
        "open": _price("The first price."),
        "high": _price("The highest price."),
        "low": _price("The lowest price."),
        "close": _price("The last price."),
        "average": _price("The mean over all updates."),
        **_VOLUMES,
        "closed": {
            "description": "Whether its end and the grace for late updates have passed. Until then it may "
            "change."
        },
    },
    "Candles": {
        "interval": _value("Interval", "The width of each candle."),
        "candles": {"description": "The oldest first. Intervals without updates have no candle."},
        "next": _value_or_null("Timestamp", "The `start` of the following page; null: there is none."),
        "known_from": _value(
            "Timestamp",
            "Only present if a store is away that may have older candles: the candles are complete from this "
            "time on.",
        ),
    },
    "HealthReport": {
        "status": {
            "description": "`degraded`: a store is away, or a source of the mode is not connected or stale. "
            "`unavailable`: starting, stopping, or nothing can answer."
        },
        "version": {"description": "The version of marketflow."},
        "uptime": _number("Seconds since the start."),
        "redis": _value("StoreHealth", "The store of the last minute's updates and of the last hour's bars."),
        "postgres": _value("StoreHealth", "The store of the aggregates."),
        "exchanges": {
            "description": "The exchanges of both modes, by name; those of the other mode are `off`."
        },
        "updates": _value("Counters", "The counters of all exchanges together."),
    },
    "StoreHealth": {
        "status": {"description": "`away`: it failed or did not answer in time, and has not answered since."},
        "since": _value("Timestamp", "The time since which it has this status."),
        "error": {"description": "Why it is away, or, if it is up, why it refuses all rows."},
    },
    "ExchangeHealth": {
        "status": {
            "description": "`stale`: connected, but without an accepted update for `feeds.stale_after`, or, "
            "of a real exchange, without a sign of life by its own rule. `off`: it belongs to the other mode."
        },
        "last_update_age": _number(
            "Seconds since the receipt of the last accepted update; null: there was none."
        ),
        "reconnects": _number("The number of reconnects since the start."),
        "updates": _value("Counters", "The counters of its lines."),
        "kind": {"description": "Its kind in the configuration."},
        "activity": {"description": "What the connection to a real exchange is doing; null for other kinds."},
        "rejected_symbols": {"description": "Symbols that a real exchange has refused to send."},
        "gaps": _number("Trades that have never come, where the exchange numbers them without gaps."),
        "symbols": {
            "description": "The symbols that a real exchange is asked for, and its names for them; null for "
            "other kinds."
        },
    },
    "ExchangeState": {
        "name": _value("Exchange", "Its configured name."),
        "mode": _value("Mode", "The mode that it belongs to."),
        "status": {"description": "As in the answer of `/health`."},
    },
    "Counters": {
        "received": _number("Received lines."),
        "accepted": _number("Accepted lines."),
        "rejected": {
            "description": "Rejected lines, by reason.",
            "type": "object",
            "propertyNames": {"enum": list(REASONS)},
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
        "cached": _number("Updates that Redis has acknowledged."),
        "expired": _number("Updates that were too old for the window before they could be written to it."),
        "dropped": {
            "description": "Updates dropped while Redis was away, by reason: `overflow`, to keep memory "
            "bounded; `shutdown`, at a stop. Bars still count them.",
            "type": "object",
            "propertyNames": {"enum": [OVERFLOW, SHUTDOWN]},
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
        "pending": _number("Updates that are not in Redis yet."),
    },
}
"""The fields that have a special meaning, by class."""

CLUSTER_WORDS: Final[Mapping[str, Mapping[str, Json]]] = {
    "HealthReport": {
        "node": {"description": "The name of the node that answers. All counters are of this node alone."},
        "role": {
            "description": "Its role: `all` or `ingest`, which take exchanges, or `api`, which takes none."
        },
        "cluster": _value("ClusterState", "What this node has seen last of its cluster."),
    },
    "Counters": {
        "dropped": {
            "description": "Updates dropped, by reason: `overflow`, to keep memory bounded while Redis was "
            "away; `shutdown`, at a stop; `fenced`, when another node took the exchange. Bars still count "
            "those of the first two.",
            "type": "object",
            "propertyNames": {"enum": [OVERFLOW, SHUTDOWN, FENCED]},
            "additionalProperties": {"type": "integer", "minimum": 1},
        },
    },
    "ClusterState": {
        "nodes": {"description": "The nodes, by name; those that were killed lately are among them."},
        "exchanges": {"description": "Which node has which exchange; the exchanges of both modes."},
    },
    "NodeState": {
        "role": {"description": "`all`, `ingest` or `api`."},
        "version": {"description": "Its version of marketflow."},
        "url": {"description": "Where it answers."},
        "heard": _number("Seconds since it was last heard of. From a node that lives that is each second."),
    },
    "Ownership": {
        "owner": {"description": "The name of the node that has the exchange; null: none has it."},
        "epoch": _number("It grows each time that a node takes the exchange; 0: none ever had it."),
        "since": _value_or_null(
            "Timestamp", "Since when the answering node knows of that; null: none ever had it."
        ),
    },
}
"""More fields, and other meanings, in the answers of a node of a cluster."""


def _object(description: str, properties: Json, *, optional: tuple[str, ...] = ()) -> Json:
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def _list(name: str, of: str, description: str) -> Json:
    return _object(description, {name: {"type": "array", "items": ref(of)}})


_BY_HAND: Final[Mapping[str, Json]] = {
    "LatestList": _list("prices", "Latest", "The newest update of each exchange and symbol that has any."),
    "SummaryList": _list("prices", "Summary", "One for each symbol that has updates in the span."),
    "StatisticList": _list("prices", "Statistic", "One for each symbol that has updates in the span."),
    "Symbols": _list("symbols", "Symbol", "The configured symbols."),
    "Exchanges": _list("exchanges", "ExchangeState", "The exchanges of both modes."),
    "ModeState": _object(
        "The mode, and whether this request has changed it.",
        {
            "mode": _value("Mode", "The mode from now on."),
            "changed": {"type": "boolean", "description": "Whether it was another one before."},
        },
    ),
    "Probe": _object("The check has passed.", {"status": {"const": "ok"}}),
    "Problem": _object(
        "Why there is no answer (RFC 9457).",
        {
            "type": {
                "type": "string",
                "format": "uri-reference",
                "description": "The kind of problem, for programs: a path that explains it.",
                "enum": [kind.type for kind in KINDS.values()],
            },
            "title": {"type": "string", "description": "The kind of problem, for people."},
            "status": {"type": "integer", "minimum": 400, "maximum": 599, "description": "The HTTP status."},
            "detail": {"type": "string", "description": "What is wrong with this request."},
            "allowed": {
                "type": "array",
                "items": {"type": "string"},
                "description": "The accepted values, if they can be listed.",
            },
        },
        optional=("allowed",),
    ),
    "ProblemKind": _object(
        "A kind of problem, and what it means.",
        {
            "type": {"type": "string", "format": "uri-reference"},
            "title": {"type": "string"},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "meaning": {"type": "string", "description": "What is wrong, and what to do about it."},
        },
    ),
    "Description": _object(
        "An OpenAPI document.",
        {
            "openapi": {"type": "string", "pattern": "^3\\.1\\."},
            "info": {"type": "object"},
            "paths": {"type": "object"},
        },
    ),
    "Event": _object(
        "An event of the stream: the fields of a Server-Sent Event.",
        {
            "event": {"const": "price"},
            "id": {"type": "string", "pattern": "^[0-9]+$", "description": "Grows from event to event."},
            "data": {"type": "string", "contentMediaType": JSON, "contentSchema": ref("Latest")},
        },
    ),
    "Metrics": {"description": "One line for each series.", "type": "string"},
    "Text": {"type": "string"},
    "ProblemKinds": _list("problems", "ProblemKind", "All kinds of problems that this service answers with."),
}
