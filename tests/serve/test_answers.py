"""What the server answers: the JSON of `edgeemo predict --json`, or an error in a sentence."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from edgeemo.card import read_card
from edgeemo.predict.run import run as predict
from edgeemo.runtime import Model, shipped
from edgeemo.stages import Predict

served = pytest.importorskip("served", reason="edgeemo[serve] or httpx is not installed")
from served import CROP, FIXTURES, PICTURE, TestClient, serving, wait_until  # noqa: E402

from edgeemo.serve.guard import Guard  # noqa: E402

PICTURES = sorted((FIXTURES / "pictures").glob("*.png"))


def expect(file: Path, **options: Any) -> dict[str, Any]:
    """Return what `edgeemo predict` answers, under the name of an image without one."""
    answer: dict[str, Any] = json.loads(predict(Predict((file,), model="nano", **options)).to_json())
    return {**answer, "image": "image"}


@pytest.mark.parametrize("file", PICTURES, ids=lambda file: file.stem)
def test_a_picture_is_answered_as_predict_answers_it(file: Path, client: TestClient) -> None:
    answer = client.post("/v1/predict", content=file.read_bytes())
    assert answer.status_code == 200, answer.text
    assert answer.json() == expect(file)


def test_options_of_a_request_are_those_of_predict(client: TestClient) -> None:
    answer = client.post("/v1/predict?faces=many&augment=false", content=PICTURE.read_bytes())
    assert answer.json() == expect(PICTURE, faces="many", augment=False)


@pytest.mark.parametrize("delay", [0.0, 20.0])
def test_a_ready_crop_is_answered_as_predict_answers_it(delay: float) -> None:
    """Also where crops of several requests share a call."""
    with serving(batch_delay=delay) as (client, _):
        assert client.post("/v1/crop", content=CROP.read_bytes()).json() == expect(CROP, crop=True)
        assert client.post("/v1/predict", content=PICTURE.read_bytes()).json() == expect(PICTURE)


def test_a_form_carries_an_image_with_its_name(client: TestClient) -> None:
    """Of the name only the last part, without control characters."""
    answer = client.post("/v1/predict", files={"any": ("C:\\photos\\me\n.png", PICTURE.read_bytes())})
    assert answer.status_code == 200
    assert answer.json()["image"] in ("me\\x0a.png", "me%0A.png")


def test_each_image_of_several_has_its_own_answer_or_error(client: TestClient) -> None:
    files = [
        ("a", ("one.png", PICTURE.read_bytes())),
        ("a", ("two.png", b"no image")),
        ("b", ("x", PICTURE.read_bytes())),
    ]
    first, second, third = client.post("/v1/predict/batch", files=files).json()["images"]
    assert first == {**expect(PICTURE), "image": "one.png"}
    assert second["image"] == "two.png"
    assert (second["error"]["status"], "not an image" in second["error"]["detail"]) == (422, True)
    assert third["faces"] == first["faces"]


def make_huge_png() -> bytes:
    """Return a PNG whose header says 30000x30000, and that has no pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


