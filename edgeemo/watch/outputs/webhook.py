"""POST requests with batches of records, as JSON: {"events": [RECORD, ...]}."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from hashlib import sha256
from http.client import HTTPException
from ipaddress import ip_address
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from edgeemo import __version__
from edgeemo.errors import UsageError
from edgeemo.watch.events import Record
from edgeemo.watch.outputs.background import RejectedError, UndeliveredError
from edgeemo.watch.outputs.lines import to_json

TOKEN = "EDGEEMO_WEBHOOK_TOKEN"  # noqa: S105  the variable's name
ALLOW_HTTP = "EDGEEMO_WEBHOOK_ALLOW_HTTP"
BATCH = 100
TIMEOUT = 4.0  # seconds without an answer; less than the time to flush at the end
LONGEST_PAUSE = 300.0  # seconds, whatever Retry-After says
LATER = {408, 425, 429}  # client errors that pass; so do all of servers, from 500 on
SPACE = re.compile(r"[\x00-\x20\x7f]")
LOCAL_SUFFIXES = (".local", ".lan", ".internal", ".home.arpa", ".localhost")  # of names that stay in a local network


class Webhook:
    """A sink that posts batches of records, the oldest first, and again until they are taken.

    Any status of 200 to 299 takes them. After a time-out, a lost connection, 408, 425, 429 or 500 and above, the same
    batch is posted again, not before what Retry-After says. Any other status rejects the batch, which is lost;
    redirections are not followed, because browsers and libraries turn a redirected POST into a GET. A receiver can tell
    a batch that arrives twice by its header Idempotency-Key, the SHA-256 of the body.

    The token in the environment variable EDGEEMO_WEBHOOK_TOKEN is sent as `Authorization: Bearer TOKEN`.

    Raises UsageError for a URL that is neither https nor, in a local network, http: records and token would cross the
    internet readable to all. EDGEEMO_WEBHOOK_ALLOW_HTTP=1 allows it. Also for a URL or token with characters that HTTP
    does not carry, neither of which is shown.
    """

    batch = BATCH

    def __init__(self, url: str, *, timeout: float = TIMEOUT) -> None:
        self.name = _check_url(url)
        self._url, self._timeout = url, timeout
        self._opener = build_opener(_NoRedirects)
        self._headers = {"Content-Type": "application/json", "User-Agent": f"edgeemo/{__version__}"}
        if token := _read_token():
            self._headers["Authorization"] = f"Bearer {token}"

    def send(self, items: Sequence[Record]) -> None:
        """Post a batch."""
        body = to_json({"events": items})
        headers = {**self._headers, "Idempotency-Key": sha256(body).hexdigest()}
        try:
            self._opener.open(Request(self._url, body, headers), timeout=self._timeout).close()  # noqa: S310  checked
        except HTTPError as error:
            with error:
                _refuse(error)
        except TimeoutError as error:
            raise UndeliveredError(f"no answer within {self._timeout:g} s") from error
        except URLError as error:
            raise UndeliveredError(getattr(error.reason, "strerror", None) or str(error.reason)) from error
        except (HTTPException, OSError) as error:
            raise UndeliveredError(str(error) or type(error).__name__) from error

    def abort(self) -> None:
        """Requests end within their time-out."""

    def close(self) -> None:
        """Every request has a connection of its own, which is closed already."""


class _NoRedirects(HTTPRedirectHandler):
    """Leaves redirections to the caller, as errors."""

    def redirect_request(self, _request: Request, _file: IO[bytes], *_args: Any) -> None:
        """Follow none."""


def _refuse(error: HTTPError) -> None:
    """Raise what an answer other than success means."""
    said = f"the server answers {error.code} {error.reason}"
    if error.code in LATER or error.code >= 500:
        raise UndeliveredError(said, after=_read_pause(error.headers.get("Retry-After"))) from error
    if 300 <= error.code < 400:
        raise RejectedError(f"{said}, which is not followed; use the URL to which it leads") from error
    hint = f"; is {TOKEN} right?" if error.code in (401, 403) else ""
    raise RejectedError(f"{said}{hint}") from error


def _read_pause(text: str | None) -> float | None:
    """Return the seconds that Retry-After says, as a number or a date (RFC 9110); None if it says neither."""
    with suppress(TypeError, ValueError):
        if text and text.strip().isdigit():
            return min(float(text), LONGEST_PAUSE)
        date = parsedate_to_datetime(text or "")
        return min(max(0.0, (date - datetime.now(timezone.utc)).total_seconds()), LONGEST_PAUSE)
    return None


def _read_token() -> str:
    token = os.environ.get(TOKEN, "").strip()  # as of a file, with its line break
    if SPACE.search(token) or not token.isascii():
        raise UsageError(f"{TOKEN}: expected letters, digits and signs of ASCII without spaces; it has others")
    return token


def _check_url(url: str) -> str:
    """Return scheme and host of a URL, for people: its path may be a secret; raise UsageError if it is not allowed."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port  # reading a port that is none fails
    except ValueError as error:
        raise UsageError("--webhook: this is no URL; expected https://HOST[:PORT]/PATH") from error
    if parts.scheme not in ("https", "http") or not host:
        raise UsageError("--webhook: expected https://HOST[:PORT]/PATH, or http:// in a local network")
    if SPACE.search(url) or not f"{parts.path}{parts.query}".isascii():  # http.client would show the path, or the token
        raise UsageError("--webhook: the URL has spaces or letters beyond ASCII; write them as in %20 and %C3%BC")
    if parts.username is not None:
        raise UsageError(f"--webhook: the URL contains a user, which all processes see; put a token into {TOKEN}")
    if parts.scheme == "http" and not _is_local(host) and os.environ.get(ALLOW_HTTP) != "1":
        raise UsageError(
            f"--webhook: http://{host} would send records through the internet unencrypted; use https, or set "
            f"{ALLOW_HTTP}=1 if this host is in your own network"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _is_local(host: str) -> bool:
    """Return whether a host is this machine or, by its address or name, in a local network."""
    with suppress(ValueError):
        address = ip_address(host)
        return address.is_loopback or address.is_private or address.is_link_local
    return "." not in host or host.endswith(LOCAL_SUFFIXES)
