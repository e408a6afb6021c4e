"""The predict stage: image files of faces → a prediction each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from edgeemo import options
from edgeemo.errors import DataError, UsageError
from edgeemo.runtime import Prediction, load
from edgeemo.runtime.golden import sample_face
from edgeemo.stages import Predict


@dataclass(frozen=True)
class Predictions:
    """What a model predicts for images, in their order, and why it could not for some."""

    found: tuple[tuple[str, Prediction], ...]  # by the image's name
    unreadable: tuple[DataError, ...]

    @property
    def passed(self) -> bool:
        """Whether every image was read."""
        return not self.unreadable

    def __str__(self) -> str:
        """A line per image."""
        return "\n".join(f"{image}: {one}" for image, one in self.found)

    def to_json(self) -> str:
        """One JSON object per image and line."""
        return "\n".join(json.dumps({"image": image, **asdict(one)}) for image, one in self.found)


def run(config: Predict) -> Predictions:
    """Predict as configured; images that cannot be read are left out, and the others predicted."""
    options.check(config)
    if not config.images and not config.sample:
        raise UsageError("no image; name face crops, or try  edgeemo predict --sample")
    found: list[tuple[str, Prediction]] = []
    unreadable: list[DataError] = []
    with load(config.model, labels=config.label_set) as model:
        if config.sample:
            found.append(("sample", model.predict(sample_face())))
        for image in config.images:
            try:
                found.append((str(image), model.predict(image)))
            except DataError as error:
                unreadable.append(error)
    return Predictions(tuple(found), tuple(unreadable))
