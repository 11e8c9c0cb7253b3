"""The files of deploy/, as far as they can be checked without Docker and systemd."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import yaml
from dockerfile_parse import DockerfileParser
from dotenv import dotenv_values

from marketflow.cli import commands
from marketflow.commands.options import Run
from marketflow.config import Settings, load
from marketflow.config.settings import HttpSettings, PostgresSettings, RedisSettings
from marketflow.service import serve

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
EXAMPLE = dotenv_values(DEPLOY / ".env.example")
UNIT = DEPLOY / "marketflow.service"

MOST_EXPOSED = 1.5
"""The highest exposure level (0 to 10) that systemd may give the unit."""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def interpolated(value: object, variables: dict[str, str]) -> str:
    """A value of the compose file, with `${NAME:-default}` and `${NAME:?message}` filled in."""
    return re.sub(
        r"\$\{(\w+):([-?])([^}]*)\}",
        lambda found: variables.get(found[1]) or (found[3] if found[2] == "-" else f"<{found[1]}>"),
        str(value),
    )


# ---- Dockerfile ----


@pytest.fixture(scope="module")
def instructions() -> list[dict[str, str]]:
    """The instructions of the Dockerfile, in order."""
    with (DEPLOY / "Dockerfile").open("rb") as file:
        return DockerfileParser(fileobj=file).structure


@pytest.fixture
def final(instructions: list[dict[str, str]]) -> dict[str, str]:
    """The last of each instruction of the final stage."""
    begin = max(number for number, each in enumerate(instructions) if each["instruction"] == "FROM")
    return {each["instruction"]: each["value"] for each in instructions[begin:]}


@pytest.fixture
def image_environment(final: dict[str, str]) -> dict[str, str]:
    """The variables that the image sets."""
    return dict(pair.split("=", 1) for pair in shlex.split(final["ENV"]))


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint has no wheel for this machine")
def test_dockerfile_is_sound() -> None:
    done = run("hadolint", "--failure-threshold", "style", DEPLOY / "Dockerfile")

    assert (done.returncode, done.stdout) == (0, "")


def test_container_runs_without_privileges_and_hears_sigterm(final: dict[str, str]) -> None:
    """The user is a number, which is visibly not root; no shell is between the signal and the program."""
    user, _, group = final["USER"].partition(":")

    assert int(user) > 0
    assert int(group) > 0
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(final["ENTRYPOINT"]) == ["marketflow"]
    assert json.loads(final["CMD"])[0] == "serve"


def test_builder_is_given_what_it_copies_and_nothing_else(instructions: list[dict[str, str]]) -> None:
    """.dockerignore admits what the Dockerfile copies from the checkout, and no more."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        source.split("/")[0]
        for each in instructions
        if each["instruction"] == "COPY" and "--from" not in each["value"]
        for source in each["value"].split()[:-1]
    }

    assert "*" in lines
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_image_sets_known_keys(image_environment: dict[str, str], tmp_path: Path) -> None:
    settings = load(None, {}, image_environment, tmp_path).settings

    assert settings.http.host == "0.0.0.0"
    assert settings.state_dir == Path("/var/lib/marketflow")


async def test_health_check_tells_a_service_that_runs(
    final: dict[str, str],
    image_environment: dict[str, str],
    redis_url: str,
    postgres_dsn: str,
    tmp_path: Path,
) -> None:
    """It works even if the environment names a proxy."""
    command = json.loads(final["HEALTHCHECK"].partition(" CMD ")[2])
    settings = Settings(
        mode="test",
        http=HttpSettings(port=0),
        redis=RedisSettings(url=redis_url),
        postgres=PostgresSettings(dsn=postgres_dsn),
        state_dir=tmp_path,
    )

    async def check(port: str) -> int:
        assert command[0] == "python"
        done = await trio.run_process(
            [sys.executable, *command[1:]],
            env=os.environ
            | image_environment
            | {"PATH": os.environ["PATH"], "MARKETFLOW_HTTP__PORT": port, "http_proxy": "http://127.0.0.1:9"},
            check=False,
            capture_stderr=True,
        )
        return done.returncode

    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        service = await nursery.start(serve, settings, stopping)
        port = service.url.rpartition(":")[2]
        try:
            while_it_runs = await check(port)
        finally:
            stopping.set()

    assert (while_it_runs, await check(port)) == (0, 1)


