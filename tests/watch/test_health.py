"""Health and metrics by real requests on loopback; a slow client harms nobody."""

from __future__ import annotations

import http.client
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest

import edgeemo
from edgeemo.errors import MachineError, UsageError
from edgeemo.runtime import Prediction
from edgeemo.watch.frame import Frame, TrackedFace, WatchedFrame
from edgeemo.watch.status import Status

parser = pytest.importorskip("prometheus_client.parser", reason="prometheus-client is not installed")

from edgeemo.watch import health  # noqa: E402
from edgeemo.watch.health import HealthServer, is_safe_host  # noqa: E402


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def status(clock: Clock) -> Status:
    return Status(stale_seconds=10, clock=clock)


@pytest.fixture
def server(status: Status) -> Iterator[HealthServer]:
    with HealthServer(status) as made:
        yield made


def answer(*tracks: int, latency: float = 0.02, dropped: int = 0) -> WatchedFrame:
    prediction = Prediction("neutral", 0.9, {"neutral": 0.9})
    faces = tuple(TrackedFace(one, (1.0, 2.0, 3.0, 4.0), 0.9, (), prediction, prediction, 0.0, True) for one in tracks)
    frame = Frame(np.zeros((4, 4, 3), np.uint8), 0, 100.0, 1.8e9)
    return WatchedFrame(frame, faces, latency=latency, dropped=dropped)


def send(
    server: HealthServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers={} if host is None else {"Host": host})
    response = connection.getresponse()
    content = response.status, response.headers, response.read()
    connection.close()
    return content


def connect(server: HealthServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.server_port), timeout=10)


def ask(server: HealthServer) -> tuple[int, dict[str, Any]]:
    code, _, content = send(server, "/health")
    return code, json.loads(content)


def read_metrics(server: HealthServer) -> dict[str, float]:
    """Each sample by its name and labels, as Prometheus' own parser reads them."""
    code, headers, content = send(server, "/metrics")
    assert code == 200
    assert headers["Content-Type"].startswith("text/plain")
    samples = [sample for one in parser.text_string_to_metric_families(content.decode()) for sample in one.samples]
    return {one.name + "".join(f" {key}={one.labels[key]}" for key in sorted(one.labels)): one.value for one in samples}


def test_health_says_how_the_program_is(server: HealthServer, status: Status, clock: Clock) -> None:
    """200 while it watches, with what serves and since when."""
    status.source(True)
    status.model("small.onnx", "ab12")
    clock.seconds += 3
    status.answered(answer())
    clock.seconds += 0.5
    assert ask(server) == (
        200,
        {
            "state": "watching",
            "reasons": [],
            "seconds_since_answer": 0.5,
            "source": {"connected": True, "frozen": False},
            "model": {"name": "small.onnx", "sha256": "ab12"},
            "version": edgeemo.__version__,
            "uptime_seconds": 3.5,
        },
    )


def test_a_program_that_has_just_started_is_healthy(server: HealthServer, clock: Clock) -> None:
    """Until the time for its first answer is over."""
    code, about = ask(server)
    assert (code, about["state"], about["seconds_since_answer"]) == (200, "starting", None)
    clock.seconds += 11
    code, about = ask(server)
    assert (code, about["state"]) == (503, "unhealthy")
    assert about["reasons"] == ["the source cannot be opened", "no frame was answered for 11 s"]


def lose_source(status: Status, _: Clock) -> None:
    status.source(False)


def freeze_source(status: Status, _: Clock) -> None:
    status.source(True, frozen=True)


def fall_silent(_: Status, clock: Clock) -> None:
    clock.seconds += 10.5


