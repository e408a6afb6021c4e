"""Errors as problem details in JSON (RFC 9457), with the sentences of edgeemo's errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from edgeemo.errors import DataError, EdgeemoError, MachineError, UsageError
from edgeemo.names import escape_message

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):
    """A request that is refused: its status, the reason in a sentence, and further headers."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def describe(self, request_id: str = "") -> dict[str, Any]:
        """Return the problem details; without a type of its own, the title is that of the status (RFC 9457, 4.2.1)."""
        about = {"type": "about:blank", "title": HTTPStatus(self.status).phrase, "status": self.status}
        return {**about, "detail": escape_message(self.detail), **({"request_id": request_id} if request_id else {})}

    def make_response(self, request_id: str = "") -> Response:
        """Return the problem as a response."""
        content = json.dumps(self.describe(request_id))
        return Response(content, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def make_problem(error: Exception) -> Problem:
    """Return the problem that an error is for a client: 422 for its data, 503 for the machine, 500 for all else.

    The text of other errors than edgeemo's is not shown, because nobody knows what it contains.
    """
    if isinstance(error, Problem):
        return error
    if isinstance(error, (DataError, UsageError)):
        return Problem(422, str(error))
    if isinstance(error, MachineError):
        return Problem(503, str(error), {"Retry-After": "10"})
    if isinstance(error, EdgeemoError):
        return Problem(500, str(error))
    return Problem(500, "the server failed; its log has the reason under this request id")


def make_replaced_problem() -> Problem:
    """Return the problem of crops that were made for a model of another size than the one that has replaced it."""
    return Problem(
        503, "the model was replaced by one of another input size meanwhile; try again", {"Retry-After": "1"}
    )
