"""Who may use the server: keys, names of the server, pages of other origins, and each client's share."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

served = pytest.importorskip("served", reason="edgeemo[serve] or httpx is not installed")
from served import CROP, PICTURE, TestClient, serving  # noqa: E402
from starlette.websockets import WebSocketDisconnect  # noqa: E402

from edgeemo.errors import UsageError  # noqa: E402
from edgeemo.serve import run as serve  # noqa: E402
from edgeemo.serve.admission import Admission  # noqa: E402
from edgeemo.serve.keys import make_key, read_keys  # noqa: E402
from edgeemo.serve.problems import Problem  # noqa: E402
from edgeemo.stages import Serve  # noqa: E402


def write(folder: Path, *lines: str) -> Path:
    """Write a file of keys."""
    file = folder / "keys"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_a_key_is_known_by_its_hash_alone(tmp_path: Path) -> None:
    key, line = make_key("kiosk")
    keys = read_keys(write(tmp_path, "# doors", "", line, make_key("other")[1]))
    assert (keys.find(key), keys.find(key + "x"), keys.find(""), keys.find("ä\udcff")) == ("kiosk", None, None, None)
    assert key not in line
    assert make_key("kiosk")[0] != key


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (("a sha256:12",), "line 1: expected NAME sha256:HASH"),
        (("plainkey",), "line 1"),
        ((make_key("a")[1], "", make_key("a")[1]), "line 3: a is there twice"),
        (("# none",), "has no key"),
    ],
)
def test_a_wrong_file_of_keys_is_refused(lines: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    """With its line; a key that is stored plainly is not printed."""
    with pytest.raises(UsageError) as caught:
        read_keys(write(tmp_path, *lines))
    assert reason in str(caught.value)
    assert "plainkey" not in str(caught.value)


def test_a_missing_file_of_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_keys(tmp_path / "none")


def test_make_key_prints_a_key_and_its_line(tmp_path: Path) -> None:
    shown: list[str] = []
    serve.run(Serve(make_key="kiosk"), show=shown.append)
    key, line = (text.partition(":  ")[2] for text in shown)
    assert read_keys(write(tmp_path, line)).find(key) == "kiosk"
    with pytest.raises(UsageError, match="expected a name"):
        serve.run(Serve(make_key="a b"), show=shown.append)


def test_without_a_key_only_health_is_answered(tmp_path: Path) -> None:
    key, line = make_key("kiosk")
    with serving(api_keys=write(tmp_path, line)) as (client, _):
        for path in ("/v1/card", "/metrics"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer")
            assert client.get(path, headers={"Authorization": f"Bearer {key}x"}).status_code == 401
            assert client.get(path, headers={"Authorization": f"Bearer {key}"}).status_code == 200
            assert client.get(path, headers={"X-API-Key": key}).status_code == 200
        for path in ("/metrics%0A", "/v1/card%0A", "/none"):  # a route also matches a path with a line break at its end
            assert client.get(path).status_code == 401
        for path in ("/health", "/ready", "/openapi.json"):
            assert client.get(path).status_code == 200
        with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/stream"):
            pass
        with client.websocket_connect("/v1/stream", headers={"Authorization": f"Bearer {key}"}) as socket:
            socket.send_bytes(PICTURE.read_bytes())
            assert socket.receive_json()["frame"] == 0


@pytest.mark.parametrize("host", ["attacker.example", "attacker.example:8000", "127.0.0.1.attacker.example", "", "a b"])
def test_a_host_that_rebinding_could_cause_is_refused(host: str, client: TestClient) -> None:
    answer = client.get("/health", headers={"Host": host})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/problem+json")


def test_further_host_names_are_allowed_by_an_option() -> None:
    with serving(host_names="Faces.example.org") as (client, _):
        assert client.get("/health", headers={"Host": "faces.example.org:8000"}).status_code == 200
        assert client.get("/health", headers={"Host": "other.example.org"}).status_code == 403


def test_pages_of_other_origins_are_refused(client: TestClient) -> None:
    """Also in a WebSocket, which no CORS protects."""
    other = {"Origin": "https://attacker.example"}
    assert client.post("/v1/crop", content=CROP.read_bytes(), headers=other).status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/v1/stream", headers=other):
        pass
    same = {"Origin": "http://127.0.0.1"}
    answer = client.post("/v1/crop", content=CROP.read_bytes(), headers=same)
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (200, False)


def test_origins_that_are_named_may_use_the_server(tmp_path: Path) -> None:
    """Also where keys are needed, which no preflight carries."""
    key, line = make_key("page")
    origin = {"Origin": "https://example.org"}
    with serving(origins="https://Example.org/", api_keys=write(tmp_path, line)) as (client, _):
        asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        preflight = client.options("/v1/crop", headers={**origin, **asks})
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://example.org"
        answer = client.post("/v1/crop", content=CROP.read_bytes(), headers={**origin, "X-API-Key": key})
        assert answer.headers["access-control-allow-origin"] == "https://example.org"


def refuse(admission: Admission, client: str, images: int = 1) -> Problem:
    """Return why an image is not admitted."""
    with pytest.raises(Problem) as caught, admission.admit(client, images):
        pass
    return caught.value


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    admission = Admission(3, 2)
    with admission.admit("a", 2):
        problem = refuse(admission, "a")
        assert (problem.status, problem.headers["Retry-After"]) == (429, "1")
        assert "this client has 2" in problem.detail
        with admission.admit("b"):
            assert "queue is full" in refuse(admission, "c").detail
    assert refuse(admission, "a", 3).status == 413
    with admission.admit("a", 2):
        assert admission.count == 2
    assert admission.count == 0


def test_images_in_work_take_no_more_memory_than_the_limit() -> None:
    admission = Admission(10, max_bytes=100)
    with admission.admit("a", size=60):
        with pytest.raises(Problem, match="60 of 100 bytes"), admission.admit("b", size=50):
            pass
        with admission.admit("b", size=40):
            assert admission.bytes == 100
    assert admission.bytes == 0


def test_a_full_server_answers_429(client: TestClient) -> None:
    """And does not parse forms, each of which would wait for a worker with its bytes."""
    with serving(queue=1) as (client, service):  # noqa: PLR1704
        with service.admission.admit("other"):
            answer = client.post("/v1/crop", content=CROP.read_bytes())
            kind = {"Content-Type": "multipart/form-data; boundary=b"}
            form = client.post("/v1/predict/batch", content=b"not a form", headers=kind)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert form.status_code == 429
        assert client.post("/v1/crop", content=CROP.read_bytes()).status_code == 200


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"prior": "auto"}, "the answer to one client would depend"),
        ({"model": "none-such"}, "none-such"),
        ({"tls_certificate": Path("none.pem"), "tls_key": Path("none.key")}, "expected a certificate in PEM"),
        ({"host": "192.0.2.1"}, "expected an address of this machine"),
        ({"host": "no such host"}, "expected an address of this machine"),
        ({"tls_key": Path("k")}, "--tls-certificate"),
    ],
)
def test_options_that_cannot_be_used_end_it_before_it_listens(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        serve.run(Serve(**{"model": "nano", "port": 0, **options}), show=lambda _: None)


def test_a_port_in_use_is_named() -> None:
    with serve.listen(Serve(port=0)) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: the port is in use"):
            serve.listen(Serve(port=port))


def test_answers_are_sent_at_once() -> None:
    """The kernel holds back the second part of an answer by 40 ms unless asyncio knows that the socket is TCP's."""
    with serve.listen(Serve(port=0)) as listener:
        assert listener.proto == socket.IPPROTO_TCP
