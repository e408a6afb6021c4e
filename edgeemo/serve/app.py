"""The routes of the server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

import edgeemo
from edgeemo.card import to_json
from edgeemo.errors import EdgeemoError
from edgeemo.serve.body import Part, is_form, parse_form
from edgeemo.serve.guard import Guard
from edgeemo.serve.openapi import (
    BATCH,
    CROP,
    IMAGE,
    BatchAnswer,
    ImageAnswer,
    ProblemAnswer,
    describe_answers,
    describe_body,
)
from edgeemo.serve.page import add_page
from edgeemo.serve.problems import Problem, make_problem
from edgeemo.serve.service import Search, Service, clean_name
from edgeemo.serve.streams import TRY_LATER, UNSUPPORTED, Stream, check_raw

JSON = "application/json"
ABOUT = (
    "Finds the faces in images and predicts the emotion that each expresses. Errors are problem details (RFC 9457). "
    "Images are not stored."
)
FacesQuery = Annotated[
    Literal["few", "many"] | None,
    Query(description="few: search the image as a whole; many: also tiles of it; default: the server's"),
]
AugmentQuery = Annotated[bool, Query(description="average three crops of each face")]


def make_app(service: Service) -> ASGIApp:
    """Return the application of a server; it warms the service up at its start, and does not close it."""

    @asynccontextmanager
    async def live(_: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.ensure_future(service.warm_up())
        yield
        await warming

    app = FastAPI(
        title="edgeemo",
        version=edgeemo.__version__,
        description=ABOUT,
        docs_url=None,  # Swagger UI loads scripts from another host
        redoc_url=None,
        lifespan=live,
        redirect_slashes=False,
    )
    _handle_errors(app)
    _add_predictions(app, service)
    _add_stream(app, service)
    _add_facts(app, service)
    add_page(app, service)
    app.openapi = lambda: _describe(app)  # type: ignore[method-assign]
    inner: ASGIApp = app
    if service.config.origins:
        inner = CORSMiddleware(
            app,
            allow_origins=[origin.rstrip("/").lower() for origin in service.config.origins],  # as browsers send them
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    return Guard(inner, service)


def _add_predictions(app: FastAPI, service: Service) -> None:
    @app.post(
        "/v1/predict",
        summary="Find the faces of an image and predict their emotions",
        openapi_extra=describe_body(),
        responses=describe_answers(ImageAnswer, IMAGE),
    )
    async def predict(request: Request, faces: FacesQuery = None, augment: AugmentQuery = True) -> Response:  # noqa: FBT002
        part = await _read_one(request, service)
        with service.admission.admit(request.state.client, size=len(part.content)):
            answer = await service.predict(part.content, part.filename, _make_search(service, faces, augment=augment))
        return Response(answer, media_type=JSON)

    @app.post(
        "/v1/predict/batch",
        summary="The same for several images, each with its own answer or error",
        openapi_extra=describe_body(several=True),
        responses=describe_answers(BatchAnswer, BATCH),
    )
    async def predict_batch(request: Request, faces: FacesQuery = None, augment: AugmentQuery = True) -> Response:  # noqa: FBT002
        parts = await _read_form(request, service)
        search = _make_search(service, faces, augment=augment)
        size = sum(len(part.content) for part in parts)
        with service.admission.admit(request.state.client, len(parts), size):
            jobs = (service.predict(part.content, part.filename, search) for part in parts)
            answers = await asyncio.gather(*jobs, return_exceptions=True)
        texts = [_write_answer(part, answer) for part, answer in zip(parts, answers, strict=True)]
        return Response(f'{{"images": [{", ".join(texts)}]}}', media_type=JSON)

    @app.post(
        "/v1/crop",
        summary="Predict the emotion of a ready crop, which one face fills",
        openapi_extra=describe_body(),
        responses=describe_answers(ImageAnswer, CROP),
    )
    async def crop(request: Request) -> Response:
        part = await _read_one(request, service)
        with service.admission.admit(request.state.client, size=len(part.content)):
            answer = await service.predict_crop(part.content, part.filename)
        return Response(answer, media_type=JSON)


def _add_stream(app: FastAPI, service: Service) -> None:
    @app.websocket("/v1/stream")
    async def stream(
        socket: WebSocket,
        faces: FacesQuery = None,
        augment: AugmentQuery = False,  # noqa: FBT002
        width: Annotated[int | None, Query(ge=16, le=16384)] = None,
        height: Annotated[int | None, Query(ge=16, le=16384)] = None,
        color: Literal["rgb", "bgr", "gray"] = "rgb",
    ) -> None:
        await socket.accept()
        if service.streams >= service.config.streams:
            await socket.close(TRY_LATER, f"{service.streams} streams are open, the limit of this server")
            return
        try:
            raw = check_raw(width, height, color, service.config.max_pixels)
        except Problem as problem:
            await socket.close(UNSUPPORTED, problem.detail[:120])
            return
        service.streams += 1
        service.metrics.streams.inc()
        try:
            await Stream(service, socket, _make_search(service, faces, augment=augment), raw).run()
        finally:
            service.streams -= 1
            service.metrics.streams.dec()


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.get("/v1/card", summary="The card of the model that serves", responses={200: {"description": "docs/card.md"}})
    async def get_card() -> Response:
        return _to_json(to_json(service.models.current.card))

    @app.get("/v1/labels", summary="The labels of the predictions, and below which probability one is unsure")
    async def get_labels() -> Response:
        model = service.models.current
        names = {"label_set": model.label_set.name, "labels": list(model.labels)}
        return _to_json({**names, "least_probability": model.least_probability})

    @app.get("/health", summary="Whether the process works; needs no key")
    async def get_health() -> Response:
        model = service.models.current
        about = {"name": model.path.name, "sha256": model.card.sha256}
        return _to_json({"state": service.state, "model": about, "version": edgeemo.__version__})

    not_ready: dict[int | str, dict[str, Any]] = {503: {"description": "The server starts or stops."}}

    @app.get("/ready", summary="Whether requests are taken: 200, or 503; needs no key", responses=not_ready)
    async def get_ready() -> Response:
        return _to_json({"state": service.state}, 200 if service.state == "ready" else 503)

    @app.get("/metrics", summary="Numbers for Prometheus", response_class=PlainTextResponse)
    async def get_metrics() -> Response:
        content, kind = service.metrics.render()
        return Response(content, headers={"Content-Type": kind})


async def _read_one(request: Request, service: Service) -> Part:
    """Return the image of a request, as its body or as the one file of a form."""
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() == JSON:
        raise Problem(415, "JSON; send the image file itself, as  curl --data-binary @photo.jpg, or a form with it")
    if not is_form(kind):
        return Part(content=await service.bodies.read(request.headers, request.receive))
    parts = await _read_form(request, service)
    if len(parts) != 1:
        raise Problem(422, f"a form with {len(parts)} files; expected one; /v1/predict/batch takes several")
    return parts[0]


async def _read_form(request: Request, service: Service) -> list[Part]:
    kind = request.headers.get("content-type", "")
    if not is_form(kind):
        raise Problem(
            415, "expected multipart/form-data with a file per image, as  curl --form a=@a.jpg --form b=@b.jpg"
        )
    body = await service.bodies.read(request.headers, request.receive)
    with service.admission.admit(request.state.client, size=len(body)):  # it waits for a worker, too
        parts = await service.workers.run(lambda: parse_form(body, kind))
    if not parts:
        raise Problem(422, "a form without a file; give each image a file name, as  curl --form image=@photo.jpg")
    return parts


def _make_search(service: Service, faces: str | None, *, augment: bool) -> Search:
    return Search(faces or service.config.faces, augment)  # type: ignore[arg-type]  # checked by both


def _write_answer(part: Part, answer: str | BaseException) -> str:
    if isinstance(answer, str):
        return answer
    if not isinstance(answer, Exception):
        raise answer
    return json.dumps({"image": clean_name(part.filename), "error": make_problem(answer).describe()})


def _to_json(content: Any, status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type=JSON)


def _handle_errors(app: FastAPI) -> None:
    """Answer every error as a problem."""

    async def refuse(request: Request, error: Exception) -> Response:
        return make_problem(error).make_response(request.state.request_id)

    async def refuse_route(request: Request, error: Exception) -> Response:
        status, headers = getattr(error, "status_code", 500), getattr(error, "headers", None)
        if status == 405 and request.method == "OPTIONS":
            return Response(status_code=204, headers=headers)
        detail = "no such page; /openapi.json lists them" if status == 404 else str(getattr(error, "detail", ""))
        return Problem(status, detail, headers).make_response(request.state.request_id)

    async def refuse_query(request: Request, error: Exception) -> Response:
        faults: Sequence[Any] = error.errors() if isinstance(error, RequestValidationError) else ()
        detail = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in faults)
        return Problem(422, detail).make_response(request.state.request_id)

    app.add_exception_handler(Problem, refuse)
    app.add_exception_handler(EdgeemoError, refuse)
    app.add_exception_handler(Exception, refuse)
    app.add_exception_handler(HTTPException, refuse_route)
    app.add_exception_handler(RequestValidationError, refuse_query)


def _describe(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=ABOUT, routes=app.routes)
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["ProblemAnswer"] = ProblemAnswer.model_json_schema()
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        answer = document["paths"]["/v1/crop"]["post"]["responses"]["200"]
        answer["content"][JSON]["example"] = CROP  # FastAPI drops what is null, as its score
        app.openapi_schema = document
    return app.openapi_schema
