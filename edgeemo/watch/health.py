"""Serve /health, for supervisors and people, and /metrics, for Prometheus, from threads of their own.

A request reads a copy of numbers and never waits for the loop, nor the loop for a request. The server listens on this
machine alone unless another address is given. A Host header that another site could cause by DNS rebinding is refused.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import logging
import os
import re
import socket
import socketserver
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

import edgeemo
from edgeemo.errors import EdgeemoError, MachineError, UsageError
from edgeemo.packages import require
from edgeemo.watch.status import Status

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)
ADDRESS = "127.0.0.1"
CONNECTIONS = 16  # at once; more are closed unread
SECONDS = 5.0  # for a whole request and its answer
POLL = 0.25  # seconds between looks for connections that take longer
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class HealthServer(ThreadingHTTPServer):
    """Serves a status inside a with-block; `url` is its address without a path."""

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # Windows would let two servers share a port
    request_queue_size = CONNECTIONS

    def __init__(self, status: Status, port: int = 0, address: str = ADDRESS, *, seconds: float = SECONDS) -> None:
        """port: 0 for any free one. address: an IP address of this machine; 0.0.0.0: all of them.

        seconds: after which a connection is closed, however far it is.

        Raises UsageError if address or port cannot be used, MachineError if prometheus-client is not installed.
        """
        self.status, self.seconds = status, seconds
        self.metrics = require("edgeemo.watch.metrics", purpose="--health", extra="video")
        self.registry = self.metrics.make_registry(status)
        self._connections: dict[socket.socket, float] = {}
        self._lock = Lock()
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            super().__init__((address, port), _Handler)
        except (OSError, UnicodeError) as error:
            raise _explain(error, address, port) from error
        host = f"[{address}]" if ":" in address else address
        self.url = f"http://{host}:{self.server_port}"

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name, as HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def __enter__(self) -> Self:
        self._thread = Thread(target=self.serve_forever, args=(POLL,), name="edgeemo-health", daemon=True)
        self._thread.start()
        log.info("health: %s/health and %s/metrics", self.url, self.url)
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
        self._end_connections(before=float("inf"))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own, unless too many clients are connected."""
        with self._lock:
            if len(self._connections) >= CONNECTIONS:
                self._close_unread(request)
                return
            self._connections[request] = time.monotonic()
        super().process_request(request, client_address)

    def _close_unread(self, request: socket.socket) -> None:
        super().shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End connections that take too long: no time-out of a read ends one that sends a byte now and then."""
        self._end_connections(before=time.monotonic() - self.seconds)

    def _end_connections(self, *, before: float) -> None:
        """Let the threads of connections from before this time see their end; they close them."""
        with self._lock:
            for connection, opened in self._connections.items():
                if opened <= before:
                    with suppress(OSError):
                        connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *about: Any) -> None:
        """Print the traceback of a bug; a client that closes a connection is none."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(*about)

    def describe(self) -> tuple[int, dict[str, Any]]:
        """Return the HTTP status and what /health answers, ready for JSON."""
        numbers, faults, now = self.status.read(), self.status.find_faults(), self.status.now()
        waited = None if numbers.last_answer is None else round(now - numbers.last_answer, 3)
        state = "unhealthy" if faults else "starting" if numbers.last_answer is None else "watching"
        return 503 if faults else 200, {
            "state": state,
            "reasons": faults,
            "seconds_since_answer": waited,
            "source": {"connected": numbers.connected, "frozen": numbers.frozen},
            "model": {"name": numbers.model, "sha256": numbers.model_sha256},
            "version": edgeemo.__version__,
            "uptime_seconds": round(now - numbers.started, 3),
        }


def _explain(error: Exception, address: str, port: int) -> EdgeemoError:
    number = getattr(error, "errno", None)
    if number in (errno.EADDRINUSE, errno.EACCES) and port:
        what = "in use" if number == errno.EADDRINUSE else "not allowed for this user"
        return UsageError(f"--health {port}: the port is {what}; choose another one, or 0 for any free one")
    if isinstance(error, (socket.gaierror, UnicodeError)) or number == errno.EADDRNOTAVAIL:
        return UsageError(f"--health-address {address}: expected an IP address of this machine, as {ADDRESS}")
    return MachineError(f"cannot listen on {address}: {getattr(error, 'strerror', None) or error}")


def is_safe_host(host: str) -> bool:
    """Return whether a Host header names this machine in a way that no other site can cause.

    DNS rebinding needs a public name, which has a dot. So IP addresses, localhost, this machine's own name, names
    without a dot (of containers) and names in .local or .internal are safe.
    """
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:\[\]]+))(?::\d{1,5})?", host)
    if not found:
        return False
    name = (found[1] or found[2]).lower().rstrip(".")
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return bool(name) and ("." not in name or name.endswith((".local", ".internal")) or name == socket.gethostname())


class _Handler(BaseHTTPRequestHandler):
    """Answers one request, and closes the connection."""

    server: HealthServer
    server_version, sys_version = "edgeemo", ""

    def setup(self) -> None:
        """Limit how long a read or write waits."""
        self.request.settimeout(self.server.seconds)
        super().setup()

    def do_GET(self) -> None:
        """Send the health or the metrics."""
        path = self.path.partition("?")[0]
        if not is_safe_host(self.headers.get("Host", "")):
            self.send_error(403, "the Host header is not a name of this machine")
        elif path == "/health":
            status, about = self.server.describe()
            self._send(status, json.dumps(about).encode() + b"\n", "application/json")
        elif path == "/metrics":
            self._send(200, *self.server.metrics.render(self.server.registry))
        else:
            self.send_error(404, "no such page; there are /health and /metrics")

    def do_HEAD(self) -> None:
        """Send the same without its content."""
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Log no requests: supervisors ask every few seconds."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send an error as JSON, also one that the base class finds."""
        self._send(code, json.dumps({"error": message or explain or "refused"}).encode() + b"\n", "application/json")

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
