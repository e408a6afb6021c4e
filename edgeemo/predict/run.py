"""The predict stage: find the faces of each image, or take it as a ready crop, and predict their emotions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from edgeemo import options
from edgeemo.errors import ClosedPipeError, DataError, UsageError
from edgeemo.faces import load_detector
from edgeemo.faces.passes import Faces
from edgeemo.names import count
from edgeemo.predict.outputs import Write, open_outputs
from edgeemo.predict.result import ImageFaces, Predictions, make_crop_face
from edgeemo.predict.sources import SAMPLE, Source, list_sources
from edgeemo.progress import track
from edgeemo.runtime import Face, FoundFaces, Model, load
from edgeemo.runtime.prior import AUTO, MINIMUM
from edgeemo.stages import Predict

log = logging.getLogger(__name__)
Find = Callable[[np.ndarray], FoundFaces]


@dataclass
class Counts:
    """What is known of the images so far."""

    images: int = 0  # predicted
    faces: int = 0
    without: int = 0  # images without a face
    unread: int = 0  # images that cannot be read


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
    counts = Counts()
    sources = [SAMPLE] if config.sample else list_sources(config.images, failed)
    try:
        with (
            load(
                config.model, labels=config.label_set, prior=config.prior, prior_strength=config.prior_strength
            ) as model,
            open_outputs(config, sources, model) as write,
        ):
            _log_assumed(config, model)
            find = _make_finder(config, model)
            for source in _count(sources, prints=show is not None):
                if (row := _predict(source, find, write, failed, crop=config.crop or config.sample)) is None:
                    counts.unread += 1
                    continue
                (show or kept.append)(row)
                counts.images += 1
                counts.faces, counts.without = counts.faces + len(row.faces), counts.without + (not row.faces)
            _log_estimated(model)
    except ClosedPipeError:
        _log_incomplete(config, counts, len(sources))
        raise
    _log_summary(config, counts, len(sources))
    return Predictions(tuple(kept), tuple(failed))


def _make_finder(config: Predict, model: Model) -> Find:
    """Return what finds and classifies the faces of an image, or the face that a ready crop is."""
    if config.crop or config.sample:
        return lambda pixels: FoundFaces([_predict_crop(model, pixels)], [])
    detector = load_detector(config.detector, faces=cast("Faces | None", config.faces), threshold=config.threshold)
    return lambda pixels: model.find_faces(pixels, color="rgb", detector=detector, augment=config.augment)


def _predict_crop(model: Model, pixels: np.ndarray) -> Face:
    height, width = pixels.shape[:2]
    return make_crop_face(width, height, model.predict(pixels))


def _predict(source: Source, find: Find, write: Write, failed: list[DataError], *, crop: bool) -> ImageFaces | None:
    """Return what is predicted for an image, and write it; None, with the error in `failed`, if it cannot be read."""
    try:
        pixels = source.read()
        try:
            found = find(pixels)
        except DataError as error:
            raise DataError(f"{source.name}: {error}") from error
    except DataError as error:
        failed.append(DataError(str(error)))  # the traceback of the first one holds the image
        return None
    height, width = pixels.shape[:2]
    row = ImageFaces(source.name, width, height, tuple(found.faces), tuple(found.left_out), crop=crop)
    write(source, row, pixels)
    return row


def _count(sources: Sequence[Source], *, prints: bool) -> Iterator[Source]:
    """Yield the images; several are counted by a progress bar."""
    if len(sources) < 2:
        return iter(sources)
    return track(sources, "predicting", total=len(sources), unit="images", prints=prints)


def _log_assumed(config: Predict, model: Model) -> None:
    if (prior := model.prior) and prior.kind != AUTO:
        log.info("assumed mix of emotions, at strength %g: %s", config.prior_strength, prior)


def _log_estimated(model: Model) -> None:
    prior = model.prior
    if not prior or prior.kind != AUTO:
        return
    faces = count(prior.faces, "face")
    if prior.acting:
        log.info("mix of emotions, estimated from the last %s: %s", faces, prior)
    else:
        log.info("nothing was corrected: %s so far, the mix of emotions is estimated from %d faces on", faces, MINIMUM)


def _log_summary(config: Predict, counts: Counts, total: int) -> None:
    if total > 1:
        found = count(counts.faces, "face")
        log.info("%d images: %s; %d without a face, %d not read", total, found, counts.without, counts.unread)
    if config.csv:
        log.info("%s: %s", config.csv, count(counts.faces, "row"))
    if config.draw:
        log.info("%s: %s drawn", config.draw, count(counts.images, "image"))


def _log_incomplete(config: Predict, counts: Counts, total: int) -> None:
    """Log what files lack if nobody reads the answers any more, as after `| head`."""
    if config.csv:
        log.warning("standard output was closed: %s is not written", config.csv)
    if config.draw:
        drawn = counts.images + 1  # the last one was drawn, but not printed
        log.warning("standard output was closed: %d of %s drawn in %s", drawn, count(total, "image"), config.draw)