# ---- compose.yaml ----


def test_compose_file_is_of_the_specification() -> None:
    done = run(
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        DEPLOY / "compose.yaml",
    )

    assert done.returncode == 0, done.stdout


def test_example_has_the_variables_of_the_compose_file() -> None:
    """Required variables are empty, the others have their default."""
    wanted = {
        name: default if kind == "-" else ""
        for name, kind, default in re.findall(r"\$\{(\w+):([-?])([^}]*)\}", json.dumps(COMPOSE))
    }

    assert wanted == EXAMPLE


def test_compose_file_holds_no_secret() -> None:
    secrets = {
        f"{service}: {name}": value
        for service, each in SERVICES.items()
        for name, value in each.get("environment", {}).items()
        if re.search("PASSWORD|TOKEN|AUTH|SECRET", name)
    }

    assert secrets
    assert [name for name, value in secrets.items() if not re.fullmatch(r"\$\{\w+:[?-][^}]*\}", value)] == []
    assert "deploy/.env" in {"deploy/" + line for line in (ROOT / ".gitignore").read_text().splitlines()}


def test_compose_gives_known_keys(image_environment: dict[str, str], tmp_path: Path) -> None:
    """Its variables for marketflow, with those of the image, are a valid configuration."""
    variables = {name: value or f"secret of {name}" for name, value in EXAMPLE.items() if "TOKEN" not in name}
    given = {
        name: interpolated(value, variables) for name, value in SERVICES["marketflow"]["environment"].items()
    }

    settings = load(None, {}, image_environment | given, tmp_path).settings

    assert settings.redis.password == "secret of REDIS_PASSWORD"  # noqa: S105
    assert settings.postgres.password == "secret of POSTGRES_PASSWORD"  # noqa: S105
    assert settings.http.token is None
    assert {settings.redis.host, settings.postgres.host} <= SERVICES.keys()
    assert [(each.host, each.port) for each in settings.exchanges] == [
        ("host.docker.internal", port) for port in (40101, 40102, 40103)
    ]
    shutdown = settings.shutdown_timeout / 1_000
    assert float(SERVICES["marketflow"]["stop_grace_period"].removesuffix("s")) > shutdown + 6


def test_compose_publishes_to_this_machine_only() -> None:
    ports = [port for each in SERVICES.values() for port in each.get("ports", ())]

    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []
    assert not {"redis", "postgres"} & {name for name, each in SERVICES.items() if "ports" in each}
    assert COMPOSE["networks"]["stores"] == {"internal": True}


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_pinned_watched_and_comes_back(name: str) -> None:
    """Mounts exist, too: each is a declared volume or a file of deploy/."""
    service = SERVICES[name]
    volumes = {mount.split(":")[0] for mount in service.get("volumes", ())}

    assert "build" in service or re.search(r":v?\d", service["image"]), "an image without a version"
    assert "build" in service or "healthcheck" in service
    assert service["restart"] == "unless-stopped"
    gone = [
        source
        for source in volumes
        if not ((DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"])
    ]
    assert gone == []


def test_prometheus_scrapes_the_same() -> None:
    """The compose file repeats prometheus.yml, except for the address."""
    own = yaml.safe_load(COMPOSE["configs"]["prometheus"]["content"])
    shipped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text(encoding="utf-8"))
    assert shipped["scrape_configs"][0]["static_configs"] == [{"targets": ["127.0.0.1:8080"]}]
    shipped["scrape_configs"][0]["static_configs"] = [{"targets": ["marketflow:8080"]}]

    assert own == shipped


def test_redis_is_as_the_documents_want_it() -> None:
    """It does not evict, and keeps its data over a restart."""
    command = SERVICES["redis"]["command"]

    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"


# ---- a cluster ----

CLUSTER = yaml.safe_load((DEPLOY / "compose.cluster.yaml").read_text(encoding="utf-8"))
NODES = {name: each for name, each in CLUSTER["services"].items() if each["image"] == "marketflow"}
KUBERNETES = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))
DEPLOYMENTS = [each for each in KUBERNETES if each["kind"] == "Deployment"]


