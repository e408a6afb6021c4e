"""From the bytes of a request to its answer: jobs of worker threads, and what all requests share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edgeemo import images
from edgeemo.errors import EdgeemoError
from edgeemo.faces.passes import Faces
from edgeemo.faces.search import SearchDetector
from edgeemo.machine import usable_cores
from edgeemo.names import escape_name
from edgeemo.predict.result import ImageFaces, make_crop_face
from edgeemo.runtime import Prediction, golden
from edgeemo.runtime.find import LocatedFaces, locate_faces
from edgeemo.serve.admission import Admission
from edgeemo.serve.batching import Batcher
from edgeemo.serve.body import HELD, Bodies
from edgeemo.serve.keys import Keys
from edgeemo.serve.metrics import Metrics
from edgeemo.serve.models import Models
from edgeemo.serve.problems import make_replaced_problem
from edgeemo.serve.workers import Workers
from edgeemo.stages import Serve

log = logging.getLogger(__name__)
Content = bytes | bytearray
State = Literal["starting", "ready", "stopping"]
NAME = "image"  # in answers, of an image without a file name


@dataclass(frozen=True)
class Search:
    """How the faces of an image are searched and cropped. faces: None: as the server is configured."""

    faces: Faces | None = None
    augment: bool = True


@dataclass(eq=False)
class Service:
    """What the requests of a server share. `close` it at the end.

    received, answered: requests since the start, but for those that no longer had a client.
    """

    config: Serve
    models: Models
    detector: SearchDetector
    keys: Keys | None = None
    metrics: Metrics = field(default_factory=Metrics)
    state: State = "starting"
    received: int = 0
    answered: int = 0
    streams: int = 0

    def __post_init__(self) -> None:
        """Start the worker threads."""
        config = self.config
        self.workers = Workers(count_workers(config))
        self.admission = Admission(
            config.queue, config.client_queue, workers=self.workers.number, max_bytes=HELD * config.max_bytes
        )
        self.bodies = Bodies(config.max_bytes, config.timeout)
        self.batcher = Batcher(
            self.workers,
            self._classify,
            delay=config.batch_delay / 1000,
            count_requests=lambda: self.admission.count,
            observe=self.metrics.batches.observe,
        )
        self.metrics.observe(
            self.models,
            queue=lambda: self.admission.count,
            limit=config.queue,
            ready=lambda: self.state == "ready",
        )

    async def warm_up(self) -> None:
        """Run model and detector once in each worker, and be ready; the first calls of both take longer."""
        await asyncio.gather(*(self.workers.run(self._run_once) for _ in range(self.workers.number)))
        if self.state == "starting":
            self.state = "ready"

    def stop(self) -> None:
        """Take no more requests; those that are in work are answered."""
        self.state = "stopping"
        self.bodies.stop()

    def close(self) -> None:
        """End the worker threads, and close the models."""
        self.workers.close()
        self.models.close()

    async def predict(self, content: Content, name: str, search: Search) -> str:
        """Return the faces of an image as JSON, as `edgeemo predict --json` prints them.

        Raises DataError for an image that cannot be read.
        """
        if not self.config.batch_delay:
            return await self.workers.run(lambda: self._predict(content, name, search))
        located = await self.workers.run(lambda: self._locate(content, search))
        count = len(located.crops)
        predictions: Sequence[Prediction] = ()
        if count:
            predictions = await self.batcher.predict(lambda: located.crops, crops=count, views=located.views)
        return self._write_faces(located, predictions, name)

    async def predict_crop(self, content: Content, name: str) -> str:
        """Return the emotion of a ready crop as JSON, as `edgeemo predict --crop --json` prints it.

        Raises DataError for an image that cannot be read.
        """
        sizes: list[tuple[int, int]] = []

        def prepare() -> np.ndarray:
            pixels = self._read(content)
            sizes.append((pixels.shape[1], pixels.shape[0]))
            return images.to_pixels(pixels, self.models.current.card.input)[None]

        (prediction,) = await self.batcher.predict(prepare, crops=1)
        face = make_crop_face(*sizes[0], prediction)
        self.metrics.faces.inc()
        return ImageFaces(clean_name(name), *sizes[0], (face,), crop=True).to_json()

    def _predict(self, content: Content, name: str, search: Search) -> str:
        located = self._locate(content, search)
        return self._write_faces(located, self._classify(located.crops, located.views), name)

    def _locate(self, content: Content, search: Search) -> LocatedFaces:
        detector = self.detector.with_faces(search.faces) if search.faces else self.detector
        contract = self.models.current.card.input
        return locate_faces(self._read(content), detector, contract, augment=search.augment)

    def _classify(self, crops: np.ndarray, views: int) -> Sequence[Prediction]:
        with self.models.lend() as model:
            if len(crops) and crops.shape[1:] != model.card.input.pixels:
                raise make_replaced_problem()
            return model.predict_crops(crops, views=views)

    def _write_faces(self, located: LocatedFaces, predictions: Sequence[Prediction], name: str) -> str:
        faces = located.make_faces(predictions, self.models.current.card.input)
        self.metrics.faces.inc(len(faces))
        found = ImageFaces(clean_name(name), located.width, located.height, tuple(faces), tuple(located.left_out))
        return found.to_json()

    def _read(self, content: Content) -> np.ndarray:
        return images.read(content, name=NAME, max_pixels=self.config.max_pixels)

    def _run_once(self) -> None:
        try:
            with self.models.lend() as model:
                model.logits(golden.golden_batch(model.card.input))
            self.detector.detect(np.zeros((64, 64, 3), np.uint8))
        except EdgeemoError as error:
            log.warning("the model's first call failed: %s", error)


def count_workers(config: Serve) -> int:
    """Return the number of worker threads: by default one per core that this process may use."""
    return config.workers or len(usable_cores())


def clean_name(name: str) -> str:
    """Return a file name that a client sent, without its folders and control characters, or `image`."""
    return escape_name(name.replace("\\", "/").rpartition("/")[2][:255]) or NAME
