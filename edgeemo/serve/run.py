"""The serve stage: load everything, listen, and answer until a signal asks to end."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import uvicorn
from prometheus_client import disable_created_metrics

from edgeemo import options
from edgeemo.config_file import write_example
from edgeemo.console import print_text
from edgeemo.errors import EdgeemoError, MachineError, UsageError
from edgeemo.faces import load_detector
from edgeemo.faces.passes import Faces
from edgeemo.runtime import Model, load
from edgeemo.runtime.prior import AUTO
from edgeemo.serve.app import make_app
from edgeemo.serve.keys import make_key, read_keys
from edgeemo.serve.models import Models
from edgeemo.serve.protocol import make_protocols
from edgeemo.serve.service import Service, count_workers
from edgeemo.stages import Serve
from edgeemo.watch.notify import Notifier
from edgeemo.watch.signals import Signals, catch_signals

log = logging.getLogger(__name__)
BACKLOG = 512


@dataclass(frozen=True)
class Served:
    """What a run of `edgeemo serve` has answered."""

    received: int = 0
    answered: int = 0


def run(config: Serve, *, show: Callable[[str], None] = print_text) -> Served:
    """Serve as configured until SIGINT or SIGTERM comes; return how many requests were received and answered.

    show: prints the example, the key, or the address.

    Raises UsageError for options that contradict each other, or an address that cannot be used; MachineError if a
    package is missing.
    """
    options.check(config)
    if config.print_config:
        show(write_example(config))
        return Served()
    if config.make_key is not None:
        key, line = make_key(config.make_key)
        show(f"key, shown only now:  {key}")
        show(f"line for --api-keys:  {line}")
        return Served()
    listener = listen(config)
    notifier = Notifier()
    try:
        service = open_service(config, notifier)
        try:
            return _serve(service, listener, notifier, show)
        finally:
            service.close()
    finally:
        listener.close()
        notifier.close()


def open_service(config: Serve, notifier: Notifier | None = None) -> Service:
    """Load the model, the detector and the keys of a config; close what is returned.

    Raises UsageError for the prior `auto`, or TLS files that cannot be used.
    """
    if config.prior == AUTO:
        raise UsageError(
            "prior auto estimates the mix of emotions from the faces before, so that the answer to one client would "
            "depend on the images of others. Give the shares instead:  --prior neutral=0.6,happiness=0.2"
        )
    _check_tls(config)
    keys = read_keys(config.api_keys) if config.api_keys else None
    detector = load_detector(
        config.detector, threads=config.threads, faces=cast("Faces | None", config.faces), threshold=config.threshold
    )
    models = Models(partial(_load, config), workers=count_workers(config), notifier=notifier)
    return Service(config, models, detector, keys)


def _load(config: Serve) -> Model:
    return load(
        config.model,
        threads=config.threads,
        labels=config.label_set,
        prior=config.prior,
        prior_strength=config.prior_strength,
    )


def listen(config: Serve) -> socket.socket:
    """Return a socket that is bound to the address of a config, and does not listen yet.

    Raises UsageError if address or port cannot be used.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # With its protocol, by which asyncio knows that it may switch off Nagle's delay of 40 ms per answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((config.host, config.port))
    except (OSError, UnicodeError, OverflowError) as error:
        listener.close()
        raise _explain(error, config) from error
    return listener


def _explain(error: Exception, config: Serve) -> EdgeemoError:
    number = getattr(error, "errno", None)
    if number in (errno.EADDRINUSE, errno.EACCES) and config.port:
        what = "in use" if number == errno.EADDRINUSE else "not allowed for this user"
        return UsageError(f"--port {config.port}: the port is {what}; choose another one, or 0 for any free one")
    if isinstance(error, (socket.gaierror, UnicodeError)) or number == errno.EADDRNOTAVAIL:
        return UsageError(f"--host {config.host}: expected an address of this machine, as 127.0.0.1 or 0.0.0.0")
    return MachineError(f"cannot listen on {config.host}: {getattr(error, 'strerror', None) or error}")


