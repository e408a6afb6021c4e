"""MQTT, against a small broker in Python, and against mosquitto where it is installed."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mqtt_broker import run_broker

from edgeemo.errors import UsageError
from edgeemo.watch.outputs import mqtt
from edgeemo.watch.outputs.background import Background
from edgeemo.watch.outputs.mqtt import Mqtt, parse_broker

pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed")
Wait = Callable[[Callable[[], bool]], None]
TOPIC = "home/door"
FAST = (0.001, 0.001)


@pytest.fixture(autouse=True)
def reconnect_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of a pause would be seconds of a test."""
    monkeypatch.setattr(mqtt, "RECONNECT", (0.01, 0.01))
    monkeypatch.setattr(mqtt, "CONNECT_SECONDS", 0.05)


def connect(port: int, query: str = "", user: str = "") -> Background:
    return Background(Mqtt(parse_broker(f"mqtt://{user}127.0.0.1:{port}/{TOPIC}{query}")), back_off=FAST)


def make_records(first: int, end: int) -> list[dict[str, object]]:
    return [{"event": "changed", "track": number, "label": "Überraschung"} for number in range(first, end)]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_records_are_published_and_the_status_kept(version: str) -> None:
    """With QoS 1; `online` and at the end `offline` are retained."""
    records = make_records(0, 50)
    with run_broker() as broker:
        output = connect(broker.port, f"?version={version}")
        for record in records:
            output.write(record)
        broker.wait_for(50, topic=TOPIC)
        output.close()
        assert [json.loads(payload) for payload in broker.list_payloads(TOPIC)] == records
        assert {(one.qos, one.retain) for one in broker.messages if one.topic == TOPIC} == {(1, False)}
        states = [one for one in broker.messages if one.topic == f"{TOPIC}/status"]
        assert [(one.payload, one.retain) for one in states] == [(b"online", True), (b"offline", True)]
    assert (output.written, output.lost) == (50, 0)


def test_a_broker_that_dies_gets_the_rest_when_it_is_back(wait_for: Wait) -> None:
    """Without help, and without a record lost."""
    with run_broker() as broker:
        output = connect(broker.port)
        output.write(make_records(0, 1)[0])
        wait_for(lambda: output.written == 1)
    for record in make_records(1, 30):
        output.write(record)
    wait_for(lambda: output.failed is not None)
    with run_broker(port=broker.port) as again:
        again.wait_for(29, topic=TOPIC)
        output.close()
        seen = [json.loads(payload) for payload in again.list_payloads(TOPIC)]
    assert [one for k, one in enumerate(seen) if one not in seen[:k]] == make_records(1, 30)
    assert (output.written, output.lost, output.failed) == (30, 0, None)


def test_the_first_records_wait_for_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Which takes a moment, and is no failure."""
    monkeypatch.setattr(mqtt, "CONNECT_SECONDS", 20)
    with run_broker() as broker:
        output = connect(broker.port)
        output.write(make_records(0, 1)[0])
        broker.wait_for(1, topic=TOPIC)
        output.close()
    assert not caplog.records


def test_a_killed_program_is_reported_offline_by_its_last_will() -> None:
    """The broker publishes it when the connection breaks."""
    with run_broker() as broker:
        sink = Mqtt(parse_broker(f"mqtt://127.0.0.1:{broker.port}/{TOPIC}"))
        broker.wait_for(1, topic=f"{TOPIC}/status")
        sink._client._sock.shutdown(socket.SHUT_RDWR)
        assert broker.wait_for(2, topic=f"{TOPIC}/status")[1] == b"offline"
        sink.close()


def test_a_broker_that_acknowledges_nothing_stalls_neither_write_nor_end() -> None:
    """What it may not have is counted as lost."""
    with run_broker() as broker:
        broker.acknowledges = False
        output = Background(
            Mqtt(parse_broker(f"mqtt://127.0.0.1:{broker.port}/{TOPIC}")), capacity=5, flush_seconds=0.05
        )
        output.write(make_records(0, 1)[0])
        broker.wait_for(1, topic=TOPIC)
        for record in make_records(1, 21):
            output.write(record)
        assert output.lost == 15
        output.close()
    assert (output.written, output.lost) == (0, 21)


def test_a_broker_that_hangs_is_told_and_gets_each_record_once(wait_for: Wait, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor sees it; the records that are under way are not published again with each attempt."""
    monkeypatch.setattr(mqtt, "ACKNOWLEDGE_SECONDS", 0.01)
    attempts: list[int] = []
    real = Mqtt.send
    monkeypatch.setattr(Mqtt, "send", lambda self, items: (attempts.append(len(items)), real(self, items)))
    with run_broker() as broker:
        broker.acknowledges = False
        output = connect(broker.port)
        output.write(make_records(0, 1)[0])
        broker.wait_for(1, topic=TOPIC)
        before = len(attempts)
        wait_for(lambda: output.failed == "the broker acknowledges nothing" and len(attempts) > before + 3)
        assert len(broker.list_payloads(TOPIC)) == 1
        broker.acknowledges = True
        output._sink._client._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]  # then paho sends it again
        wait_for(lambda: output.written == 1)
        output.close()
    assert (output.lost, output.failed) == (0, None)


