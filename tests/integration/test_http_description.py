"""The description has every route, parameter, answer and problem, and no others."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import jsonschema_rs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_http_fakes import Questions

from marketflow.adapters.http.description.document import document
from marketflow.adapters.http.description.examples import examples as made_examples
from marketflow.adapters.http.description.operations import TAGS
from marketflow.adapters.http.description.page import FILES
from marketflow.adapters.http.description.schemas import CLUSTER_WORDS, EVERYWHERE, WORDS
from marketflow.adapters.http.kinds import KINDS
from marketflow.domain.periods import BadPeriod, parse_period

METHODS = {"GET", "HEAD", "OPTIONS"}
DOCUMENT = document(
    symbols=["BTCUSDT", "ETHUSDT"],
    exchanges=["exchange1", "exchange2", "test1"],
    assets=["index-0a1b.js"],
    guarded=True,
)
COMPONENTS = DOCUMENT["components"]
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
JSON = "application/json"
STRICT = [key for key in OPERATIONS if key[1] not in {"/ws", "/", "/assets/{name}"}]
"""Without /ws, which has no answer to plain HTTP, and without pages, whose links may have any parameters."""


def resolved(value):
    """The target of a reference."""
    if "$ref" not in value:
        return value
    _, _, kind, name = value["$ref"].split("/")
    return COMPONENTS[kind][name]


def errors(value, schema):
    """The places where a value does not match a schema of the document."""
    whole = {**schema, "components": COMPONENTS}
    return [str(error) for error in jsonschema_rs.Draft202012Validator(whole).iter_errors(value)]


def everything_in(value):
    """All objects in a document, at any depth."""
    if isinstance(value, dict):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from everything_in(each)


def path_of(path):
    """A path with its parameters filled in."""
    given = {
        parameter["name"]: parameter["example"]
        for parameter in COMPONENTS["parameters"].values()
        if parameter["in"] == "path"
    }
    return path.format_map(given)


def asked(path):
    """A request with all that it needs."""
    return path_of(path) + ("?time=1795343351549" if path.startswith("/prices/at/") else "")


def test_every_route_is_described_and_there_is_no_other():
    routes = {
        (method, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule))
        for rule in Questions().app().url_map.iter_rules()
        if not rule.websocket
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    assert set(OPERATIONS) == routes


def test_websockets_are_described():
    """They have the status of a protocol change, since OpenAPI has no other way."""
    websockets = {rule.rule for rule in Questions().app().url_map.iter_rules() if rule.websocket}
    described = {path for (_, path), operation in OPERATIONS.items() if "101" in operation["responses"]}
    assert described == websockets


@pytest.mark.parametrize(("method", "path"), STRICT)
async def test_every_parameter_is_described_and_there_is_no_other(client, method, path):
    """The error about an unknown parameter lists all parameters of the route."""
    answer = await client.open(path_of(path) + "?no-such=1", method=method)
    problem = await answer.get_json(force=True)
    assert problem["type"] == "/problems/unknown-parameter"
    parameters = [resolved(parameter) for parameter in OPERATIONS[method, path]["parameters"]]
    assert sorted(problem["allowed"]) == sorted(p["name"] for p in parameters if p["in"] == "query")
    assert re.findall(r"{(\w+)}", path) == [p["name"] for p in parameters if p["in"] == "path"]


def test_every_kind_of_problem_is_described_and_there_is_no_other():
    kinds = {
        kind: int(status)
        for responses in [
            *(operation["responses"] for operation in OPERATIONS.values()),
            {"405": COMPONENTS["responses"]["405"]},
        ]
        for status, response in responses.items()
        for kind in resolved(response)
        .get("content", {})
        .get("application/problem+json", {})
        .get("examples", ())
    }
    assert kinds == {kind.name: kind.status for kind in KINDS.values()}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_type_of_a_problem_tells_what_it_means(client, kind):
    answer = await client.get(KINDS[kind].type)
    assert answer.status_code == 200
    assert errors(await answer.get_json(), COMPONENTS["schemas"]["ProblemKind"]) == []


async def test_there_is_no_other_kind_of_problem(client):
    answer = await client.get("/problems/no-such")
    assert (await answer.get_json(force=True))["allowed"] == list(KINDS)
    assert answer.status_code == 404


def test_all_that_is_referred_to_is_there_and_referred_to():
    """All components are used, except for the answer to wrong methods, which every path has."""
    used = {each["$ref"] for each in everything_in(DOCUMENT) if "$ref" in each}
    there = {f"#/components/{kind}/{name}" for kind, named in COMPONENTS.items() for name in named}
    assert there - used == {"#/components/responses/405", "#/components/securitySchemes/bearer"}
    assert used <= there


def test_every_field_has_words_and_no_words_are_left_over():
    classes = {name: COMPONENTS["schemas"][name] for name in WORDS}
    fields = {(name, field) for name, schema in classes.items() for field in schema["properties"]}
    own = {(name, field) for name, words in WORDS.items() for field in words}
    assert own <= fields
    assert {field for _, field in fields - own} == set(EVERYWHERE)
    for schema in classes.values():
        for field in schema["properties"].values():
            assert field["description"].endswith(".")


def test_a_cluster_is_described_where_there_is_one():
    """Its fields are in the schema and in the example of a node, and not in those of a single service."""
    of_node = document(
        symbols=["BTCUSDT"], exchanges=["exchange1"], assets=["index-0a1b.js"], guarded=False, in_cluster=True
    )
    schemas = of_node["components"]["schemas"]
    health = of_node["paths"]["/health"]["get"]["responses"]["200"]["content"][JSON]
    closed = {
        name: {**schema, "additionalProperties": False} if "properties" in schema else schema
        for name, schema in schemas.items()
    }

    validator = jsonschema_rs.Draft202012Validator({**health["schema"], "components": {"schemas": closed}})

    assert [str(error) for error in validator.iter_errors(health["example"])] == []
    assert (
        health["example"].keys() - {"node", "role", "cluster"}
        == COMPONENTS["schemas"]["HealthReport"]["properties"].keys()
    )
    for name, words in CLUSTER_WORDS.items():
        for field in words:
            assert schemas[name]["properties"][field]["description"].endswith(".")
    assert "fenced" in str(schemas["Counters"])
    assert "fenced" not in str(COMPONENTS["schemas"]["Counters"])


def test_operations_are_in_order():
    assert {tag for operation in OPERATIONS.values() for tag in operation["tags"]} == set(TAGS)
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(ids) == len(set(ids))


def test_examples_of_volumes_fit_together():
    made = made_examples("BTCUSDT", "exchange1")
    for answer in (made["Summary"], *made["Candles"]["candles"]):
        assert answer["volume_updates"] == answer["updates"]
        assert answer["buy_volume"] + answer["sell_volume"] == answer["volume"]
        assert answer["vwap"] == answer["quote_volume"] / answer["volume"]


def test_every_example_is_as_its_schema_says():
    shown = 0
    for operation in OPERATIONS.values():
        for response in map(resolved, operation["responses"].values()):
            for media in response.get("content", {}).values():
                examples = [resolved(each)["value"] for each in media.get("examples", {}).values()]
                examples += [media["example"]] if "example" in media else []
                for value in examples:
                    assert errors(value, media["schema"]) == []
                    shown += 1
    for parameter in COMPONENTS["parameters"].values():
        if "example" in parameter:
            assert errors(parameter["example"], parameter["schema"]) == []
            shown += 1
    assert shown > 100


@pytest.mark.parametrize(
    ("method", "path"),
    [
        key
        for key, operation in OPERATIONS.items()
        if JSON in operation["responses"].get("200", {}).get("content", {})
    ],
)
async def test_every_answer_is_as_described_and_has_nothing_more(client, method, path):
    answer = await client.open(asked(path), method=method)
    assert answer.status_code == 200
    media = OPERATIONS[method, path]["responses"]["200"]["content"][answer.content_type]
    closed = {
        name: {**schema, "additionalProperties": False}
        if "properties" in schema and name != "Description"
        else schema
        for name, schema in COMPONENTS["schemas"].items()
    }
    validator = jsonschema_rs.Draft202012Validator({**media["schema"], "components": {"schemas": closed}})
    assert [str(error) for error in validator.iter_errors(await answer.get_json())] == []


PERIOD = COMPONENTS["schemas"]["Period"]


@given(st.from_regex(r"[0-9]{0,10}[smhdx]?", fullmatch=True))
@example("2592000s")
@example("2592001s")
@example("43200m")
@example("43201m")
@example("720h")
@example("721h")
@example("30d")
@example("31d")
@example("0d")
@example("000000030d")
@example("0000000030d")
def test_a_period_is_described_exactly(text):
    try:
        parse_period(text)
    except BadPeriod:
        assert errors(text, PERIOD) != []
    else:
        assert errors(text, PERIOD) == []


async def test_symbols_and_exchanges_are_those_of_the_service(client):
    described = await (await client.get("/openapi.json")).get_json()
    assert described["openapi"].startswith("3.1.")
    assert described["servers"][0]["url"] == "/"
    schemas = described["components"]["schemas"]
    assert schemas["Symbol"]["enum"] == ["BTCUSDT", "ETHUSDT"]
    assert schemas["Exchange"]["enum"] == ["exchange1", "exchange2", "test1"]


async def test_a_token_is_described_where_there_is_one(client):
    unguarded = await (await client.get("/openapi.json")).get_json()
    assert "security" not in unguarded["paths"]["/mode/test"]["post"]
    guarded = {
        path for path, methods in DOCUMENT["paths"].items() for each in methods.values() if "security" in each
    }
    assert guarded == {"/mode/live", "/mode/test"}


class References(HTMLParser):
    """The files that a page loads."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.inline = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.found += [given[name] for name in ("src", "href") if name in given]
        self.inline += [tag for name in given if name.startswith("on") or name == "style"]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


async def test_the_page_comes_from_here_alone(client):
    answer = await client.get("/docs")
    assert (answer.status_code, answer.content_type) == (200, "text/html")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    page = References(await answer.get_data(as_text=True))
    assert page.inline == []
    wanted = {*page.found} - {"data:,", "openapi.json"}
    assert wanted == {f"docs/{name}" for name in FILES}


@pytest.mark.parametrize("name", FILES)
async def test_the_files_of_the_page_are_there(client, name):
    answer = await client.get(f"/docs/{name}")
    assert (answer.status_code, answer.content_type) == (200, FILES[name].media)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert len(await answer.get_data(as_text=False)) > 10


@pytest.mark.parametrize("name", ["no-such.js", "__init__.py", "..", "%2e%2e", "..%2fpage.py"])
async def test_there_is_no_other_file(client, name):
    assert (await client.get(f"/docs/{name}")).status_code == 404