def test_compose_file_of_a_cluster_is_of_the_specification() -> None:
    file = DEPLOY / "compose.cluster.yaml"
    done = run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file)

    assert done.returncode == 0, done.stdout


def test_compose_file_of_a_cluster_gives_known_keys(
    image_environment: dict[str, str], tmp_path: Path
) -> None:
    """The variables of each node are a valid configuration of a node, with a name and a state of its own."""
    variables = {name: value or f"secret of {name}" for name, value in EXAMPLE.items() if "TOKEN" not in name}
    made: list[Settings] = []
    for node in NODES.values():
        given = {name: interpolated(value, variables) for name, value in node["environment"].items()}
        made.append(load(None, {}, image_environment | given, tmp_path).settings)

    assert [settings.cluster.role for settings in made] == ["ingest", "ingest", "api"]
    assert all(settings.cluster.enabled for settings in made)
    assert [settings.cluster.node for settings in made] == list(NODES)
    assert [node["volumes"] for node in NODES.values()] == [[f"{name}:/var/lib/marketflow"] for name in NODES]
    assert {settings.exchanges for settings in made} == {made[0].exchanges}
    assert all(settings.redis.host in CLUSTER["services"] for settings in made)


def test_compose_file_of_a_cluster_shares_its_parts_with_the_other() -> None:
    for name in ("redis", "postgres"):
        assert CLUSTER["services"][name] == SERVICES[name]
    ports = [port for each in CLUSTER["services"].values() for port in each.get("ports", ())]
    assert ports == ["127.0.0.1:8080:8080"]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda each: each["metadata"]["name"])
