"""A real server: signals, slow clients, lies about lengths, limits, TLS and WebSockets over sockets."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

served = pytest.importorskip("served", reason="edgeemo[serve] or httpx is not installed")
import uvicorn  # noqa: E402
from served import CROP, ONE, PICTURE, Process, wait_until  # noqa: E402
from uvicorn.server import ServerState  # noqa: E402

from edgeemo.serve.protocol import make_protocols  # noqa: E402
from edgeemo.serve.streams import UNSUPPORTED  # noqa: E402

HEAD = b"POST /v1/crop HTTP/1.1\r\nHost: 127.0.0.1\r\n"
UPGRADE = b"GET /v1/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
HANDSHAKE = UPGRADE + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"


def connect(process: Any) -> socket.socket:
    return socket.create_connection((process.host, process.port), timeout=20)


def exchange(process: Any, *parts: bytes) -> tuple[int, bytes]:
    """Send parts; return the status and all that came until the server closed the connection."""
    with connect(process) as connection:
        for part in parts:
            connection.sendall(part)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return int(received.split()[1]) if received else 0, received


def post(process: Any, path: str, content: bytes) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(process.host, process.port, timeout=30)
    connection.request("POST", path, content)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_a_photo_is_answered(process: Any) -> None:
    status, answer = post(process, "/v1/predict", PICTURE.read_bytes())
    assert (status, len(answer["faces"])) == (200, 1)


def test_a_header_that_does_not_end_is_cut(process: Any) -> None:
    """However often a byte comes."""
    with connect(process) as connection:
        connection.sendall(HEAD)
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(0.2):
                try:
                    connection.sendall(b"X-A: b\r\n")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""
        ended.set()
        thread.join()


def test_a_body_that_does_not_come_is_a_408(process: Any) -> None:
    """Nor is more than the client has sent made of it."""
    status, answer = exchange(process, HEAD, b"Content-Length: 5000\r\n\r\n", b"abc")
    assert status == 408
    assert b"did not arrive within 1 s" in answer


def test_malformed_requests_add_only_their_lines_to_the_log() -> None:
    """The libraries that parse them would tell of each, and quote it."""
    form = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with Process() as process:
        status, _ = exchange(process, form, b"Connection: close\r\nContent-Length: 9\r\n\r\n--c\r\n\r\n--")
        exchange(process, b"no HTTP\r\n\r\n")
        assert process.stop() == 0
    (line,) = process.errors.partition("SIGTERM")[0].splitlines()
    assert (status, json.loads(line)["status"]) == (400, 400)


def test_a_body_beyond_the_limit_is_refused_while_it_arrives(process: Any) -> None:
    """Whether its length is stated, or it comes in chunks."""
    status, answer = exchange(process, HEAD, b"Content-Length: 200000\r\n\r\n", bytes(200000))
    assert (status, b"100,000 bytes" in answer) == (413, True)
    chunks = (b"2710\r\n" + bytes(10000) + b"\r\n") * 20 + b"0\r\n\r\n"
    status, answer = exchange(process, HEAD, b"Transfer-Encoding: chunked\r\n\r\n", chunks)
    assert (status, b"100,000 bytes" in answer) == (413, True)


def test_a_client_that_asks_first_is_refused_before_it_sends(process: Any) -> None:
    status, _ = exchange(process, HEAD, b"Expect: 100-continue\r\nContent-Length: 200000\r\n\r\n")
    assert status == 413


def test_a_length_shorter_than_the_body_ends_the_connection(process: Any) -> None:
    """What follows is no request."""
    status, answer = exchange(process, HEAD, b"Content-Length: 3\r\n\r\n", b"abcGARBAGE\r\n\r\n")
    assert status == 422
    assert b"HTTP/1.1 400" in answer


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 99999999999999999999999999\r\n\r\n",
        b"Transfer-Encoding: gzip\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"X: " + b"y" * 100000 + b"\r\n\r\n",
        b"Bad Header\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(head: bytes, process: Any) -> None:
    """As a problem, or by the end of the connection; the server goes on."""
    try:
        status, _ = exchange(process, HEAD, head)
    except ConnectionResetError:
        status = 0
    assert status in (0, 400, 413, 422, 431, 501)
    assert post(process, "/v1/crop", CROP.read_bytes())[0] == 200


def test_slow_clients_do_not_harm_good_ones(process: Any) -> None:
    """200 connections that send nothing more, half of them in a body."""
    slow = [connect(process) for _ in range(200)]
    try:
        for number, connection in enumerate(slow):
            connection.sendall(HEAD if number % 2 else HEAD + b"Content-Length: 50000\r\n\r\nabc")
        for _ in range(5):
            assert post(process, "/v1/crop", CROP.read_bytes())[0] == 200
    finally:
        for connection in slow:
            connection.close()


def test_a_client_that_leaves_costs_nobody_an_answer(process: Any) -> None:
    for _ in range(3):
        with connect(process) as connection:
            connection.sendall(HEAD + b"Content-Length: 50000\r\n\r\nabc")
    assert post(process, "/v1/crop", CROP.read_bytes())[0] == 200


def test_a_stream_is_answered_over_a_socket(process: Any) -> None:
    """And a frame beyond the limit of bytes closes it."""
    sync = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    from websockets.exceptions import ConnectionClosed

    with sync.connect(f"ws://{process.host}:{process.port}/v1/stream") as stream:
        stream.send(PICTURE.read_bytes())
        assert json.loads(stream.recv(timeout=20))["frame"] == 0
        stream.send(bytes(200000))
        with pytest.raises(ConnectionClosed) as seen:
            stream.recv(timeout=20)
    assert seen.value.rcvd is not None
    assert seen.value.rcvd.code == 1009


def test_a_handshake_that_is_too_long_is_refused(process: Any) -> None:
    """Although websockets tells uvicorn nothing of it."""
    status, _ = exchange(process, UPGRADE, b"X: " + b"y" * 9000 + b"\r\n\r\n")
    assert status == 400


def test_text_that_is_not_utf8_is_refused_as_other_text(process: Any) -> None:
    with open_stream(process) as connection:
        connection.sendall(bytes([0x81, 0x81, 0, 0, 0, 0, 0xFF]))  # final text frame, one byte, mask 0
        opcode, _, *code = connection.recv(4)
    assert (opcode, int.from_bytes(bytes(code), "big")) == (0x88, UNSUPPORTED)


def open_stream(process: Any) -> socket.socket:
    connection = connect(process)
    connection.sendall(HANDSHAKE)
    while b"\r\n\r\n" not in connection.recv(65536):
        pass
    return connection


def test_a_stream_of_endless_tiny_frames_is_cut(process: Any) -> None:
    """Parsing them would keep the server from its other clients."""
    received, count = 0, 10_000
    with open_stream(process) as connection, suppress(OSError):
        connection.sendall(bytes([0x89, 0x80, 0, 0, 0, 0]) * count)  # pings, each of which gets a pong of 2 bytes
        while chunk := connection.recv(65536):
            received += len(chunk)
    assert received < 2 * count


def test_a_frame_in_many_fragments_is_answered(process: Any) -> None:
    """As libraries send large ones."""
    content = (PICTURE.read_bytes() + bytes(90_000))[:90_000]
    parts = [content[start : start + 256] for start in range(0, len(content), 256)]
    with open_stream(process) as connection:
        for number in range(10):
            for k, part in enumerate(parts):
                first = (0x80 if part is parts[-1] else 0) | (0 if k else 2)
                connection.sendall(bytes([first, 0xFE]) + len(part).to_bytes(2, "big") + bytes(4) + part)
            assert b'"frame": %d' % number in connection.recv(65536)


def test_a_stream_whose_client_does_not_read_is_cut(process: Any) -> None:
    """Its place is free again, and the end of the server does not wait for it."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect((process.host, process.port))
        connection.sendall(HANDSHAKE)
        connection.recv(64)
        assert count_streams(process) == 1
        pings = bytes([0x89, 0xFD, 0, 0, 0, 0, *bytes(125)]) * 500
        with suppress(OSError):  # until it is cut
            for _ in range(1000):
                connection.sendall(pings)
        wait_until(lambda: count_streams(process) == 0)


