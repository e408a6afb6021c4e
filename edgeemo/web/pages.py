"""Every file of the page, by its path: for the export to a folder, and for a server that shows it at its root."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from edgeemo.card import card_path
from edgeemo.errors import MachineError, UsageError
from edgeemo.faces.cards import FOLDER as DETECTORS
from edgeemo.faces.load import DEFAULT as DETECTOR
from edgeemo.runtime import Model
from edgeemo.runtime.golden import FACES
from edgeemo.web.runtime import FILES, find_runtime

FOLDER = Path(__file__).with_name("page")
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
}
# Of every file, also the worker's, whose requests its own policy limits. index.html repeats the policy, for hosts that
# send no headers.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Page:
    """A file of the page: the path of one that exists, or its content."""

    content: Path | bytes
    media_type: str

    def read(self) -> bytes:
        """Return the content."""
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


def list_pages(model: Model) -> dict[str, Page]:
    """Return the files of the page that runs a model, by path, such as `models/small.onnx`; send HEADERS with each.

    The path "" is index.html. Raises UsageError for a model that is no .onnx file, MachineError if onnxruntime-web was
    not fetched yet.
    """
    pages = make_pages([model.path], find_runtime())
    return {"": pages["index.html"], **pages}


def make_pages(models: Iterable[Path], runtime: Path) -> dict[str, Page]:
    """Return the files of the page that runs these models, by path; runtime: folder of onnxruntime-web's files."""
    files = {file.name: file for file in FOLDER.iterdir() if file.suffix in MEDIA_TYPES}
    files |= {f"runtime/{name}": runtime / name for name in FILES}
    files |= {f"models/{DETECTOR}{suffix}": DETECTORS / f"{DETECTOR}{suffix}" for suffix in (".onnx", ".json")}
    files |= {f"models/{FACES.name}": FACES, **_list_licences()}
    listed = []
    for model in models:
        name = model.name.removesuffix(".onnx")
        _check_model(model, name, files)
        files |= {f"models/{model.name}": model, f"models/{model.name}.json": card_path(model)}
        listed.append({"name": name, "model": f"models/{model.name}"})
    manifest = json.dumps({"models": listed}, indent=1).encode()
    pages = {path: Page(file, MEDIA_TYPES.get(file.suffix, MEDIA_TYPES[".txt"])) for path, file in files.items()}
    return {**pages, "models.json": Page(manifest, MEDIA_TYPES[".json"])}


def _check_model(model: Path, name: str, files: dict[str, Path]) -> None:
    if model.suffix != ".onnx":
        raise UsageError(f"{model}: a browser runs .onnx files; give the file that the engine was built from")
    if f"models/{model.name}" in files:
        raise UsageError(f"two models are named {name}, as the page would list them; rename one of the files")


def _list_licences() -> dict[str, Path]:
    """Return the terms of what others made: the detector, and ONNX Runtime with the libraries in it."""
    spec = find_spec("onnxruntime")
    if spec is None or not spec.submodule_search_locations:
        raise MachineError(
            "the page comes with the licences of ONNX Runtime, which is not installed:  pip install onnxruntime"
        )
    package = Path(next(iter(spec.submodule_search_locations)))
    return {
        "licences/edgeemo/LICENSE.txt": Path(__file__).with_name("LICENSE.txt"),
        "licences/detector/LICENSE.txt": DETECTORS / "LICENSE",
        "licences/detector/NOTICE.txt": DETECTORS / "NOTICE",
        "licences/onnxruntime/LICENSE.txt": package / "LICENSE",
        "licences/onnxruntime/ThirdPartyNotices.txt": package / "ThirdPartyNotices.txt",
    }
