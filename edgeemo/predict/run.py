"""The predict stage: find the faces of each image, or take it as a ready crop, and predict their emotions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import cast

import numpy as np

from edgeemo import options
from edgeemo.errors import DataError, UsageError
from edgeemo.faces import load_detector
from edgeemo.faces.passes import Faces
from edgeemo.predict.outputs import open_outputs
from edgeemo.predict.result import NO_SCORE, ImageFaces, Predictions
from edgeemo.predict.sources import SAMPLE, Source, list_sources
from edgeemo.progress import track
from edgeemo.runtime import Face, Model, load
from edgeemo.stages import Predict

log = logging.getLogger(__name__)
Find = Callable[[np.ndarray], Sequence[Face]]


def run(config: Predict, *, show: Callable[[ImageFaces], None] | None = None) -> Predictions:
    """Predict as configured; images that cannot be read are skipped.

    show: is given what is predicted for each image at once, to print it; the result then holds only the errors, so that
    thousands of images take no more memory than one.
    """
    options.check(config)
    if not config.images and not config.sample:
        raise UsageError("no image; name photos or folders of them, or try  edgeemo predict --sample")
    failed: list[DataError] = []
    kept: list[ImageFaces] = []
    faces = without = unread = 0
    sources = [SAMPLE] if config.sample else list_sources(config.images, failed)
    with (
        load(config.model, labels=config.label_set) as model,
        open_outputs(config, sources, model.labels) as write,
    ):
        find = _make_finder(config, model)
        for source in _count(sources, prints=show is not None):
            try:
                row, pixels = _predict(source, find, crop=config.crop or config.sample)
            except DataError as error:
                failed.append(DataError(str(error)))  # the traceback of the first one holds the image
                unread += 1
                continue
            faces, without = faces + len(row.faces), without + (not row.faces)
            write(source, row, pixels)
            (show or kept.append)(row)
    if len(sources) > 1:
        log.info("%d images: %d faces; %d without a face, %d not read", len(sources), faces, without, unread)
    return Predictions(tuple(kept), tuple(failed))


def _make_finder(config: Predict, model: Model) -> Find:
    """Return what finds and classifies the faces of an image, or the face that a ready crop is."""
    if config.crop or config.sample:
        return lambda pixels: [_predict_crop(model, pixels)]
    detector = load_detector(config.detector, faces=cast("Faces | None", config.faces))
    return lambda pixels: model.faces(pixels, color="rgb", detector=detector, augment=config.augment)


def _predict_crop(model: Model, pixels: np.ndarray) -> Face:
    height, width = pixels.shape[:2]
    side = min(height, width)
    box = (float((width - side) // 2), float((height - side) // 2), float(side), float(side))
    return Face(box, NO_SCORE, (), model.predict(pixels))


def _predict(source: Source, find: Find, *, crop: bool) -> tuple[ImageFaces, np.ndarray]:
    """Return what is predicted for an image, and the upright image; raise DataError with the image's name."""
    pixels = source.read()
    try:
        faces = tuple(find(pixels))
    except DataError as error:
        raise DataError(f"{source.name}: {error}") from error
    return ImageFaces(source.name, pixels.shape[1], pixels.shape[0], faces, crop=crop), pixels


def _count(sources: Sequence[Source], *, prints: bool) -> Iterator[Source]:
    """Yield the images; several are counted by a progress bar."""
    if len(sources) < 2:
        return iter(sources)
    return track(sources, "predicting", total=len(sources), prints=prints)
