"""The page of edgeemo.web at /: the model runs in the visitor's browser, so this server sees no image of it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from edgeemo.errors import MachineError, UsageError
from edgeemo.serve.service import Service
from edgeemo.web.pages import HEADERS, Page, list_pages

log = logging.getLogger(__name__)


def add_page(app: FastAPI, service: Service) -> None:
    """Add the page's files to an application, or log why there is none.

    There is none with API keys: whoever opens it gets the model's file.
    """
    if not service.config.page:
        return
    if service.keys is not None:
        log.info("no page at /: with --api-keys, nobody gets the model's file without a key")
        return
    try:
        pages = list_pages(service.models.current)
    except (MachineError, UsageError) as error:
        log.info("no page at /: %s", error)
        return
    _add_routes(app, pages)


def _add_routes(app: FastAPI, pages: Mapping[str, Page]) -> None:
    async def get_page(request: Request) -> Response:
        page = pages[request.url.path.removeprefix("/")]
        about = {"media_type": page.media_type, "headers": HEADERS}
        if isinstance(page.content, Path):
            return FileResponse(page.content, **about)  # type: ignore[arg-type]
        return Response(page.content, **about)  # type: ignore[arg-type]

    for path in pages:
        app.add_route(f"/{path}", get_page, include_in_schema=False)