def fail_output(status: Status, _: Clock) -> None:
    status.output("mqtt", 3, 1, failed=True)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lose_source, "the source is lost"),
        (freeze_source, "the source is frozen: it delivers the same image again and again"),
        (fall_silent, "no frame was answered for 10 s"),
        (fail_output, "the output mqtt has failed"),
    ],
)
def test_a_fault_is_answered_with_503_and_its_reason_until_it_is_over(
    server: HealthServer, status: Status, clock: Clock, fault: Any, reason: str
) -> None:
    status.source(True)
    status.answered(answer())
    assert ask(server)[0] == 200
    fault(status, clock)
    code, about = ask(server)
    assert (code, about["state"], about["reasons"]) == (503, "unhealthy", [reason])
    assert read_metrics(server)["edgeemo_healthy"] == 0
    status.source(True)
    status.output("mqtt", 4, 1)
    status.answered(answer())
    assert ask(server)[0] == 200
    assert read_metrics(server)["edgeemo_healthy"] == 1


def test_metrics_count_what_happened(server: HealthServer, status: Status) -> None:
    status.source(True, dropped=7, reconnects=2)
    status.output("jsonl", 12)
    status.output("mqtt", 3, 4, failed=True)
    status.model("nano.onnx", "cd34", swaps=1, failures=2)
    for one in (answer(1, 2, latency=0.02), answer(2, 5, 6, latency=0.021), answer(6, latency=9.0, dropped=8)):
        status.answered(one)
    found = read_metrics(server)
    expected = {
        "edgeemo_frames_answered_total": 3,
        "edgeemo_frames_dropped_total": 8,
        "edgeemo_faces": 1,
        "edgeemo_tracks_total": 6,
        "edgeemo_source_reconnects_total": 2,
        "edgeemo_source_connected": 1,
        "edgeemo_source_frozen": 0,
        "edgeemo_records_sent_total output=jsonl": 12,
        "edgeemo_records_lost_total output=mqtt": 4,
        "edgeemo_output_failed output=jsonl": 0,
        "edgeemo_output_failed output=mqtt": 1,
        "edgeemo_model_info name=nano.onnx sha256=cd34": 1,
        "edgeemo_model_swaps_total": 1,
        "edgeemo_model_swap_failures_total": 2,
        f"edgeemo_build_info version={edgeemo.__version__}": 1,
        "edgeemo_latency_seconds_bucket le=0.01": 0,
        "edgeemo_latency_seconds_bucket le=0.02": 1,
        "edgeemo_latency_seconds_bucket le=0.03": 2,
        "edgeemo_latency_seconds_bucket le=5.0": 2,
        "edgeemo_latency_seconds_bucket le=+Inf": 3,
        "edgeemo_latency_seconds_count": 3,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["edgeemo_latency_seconds_sum"] == pytest.approx(9.041)
    assert "process_start_time_seconds" in found


def test_no_metric_is_about_a_person(server: HealthServer, status: Status) -> None:
    """The same metrics whoever is there: none has a label per track, face or emotion."""
    before = set(read_metrics(server))
    status.answered(answer(1, 2, 3))
    assert set(read_metrics(server)) == before


def test_aggregates_leave_out_the_faces(clock: Clock) -> None:
    """How many people are there is what a period's counts may withhold."""
    status = Status(aggregate=True, clock=clock)
    status.answered(answer(1, 2))
    with HealthServer(status) as server:
        found = read_metrics(server)
    assert not {"edgeemo_tracks_total", "edgeemo_faces"} & set(found)
    assert found["edgeemo_frames_answered_total"] == 1


def test_a_lost_source_shows_no_faces(status: Status) -> None:
    status.answered(answer(1, 2))
    status.source(False)
    assert status.read().faces == 0


def test_only_two_pages_can_be_read(server: HealthServer) -> None:
    assert send(server, "/")[0] == 404
    assert send(server, "/health", "POST")[0] == 501
    code, headers, content = send(server, "/health", "HEAD")
    assert (code, content) == (200, b"")
    assert int(headers["Content-Length"]) > 0
    assert headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.1.evil.example", "a b", "[::1"])
@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_a_name_that_another_site_could_give_this_machine_is_refused(
    server: HealthServer, path: str, host: str
) -> None:
    """DNS rebinding makes a browser send the other site's name as Host."""
    code, _, content = send(server, path, host=host)
    assert code == 403
    assert b"small" not in content


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9100", "localhost", "LOCALHOST:9", "[::1]:9100", "192.168.0.7:9100", "edgeemo:9100", "pi.local"]
)
def test_names_of_this_machine_are_accepted(host: str) -> None:
    """Also of a container, and through a forwarded port."""
    assert is_safe_host(host)


def test_it_listens_on_this_machine_alone(server: HealthServer) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"


def test_another_address_is_used_where_it_is_given(status: Status) -> None:
    with HealthServer(status, address="0.0.0.0") as server:  # noqa: S104
        assert server.socket.getsockname()[0] == "0.0.0.0"  # noqa: S104
        assert send(server, "/health")[0] == 200


def test_its_address_is_logged(status: Status, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody else knows a free port."""
    with caplog.at_level(logging.INFO, "edgeemo"), HealthServer(status, 0) as server:
        assert f"http://127.0.0.1:{server.server_port}/health" in caplog.text


def test_a_port_or_address_that_cannot_be_used_is_explained(server: HealthServer, status: Status) -> None:
    with pytest.raises(UsageError, match=f"--health {server.server_port}: the port is in use"):
        HealthServer(status, server.server_port)
    for address in ("no.such.name.invalid", "203.0.113.1"):
        with pytest.raises(UsageError, match=f"--health-address {address}: expected an IP address of this machine"):
            HealthServer(status, 0, address)


def test_without_prometheus_client_the_error_says_what_to_install(
    status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    monkeypatch.delitem(__import__("sys").modules, "edgeemo.watch.metrics", raising=False)
    with pytest.raises(MachineError, match=r"pip install 'edgeemo\[video\]'"):
        HealthServer(status)


@pytest.mark.parametrize("sent", [b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-"])
def test_a_half_open_client_is_closed_and_stalls_nobody(status: Status, sent: bytes) -> None:
    """Other clients and the loop go on meanwhile."""
    with HealthServer(status, seconds=1.0) as server, connect(server) as client:
        client.sendall(sent)
        status.answered(answer())
        assert send(server, "/health")[0] == 200
        assert client.recv(1) == b""  # blocks until the server closes


def test_a_client_that_sends_a_byte_now_and_then_is_closed(status: Status, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte restarts a socket's time-out, but not the server's."""
    monkeypatch.setattr(health, "POLL", 0.02)
    closed = threading.Event()
    with HealthServer(status, seconds=0.3) as server, connect(server) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nX: ")
        for _ in range(1000):
            try:
                client.sendall(b"x")
            except OSError:
                closed.set()
                break
            closed.wait(0.01)
    assert closed.is_set()


def test_many_clients_are_refused_and_the_server_recovers(status: Status) -> None:
    """No thread is started for more than the limit."""
    with HealthServer(status, seconds=60) as server:  # so that no time-out ends a connection
        clients = [connect(server) for _ in range(health.CONNECTIONS + 1)]
        assert clients[-1].recv(1) == b""  # closed unread, because it is one too many
        for client in clients:
            client.close()
        code, end = 0, time.monotonic() + 10
        while code != 200 and time.monotonic() < end:
            with suppress(OSError, http.client.HTTPException):  # until the threads have seen the clients leave
                code, _, _ = send(server, "/health")
        assert code == 200


def test_at_the_end_no_thread_is_left(status: Status) -> None:
    """Nor one of a client that is still connected."""
    before = set(threading.enumerate())
    with HealthServer(status, seconds=60) as server:  # so that no time-out ends a connection
        client = connect(server)
        send(server, "/health")
        deadline = time.monotonic() + 10
        while not (
            waiting := [one for one in threading.enumerate() if "process_request" in one.name and one not in before]
        ):
            assert time.monotonic() < deadline
    waiting[0].join(10)
    assert not waiting[0].is_alive()
    assert "edgeemo-health" not in {one.name for one in set(threading.enumerate()) - before}
    client.close()


def test_the_numbers_of_many_threads_add_up(status: Status) -> None:
    def count() -> None:
        for _ in range(500):
            status.answered(answer())
            status.read()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert status.read().answered == sum(status.read().latencies) == 2000
