"""The predict stage: image files of faces → one prediction each."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edgeemo import options
from edgeemo.errors import DataError, UsageError
from edgeemo.names import IMAGE_SUFFIXES, escape_name, list_images
from edgeemo.runtime import Prediction, load
from edgeemo.runtime.golden import sample_face
from edgeemo.stages import Predict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for images, in order, and the errors of images that cannot be read."""

    predictions: tuple[tuple[str, Prediction], ...]  # with the name of the image
    unreadable: tuple[DataError, ...]

    @property
    def passed(self) -> bool:
        """Every image was read."""
        return not self.unreadable

    def __str__(self) -> str:
        """Return one line per image, whatever its name contains."""
        return "\n".join(f"{escape_name(image)}: {one}" for image, one in self.predictions)

    def to_json(self) -> str:
        """Return one JSON object per image, on a line each."""
        return "\n".join(json.dumps({"image": image, **asdict(one)}) for image, one in self.predictions)


def run(config: Predict) -> Predictions:
    """Predict as configured; images that cannot be read are skipped."""
    options.check(config)
    if not config.images and not config.sample:
        raise UsageError("no image; name face crops, or try  edgeemo predict --sample")
    predictions: list[tuple[str, Prediction]] = []
    unreadable: list[DataError] = []
    with load(config.model, labels=config.label_set) as model:
        if config.sample:
            predictions.append(("sample", model.predict(sample_face())))
        for image in _list_all(config.images, unreadable):
            try:
                predictions.append((str(image), model.predict(image)))
            except DataError as error:
                unreadable.append(error)
    return Predictions(tuple(predictions), tuple(unreadable))


def _list_all(paths: Sequence[Path], unreadable: list[DataError]) -> list[Path]:
    """Return all images; errors of folders are added to `unreadable`."""
    return [image for path in paths for image in _list_images(path, unreadable)]


def _list_images(path: Path, unreadable: list[DataError]) -> list[Path]:
    """Return the path of an image, or the images in a folder and below it."""
    if not path.is_dir():
        return [path]
    found, others, failed = list_images(path)
    unreadable += [DataError(f"{folder} cannot be listed; make it readable or leave it out") for folder in failed]
    if not found and not failed:
        unreadable.append(DataError(f"{path} holds no images; expected files that end in {', '.join(IMAGE_SUFFIXES)}"))
    log.info("%s: %d images", path, len(found))
    if others:
        log.warning(
            "%s: %d files of other types are not read, such as %s", path, len(others), escape_name(others[0].name)
        )
    return found