def test_kubernetes_gives_known_keys(
    deployment: dict[str, Any], image_environment: dict[str, str], tmp_path: Path
) -> None:
    """The map, the pod's variables and the arguments are a valid configuration of a node."""
    (shared,) = (each["data"] for each in KUBERNETES if each["kind"] == "ConfigMap")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    own = {each["name"]: "of-the-pod" for each in container["env"]}
    role = container["args"][container["args"].index("--role") + 1]

    settings = load(None, {"cluster.role": role}, image_environment | shared | own, tmp_path).settings

    assert (settings.cluster.enabled, settings.cluster.role, settings.cluster.node) == (
        True,
        role,
        "of-the-pod",
    )
    assert {settings.redis.password, settings.postgres.password, settings.http.token} == {"of-the-pod"}
    assert pod["terminationGracePeriodSeconds"] > settings.shutdown_timeout / 1_000 + 6
    assert {each["mountPath"] for each in container["volumeMounts"]} == {
        str(settings.state_dir),
        "/tmp",  # noqa: S108
    }
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
    assert [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")] == [
        "/health/live",
        "/health/live",
    ]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert container["ports"] == [{"name": "http", "containerPort": settings.http.port}]


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda each: each["metadata"]["name"])
def test_kubernetes_starts_a_command_that_there_is(deployment: dict[str, Any], final: dict[str, str]) -> None:
    """The pod's arguments follow the image's entry point; every option is known, with a valid value."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    name, *options = container["args"]

    context = commands.commands[name].make_context(name, options, obj=Run())

    assert "command" not in container
    assert json.loads(final["ENTRYPOINT"]) == ["marketflow"]
    assert context.args == []


def test_image_starts_a_command_that_there_is(final: dict[str, str]) -> None:
    name, *options = json.loads(final["CMD"])

    assert commands.commands[name].make_context(name, options, obj=Run()).args == []


@pytest.mark.parametrize("node", NODES)
def test_node_of_the_compose_file_starts_as_the_image_does(node: str) -> None:
    """The environment has its role. Another command would need a test of its own."""
    assert not {"command", "entrypoint", "healthcheck"} & NODES[node].keys()


def test_kubernetes_parts_find_each_other() -> None:
    """Selectors fit the labels of pods, and each deployment keeps pods while machines are emptied."""
    labels = [each["spec"]["template"]["metadata"]["labels"] for each in DEPLOYMENTS]
    budgets = [
        each["spec"]["selector"]["matchLabels"]
        for each in KUBERNETES
        if each["kind"] == "PodDisruptionBudget"
    ]
    (service,) = (each["spec"] for each in KUBERNETES if each["kind"] == "Service")

    assert [each["spec"]["selector"]["matchLabels"] for each in DEPLOYMENTS] == labels == budgets
    assert service["selector"] == labels[1]
    assert [each["metadata"]["labels"] for each in DEPLOYMENTS] == labels
    names = {each["metadata"]["name"] for each in KUBERNETES if each["kind"] == "ConfigMap"}
    sources = [each["spec"]["template"]["spec"]["containers"][0]["envFrom"] for each in DEPLOYMENTS]
    assert all(source == [{"configMapRef": {"name": name}}] for source in sources for name in names)


# ---- systemd ----

PRETENDED = {
    "python3": """test "$1 $2" = "-m venv" && mkdir -p "$3/bin" && cp "$PRETENDED"/* "$3/bin/\"""",
    "pip": """for name; do test "$name" != . || cp -r "$PAGE" "$(dirname "$0")/../installed\"; done""",
    "nox": """test "$*" = "-s dashboard" && mkdir -p "$PAGE" && touch "$PAGE/index.html\"""",
}
"""Fake programs for the recipe: one builds the dashboard, one installs what is built by then."""


def test_recipe_installs_the_dashboard(tmp_path: Path) -> None:
    """The script of the first step runs with programs that only pretend to build and to install."""
    text = (DEPLOY / "README.md").read_text(encoding="utf-8").partition("\n## Under systemd")[2]
    (script, *_) = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    pretended = tmp_path / "pretended"
    pretended.mkdir()
    for name, does in PRETENDED.items():
        (pretended / name).write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        (pretended / name).chmod(0o755)
    page = tmp_path / "marketflow" / "adapters" / "http" / "dashboard" / "dist"
    home = tmp_path / "opt"

    done = subprocess.run(
        ["sh", "-e", "-c", script.replace("/opt/marketflow", str(home))],
        cwd=tmp_path,
        env={"PATH": f"{pretended}:{os.environ['PATH']}", "PRETENDED": str(pretended), "PAGE": str(page)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert (home / "installed" / "index.html").exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_unit_is_valid(tmp_path: Path) -> None:
    """The unit passes systemd's check, with an existing program in place of marketflow."""
    text = UNIT.read_text(encoding="utf-8")
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("/opt/marketflow/bin/marketflow", "/bin/true"), encoding="utf-8")

    done = run("systemd-analyze", "verify", "--man=no", unit)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_unit_is_hardened() -> None:
    done = run("systemd-analyze", "security", "--offline=true", "--no-pager", UNIT)

    found = re.search(r"exposure level for marketflow\.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED


def test_unit_sets_known_keys(tmp_path: Path) -> None:
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    given = dict(
        line.removeprefix("Environment=").replace("%S", "/var/lib").split("=", 1)
        for line in lines
        if line.startswith("Environment=")
    )

    loaded = load(None, {}, given, tmp_path)

    assert loaded.settings == attrs.evolve(Settings(), state_dir=Path("/var/lib/marketflow"))
    (seconds,) = (line.partition("=")[2] for line in lines if line.startswith("TimeoutStopSec="))
    assert float(seconds) > loaded.settings.shutdown_timeout / 1_000 + 6