def _check_tls(config: Serve) -> None:
    if config.tls_certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.tls_certificate, config.tls_key)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise UsageError(
            f"--tls-certificate {config.tls_certificate}, --tls-key {config.tls_key}: {reason}; expected a "
            "certificate in PEM, and its private key without a password"
        ) from error


def _serve(service: Service, listener: socket.socket, notifier: Notifier, show: Callable[[str], None]) -> Served:
    text = f"serving {service.models.current.path.stem}:  {_describe_address(service.config, listener)}"
    server = _Server(_make_uvicorn(service.config, make_app(service)), service, notifier, lambda: show(text))
    with catch_signals(service.models.request_reload) as signals:
        server.signals = signals
        _warn(service.config, service)
        server.run(sockets=[listener])
    log.info("stopped: %d requests received, %d answered", service.received, service.answered)
    return Served(service.received, service.answered)


def _make_uvicorn(config: Serve, app: Any) -> uvicorn.Config:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # a time for each count, which Prometheus does not use
    for name in ("uvicorn.error", "python_multipart"):  # they warn about every malformed request
        logging.getLogger(name).setLevel(logging.ERROR)
    http, websocket = make_protocols(config.timeout, config.connections)
    return uvicorn.Config(
        app,
        http=http,
        ws=websocket,
        ws_max_size=config.max_bytes,
        ws_per_message_deflate=False,  # a frame must not take more memory than it has bytes
        ssl_certfile=config.tls_certificate,
        ssl_keyfile=config.tls_key,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        lifespan="on",
        timeout_graceful_shutdown=config.grace,
    )


class _Server(uvicorn.Server):
    """Ends by the signals that `catch_signals` has caught, after requests have been refused for a moment."""

    signals = Signals()

    def __init__(
        self, config: uvicorn.Config, service: Service, notifier: Notifier, announce: Callable[[], None]
    ) -> None:
        """announce: is called once, when requests are taken."""
        super().__init__(config)
        self._service, self._notifier = service, notifier
        self._announce: Callable[[], None] | None = announce
        self._ticks_left = 5  # of 0.1 s, in which keep-alive clients are asked to close their connections

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `catch_signals`."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen as uvicorn does, and end TLS handshakes that take too long, for which asyncio waits a minute."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            self.should_exit = True
            return
        config, loop = self.config, asyncio.get_running_loop()
        make: Callable[[], asyncio.Protocol] = partial(
            cast("Callable[..., asyncio.Protocol]", config.http_protocol_class),
            config=config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        seconds = self._service.config.timeout if config.ssl else None
        self.servers = [
            await loop.create_server(
                make, sock=listener, backlog=config.backlog, ssl=config.ssl, ssl_handshake_timeout=seconds
            )
            for listener in sockets or []
        ]
        self.started = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end; called ten times a second."""
        self._notifier.beat()
        if self._announce and self._service.state == "ready":
            announce, self._announce = self._announce, None
            self._notifier.ready("serving")
            announce()
        if not self.signals.stopped_by:
            return await super().on_tick(counter)
        if self._service.state != "stopping":
            log.info("%s: answering what was taken, at most %d s", self.signals.stopped_by, self._service.config.grace)
            self._notifier.stopping()
            self._service.stop()
        self._ticks_left -= 1
        return self._ticks_left < 0


def _describe_address(config: Serve, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    scheme = "https" if config.tls_certificate else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _warn(config: Serve, service: Service) -> None:
    try:
        local = config.host == "localhost" or ipaddress.ip_address(config.host).is_loopback
    except ValueError:
        local = False
    if not local and service.keys is None:
        log.warning("--host %s without --api-keys: whoever reaches this address may use the server", config.host)
    if not local and config.tls_certificate is None:
        log.info("--host %s without TLS: images and keys travel readable unless a proxy encrypts them", config.host)
