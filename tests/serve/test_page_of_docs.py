"""docs/serve.md and the container file say what the server does."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

pytest.importorskip("served", reason="edgeemo[serve] or httpx is not installed")
from served import PICTURE, TestClient

from edgeemo import cli
from edgeemo.config_file import read_options, write_example
from edgeemo.options import options
from edgeemo.serve.openapi import REASONS
from edgeemo.stages import Serve

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "serve.md").read_text(encoding="utf-8")
CONTAINER = (DOCS / "Containerfile.serve").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def first_column(text: str) -> set[str]:
    """What stands in the first column of tables, in backticks."""
    return {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}


def test_every_route_is_explained(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
    assert routes | {"GET /", "GET /openapi.json", "WebSocket /v1/stream"} == first_column(section("Routes"))


def test_every_status_is_explained() -> None:
    assert [int(status) for status in re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)] == sorted(REASONS)


def test_every_metric_is_explained(client: TestClient) -> None:
    """And no other one."""
    client.post("/v1/predict", content=PICTURE.read_bytes())
    text = client.get("/metrics").text
    samples = set(re.findall(r"^(\w+)[{ ]", text, re.MULTILINE))
    names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples if not name.endswith("_created")}
    assert names == first_column(section("Metrics"))


def test_every_field_of_a_frame_is_explained(client: TestClient) -> None:
    fields: set[str] = set()
    with client.websocket_connect("/v1/stream") as socket:
        for content in (PICTURE.read_bytes(), b"x"):
            socket.send_bytes(content)
            fields |= set(socket.receive_json())
    assert fields == first_column(section("Streams"))


def test_every_option_that_is_named_exists() -> None:
    """Those of curl and docker are not of edgeemo."""
    text = re.sub(r"^(curl|docker|pip).*$", "", PAGE, flags=re.MULTILINE)
    known = {one.flag for one in options(Serve)} | {"--json", "--crop", "--no-augment", "--no-page"}
    assert set(re.findall(r"--[a-z][a-z-]+", text)) <= known


def test_a_printed_configuration_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "serve.toml").write_text(write_example(Serve()), encoding="utf-8")
    read = Serve(**read_options(Serve, tmp_path / "serve.toml"))
    assert read == Serve()


def test_the_container_runs_a_command_that_parses_as_a_user_without_rights() -> None:
    """From all addresses, since loopback inside a container is reached by nobody."""
    words = re.findall(r'"([^"]+)"', re.findall(r"^ENTRYPOINT (.*)$", CONTAINER, re.MULTILINE)[0])
    words += re.findall(r'"([^"]+)"', re.findall(r"^CMD (.*)$", CONTAINER, re.MULTILINE)[0])
    assert words[:2] == ["edgeemo", "serve"]
    command = cli.main.commands["serve"]
    given = command.make_context("serve", words[2:], resilient_parsing=False).params
    assert (given["host"], given["model"], given["port"]) == ("0.0.0.0", "small", 8000)  # noqa: S104
    assert isinstance(command, click.Command)
    assert min(map(int, re.findall(r"^USER (\d+):(\d+)$", CONTAINER, re.MULTILINE)[0])) >= 10_000
    assert "RUN" not in CONTAINER.partition("\nUSER")[2]
    assert f":{given['port']}/health" in CONTAINER
    assert "[serve]" in CONTAINER
