"""The known detectors: a card each, in edgeemo/models/detectors/, whether or not the file is packaged.

A file is recognised by its SHA-256 alone: detectors have operators that classifiers have no use for, so that the
allow-list of runtime/onnx_check does not hold for them, and how a file's outputs are decoded is known by no name.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Annotated

from edgeemo.card import from_json
from edgeemo.card.keys import SHA256, Key
from edgeemo.faces.detection import Framing
from edgeemo.reading import read_json

FOLDER = Path(__file__).parent.parent / "models" / "detectors"
MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Source:
    """Where a detector's file comes from."""

    project: Annotated[str, Key("who made it, and where it is published")]
    licence: Annotated[str, Key("terms of code and weights")]
    training_data: Annotated[str, Key("what is known of the faces that it was trained on, and their terms")]
    package: Annotated[str | None, Key("registry package that carries the original, with its version")] = None
    package_sha256: Annotated[str | None, Key("SHA-256 of the package's file", pattern=SHA256)] = None
    original: Annotated[str | None, Key("the original inside the package")] = None
    original_sha256: Annotated[str | None, Key("SHA-256 of the original", pattern=SHA256)] = None
    install: Annotated[
        str | None, Key("command that installs the package, where the detector opens the original inside it")
    ] = None


@dataclass(frozen=True)
class Conversion:
    """Largest absolute difference between the raw outputs of the original, in LiteRT, and of the file."""

    boxes: Annotated[float, Key("of boxes and landmarks", unit="pixels of the input", least=0)]
    scores: Annotated[float, Key("of scores before the sigmoid", unit="logits", least=0)]
    inputs: Annotated[int, Key("number of inputs compared", least=1)]
    versions: Annotated[dict[str, str], Key("versions of both engines")]


@dataclass(frozen=True)
class Search:
    """What searching takes and finds, either with `few` or with `many`."""

    ms: Annotated[float, Key("median time of a search of 640x480 px on one thread", unit="milliseconds", above=0)]
    nanos: Annotated[float, Key("the same in predictions of one crop by the model nano", above=0)]
    found: Annotated[int, Key("faces found, of Measured.faces", least=0)]
    false_boxes: Annotated[int, Key("boxes that are no face, in Measured.images", least=0)]


@dataclass(frozen=True)
class Measured:
    """Speed and quality of a detector; benchmarks/detector_cards.py writes them."""

    quality: Annotated[str, Key("result file of found faces and false boxes, and what the faces are")]
    speed: Annotated[str, Key("result file of the times, and the processor")]
    images: Annotated[int, Key("number of images searched", least=1)]
    faces: Annotated[int, Key("number of faces in them", least=1)]
    few: Annotated[Search, Key("the whole image is searched")]
    many: Annotated[Search, Key("tiles of it, too")]


@dataclass(frozen=True)
class DetectorCard:
    """What is known about one detector."""

    name: Annotated[
        str, Key("name, as `load_detector` takes it if the file is packaged or installed", pattern="[a-z0-9-]+")
    ]
    sha256: Annotated[str, Key("SHA-256 of the file", pattern=SHA256)]
    size_bytes: Annotated[int, Key("size of the file", unit="bytes", least=1)]
    family: Annotated[str, Key("network, which decides the decoding", choices=("blazeface", "centerface", "yunet"))]
    packaged: Annotated[bool, Key("whether the file is packaged with edgeemo, beside this card")]
    input_size: Annotated[int, Key("side of the square input", unit="pixels", least=32, most=4096)]
    threshold: Annotated[float, Key("lowest score of a face", above=0, most=0.999)]
    smallest_face: Annotated[
        float, Key("smallest box that is found, of the longer side of what is searched", unit="share", above=0, most=1)
    ]
    half_pass: Annotated[bool, Key("whether it misses faces that fill the image unless searched at half the size, too")]
    landmarks: Annotated[tuple[str, ...], Key("the points that it finds, in order; right and left are the person's")]
    box: Annotated[Framing, Key("how its boxes lie about the eyes, for faces without landmarks")]
    source: Annotated[Source, Key("origin and terms")]
    measured: Annotated[Measured | None, Key("speed and quality; absent: not measured")] = None
    conversion: Annotated[Conversion | None, Key("how exact the conversion is; absent: the file is the original")] = (
        None
    )

    @property
    def path(self) -> Path:
        """The packaged file, beside its card."""
        return FOLDER / f"{self.name}.onnx"

    def find(self) -> Path | None:
        """Return the file that the name stands for: packaged, or in the installed package that brings it; else None."""
        path = self.path if self.packaged else _find_original(self.source)
        return path if path and path.is_file() else None

    @property
    def named(self) -> bool:
        """Whether the name stands for a file, if it is installed; other files are given by their path."""
        return self.packaged or self.source.install is not None


def _find_original(source: Source) -> Path | None:
    """Return where the original is in an installed package, which is not imported."""
    if source.install is None or source.original is None:
        return None
    package, *parts = PurePosixPath(source.original).parts
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(places[0]).joinpath(*parts) if places else None


@cache
def list_detectors() -> tuple[DetectorCard, ...]:
    """Return the known detectors, the packaged ones first."""
    files = sorted(FOLDER.glob("*.json"))
    cards = [from_json(DetectorCard, read_json(file, max_bytes=MAX_BYTES), where=file.name) for file in files]
    return tuple(sorted(cards, key=lambda card: (not card.packaged, card.name)))
