"""The page's server: for the browser of this machine only, and one answer for each face."""

from __future__ import annotations

import http.client
import io
import json
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Thread
from typing import Any

import chromium
import numpy as np
import pytest
from PIL import Image

from edgeemo import artifact
from edgeemo.errors import UsageError
from edgeemo.label.server import HOST, MAX_BODY, PageServer
from edgeemo.label.session import Session

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def server(session: Session) -> Iterator[PageServer]:
    with PageServer(session, following="edgeemo adapt small") as made:
        thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def send(
    server: PageServer, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a request with the right token and host unless others are given; underscores in names are dashes."""
    connection = http.client.HTTPConnection(HOST, server.server_port, timeout=10)
    own = {name.replace("_", "-"): value for name, value in headers.items()}
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    prefix = server.token if token is None else token
    connection.request(method, f"/{prefix}/{path}" if prefix else f"/{path}", content, (JSON if content else {}) | own)
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


def read_state(server: PageServer) -> dict[str, Any]:
    return json.loads(send(server, "GET", "state")[2])


def test_the_page_and_its_parts_are_served(server: PageServer, session: Session) -> None:
    """And the crop that is shown, as PNG."""
    kinds = {name: send(server, "GET", name)[1].get_content_type() for name in ("", "page.css", "page.js", "icon.svg")}
    assert list(kinds.values()) == ["text/html", "text/css", "text/javascript", "image/svg+xml"]
    assert session.shown
    status, headers, content = send(server, "GET", "face/0.png")
    assert (status, headers.get_content_type()) == (200, "image/png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), session.shown.pixels)


def test_it_listens_on_this_machine_only(server: PageServer) -> None:
    """Not on the addresses by which others reach it."""
    assert server.server_address[0] == "127.0.0.1"
    assert server.url.startswith(f"http://127.0.0.1:{server.server_port}/{server.token}/")
    assert len(server.token) == 32


@pytest.mark.parametrize("token", ["", "x", "face", "%00", "%C3%A9"])
@pytest.mark.parametrize("path", ["", "state", "face/0.png", "page.js"])
def test_nothing_is_served_without_the_token(server: PageServer, token: str, path: str) -> None:
    """Other programs of this machine, and other sites, do not know it."""
    status, _, content = send(server, "GET", path, token=token)
    assert status == 403
    assert server.token.encode() not in content


def test_tokens_differ(session: Session) -> None:
    with PageServer(session) as first, PageServer(session) as second:
        assert first.token != second.token


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", ""])
def test_another_host_is_refused(server: PageServer, host: str) -> None:
    """A site whose name is made to point here (DNS rebinding) sends its own name."""
    assert send(server, "GET", "", Host=host.format(port=server.server_port))[0] == 403
    assert send(server, "GET", "", Host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}"])
def test_posts_of_other_origins_are_refused(server: PageServer, session: Session, origin: str) -> None:
    body = {"face": 0, "label": "anger"}
    assert send(server, "POST", "label", body, Origin=origin.format(port=server.server_port))[0] == 403
    assert session.get_progress().labelled == 0
    assert send(server, "POST", "label", body, Origin=f"http://{HOST}:{server.server_port}")[0] == 200


def test_a_form_of_another_site_is_refused(server: PageServer, session: Session) -> None:
    """It can post other types without asking the server first."""
    assert send(server, "POST", "skip", {"face": 0}, Content_Type="text/plain")[0] == 415
    assert session.get_progress().skipped == 0


@pytest.mark.parametrize("path", ["", "state", "face/9.png", "page.css", "unknown"])
def test_every_answer_forbids_other_sources_and_caching(server: PageServer, path: str) -> None:
    """Errors too; no answer names the version of Python."""
    _, headers, _ = send(server, "GET", path)
    policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
    assert policy.pop("default-src") == "'none'"
    assert {policy.pop(name) for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert set(policy.values()) == {"'none'"}
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Python" not in headers["Server"]
    assert "Access-Control-Allow-Origin" not in headers


def test_the_page_loads_nothing_from_elsewhere() -> None:
    """Neither by address nor inline, which its policy would block."""
    folder = Path(artifact.__file__).parent / "label"
    for name in ("page.html", "page.css", "page.js"):
        text = (folder / name).read_text(encoding="utf-8")
        assert "//" not in text.replace("// ", "")
        assert "url(" not in text
        assert "style=" not in text
        assert "onclick" not in text
        assert "innerHTML" not in text


@pytest.mark.parametrize(
    "path",
    ["../../../etc/passwd", "..%2f..%2fetc/passwd", "face/../page.html", "face/..%2f0.png", "server.py", "//etc"],
)
def test_no_other_file_is_served(server: PageServer, path: str) -> None:
    """Paths are looked up in a table, not on the disk."""
    status, _, content = send(server, "GET", path)
    assert status in (403, 404)
    assert set(json.loads(content)) == {"error"}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "TRACE", "HEAD", "PATCH"])
def test_other_methods_are_refused(server: PageServer, method: str) -> None:
    status, headers, _ = send(server, method, "")
    assert status == 501
    assert "Content-Security-Policy" in headers


def test_answers_are_stored_and_the_new_state_returned(server: PageServer, out: Path) -> None:
    """Label, skip and undo."""
    status, _, content = send(server, "POST", "label", {"face": 0, "label": "anger"})
    state = json.loads(content)
    assert (status, state["face"]["number"], state["labels"]["anger"]) == (200, 1, 1)
    state = json.loads(send(server, "POST", "skip", {"face": 1})[2])
    assert (state["face"]["number"], state["skipped"], state["left"]) == (2, 1, 2)
    state = json.loads(send(server, "POST", "undo", {})[2])
    assert (state["face"]["number"], state["skipped"]) == (1, 0)
    assert len(list(out.glob("anger/anna/*.png"))) == 1


BAD: dict[str, tuple[str, Any, int]] = {
    "no JSON": ("label", b"{", 400),
    "no UTF-8": ("label", b"\xff", 400),
    "deep": ("label", b"[" * 4000, 400),
    "a list": ("label", [1], 400),
    "no face": ("label", {"label": "anger"}, 400),
    "a face that is true": ("skip", {"face": True}, 400),
    "a face as text": ("skip", {"face": "0"}, 400),
    "unknown label": ("label", {"face": 0, "label": "../x"}, 400),
    "no label": ("label", {"face": 0, "label": ""}, 400),
    "a label that is a list": ("label", {"face": 0, "label": ["anger"]}, 400),
    "too long": ("label", b" " * (MAX_BODY + 1), 413),
    "unknown page": ("delete", {}, 404),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_post_is_refused_and_changes_nothing(server: PageServer, case: str, out: Path) -> None:
    """With the reason as JSON; the server goes on."""
    path, body, expected = BAD[case]
    status, _, content = send(server, "POST", path, body)
    assert status == expected
    assert json.loads(content)["error"]
    assert read_state(server)["left"] == 4
    assert not list(out.glob("*/*/*"))


@pytest.mark.parametrize("length", ["-1", "x", "²", "99999999999"])
def test_a_bad_length_is_refused(server: PageServer, length: str) -> None:
    """Before anything is read."""
    with socket.create_connection((HOST, server.server_port), timeout=10) as connection:
        request = f"POST /{server.token}/undo HTTP/1.1\r\nHost: {HOST}:{server.server_port}\r\n"
        request += f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(request.encode())
        assert b" 413 " in connection.recv(1000)


def test_of_posts_at_once_for_one_face_one_counts(server: PageServer, out: Path) -> None:
    """The others are told that another face is shown."""
    bodies = [{"face": 0, "label": label} for label in ("anger", "neutral") * 8]
    with ThreadPoolExecutor(8) as pool:
        done = [status for status, *_ in pool.map(lambda body: send(server, "POST", "label", body), bodies)]
    assert sorted(done) == [200] + [409] * 15
    assert len(list(out.glob("*/*/*.png"))) == 1


def test_what_cannot_be_written_is_told_and_can_be_tried_again(
    server: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a full disk."""

    def fail(_: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(artifact, "_sync", fail)
        status, _, content = send(server, "POST", "label", {"face": 0, "label": "anger"})
    assert status == 500
    assert "No space left" in json.loads(content)["error"]
    assert send(server, "POST", "label", {"face": 0, "label": "anger"})[0] == 200


def test_stop_ends_the_server_after_its_answer(session: Session) -> None:
    with PageServer(session) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        assert send(server, "POST", "stop", {})[0] == 200
        thread.join(10)
        assert not thread.is_alive()


def test_a_port_in_use_is_wrong_usage(server: PageServer, session: Session) -> None:
    with pytest.raises(UsageError, match=f"port {server.server_port} is in use"):
        PageServer(session, server.server_port)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_the_keys_label_in_a_browser(server: PageServer, session: Session, tmp_path: Path) -> None:
    """Label, skip, undo, the prediction on demand, and the next command at the end; the policy blocks nothing."""
    with chromium.open_page(server.url, tmp_path / "profile") as page:
        page.wait("!document.getElementById('work').hidden")
        assert page.evaluate("document.getElementById('prediction').textContent") == ""
        page.press("p")
        page.wait("document.getElementById('prediction').textContent.includes('neutral 75 %')")
        for key, left in (("a", 3), ("s", 2), ("u", 3), ("2", 2), ("n", 1), ("s", 0)):
            page.press(key)
            page.wait(f"document.getElementById('sum').textContent.endsWith('{left} left')")
            page.wait("document.getElementById('work').ariaBusy === 'false'")
            assert page.evaluate("document.getElementById('prediction').hidden")
        page.wait("document.getElementById('following').textContent === 'edgeemo adapt small'")
        assert page.errors == []
    assert session.get_progress().labels == {"neutral": 1, "happiness": 1, "anger": 1}
