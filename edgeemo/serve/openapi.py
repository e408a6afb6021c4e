"""The OpenAPI description of the server: schemas, examples and the bodies that routes read themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from edgeemo.image_files import NAMES
from edgeemo.serve.problems import MEDIA_TYPE

BINARY = {"type": "string", "format": "binary"}


class FaceAnswer(BaseModel):
    """A face, in pixels of the upright image, with the emotion that it expresses; not what the person feels."""

    box: tuple[float, float, float, float] = Field(description="x, y, width, height; may extend over the edges")
    score: float | None = Field(description="of the detector, 0 to 1; null for a ready crop")
    landmarks: list[tuple[float, float]] = Field(description="the person's right and left eye first")
    label: str
    probability: float = Field(description="of the label, 0 to 1")
    probabilities: dict[str, float] = Field(description="of every label, most probable first")
    unsure: bool | None = Field(description="below the card's threshold; null: the card has none")
    flags: list[str] = Field(description="why it may be poor: small, tilted, clipped")


class ImageAnswer(BaseModel):
    """The faces of an image, the highest score first, as `edgeemo predict --json` prints them."""

    image: str = Field(description="the name of the file, if the client sent one")
    width: int = Field(description="pixels of the upright image")
    height: int
    faces: list[FaceAnswer]
    left_out: list[str] = Field(description="why further faces are not classified")


class ProblemAnswer(BaseModel):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str | None = None


class Refused(BaseModel):
    """An image of several that cannot be read."""

    image: str
    error: ProblemAnswer


class BatchAnswer(BaseModel):
    """The answers to several images, in order."""

    images: list[ImageAnswer | Refused]


FACE: dict[str, Any] = {
    "box": [212.4, 96.1, 151.0, 151.0],
    "score": 0.9312,
    "landmarks": [[252.7, 148.9], [313.5, 149.6]],
    "label": "happiness",
    "probability": 0.912345,
    "probabilities": {"happiness": 0.912345, "neutral": 0.054321, "surprise": 0.033334},
    "unsure": False,
    "flags": [],
}
IMAGE: dict[str, Any] = {"image": "photo.jpg", "width": 640, "height": 480, "faces": [FACE], "left_out": []}
CROP = {**IMAGE, "width": 96, "height": 96, "faces": [{**FACE, "box": [0.0, 0.0, 96.0, 96.0], "score": None}]}
PROBLEM: dict[str, Any] = {
    "type": "about:blank",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "image: not an image; expected a PNG, JPEG, WebP or BMP image",
    "request_id": "5f1d7c0a9be24e31",
}
BATCH = {"images": [IMAGE, {"image": "notes.txt", "error": PROBLEM}]}
REASONS = {
    400: "not a form, or not HTTP",
    401: "no key, or an unknown one",
    403: "the Host or Origin header is refused",
    408: "the body did not arrive in time",
    413: "the body, or the number of images, is too large",
    415: "compressed, or JSON",
    422: "no image, a damaged one, one of too many pixels, or a parameter that is not known",
    429: "the queue, or the client's share of it, is full; Retry-After says when to try again",
    503: "starting, stopping, or out of memory",
}


def describe_body(*, several: bool = False) -> dict[str, Any]:
    """Return the description of a route's body: an image, a form with one, or a form with several."""
    image: dict[str, Any] = {"image": BINARY}
    one = {"schema": {"type": "object", "properties": image, "required": ["image"]}}
    if several:
        images = {"images": {"type": "array", "items": BINARY}}
        many = {"schema": {"type": "object", "properties": images, "required": ["images"]}}
        return _make_body(
            {"multipart/form-data": many}, "several image files in one form; the fields may have any name"
        )
    types = ("image/jpeg", "image/png", "image/webp", "image/bmp", "application/octet-stream")
    content = {kind: {"schema": BINARY} for kind in types}
    return _make_body({**content, "multipart/form-data": one}, f"a {NAMES} file, as it is or in a form")


def _make_body(content: dict[str, Any], text: str) -> dict[str, Any]:
    return {"requestBody": {"required": True, "description": text, "content": content}}


def describe_answers(model: type[BaseModel], example: Any, *statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the description of a route's answers: its own, and problems."""
    schema = {"$ref": "#/components/schemas/ProblemAnswer"}
    problems: dict[int | str, dict[str, Any]] = {
        status: {
            "description": REASONS[status],
            "content": {MEDIA_TYPE: {"schema": schema, "example": {**PROBLEM, "status": status}}},
        }
        for status in statuses or sorted(REASONS)
    }
    answer = {"model": model, "description": "The answer.", "content": {"application/json": {"example": example}}}
    return {200: answer, **problems}
