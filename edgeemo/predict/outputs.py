"""What predict writes beside its answers: a table with a row per face, and images with boxes and labels."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeemo.artifact import atomic_write, check_file, check_writable, remove_leftovers
from edgeemo.card import card_path
from edgeemo.errors import UsageError
from edgeemo.names import IMAGE_SUFFIXES
from edgeemo.predict.paint import paint
from edgeemo.predict.result import ImageFaces, make_record
from edgeemo.predict.sources import Source
from edgeemo.runtime import Model
from edgeemo.stages import Predict

COLUMNS = ("image", "x", "y", "width", "height", "score", "label", "probability", "unsure", "flags")
PREFIX = "probability_"  # of a label's column
PNG = ".png"
SAVING: dict[str, dict[str, Any]] = {  # by suffix; the others are JPEG
    PNG: {"format": "PNG", "compress_level": 1},
    ".webp": {"format": "WEBP", "lossless": True},
    ".bmp": {"format": "BMP"},
}
Write = Callable[[Source, ImageFaces, np.ndarray], None]
JPEG: dict[str, Any] = {"format": "JPEG", "quality": 95, "subsampling": 0}


@contextmanager
def open_outputs(config: Predict, sources: Sequence[Source], model: Model) -> Iterator[Write]:
    """Yield a function that writes what is predicted for one image to the table and onto the image, as configured.

    The table gets its name when the block has succeeded. Raises UsageError, before anything is written, for a file that
    is read, drawings inside a folder of images, and as `plan_drawings` and `check_targets` do; MachineError for a
    folder that cannot be written.
    """
    drawings = plan_drawings(config.draw, sources) if config.draw else {}
    check_outside(drawings.values(), [path for path in config.images if os.path.isdir(path)])  # noqa: PTH112
    read = {source.path: "an image to predict" for source in sources if source.path}
    read |= {model.path: "the model", card_path(model.path): "the model's card"}
    if config.detector:
        read[Path(config.detector)] = "the detector"
    drawn = [target for source, target in drawings.items() if not source.path or os.path.lexists(source.path)]
    check_targets([*drawn, *([config.csv] if config.csv else [])], read)
    remove_leftovers(drawn)  # once: for each image, it would list a folder that grows with every image
    with ExitStack() as stack:
        add = stack.enter_context(_open_table(config.csv, model.labels)) if config.csv else None

        def write(source: Source, row: ImageFaces, pixels: np.ndarray) -> None:
            if add:
                add(row)
            if drawings:
                _save(paint(pixels, row.faces), drawings[source])

        yield write


def plan_drawings(out: Path, sources: Iterable[Source]) -> dict[Source, Path]:
    """Return the file to which each image is drawn: `out`, or a PNG under the image's name in the folder `out`.

    Raises UsageError if `out` is one file for several images, is no folder and has another suffix than that of an
    image, or if two images would be drawn to the same file.
    """
    different = dict.fromkeys(sources)
    is_folder = os.path.isdir(out)  # noqa: PTH112  False for names that no file can have
    is_file = not is_folder and out.suffix.lower() in IMAGE_SUFFIXES
    if is_file and len(different) > 1:
        raise UsageError(f"--draw {out} is one file for {len(different)} images; expected a folder")
    if not is_file and out.suffix and len(different) == 1 and not is_folder:
        raise UsageError(f"--draw {out}: expected a folder, or a file that ends in {', '.join(IMAGE_SUFFIXES)}")
    drawings = {source: out if is_file else out / _name_drawing(source) for source in different}
    owners: dict[Path, Source] = {}
    for source, target in drawings.items():
        if (other := owners.setdefault(target, source)) != source:
            raise UsageError(f"{other.name} and {source.name} would both be drawn to {target}; draw them separately")
    return drawings


def _name_drawing(source: Source) -> Path:
    """Return photo.png for photo.png, and photo.jpg.png for photo.jpg, which may lie beside it."""
    suffix = "" if source.inside.suffix.lower() == PNG else PNG
    return Path(source.inside.with_name(source.inside.name + suffix))


def check_targets(targets: Sequence[Path], read: Mapping[Path, str], *, options: str = "--csv and --draw") -> None:
    """Raise UsageError if a file to write is one that is read, by any name, the same as another one, or no file.

    read: what each file is. options: those that name the targets. Raises UsageError also as `check_file` does,
    MachineError if a file cannot be written.
    """
    for target in targets:
        check_file(target)
        if target.is_dir():
            raise UsageError(f"{target} is a folder; expected the name of a file to write")
    real = {folder: folder.resolve() for folder in dict.fromkeys(target.parent for target in targets)}
    paths = [str(real[target.parent] / target.name) for target in targets]
    folders = {str(parent) for path in dict.fromkeys(paths) for parent in Path(path).parents}
    times = Counter(paths)
    for target, path in zip(targets, paths, strict=True):
        if path in folders or times[path] > 1:
            raise UsageError(f"{options} would both write to {target}; choose different names")
    if existing := {target: found for target in targets if (found := _identify(target))}:
        kinds = {_identify(path): what for path, what in read.items()}
        for target, found in existing.items():
            if found in kinds:
                raise UsageError(f"{target} is {kinds[found]}, which is not overwritten; choose another file")
    for folder in real:
        check_writable(folder)


def check_outside(drawings: Iterable[Path], folders: Sequence[Path]) -> None:
    """Raise UsageError if a drawing would be in a folder of images, which the next run would read."""
    parents = {drawing.parent.resolve() for drawing in drawings}
    for folder in folders:
        if any(parent.is_relative_to(folder.resolve()) for parent in parents):
            raise UsageError(
                f"--draw would write into {folder}, whose images are predicted, so that the next run would predict the "
                "drawings; choose a folder outside it"
            )


def _identify(path: Path) -> tuple[int, int] | None:
    with suppress(OSError, ValueError):
        facts = path.stat()
        return facts.st_dev, facts.st_ino
    return None


@contextmanager
def _open_table(path: Path, labels: Sequence[str]) -> Iterator[Callable[[ImageFaces], None]]:
    """Yield a function that adds a row per face of an image."""
    with (
        atomic_write(path) as partial,
        partial.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        table = csv.writer(file)  # lines end in CRLF (RFC 4180); with another end, Python 3.11 leaves a CR unquoted
        table.writerow([*COLUMNS, *(f"{PREFIX}{label}" for label in labels)])
        yield lambda image: table.writerows(_make_rows(image, labels))


def _make_rows(image: ImageFaces, labels: Sequence[str]) -> Iterator[list[Any]]:
    for face in image.faces:
        one = make_record(face)
        probabilities = [one["probabilities"][label] for label in labels]
        about = [one["score"], one["label"], one["probability"], one["unsure"], " ".join(one["flags"])]
        yield [image.image, *one["box"], *about, *probabilities]


def _save(drawn: Image.Image, path: Path) -> None:
    """Write a drawn image in the format of the path's suffix."""
    with atomic_write(path, sweep=False) as partial:
        try:
            drawn.save(partial, **SAVING.get(path.suffix.lower(), JPEG))
        except ValueError as error:  # a format's limit, such as 16,383 pixels a side of WebP
            raise UsageError(f"{path} cannot hold {drawn.width}x{drawn.height} px ({error}); use {PNG}") from error
