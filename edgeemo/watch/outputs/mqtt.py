"""Messages to an MQTT broker: a JSON object per record."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from edgeemo.errors import UsageError
from edgeemo.packages import require
from edgeemo.watch.events import Record
from edgeemo.watch.outputs.background import RejectedError, UndeliveredError
from edgeemo.watch.outputs.lines import to_json

PASSWORD = "EDGEEMO_MQTT_PASSWORD"  # noqa: S105  the variable's name
PORTS = {"mqtt": 1883, "mqtts": 8883}
VERSIONS = {"5": "MQTTv5", "3.1.1": "MQTTv311"}
EXPECTED = "expected mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC, or mqtts://"
CREDENTIALS = {134, 135}  # reason codes: bad user name or password, not authorized
QOS = 1  # each message arrives at least once
KEEP_ALIVE = 30  # seconds; the broker publishes the last will after 1.5 of these without a sign of life
GOODBYE_SECONDS = 1.0
CONNECT_SECONDS = 3.0  # without a connection, before that is said to fail
ACKNOWLEDGE_SECONDS = 5.0  # without all acknowledgements of a batch, before that is said to fail
RECONNECT = (1, 30)  # seconds between attempts: at first, at most


@dataclass(frozen=True)
class Broker:
    """Where to publish, and as whom."""

    host: str
    port: int
    topic: str
    tls: bool
    user: str | None
    password: str | None
    version: str

    def __str__(self) -> str:
        """Return the address without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"mqtt{'s' if self.tls else ''}://{host}:{self.port}/{self.topic}"


def parse_broker(url: str) -> Broker:
    """Return what a URL says: mqtt[s]://[user[:password]@]host[:port]/topic[?version=5|3.1.1].

    The password may be in the environment variable EDGEEMO_MQTT_PASSWORD instead, where the list of processes does not
    show it. MQTT 5 is the default. Raises UsageError, without the password, for other URLs.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
        (parts.hostname or "").encode("idna")  # an error in it would end paho's thread
    except ValueError as error:
        raise UsageError(f"--mqtt: this is no URL; {EXPECTED}") from error
    topic, version = unquote(parts.path[1:]), parse_qs(parts.query).get("version", ["5"])[-1]
    if parts.scheme not in PORTS or not parts.hostname or not topic:
        raise UsageError(f"--mqtt: the URL lacks a scheme, host or topic; {EXPECTED}")
    if "#" in url or any(letter in topic for letter in "+#\0"):
        raise UsageError(f"--mqtt: a topic to publish to has no + or # (in a password, # is %23); {EXPECTED}")
    if version not in VERSIONS:
        raise UsageError(f"--mqtt: unknown version {version!r}; known: {', '.join(VERSIONS)}")
    user = None if parts.username is None else unquote(parts.username)
    password = os.environ.get(PASSWORD) if parts.password is None else unquote(parts.password)
    if password is not None and user is None:
        raise UsageError(f"--mqtt: {PASSWORD} is set, but the URL has no user; {EXPECTED}")
    tls = parts.scheme == "mqtts"
    return Broker(parts.hostname, port or PORTS[parts.scheme], topic, tls, user, password, version)


class Mqtt:
    """A sink that publishes each record with QoS 1 and waits until the broker has acknowledged it.

    paho-mqtt connects in a thread of its own, and again whenever the connection is lost, with growing pauses; what was
    under way is then sent again, so that a message may arrive twice. TOPIC/status says `online`, and `offline` from the
    end of the program on, also if it is killed (last will); both are retained.

    mqtts checks the broker's certificate against the system's authorities, or those of SSL_CERT_FILE.
    """

    batch = 20  # what paho-mqtt has under way at a time

    def __init__(self, broker: Broker) -> None:
        self._paho = require("paho.mqtt.client", extra="mqtt", purpose="--mqtt")
        self.name, self._broker = str(broker), broker
        self._acknowledged: dict[int, str | None] = {}  # by message id; why it was refused
        self._waiting, self._reason = threading.Condition(), "there is no connection yet"
        self._status, self._aborted = f"{broker.topic}/status", False
        self._under_way: tuple[Sequence[Record], list[int]] | None = None  # a batch, and its message ids
        self._client = self._make_client()
        self._client.connect_async(broker.host, broker.port, keepalive=KEEP_ALIVE)
        self._client.loop_start()

    def send(self, items: Sequence[Record]) -> None:
        """Publish records; return when all are acknowledged.

        What was not in time is still under way: for the very same list, the next call only goes on waiting.
        """
        numbers = self._publish(items)
        with self._waiting:
            arrived = self._waiting.wait_for(
                lambda: self._aborted or all(map(self._acknowledged.__contains__, numbers)), ACKNOWLEDGE_SECONDS
            )
            if self._aborted or not arrived:
                connected = self._client.is_connected()
                raise UndeliveredError("the broker acknowledges nothing" if connected else self._reason)
            refusals = map(self._acknowledged.__getitem__, numbers)
            refused = next(filter(None, refusals), None)
        self._under_way = None
        if refused:
            raise RejectedError(f"the broker refuses messages: {refused}")

    def _publish(self, items: Sequence[Record]) -> list[int]:
        """Return the message ids of records that are under way now, once."""
        if self._under_way and self._under_way[0] is items:
            return self._under_way[1]
        with self._waiting:
            if not self._waiting.wait_for(lambda: self._aborted or self._client.is_connected(), CONNECT_SECONDS):
                raise UndeliveredError(self._reason)
            self._acknowledged.clear()
        numbers = [self._client.publish(self._broker.topic, to_json(item), QOS).mid for item in items]
        self._under_way = items, numbers
        return numbers

    def abort(self) -> None:
        """Do not wait for acknowledgements any more."""
        with self._waiting:
            self._aborted = True
            self._waiting.notify_all()

    def close(self) -> None:
        """Say `offline`, and disconnect."""
        if self._client.is_connected():
            with suppress(RuntimeError, ValueError):  # the connection is lost meanwhile; then the last will says it
                self._client.publish(self._status, b"offline", QOS, retain=True).wait_for_publish(GOODBYE_SECONDS)
        self._client.disconnect()
        self._client.loop_stop()

    def _make_client(self) -> Any:
        paho, broker = self._paho, self._broker
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=getattr(paho, VERSIONS[broker.version]))
        client.max_inflight_messages_set(self.batch)
        client.reconnect_delay_set(*RECONNECT)
        client.will_set(self._status, b"offline", QOS, retain=True)
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            client.tls_set()
        client.on_connect, client.on_connect_fail = self._on_connect, self._on_connect_fail
        client.on_publish = self._on_publish
        return client

    def _on_connect(self, client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
        if code.is_failure:
            hint = f"; check the user in the URL and {PASSWORD}" if code.value in CREDENTIALS else ""
            self._reason = f"the broker refuses the connection: {code}{hint}"
        else:
            self._reason = "the connection is lost"
            client.publish(self._status, b"online", QOS, retain=True)
            with self._waiting:
                self._waiting.notify_all()

    def _on_connect_fail(self, _client: Any, _data: Any) -> None:
        self._reason = f"no connection to {self._broker.host}:{self._broker.port}"

    def _on_publish(self, _client: Any, _data: Any, number: int, code: Any, _properties: Any) -> None:
        with self._waiting:
            self._acknowledged[number] = str(code) if code.is_failure else None
            self._waiting.notify_all()
