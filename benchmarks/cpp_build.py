"""Build the C++ host, run it, and compare its answers with Python's: for tests and benchmarks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

from edgeemo.predict import run as stage
from edgeemo.stages import Predict

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "hosts" / "cpp"
FIXTURES = ROOT / "hosts" / "fixtures"
MISSING = ("was not found", "Could NOT find")  # what CMake says of a header or library that is not installed


class NotInstalledError(Exception):
    """Something that the build needs is not installed."""


@dataclass(frozen=True)
class Difference:
    """The largest difference of numbers between Python and another host, and whether all else is the same."""

    same: bool
    box_px: float
    score: float
    probability: float


def find_onnxruntime() -> Path:
    """Return the folder of the Python package, in which the host finds the library."""
    spec = find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        raise NotInstalledError("the Python package onnxruntime is not installed")
    return Path(spec.origin).parent


def find_tool(name: str) -> str:
    """Return the path of a program; raise NotInstalledError if it is not installed."""
    if path := shutil.which(name):
        return path
    raise NotInstalledError(f"{name} is not installed")


def build(folder: Path, *options: str) -> Path:
    """Build hosts/cpp in a folder, and return it; raise NotInstalledError where a tool or header is missing."""
    cmake, *_ = (find_tool(name) for name in ("cmake", "g++", "make"))
    configured = subprocess.run(
        [cmake, "-S", SOURCE, "-B", folder, *options], capture_output=True, text=True, check=False
    )
    if configured.returncode and any(words in configured.stderr for words in MISSING):
        raise NotInstalledError(" ".join(configured.stderr.split()[-30:]))
    configured.check_returncode()
    subprocess.run([cmake, "--build", folder, "--parallel", "2"], check=True, stdout=subprocess.DEVNULL)
    return folder


def run_host(program: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run edgeemo-predict with the library of the Python package."""
    environment = {**os.environ, "EDGEEMO_ONNXRUNTIME": str(find_onnxruntime())}
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, env=environment)


def predict_in_python(images: Sequence[Path], model: str, **options: Any) -> list[dict[str, Any]]:
    """Return what `edgeemo predict --json` prints."""
    found = stage.run(Predict(images=tuple(images), model=model, **options))
    return [json.loads(line) for line in found.to_json().splitlines()]


def compare(expected: Sequence[dict[str, Any]], actual: Sequence[dict[str, Any]]) -> Difference:
    """Compare the parsed lines of two hosts."""
    pairs = list(zip(_flatten(expected), _flatten(actual), strict=False))
    largest = {"box": 0.0, "score": 0.0, "probability": 0.0}
    same = len(list(_flatten(expected))) == len(list(_flatten(actual)))
    for (kind, first), (_, second) in pairs:
        if kind in largest and isinstance(first, float) and isinstance(second, float):
            largest[kind] = max(largest[kind], abs(first - second))
        else:
            same &= first == second
    return Difference(same, largest["box"], largest["score"], largest["probability"])


def expect(model: str, lines: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Return the lines that hosts/fixtures/expected.json says of its `pictures` or `ready` crops, in order.

    lines: of the host, from which comes what the file does not state: the images' names, and size and box of a crop.
    """
    expected = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))[kind]
    wanted = []
    for line, picture in zip(lines, expected, strict=True):
        faces = picture.get("faces") or ([{**line["faces"][0], **picture}] if kind == "ready" else [])
        found = [{**face, **face["predictions"][model]} for face in faces]
        wanted.append({**line, **picture, "image": line["image"], "faces": found})
    return wanted


def list_fixtures(kind: str) -> list[Path]:
    """Return the `pictures` or `ready` crops of hosts/fixtures, in the order of expected.json."""
    expected = json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))[kind]
    return [FIXTURES / picture["file"] for picture in expected]


def _flatten(lines: Sequence[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Return what lines hold, with the kind of each number."""
    values: list[tuple[str, Any]] = []
    for line in lines:
        values += [("text", (line[key])) for key in ("image", "width", "height", "left_out")]
        for face in line["faces"]:
            values += [("box", value) for value in chain(face["box"], *face["landmarks"])]
            values += [("score", face["score"]), ("probability", face["probability"])]
            values += [("text", (face["label"], face["unsure"], tuple(face["flags"])))]
            values += [("probability", face["probabilities"][label]) for label in sorted(face["probabilities"])]
    return values
