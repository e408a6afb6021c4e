"""A webhook, against a real HTTP server on loopback that is slow, fails, refuses, dies and comes back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from edgeemo.errors import UsageError
from edgeemo.watch.outputs import webhook
from edgeemo.watch.outputs.background import Background, RejectedError, UndeliveredError
from edgeemo.watch.outputs.webhook import Webhook

Wait = Callable[[Callable[[], bool]], None]
RECORDS = [{"event": "face", "track": track, "label": "Überraschung"} for track in range(3)]
FAST = (0.001, 0.001)


class Server(ThreadingHTTPServer):
    """Answers every POST with the next of `answers`, or 204; keeps bodies and headers."""

    daemon_threads = False

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.bodies: list[Any] = []
        self.headers: list[Any] = []
        self.open = threading.Event()  # no answer before it is set
        self.open.set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.server_port}/secret-path"

    def stop(self) -> None:
        """Free the port."""
        self.open.set()
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        """Keep the body, and answer."""
        self.server.headers.append(self.headers)
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.open.wait()
        code, headers = self.server.answers.pop(0) if self.server.answers else (204, {})
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.stop()


def test_a_batch_is_posted_as_json(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the token of the environment, and a key by which a receiver knows a repetition."""
    monkeypatch.setenv(webhook.TOKEN, "s3cret")
    sink = Webhook(server.url)
    sink.send(RECORDS)
    sink.send(RECORDS)
    assert server.bodies == [{"events": RECORDS}] * 2
    first, second = server.headers
    assert (first["Authorization"], first["Content-Type"]) == ("Bearer s3cret", "application/json")
    assert first["Idempotency-Key"] == second["Idempotency-Key"]
    assert sink.name == f"http://127.0.0.1:{server.server_port}"


def test_without_a_token_none_is_sent(server: Server) -> None:
    """Not an empty one."""
    Webhook(server.url).send(RECORDS)
    assert server.headers[0]["Authorization"] is None


@pytest.mark.parametrize("code", [408, 425, 429, 500, 503])
def test_a_server_that_cannot_take_records_now_gets_them_later(code: int, server: Server) -> None:
    """After the pause that it asks for, as a number or a date."""
    date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=100), usegmt=True)
    for text, least, most in (("7", 7, 7), (date, 90, 100), ("999999", 300, 300)):
        server.answers = [(code, {"Retry-After": text})]
        with pytest.raises(UndeliveredError, match=str(code)) as caught:
            Webhook(server.url).send(RECORDS)
        assert least <= caught.value.after <= most
    server.answers = [(code, {})] * 2 + [(code, {"Retry-After": "soon"})]
    for _ in range(3):
        with pytest.raises(UndeliveredError) as caught:
            Webhook(server.url).send(RECORDS)
        assert caught.value.after is None


@pytest.mark.parametrize("code", [400, 401, 404, 413])
def test_a_server_that_refuses_records_does_not_get_them_again(code: int, server: Server) -> None:
    """They would never be taken."""
    server.answers = [(code, {})]
    with pytest.raises(RejectedError, match=str(code)):
        Webhook(server.url).send(RECORDS)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_records_and_token_are_not_redirected(code: int, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither to another address, nor as a GET that takes nothing."""
    monkeypatch.setenv(webhook.TOKEN, "s3cret")
    other = Server()
    try:
        server.answers = [(code, {"Location": other.url})]
        with pytest.raises(RejectedError, match="not followed"):
            Webhook(server.url).send(RECORDS)
        assert not other.headers
    finally:
        other.stop()


def test_a_server_that_does_not_answer_is_given_up_after_the_time_out(server: Server) -> None:
    """And gets the records again."""
    server.open.clear()
    with pytest.raises(UndeliveredError, match=r"no answer within 0\.05 s"):
        Webhook(server.url, timeout=0.05).send(RECORDS)
    server.open.set()
    Webhook(server.url).send(RECORDS)


def test_every_record_reaches_a_server_that_fails_dies_and_comes_back(server: Server, wait_for: Wait) -> None:
    """In order, as long as the queue can hold them."""
    server.answers = [(503, {}), (429, {"Retry-After": "0"})]
    output = Background(Webhook(server.url), back_off=FAST)
    output.write(RECORDS[0])
    wait_for(lambda: output.written == 1)
    port = server.server_port
    server.stop()
    output.write(RECORDS[1])
    wait_for(lambda: output.failed is not None)
    output.write(RECORDS[2])
    again = Server(port)
    wait_for(lambda: output.written == 3)
    output.close()
    again.stop()
    assert [record for body in again.bodies for record in body["events"]] == RECORDS[1:]
    assert (output.lost, output.failed) == (0, None)


def test_a_server_that_hangs_stalls_no_write(server: Server, wait_for: Wait) -> None:
    """Records wait, then the oldest are dropped."""
    server.open.clear()
    output = Background(Webhook(server.url), capacity=2)
    output.write(RECORDS[0])
    wait_for(lambda: len(server.bodies) == 1)
    for record in (*RECORDS, *RECORDS):
        output.write(record)
    assert output.lost == 4
    server.open.set()
    output.close()
    assert [body["events"] for body in server.bodies] == [RECORDS[:1], RECORDS[1:]]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook", "http://localhost:8123/api", "http://127.0.0.1/", "http://[::1]:80/", "http://192.168.1.5/",
        "http://homeassistant.local:8123/api/webhook/x", "http://nas/hook", "http://10.0.0.1/",
    ],
)  # fmt: skip
def test_https_and_the_local_network_are_allowed(url: str) -> None:
    """As people have it at home."""
    assert Webhook(url).name in url


@pytest.mark.parametrize("url", ["http://example.com/hook", "http://8.8.8.8/", "http://127.0.0.1.example.com/"])
def test_unencrypted_records_do_not_cross_the_internet(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user says so."""
    with pytest.raises(UsageError, match="unencrypted"):
        Webhook(url)
    monkeypatch.setenv(webhook.ALLOW_HTTP, "1")
    assert Webhook(url).name


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://host/", "host/path", "https://", "https://[::1", "https://a:b/"]
)
def test_other_addresses_are_refused(url: str) -> None:
    """Before the first frame."""
    with pytest.raises(UsageError, match="expected https"):
        Webhook(url)


@pytest.mark.parametrize("path", ["hunter2 x", "hunter2ü", "?key=hunter2\n"])
def test_a_url_that_http_does_not_carry_is_refused_without_being_shown(path: str) -> None:
    """Before the first frame; http.client would name the path, which may be a token."""
    with pytest.raises(UsageError, match="%20") as caught:
        Webhook(f"https://example.com/{path}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("token", ["hunter2\nx", "hunter2 x", "hunter2ü"])
def test_a_token_that_http_does_not_carry_is_refused_without_being_shown(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """http.client would print it with its traceback."""
    monkeypatch.setenv(webhook.TOKEN, token)
    with pytest.raises(UsageError, match=webhook.TOKEN) as caught:
        Webhook("https://example.com/")
    assert "hunter2" not in str(caught.value)


def test_a_token_from_a_file_may_end_in_a_line_break(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `$(cat FILE)` in a container's secrets."""
    monkeypatch.setenv(webhook.TOKEN, "hunter2\n")
    Webhook(server.url).send(RECORDS)
    assert server.headers[0]["Authorization"] == "Bearer hunter2"


def test_a_password_in_the_url_is_refused_without_being_shown() -> None:
    """All processes would see it."""
    with pytest.raises(UsageError, match=webhook.TOKEN) as caught:
        Webhook("https://user:hunter2@example.com/")
    assert "hunter2" not in str(caught.value)