REFUSED: list[tuple[str, dict[str, Any], int, str]] = [
    ("/v1/predict", {"content": b""}, 422, "empty"),
    ("/v1/predict", {"content": b"hello"}, 422, "expected a PNG, JPEG, WebP or BMP"),
    ("/v1/predict", {"content": PICTURE.read_bytes()[:-20]}, 422, "image"),
    ("/v1/predict", {"content": make_huge_png()}, 422, "30000x30000 pixels; the limit is 25,000,000"),
    ("/v1/predict", {"content": bytes(17 * 2**20)}, 413, "larger than 16,777,216 bytes"),
    ("/v1/predict", {"content": b"x", "headers": {"Content-Encoding": "gzip"}}, 415, "Content-Encoding"),
    ("/v1/predict", {"json": {"url": "http://127.0.0.1/x.jpg"}}, 415, "send the image file itself"),
    ("/v1/predict?faces=all", {"content": b"x"}, 422, "faces"),
    ("/v1/predict?augment=perhaps", {"content": b"x"}, 422, "augment"),
    ("/v1/predict", {"files": [("a", ("a", b"x")), ("b", ("b", b"y"))]}, 422, "/v1/predict/batch"),
    ("/v1/predict", {"data": {"a": "1"}, "files": {}}, 422, "not an image"),
    ("/v1/predict", {"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
    ("/v1/predict", {"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "form"),
    (
        "/v1/predict",
        {"content": b"--b\r\n", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
        400,
        "cut",
    ),
    ("/v1/predict/batch", {"content": b"x"}, 415, "multipart/form-data"),
    ("/v1/predict/batch", {"files": [("a", (f"{k}", b"x")) for k in range(65)]}, 413, "at most 64"),
    ("/v1/predict/batch", {"files": [("a", (f"{k}", b"x")) for k in range(300)]}, 413, "parts"),
    ("/v1/crop", {"content": b"x"}, 422, "not an image"),
    ("/nope", {"content": b"x"}, 404, "openapi.json"),
    ("/health", {"content": b"x"}, 405, "Method Not Allowed"),
]


@pytest.mark.parametrize(("path", "request_", "status", "reason"), REFUSED)
def test_a_wrong_request_is_a_problem_in_a_sentence(
    path: str, request_: dict[str, Any], status: int, reason: str, client: TestClient
) -> None:
    answer = client.post(path, **request_)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["request_id"]) == (status, answer.headers["x-request-id"])
    assert reason in problem["detail"]


def test_a_bug_is_a_500_that_shows_nothing_of_itself(monkeypatch: pytest.MonkeyPatch, client: TestClient) -> None:
    """The server goes on, and its log has the traceback."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret")

    with monkeypatch.context() as patch:
        patch.setattr("edgeemo.serve.service.locate_faces", fail)
        answer = client.post("/v1/predict", content=PICTURE.read_bytes())
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert client.post("/v1/predict", content=PICTURE.read_bytes()).status_code == 200


def test_nothing_of_a_request_is_written_to_a_file(monkeypatch: pytest.MonkeyPatch, client: TestClient) -> None:
    """Not even a large part of a form, which frameworks usually store in a temporary file."""
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    assert len(file.getvalue()) > 4 * 2**20

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a temporary file")

    for name in ("TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, fail)
    answer = client.post("/v1/predict", files={"image": ("a.png", file.getvalue())})
    assert answer.status_code == 200, answer.text


def test_head_and_options_do_nothing(client: TestClient) -> None:
    assert client.head("/health").status_code == 200
    answer = client.options("/v1/predict")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (204, "POST", b"")


def test_a_sane_request_id_is_taken_over_and_others_are_replaced(client: TestClient) -> None:
    """None can forge a line of the log."""
    assert client.get("/health", headers={"X-Request-ID": "a-1.b_2"}).headers["x-request-id"] == "a-1.b_2"
    for wrong in ("", "a b", "x" * 65, 'a"b'):
        made = client.get("/health", headers={"X-Request-ID": wrong}).headers["x-request-id"]
        assert made != wrong
        assert len(made) == 16


def test_answers_tell_browsers_to_run_frame_guess_and_store_nothing(client: TestClient) -> None:
    for path in ("/health", "/nope", "/openapi.json"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"


def test_the_card_and_the_labels_are_those_of_the_model(client: TestClient) -> None:
    card = read_card(shipped.find("nano"))
    assert client.get("/v1/card").json()["sha256"] == card.sha256
    labels = client.get("/v1/labels").json()
    assert labels == {
        "label_set": card.label_set,
        "labels": list(card.labels),
        "least_probability": card.answers.least_probability if card.answers else None,
    }


def test_another_label_set_is_reported() -> None:
    with serving(label_set="six") as (client, _):
        (face,) = client.post("/v1/crop", content=CROP.read_bytes()).json()["faces"]
        assert sorted(face["probabilities"]) == sorted(client.get("/v1/labels").json()["labels"])
        assert len(face["probabilities"]) == 6


def test_a_server_that_starts_or_stops_takes_no_request() -> None:
    """And says when to come back, and that to its supervisor, which needs health even then."""
    with serving() as (client, service):
        for state in ("starting", "stopping"):
            service.state = state  # type: ignore[assignment]
            answer = client.post("/v1/crop", content=CROP.read_bytes())
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert client.get("/ready").status_code == 503
            assert client.get("/health").json()["state"] == state


def test_metrics_count_requests_faces_and_the_model(client: TestClient) -> None:
    parser = pytest.importorskip("prometheus_client.parser")
    client.post("/v1/crop", content=CROP.read_bytes())
    client.post("/v1/crop", content=b"x")
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (one.name, *sorted(one.labels.values())): one.value
        for family in parser.text_string_to_metric_families(answer.text)
        for one in family.samples
    }
    assert samples["edgeemo_requests_total", "/v1/crop", "200"] >= 1
    assert samples["edgeemo_requests_total", "/v1/crop", "422"] >= 1
    assert samples["edgeemo_faces_total",] >= 1
    assert samples["edgeemo_queue",] == 0
    assert samples["edgeemo_ready",] == 1
    assert ("edgeemo_model_info", *sorted(("nano.onnx", read_card(shipped.find("nano")).sha256))) in samples


def test_the_description_has_examples_that_fit_its_schemas(client: TestClient) -> None:
    """And names every route, but no other host."""
    document = client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/predict/batch", "/v1/crop", "/v1/card", "/health", "/ready"} <= set(document["paths"])
    assert "http" not in json.dumps(document).replace("https://json-schema.org", "")
    checked = 0
    for path in document["paths"].values():
        for operation in path.values():
            for answer in operation["responses"].values():
                for content in answer.get("content", {}).values():
                    if "example" in content:
                        schema = {**content["schema"], "components": document["components"]}
                        jsonschema.validate(content["example"], schema)
                        checked += 1
    assert checked > 10


def test_types_and_statuses_of_the_other_routes_are_described(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths["/metrics"]["get"]["responses"]["200"]["content"]) == {"text/plain"}
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")
    assert set(paths["/ready"]["get"]["responses"]) == {"200", "503"}


def test_real_answers_fit_the_description(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schema = {"$ref": "#/components/schemas/ImageAnswer", "components": document["components"]}
    jsonschema.validate(client.post("/v1/predict", content=PICTURE.read_bytes()).json(), schema)
    jsonschema.validate(client.post("/v1/crop", content=CROP.read_bytes()).json(), schema)


def test_the_log_has_one_json_object_per_request_and_nothing_of_its_content(
    caplog: pytest.LogCaptureFixture, client: TestClient
) -> None:
    caplog.set_level(logging.INFO, logger="edgeemo.serve")
    name = "a-name-of-a-person.png"
    client.post("/v1/predict?faces=few", files={"image": (name, PICTURE.read_bytes())})
    client.get("/secret-path?key=hidden")
    first, second = (json.loads(record.getMessage()) for record in caplog.records)
    assert set(first) == {"time", "id", "method", "route", "status", "ms"}
    assert (first["route"], first["status"], second["route"], second["status"]) == ("/v1/predict", 200, "other", 404)
    assert not any(word in caplog.text for word in (name, "secret-path", "hidden", "testclient"))


def test_addresses_are_logged_where_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="edgeemo.serve")
    with serving(log_clients=True) as (client, _):
        client.get("/health")
    assert '"client": "testclient"' in caplog.text


def test_a_new_model_takes_over_between_requests(tmp_path: Path) -> None:
    """Of the same labels; while it is loaded, the old one answers."""
    from edgeemo.card import card_path

    def install(name: str) -> None:
        source = shipped.find(name)
        for old, new in ((source, tmp_path / "m.onnx"), (card_path(source), card_path(tmp_path / "m.onnx"))):
            (tmp_path / "part").write_bytes(old.read_bytes())
            (tmp_path / "part").replace(new)

    install("nano")
    with serving(model=str(tmp_path / "m.onnx")) as (client, service):
        before = client.post("/v1/crop", content=CROP.read_bytes()).json()
        install("small")
        service.models.request_reload()
        wait_until(lambda: client.post("/v1/crop", content=CROP.read_bytes()).json() != before)
        assert client.get("/v1/card").json()["sha256"] == read_card(shipped.find("small")).sha256
        assert "edgeemo_model_swaps_total 1.0" in client.get("/metrics").text


def test_a_model_that_is_out_of_memory_is_a_503(monkeypatch: pytest.MonkeyPatch, client: TestClient) -> None:
    from edgeemo.errors import MachineError

    def fail(*_: object, **__: object) -> None:
        raise MachineError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Model, "predict_crops", fail)
        answer = client.post("/v1/crop", content=CROP.read_bytes())
    assert (answer.status_code, answer.json()["detail"]) == (503, "out of memory")


def test_a_client_that_leaves_within_its_answer_is_no_request_that_was_not_answered() -> None:
    """The last line of the log counts those whose clients wait."""

    async def begin(scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG001
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ignore(_: Any) -> None:
        """Do as uvicorn does where the client has left."""

    with serving() as (_, service):
        before = service.received - service.answered
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}
        asyncio.run(Guard(begin, service)(scope, ignore, ignore))  # type: ignore[arg-type]
        assert service.received - service.answered == before
