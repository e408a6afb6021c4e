"""The page at /: files of edgeemo.web, with their own policy, and none where nobody may have the model."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

served = pytest.importorskip("served", reason="edgeemo[serve] or httpx is not installed")
from served import serving  # noqa: E402

from edgeemo.errors import MachineError  # noqa: E402
from edgeemo.runtime import Model, shipped  # noqa: E402
from edgeemo.serve import page  # noqa: E402
from edgeemo.serve.keys import make_key  # noqa: E402
from edgeemo.web import pages  # noqa: E402


@pytest.fixture(autouse=True)
def without_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """onnxruntime-web is not needed to serve its files: empty ones stand for it."""
    for name in pages.FILES:
        (tmp_path / name).write_bytes(b"runtime")
    monkeypatch.setattr(pages, "find_runtime", lambda: tmp_path)


def test_every_file_of_the_page_is_served_with_its_type_and_policy() -> None:
    with serving() as (client, service):
        listed = pages.list_pages(service.models.current)
        assert {"", "index.html", "models.json", "models/nano.onnx", "models/nano.onnx.json"} <= set(listed)
        for path, file in listed.items():
            answer = client.get(f"/{path}")
            assert (answer.status_code, answer.content) == (200, file.read()), path
            assert answer.headers["content-type"] == file.media_type
            for name, value in pages.HEADERS.items():
                assert answer.headers.get_list(name) == [value], (path, name)
        assert client.head("/").status_code == 200
        assert client.get("/models/../../pyproject.toml").status_code == 404
        assert "/models/nano.onnx" not in client.get("/openapi.json").json()["paths"]


def test_the_model_of_the_page_is_the_one_that_serves() -> None:
    with serving() as (client, _):
        assert client.get("/models/nano.onnx").content == shipped.find("nano").read_bytes()


def test_there_is_no_page_where_it_is_not_wanted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And with API keys none, because it would hand out the model."""
    caplog.set_level(logging.INFO, logger="edgeemo.serve")
    with serving(page=False) as (client, _):
        assert client.get("/").status_code == 404
    key, line = make_key("a")
    (tmp_path / "keys").write_text(line)
    with serving(api_keys=tmp_path / "keys") as (client, _):
        for path in ("/", "/models/nano.onnx"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"X-API-Key": key}).status_code == 404
    assert "no page at /: with --api-keys" in caplog.text


def test_a_page_that_cannot_be_served_costs_no_api(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says what is missing."""

    def fail(_: Model) -> None:
        raise MachineError("onnxruntime-web was not fetched")

    caplog.set_level(logging.INFO, logger="edgeemo.serve")
    monkeypatch.setattr(page, "list_pages", fail)
    with serving() as (client, _):
        assert client.get("/").status_code == 404
        assert client.get("/health").status_code == 200
    assert "no page at /: onnxruntime-web was not fetched" in caplog.text
