"""What every request passes before and after its route: id, Host and Origin, key, headers, log, metrics."""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timezone
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edgeemo.serve.problems import Problem, make_problem
from edgeemo.serve.service import Service
from edgeemo.watch.health import HEADERS, is_safe_host

log = logging.getLogger(__name__)
OPEN = ("/health", "/ready", "/openapi.json")  # all paths that need no key: a supervisor has none
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
SECURITY = {**HEADERS, "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin"}
METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE", "WEBSOCKET")  # others are logged as OTHER


class Guard:
    """Wraps the application; see the module."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service
        self._names = {name.lower() for name in service.config.host_names}
        self._origins = {origin.rstrip("/").lower() for origin in service.config.origins}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request = _Request(scope, self._service, send)
        self._service.received += scope["type"] == "http"
        try:
            if problem := self._find_problem(scope, request.headers):
                await request.refuse(problem, receive)
            else:
                await self._app(request.scope, receive, request.send)
        except ClientDisconnect:
            request.status = 499  # as nginx logs it
            self._service.received -= 1
        except Exception as error:
            log.exception("request %s failed", request.id)
            if request.status == 0:
                await request.refuse(make_problem(error), receive)
        else:
            if scope["type"] == "http" and not request.complete:  # the client has left within a long answer
                self._service.received -= 1
        finally:
            request.finish()

    def _find_problem(self, scope: Scope, headers: Mapping[str, str]) -> Problem | None:
        """Return why a request is refused; None if it is not. Sets `client` in its state."""
        host = headers.get("host", "")
        if not is_safe_host(host) and _get_name(host) not in self._names:
            return Problem(403, "the Host header is not a name of this server; allow it with  --host-names NAME")
        if not self._is_allowed_origin(headers):
            return Problem(403, "a page of another origin sent this request; allow it with  --origins ORIGIN")
        path = scope["path"]
        state = scope.setdefault("state", {})
        state["client"] = str((scope.get("client") or ("",))[0])
        is_preflight = scope.get("method") == "OPTIONS"
        if self._service.keys and not is_preflight and path not in OPEN:
            owner = self._service.keys.find(_get_key(headers))
            if owner is None:
                challenge = {"WWW-Authenticate": 'Bearer realm="edgeemo"'}
                return Problem(401, "no key, or an unknown one; send  Authorization: Bearer KEY", challenge)
            state["client"] = state["key"] = owner
        if path.startswith("/v1/") and self._service.state != "ready":
            return Problem(503, f"the server is {self._service.state}", {"Retry-After": "5", "Connection": "close"})
        return None

    def _is_allowed_origin(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request comes from no page, one of this server, or one of --origins."""
        origin = headers.get("origin", "").rstrip("/").lower()
        if not origin or origin in self._origins:
            return True
        try:
            return urlsplit(origin).netloc == headers.get("host", "").lower()
        except ValueError:
            return False


class _Request:
    """One request: what is known of it, and what is sent for it."""

    def __init__(self, scope: Scope, service: Service, send: Send) -> None:
        self._service, self._send, self._started = service, send, perf_counter()
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = self.headers.get("x-request-id", "")
        self.id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        self.scope, self.status, self.complete = scope, 0, False
        scope.setdefault("state", {})["request_id"] = self.id
        if scope.get("method") == "HEAD":
            self.scope = {**scope, "method": "GET"}  # uvicorn leaves out the content

    async def send(self, message: Message) -> None:
        """Send a message of the application, an answer's start with further headers."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", []), *self._make_headers(message)]}
        elif message["type"] in ("websocket.accept", "websocket.close") and not self.status:
            self.status = 101 if message["type"] == "websocket.accept" else 403
        await self._send(message)
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self.complete = True

    async def refuse(self, problem: Problem, receive: Receive) -> None:
        """Answer a request with a problem; a WebSocket is refused with the status 403, which uvicorn sends."""
        if self.scope["type"] == "websocket":
            await self.send({"type": "websocket.close", "code": 1008, "reason": problem.detail[:120]})
        else:
            await problem.make_response(self.id)(self.scope, receive, self.send)

    def finish(self) -> None:
        """Count and log the request; nothing of its content, and of its path only the route."""
        route = getattr(self.scope.get("route"), "path", "other")
        seconds = perf_counter() - self._started
        is_http = self.scope["type"] == "http"
        if is_http:
            self._service.answered += self.complete
            self._service.metrics.requests.labels(route, str(self.status)).inc()
            self._service.metrics.seconds.labels(route).observe(seconds)
        if log.isEnabledFor(logging.INFO):
            log.info(json.dumps(self._describe(route, seconds)))

    def _describe(self, route: str, seconds: float) -> dict[str, Any]:
        state = self.scope["state"]
        method = self.scope.get("method", "WEBSOCKET")
        about = {
            "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
            "id": self.id,
            "method": method if method in METHODS else "OTHER",
            "route": route,
            "status": self.status,
            "ms": round(1000 * seconds, 3),
        }
        if "key" in state:
            about["key"] = state["key"]
        if self._service.config.log_clients:
            about["client"] = str((self.scope.get("client") or ("",))[0])
        return about

    def _make_headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        present = {name.lower() for name, _ in message.get("headers", [])}
        added = {**SECURITY, "X-Request-ID": self.id}
        if self._service.state == "stopping":
            added["Connection"] = "close"
        pairs = ((name.lower().encode(), value.encode("latin-1")) for name, value in added.items())
        return [(name, value) for name, value in pairs if name not in present]


def _get_name(host: str) -> str:
    return re.sub(r":\d{1,5}$", "", host).lower().rstrip(".")


def _get_key(headers: Mapping[str, str]) -> str:
    """Return the key of a request, from `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