def count_streams(process: Any) -> int:
    connection = http.client.HTTPConnection(process.host, process.port, timeout=30)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return int(float(text.partition("\nedgeemo_streams ")[2].split()[0]))


@pytest.mark.parametrize("which", [0, 1], ids=["http", "websocket"])
def test_a_closed_connection_does_not_wait_for_ever_for_a_client_to_read(which: int) -> None:
    """Even if few bytes are left, for which asyncio does not pause writing."""

    async def test() -> None:
        config = uvicorn.Config(None, log_config=None)  # type: ignore[arg-type]
        config.load()
        made = make_protocols(0.1, 8)[which]
        ours, theirs = socket.socketpair()
        with theirs:
            loop = asyncio.get_running_loop()
            protocol: Any = made(config=config, server_state=ServerState(), app_state={}, _loop=loop)
            lost = asyncio.Event()
            end = protocol.connection_lost
            protocol.connection_lost = lambda error: (end(error), lost.set())
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, ours)
            while not transport.get_write_buffer_size():
                transport.write(bytes(4096))
            transport.close()
            await asyncio.wait_for(lost.wait(), 20)

    asyncio.run(test())


def test_connections_beyond_the_limit_are_closed_and_others_served() -> None:
    with Process("--connections", "3") as process:
        kept = [connect(process) for _ in range(3)]
        for connection in kept:
            connection.sendall(HEAD)
        with connect(process) as further:
            further.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            with suppress(ConnectionResetError):
                assert further.recv(1) == b""
        kept.pop().close()
        assert exchange(process, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")[0] == 200
        for connection in kept:
            connection.close()
        assert process.stop() == 0


class Client(threading.Thread):
    """Posts a picture again and again over one connection, until the server does not answer any more."""

    def __init__(self, process: Process, began: threading.Semaphore) -> None:
        super().__init__()
        self.process, self.began = process, began
        self.statuses: list[int] = []
        self.cut = False  # an answer has ended before its end

    def run(self) -> None:
        """Post."""
        content = ONE.read_bytes()
        while True:
            connection = http.client.HTTPConnection(self.process.host, self.process.port, timeout=30)
            try:
                connection.request("POST", "/v1/predict", content)
                answer = connection.getresponse()
            except (OSError, http.client.RemoteDisconnected):  # not taken
                return
            try:
                answer.read()
            except (OSError, http.client.IncompleteRead):
                self.cut = True
                return
            self.statuses.append(answer.status)
            self.began.release()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_every_request_that_was_taken_is_answered_before_the_end(number: int) -> None:
    """The clients have got as many answers as the server has received requests."""
    with Process() as process:
        began = threading.Semaphore(0)
        clients = [Client(process, began) for _ in range(6)]
        for client in clients:
            client.start()
        for _ in range(12):
            assert began.acquire(timeout=30)
        assert process.stop(number) == 0
        for client in clients:
            client.join()
    statuses = [status for client in clients for status in client.statuses]
    assert set(statuses) <= {200, 503}
    assert not any(client.cut for client in clients)
    assert f"stopped: {len(statuses)} requests received, {len(statuses)} answered" in process.errors


def test_slow_clients_do_not_delay_the_end() -> None:
    """Those that are within a header are closed; a body gets one more second."""
    with Process("--timeout", "60", "--grace", "60") as process:
        waiting = [connect(process) for _ in range(3)]
        waiting[0].sendall(HEAD)
        waiting[1].sendall(HEAD + b"Content-Length: 50\r\n\r\nabc")
        post(process, "/v1/crop", CROP.read_bytes())
        process.child.send_signal(signal.SIGTERM)
        assert waiting[1].recv(65536).startswith(b"HTTP/1.1 503")
        assert process.wait() == 0
        for connection in waiting:
            connection.close()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_sighup_loads_the_model_again() -> None:
    """The same file is left as it is, and the server goes on."""
    with Process() as process:
        process.child.send_signal(signal.SIGHUP)
        assert process.child.stderr is not None
        assert any("model not swapped: nano.onnx is unchanged" in line for line in process.child.stderr)
        assert post(process, "/v1/crop", CROP.read_bytes())[0] == 200
        assert process.stop() == 0


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to make a certificate with")
def test_https_is_served_with_a_certificate(tmp_path: Path) -> None:
    """And a client that does not go on with the handshake is cut."""
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*make, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    with Process("--timeout", "2", "--tls-certificate", str(certificate), "--tls-key", str(key)) as process:
        assert process.url.startswith("https://")
        with connect(process) as silent, suppress(ConnectionResetError):
            assert silent.recv(1) == b""
        context = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection(process.host, process.port, timeout=30, context=context)
        connection.request("POST", "/v1/crop", CROP.read_bytes())
        assert connection.getresponse().status == 200
        connection.close()
        assert process.stop() == 0


def test_the_options_of_a_file_are_used(tmp_path: Path) -> None:
    """The command line wins."""
    (tmp_path / "serve.toml").write_text('model = "small"\nmax-bytes = 2000\nqueue = 3\n')
    with Process("--config", str(tmp_path / "serve.toml")) as process:
        assert post(process, "/v1/crop", bytes(3000))[0] == 413
        assert process.stop() == 0
