"""The page in which faces are labelled, for the browser of this machine only.

The server listens on 127.0.0.1. Every address starts with a random token; a Host header other than its own, as another
site would cause by DNS rebinding, is refused, and so are posts from other origins. The page loads its own script, style
and crops and nothing else, which its Content-Security-Policy enforces.
"""

from __future__ import annotations

import errno
import hmac
import json
import logging
import os
import secrets
import socketserver
import sys
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

from PIL import Image

from edgeemo.console import print_text
from edgeemo.errors import EdgeemoError, MachineError, UsageError
from edgeemo.label.session import OtherFaceError, Session

log = logging.getLogger(__name__)
HOST = "127.0.0.1"
NAMES = (HOST, "localhost")  # by which a browser of this machine may call it, also through ssh -L
FILES = {  # path: file and type
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
MAX_BODY = 1 << 12  # bytes
TIMEOUT = 30  # seconds to send a request
Body = dict[str, Any]


class _RequestError(Exception):
    """A request that is refused, with its status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def label_in_page(session: Session, *, port: int, browser: bool, following: str) -> None:
    """Serve the page until it is stopped, by its button or Ctrl-C.

    port: 0 for any free one. following: the command that the page shows when all faces are done.

    Raises UsageError if the port is in use.
    """
    with PageServer(session, port, following) as server:
        print_text(f"label in your browser:  {server.url}")
        log.info("stop with the page's button or Ctrl-C; labels are saved")
        if browser and _has_display():
            webbrowser.open(server.url)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _has_display() -> bool:
    """Return whether a browser with windows can be opened: one for terminals would take this one."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


class PageServer(ThreadingHTTPServer):
    """Serves a session; `url` is the address of its page, with the token."""

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # Windows would let two servers share a port

    def __init__(self, session: Session, port: int = 0, following: str = "") -> None:
        self.session, self.following = session, following
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except OSError as error:
            raise _explain(error, port) from error
        self.hosts = {f"{name}:{self.server_port}" for name in NAMES}
        self.url = f"http://{HOST}:{self.server_port}/{self.token}/"

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name, as HTTPServer does."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    def handle_error(self, *about: Any) -> None:
        """Print the traceback of a bug; a browser that closes a connection is none."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(*about)

    def describe(self) -> Body:
        """Return what the page shows, ready for JSON."""
        shown, progress = self.session.shown, self.session.get_progress()
        face = None
        if shown:
            one = shown.face
            face = {"number": one.number, "image": one.image, "person": one.person, "prediction": one.probabilities[:3]}
        return {
            "face": face,
            "keys": self.session.keys,
            "labels": progress.labels,
            "people": progress.people,
            "labelled": progress.labelled,
            "skipped": progress.skipped,
            "left": progress.left,
            "following": self.following,
        }

    def draw(self, number: str) -> bytes:
        """Return the PNG of the face with this number, if it is the one that is shown."""
        shown = self.session.shown
        if shown is None or str(shown.face.number) != number:
            raise _RequestError(404, "this face is not shown any more")
        content = BytesIO()
        Image.fromarray(shown.pixels).save(content, "PNG", compress_level=1)
        return content.getvalue()

    def stop(self) -> None:
        """End `serve_forever`, from any thread."""
        Thread(target=self.shutdown, daemon=True).start()


def _explain(error: OSError, port: int) -> EdgeemoError:
    if error.errno in (errno.EADDRINUSE, errno.EACCES) and port:
        what = "in use" if error.errno == errno.EADDRINUSE else "not allowed for this user"
        return UsageError(f"port {port} is {what}; choose another --port, or leave it out")
    return MachineError(f"cannot listen on {HOST}: {error.strerror or error}; use --terminal")


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: PageServer
    server_version, sys_version = "edgeemo", ""
    timeout = TIMEOUT

    def do_GET(self) -> None:
        """Send a file of the page, the state, or the crop of the face that is shown."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Label, skip, undo or stop; send the new state."""
        self._answer(self._post)

    def log_message(self, *_: Any) -> None:
        """Log no requests: their addresses have the token."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send an error as JSON, also one that the base class finds."""
        self._send(code, json.dumps({"error": message or explain or "refused"}).encode(), "application/json")

    def _answer(self, respond: Callable[[str], tuple[bytes, str]]) -> None:
        try:
            content, kind = respond(self._check())
        except _RequestError as error:
            self.send_error(error.status, str(error))
        except OtherFaceError:
            self.send_error(409, "this face is not shown any more")
        except EdgeemoError as error:  # such as a full disk; nothing was stored
            log.warning("%s", error)
            self.send_error(500, str(error))
        else:
            self._send(200, content, kind)

    def _check(self) -> str:
        """Return the path below the token; refuse requests from elsewhere."""
        if self.headers.get("Host") not in self.server.hosts:
            raise _RequestError(403, "this server is for the browser of its own machine")
        _, token, path = (*self.path.partition("?")[0].split("/", 2), "", "")[:3]
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise _RequestError(403, "the address lacks its token; use the one that edgeemo label printed")
        return path

    def _get(self, path: str) -> tuple[bytes, str]:
        if path in FILES:
            name, kind = FILES[path]
            return Path(__file__).with_name(name).read_bytes(), kind
        if path == "state":
            return self._describe()
        folder, _, name = path.partition("/")
        if folder == "face" and name.endswith(".png"):
            return self.server.draw(name.removesuffix(".png")), "image/png"
        raise _RequestError(404, "no such page")

    def _post(self, path: str) -> tuple[bytes, str]:
        body, session = self._read_body(), self.server.session
        if path == "label" and body.get("label") in list(session.keys):
            session.label(self._get_number(body), body["label"])
        elif path == "skip":
            session.label(self._get_number(body), "")
        elif path == "undo":
            session.undo()
        elif path == "stop":
            self.server.stop()
        else:
            raise _RequestError(400 if path == "label" else 404, f"unknown {'label' if path == 'label' else 'page'}")
        return self._describe()

    def _describe(self) -> tuple[bytes, str]:
        return json.dumps(self.server.describe()).encode(), "application/json"

    def _read_body(self) -> Body:
        """Return the JSON object of a post; refuse other origins, types and sizes."""
        if self.headers.get("Origin", f"http://{self.headers['Host']}") != f"http://{self.headers['Host']}":
            raise _RequestError(403, "posts come from the page itself")
        if self.headers.get_content_type() != "application/json":
            raise _RequestError(415, "expected application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal() or int(length) > MAX_BODY:
            raise _RequestError(413, f"expected at most {MAX_BODY} bytes, and their number")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise _RequestError(400, "expected JSON") from error
        if not isinstance(body, dict):
            raise _RequestError(400, "expected a JSON object")
        return body

    def _get_number(self, body: Body) -> int:
        number = body.get("face")
        if not isinstance(number, int) or isinstance(number, bool):
            raise _RequestError(400, "expected the number of the face")
        return number

    def _send(self, status: int, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
