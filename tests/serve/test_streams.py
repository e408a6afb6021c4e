"""Frames of a WebSocket: tracks and steady labels, the newest frame wins, and nothing else is taken."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

served = pytest.importorskip("served", reason="edgeemo[serve] or httpx is not installed")
from served import ONE, PICTURE, TestClient, serving, wait_until  # noqa: E402
from starlette.websockets import WebSocketDisconnect  # noqa: E402

from edgeemo.serve import streams  # noqa: E402


def test_a_face_keeps_its_track_and_has_a_steady_label(client: TestClient) -> None:
    with client.websocket_connect("/v1/stream") as socket:
        for number in range(4):
            socket.send_bytes(ONE.read_bytes())
            answer = socket.receive_json()
            assert (answer["frame"], answer["dropped"], answer["width"], answer["height"]) == (number, 0, 640, 480)
    (face,) = answer["faces"]
    assert (face["track"], face["label"], face["steady"]["label"]) == (1, "surprise", "surprise")
    assert face["seconds"] > 0
    (still,) = client.post("/v1/predict?augment=false", content=ONE.read_bytes()).json()["faces"]
    assert face["probabilities"] == pytest.approx(still["probabilities"], abs=0.05)


def test_each_connection_has_tracks_of_its_own(client: TestClient) -> None:
    with client.websocket_connect("/v1/stream") as first, client.websocket_connect("/v1/stream") as second:
        for _ in range(3):
            for socket in (first, second):
                socket.send_bytes(ONE.read_bytes())
                answer = socket.receive_json()
        assert [face["track"] for face in answer["faces"]] == [1]


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_raw_frames_are_answered_as_files_are(color: str, client: TestClient) -> None:
    image = Image.open(ONE).convert("L" if color == "gray" else "RGB")
    pixels, file = np.asarray(image), io.BytesIO()
    image.save(file, "PNG")
    raw = pixels[..., ::-1] if color == "bgr" else pixels
    answers: list[Any] = []
    for query, content in (("", file.getvalue()), (f"?width=640&height=480&color={color}", raw.tobytes())):
        with client.websocket_connect(f"/v1/stream{query}") as socket:
            for _ in range(3):
                socket.send_bytes(content)
                answer = socket.receive_json()
        answers.append([(face["box"], face["label"]) for face in answer["faces"]])
    assert answers[0]
    assert answers[0] == answers[1]


def test_the_newest_frame_wins_and_dropped_ones_are_counted(
    monkeypatch: pytest.MonkeyPatch, client: TestClient
) -> None:
    """While the first is at work, three come: the last of them is answered next."""
    may_go, at_work = threading.Event(), threading.Event()
    process = streams.Stream._process

    def wait(*args: Any) -> Any:
        at_work.set()
        assert may_go.wait(20)
        return process(*args)

    offered: list[int] = []
    offer = streams.Stream._offer

    def note(self: Any, content: bytes) -> None:
        offer(self, content)
        offered.append(1)

    monkeypatch.setattr(streams.Stream, "_process", wait)
    monkeypatch.setattr(streams.Stream, "_offer", note)
    with client.websocket_connect("/v1/stream") as socket:
        socket.send_bytes(PICTURE.read_bytes())
        assert at_work.wait(20)
        for _ in range(3):
            socket.send_bytes(PICTURE.read_bytes())
        wait_until(lambda: len(offered) == 4)
        may_go.set()
        answers = [socket.receive_json() for _ in range(2)]
    assert [(answer["frame"], answer["dropped"]) for answer in answers] == [(0, 2), (3, 2)]


def test_a_frame_that_cannot_be_read_is_an_error_and_the_next_one_is_answered(client: TestClient) -> None:
    with client.websocket_connect("/v1/stream") as socket:
        socket.send_bytes(b"no image")
        answer = socket.receive_json()
        assert (answer["frame"], answer["error"]["status"]) == (0, 422)
        socket.send_bytes(PICTURE.read_bytes())
        assert socket.receive_json()["frame"] == 1


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("?width=64", "both width and height"),
        ("?width=16000&height=16000", "the limit is"),
    ],
)
def test_a_wrong_layout_of_raw_frames_closes_the_stream(query: str, reason: str, client: TestClient) -> None:
    with (
        client.websocket_connect(f"/v1/stream{query}") as socket,
        pytest.raises(WebSocketDisconnect) as seen,
    ):
        socket.receive_json()
    assert (seen.value.code, reason in seen.value.reason) == (1003, True)


def test_a_raw_frame_of_another_size_is_an_error(client: TestClient) -> None:
    with client.websocket_connect("/v1/stream?width=64&height=48&color=gray") as socket:
        socket.send_bytes(bytes(64 * 47))
        assert "expected 3072, 64x48 gray" in socket.receive_json()["error"]["detail"]


def test_text_closes_the_stream(client: TestClient) -> None:
    with client.websocket_connect("/v1/stream") as socket:
        socket.send_text("hello")
        with pytest.raises(WebSocketDisconnect) as seen:
            socket.receive_json()
    assert (seen.value.code, seen.value.reason[:15]) == (1003, "expected binary")


def test_a_silent_client_is_cut() -> None:
    with serving(timeout=0.2) as (client, _), client.websocket_connect("/v1/stream") as socket:
        with pytest.raises(WebSocketDisconnect) as seen:
            socket.receive_json()
        assert (seen.value.code, seen.value.reason) == (1001, "no frame for 0.2 s")


def test_no_more_streams_than_the_limit_are_open() -> None:
    """And a place is free again as soon as one is closed."""
    with serving(streams=1) as (client, service):
        with client.websocket_connect("/v1/stream"):
            with client.websocket_connect("/v1/stream") as other, pytest.raises(WebSocketDisconnect) as seen:
                other.receive_json()
            assert seen.value.code == 1013
        wait_until(lambda: service.streams == 0)
        with client.websocket_connect("/v1/stream") as socket:
            socket.send_bytes(PICTURE.read_bytes())
            assert socket.receive_json()["frame"] == 0