def test_no_broker_stalls_neither_start_nor_end(wait_for: Wait) -> None:
    """A board may start before its network does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output = Background(Mqtt(parse_broker(f"mqtt://127.0.0.1:{port}/{TOPIC}")), back_off=FAST, flush_seconds=0.05)
    output.write(make_records(0, 1)[0])
    wait_for(lambda: output.failed == f"no connection to 127.0.0.1:{port}")
    output.close()
    assert output.lost == 1


def test_messages_that_the_broker_does_not_allow_are_lost_and_told(wait_for: Wait) -> None:
    """MQTT 5 says so; 3.1.1 cannot."""
    with run_broker(refuse=135) as broker:
        output = connect(broker.port)
        output.write(make_records(0, 1)[0])
        wait_for(lambda: output.lost == 1)
        assert output.failed == "the broker refuses messages: Not authorized"
        output.close()


def test_the_password_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or from the URL; it is in no message."""
    monkeypatch.setenv(mqtt.PASSWORD, "hunter2")
    with run_broker(password=b"hunter2") as broker:
        output = connect(broker.port, user="camera@")
        broker.wait_for(1, topic=f"{TOPIC}/status")
        output.close()
        assert "hunter2" not in output.name
    assert parse_broker("mqtt://camera:other%20one@host/topic").password == "other one"  # noqa: S105


def test_a_wrong_password_is_told(wait_for: Wait, caplog: pytest.LogCaptureFixture) -> None:
    """With the variable that holds it, and without showing it."""
    with run_broker(password=b"right") as broker:
        output = Background(
            Mqtt(parse_broker(f"mqtt://camera:hunter2@127.0.0.1:{broker.port}/{TOPIC}")),
            back_off=FAST,
            flush_seconds=0.05,
        )
        output.write(make_records(0, 1)[0])
        wait_for(lambda: "refuses the connection" in (output.failed or ""))
        output.close()
    assert output.failed.endswith("check the user in the URL and EDGEEMO_MQTT_PASSWORD")
    assert "hunter2" not in caplog.text + output.failed


@pytest.mark.parametrize(
    "url",
    [
        "http://host/topic", "mqtt://host", "mqtt://host/", "mqtt:///topic", "mqtt://host/a/#", "mqtt://host/+/a",
        "host/topic",        "mqtt://u:hunter2@host:port/topic", "mqtt://u:hunter2@host/t?version=4", "mqtt://u:hunter2@host/a#b",
        "mqtt://u:hunter2@a..b/t",
    ],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    """With what is expected, and without the password."""
    with pytest.raises(UsageError, match=r"expected mqtt|known: 5, 3\.1\.1") as caught:
        parse_broker(url)
    assert "hunter2" not in str(caught.value)


def test_a_url_says_everything() -> None:
    """With the usual ports."""
    broker = parse_broker("mqtts://camera:p%40ss@broker.example/home/front%20door?version=3.1.1")
    assert (broker.host, broker.port, broker.tls, broker.topic) == ("broker.example", 8883, True, "home/front door")
    assert (broker.user, broker.password, broker.version) == ("camera", "p@ss", "3.1.1")
    assert str(broker) == "mqtts://broker.example:8883/home/front door"


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[int]:
    """The port of a mosquitto on loopback."""
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")
    if not program:
        pytest.skip("mosquitto is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    with subprocess.Popen([program, "-c", tmp_path / "mosquitto.conf"], stderr=subprocess.DEVNULL) as process:
        yield port
        process.terminate()


def test_mosquitto_delivers_every_record(mosquitto: int) -> None:
    """To another client, which sees the status as well."""
    import paho.mqtt.client as paho

    seen: list[tuple[str, bytes]] = []
    subscribed, complete = threading.Event(), threading.Event()

    def keep(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        seen.append((message.topic, message.payload))
        if message.payload == b"offline":
            complete.set()

    client = paho.Client(paho.CallbackAPIVersion.VERSION2)
    client.reconnect_delay_set(0.01, 0.01)
    client.on_connect = lambda *_: client.subscribe(f"{TOPIC}/#", qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = keep
    client.connect_async("127.0.0.1", mosquitto)
    client.loop_start()
    assert subscribed.wait(20)
    output = connect(mosquitto)
    for record in make_records(0, 200):
        output.write(record)
    output.close()
    assert complete.wait(20)
    client.disconnect()
    client.loop_stop()
    assert [json.loads(payload) for topic, payload in seen if topic == TOPIC] == make_records(0, 200)
    assert [payload for topic, payload in seen if topic != TOPIC] == [b"online", b"offline"]
