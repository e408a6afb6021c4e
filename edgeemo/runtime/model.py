"""Load a model with its card, check that they match, and predict the emotion of a face crop, or of all in an image."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeemo import images
from edgeemo.adaptation import adapt_logits, explain_refusal
from edgeemo.card import Card, get_label_set, read_card, suggest_rebuild
from edgeemo.errors import DataError, IntegrityError, UsageError, known
from edgeemo.faces import Detector
from edgeemo.labels import LabelSet, label_set
from edgeemo.machine import check_threads
from edgeemo.metrics import merge_matrix, softmax
from edgeemo.runtime import adapting, shipped
from edgeemo.runtime.advice import advise
from edgeemo.runtime.backends.table import BACKENDS, FORMATS, Backend, backends_of
from edgeemo.runtime.find import PackagedDetector, locate_faces
from edgeemo.runtime.loading import Image, load_image
from edgeemo.runtime.prediction import Face, FoundFaces, Prediction, make_prediction
from edgeemo.runtime.prior import Prior, make_correction

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)
BATCH_SIZE = 64  # images run at once: limits the memory of activations, and a CPU is no faster with more


def load(
    model: str | Path | None = None,
    *,
    threads: int = 1,
    backend: str | None = None,
    labels: str | LabelSet | None = None,
    prior: str | Mapping[str, float] | None = None,
    prior_strength: float = 1.0,
) -> Model:
    """Load a packaged model (nano, small, base; None or empty: small) or a model file, ready to predict.

    Logs a warning if the file is a poor choice on this machine: `Model.advice`.

    threads: one by default, because a face takes a few milliseconds and a device has other work. backend: a name in
    BACKENDS; by default the first for files of this suffix, ONNX Runtime or TensorRT. labels: report in this label set
    (a model of FER+'s eight labels can report `six`; merged probabilities are summed); by default the model's own.

    prior: correct the predictions for the shares that the reported labels have where the model runs: `uniform`; shares,
    as `neutral=0.6,happiness=0.2` or a mapping, the other labels share what is left as in training; or `auto`, which
    estimates them from the last faces, so that a prediction depends on the faces before it. None: no correction.
    prior_strength: 0 (no correction) to 1, the exponent of the ratio of the shares to those of training.

    Raises IntegrityError if file or card is missing or damaged, or they do not match; UsageError for a suffix without a
    backend, labels that the model cannot report, or a prior that it cannot use; MachineError if the backend is not
    installed or an engine was built for another machine.
    """
    loaded = open_model(
        model, threads=threads, backend=backend, labels=labels, prior=prior, prior_strength=prior_strength
    )
    for sentence in loaded.advice:
        log.warning(sentence)
    return loaded


def open_model(
    model: str | Path | None = None,
    *,
    threads: int = 1,
    backend: str | None = None,
    labels: str | LabelSet | None = None,
    prior: str | Mapping[str, float] | None = None,
    prior_strength: float = 1.0,
) -> Model:
    """Load a model as `load` does, but without its warnings: for code that opens files to compare them."""
    check_threads(threads)
    file = shipped.find(model)
    if file.is_dir():
        raise _make_folder_error(file)
    if file.suffix not in FORMATS:
        raise known("model format", file.suffix or file.name, FORMATS)
    names = backends_of(file.suffix)
    if backend and backend not in names:
        raise known(f"backend of {file.suffix} files", backend, names)
    card = read_card(file)
    reported = _resolve_labels(card, labels)
    make_correction(prior, prior_strength, card, reported, file)  # before the file is opened
    opened = BACKENDS[backend or names[0]].open(file, card, threads)
    try:
        _check_shapes(card, opened, file)
    except IntegrityError:
        opened.close()
        raise
    return Model(file, card, opened, reported, threads=threads, prior=prior, prior_strength=prior_strength)


def _make_folder_error(folder: Path) -> UsageError:
    """Return the error for a folder in place of a file, with the models in it: a run folder has them after compress."""
    found = sorted(file for suffix in FORMATS for file in (*folder.glob(f"*{suffix}"), *folder.glob(f"*/*{suffix}")))
    advice = f", such as {found[-1]}" if found else ".  A run becomes one with:  edgeemo compress RUN --int8"
    return UsageError(f"{folder} is a folder; expected a model file ({', '.join(FORMATS)}){advice}")


class Model:
    """An open model: `faces` finds and classifies the faces of an image, `predict` classifies a ready crop.

    Use it in a with-block, or close it.

    Any number of threads may share one. ONNX Runtime runs their calls in parallel; the other backends hold one input at
    a time, so a call waits for the previous one: open one model per thread to run in parallel. A model can be pickled:
    another process (multiprocessing, joblib) opens its file again, with the same threads, backend, labels and prior.
    With the prior `auto`, calls are not independent: threads share one estimate; a pickled model starts without one.
    """

    def __init__(
        self,
        path: Path,
        card: Card,
        backend: Backend,
        label_set: LabelSet,
        *,
        threads: int = 1,
        prior: str | Mapping[str, float] | None = None,
        prior_strength: float = 1.0,
    ) -> None:
        """Called by `load`; the backend is closed with the model."""
        self._file, self._threads = path.absolute(), threads
        self.path = path
        self.card = card
        self.backend = backend
        self.label_set = label_set  # of the probabilities; not always the card's
        self._merge_matrix = merge_matrix(label_set.map_labels(card.labels))
        self._prior = dict(prior) if isinstance(prior, Mapping) else prior, prior_strength
        self._correction = make_correction(*self._prior, card, label_set, path)
        self._lock: AbstractContextManager[Any] = nullcontext() if backend.concurrent else Lock()
        self._detector = PackagedDetector(threads)

    def __repr__(self) -> str:
        return f"<edgeemo.Model {self.path.name} in {self.backend.name}: {', '.join(self.labels)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._file, self._threads, self.backend.name, self.label_set, self.card, *self._prior)

    @property
    def advice(self) -> list[str]:
        """Sentences on this file in this backend on this machine; empty if there is nothing to advise."""
        return advise(self.card, self.backend.name, self.path.name)

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions, in the order of the probabilities."""
        return self.label_set.labels

    @property
    def prior(self) -> Prior | None:
        """The shares of the labels that predictions are corrected for, with `auto` as estimated so far; None: none."""
        return self._correction.describe(self.labels) if self._correction else None

    @property
    def least_probability(self) -> float | None:
        """The probability below which a prediction is unsure; None if the card has no threshold.

        It was fitted on the card's own labels. With merged labels it is compared with their summed probability, which
        the packaged models' six labels were measured with (docs/models.md).
        """
        return self.card.answers.least_probability if self.card.answers else None

    def faces(
        self, image: Image, *, color: str | None = None, detector: Detector | None = None, augment: bool = True
    ) -> list[Face]:
        """Find the faces of a whole image and predict the emotion of each, in one batch; the highest score first.

        image: a PNG, JPEG, WebP or BMP as path, bytes or file object, turned upright by its EXIF orientation; a Pillow
        image; or an upright uint8 array, (H, W[, 1]) gray, (H, W, 3) or (H, W, 4). color: the order of the channels of
        a colour array, which must be given: `rgb`, or `bgr` for OpenCV's frames. detector: what finds the faces, such
        as `edgeemo.faces.load_detector(faces="many")`; by default the packaged one, opened at the first call with the
        model's threads. augment: average the probabilities of three crops of each face, of different sizes (test-time
        augmentation), because a detector frames a face less exactly than the training data were; without it,
        classifying takes a third of the time.

        Returns an empty list for an image without a face. Faces whose square has less than 16 px a side, or lies
        outside the image, are left out, and logged.

        Raises DataError for an image that cannot be read; UsageError for a colour array without `color`, or a detector
        that returns something else than Detections.
        """
        found = self.find_faces(image, color=color, detector=detector, augment=augment)
        for reason in found.left_out:
            log.warning("1 face left out: %s", reason)
        return found.faces

    def find_faces(
        self, image: Image, *, color: str | None = None, detector: Detector | None = None, augment: bool = True
    ) -> FoundFaces:
        """Do as `faces` does, and return why faces were left out instead of logging it."""
        pixels = load_image(image, color)
        images.check_image(pixels)
        if detector is not None and not hasattr(detector, "detect"):
            raise UsageError(f"{detector!r} is no detector; expected one such as edgeemo.faces.load_detector(NAME)")
        finder = self._detector if detector is None else detector
        located = locate_faces(pixels, finder, self.card.input, augment=augment)
        predictions = self.predict_crops(located.crops, views=located.views)
        return FoundFaces(located.make_faces(predictions, self.card.input), located.left_out)

    def predict(self, image: Image, *, color: str = "rgb") -> Prediction:
        """Predict the emotion of one face crop.

        image: (H, W[, 1]) gray, (H, W, 3) or (H, W, 4) uint8; a PNG, JPEG, WebP or BMP as path, bytes or file object;
        or a Pillow image. The face should fill the image, which is cropped to its central square. color: the order of
        the channels of a colour array, `rgb`, or `bgr` as OpenCV has them.

        Raises DataError for an image that cannot be read.
        """
        row = self.probabilities(self._read(image, color)[None])[0]
        return make_prediction(row, self.labels, self.least_probability)

    def predict_batch(self, batch: Iterable[Image], *, color: str = "rgb") -> list[Prediction]:
        """Return one prediction per image, in order; images may differ in size. Both arguments are as in `predict`.

        Raises DataError for an image that cannot be read, with its number, from 0.
        """
        if isinstance(batch, (str, bytes, bytearray, memoryview, Path)) or not isinstance(batch, Iterable):
            raise DataError(f"expected several images, got one {type(batch).__name__}; for one image use predict")
        pixels = [self._read(image, color, number) for number, image in enumerate(batch)]
        if not pixels:
            return []
        return self.predict_crops(np.stack(pixels))

    def predict_crops(self, pixels: np.ndarray, *, views: int = 1) -> list[Prediction]:
        """Return the predictions of crops as in `probabilities`, one per face; of no crop, none."""
        rows = self.probabilities(pixels, views=views) if len(pixels) else ()
        return [make_prediction(row, self.labels, self.least_probability) for row in rows]

    def _read(self, image: Image, color: str, number: int | None = None) -> np.ndarray:
        """Return the pixels that the card's input defines; number: of the image in its batch, for errors."""
        try:
            return images.to_pixels(load_image(image, color), self.card.input)
        except DataError as error:
            if number is None:
                raise
            raise DataError(f"image {number} of the batch: {error}") from error

    def probabilities(self, pixels: np.ndarray, *, views: int = 1) -> np.ndarray:
        """Return (N / views, K) float64, rows sum to 1, of (N, size, size[, 3]) uint8 as the card's input defines them.

        views: crops of each face, in consecutive rows, whose probabilities are averaged before the prior is corrected
        for.
        """
        self._check_pixels(pixels)
        batches = [pixels[start : start + BATCH_SIZE] for start in range(0, max(1, len(pixels)), BATCH_SIZE)]
        logits = [self.logits(images.to_input(batch, self.card.input)) for batch in batches]
        merged = self.merge_probabilities(np.concatenate(logits))
        averaged = merged.reshape(-1, views, len(self.labels)).mean(axis=1)
        return self._correction.correct(averaged) if self._correction else averaged

    def merge_probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Return (N, M) float64 probabilities of `labels` from (N, K) logits, at the card's temperature.

        The card's adaptation is applied; no prior is corrected for.
        """
        adapted = adapt_logits(logits, self.card.adaptation)
        merged: np.ndarray = softmax(adapted, temperature=self.card.temperature) @ self._merge_matrix
        return merged

    def adapt(
        self,
        crops: Iterable[Image],
        labels: Sequence[str],
        *,
        people: Sequence[str] | None = None,
        color: str = "rgb",
        closed: bool = False,
        proof: bool = True,
    ) -> Model:
        """Return a new model, adapted to labelled face crops from the place where it runs; close both models.

        crops: face crops, as for `predict_batch`. labels: the emotion of each, as in `labels`. people: who is on each;
        people are then held out whole when the change is chosen and its gain is measured. Without them the faces of a
        label should be in order of recording, because neighbours are held out together. closed: no other emotions occur
        than those of the faces; else an emotion without a face is left alone. proof: where the faces do not show a
        gain, return the model without an adaptation, and log why; False: adapt it anyway.

        What was fitted, and what it gained on held-out faces, is in `card.adaptation`, None without one; `save` writes
        it to a file. Method and limits: docs/adapt.md.

        Raises UsageError for a model that is adapted already or corrects for a prior, other numbers of labels or people
        than of crops, or an unknown label; DataError for no crop, or one that cannot be read.
        """
        if isinstance(crops, (str, bytes, bytearray, memoryview, Path)) or not isinstance(crops, Iterable):
            raise DataError(f"expected several face crops, got one {type(crops).__name__}")
        pixels = [self._read(image, color, number) for number, image in enumerate(crops)]
        faces = adapting.check_faces(pixels, labels, people, self.label_set)
        fitted, card = adapting.adapt(self, faces, closed=closed)
        if proof and not fitted.shown:
            log.warning("not adapted: %s", explain_refusal(fitted))
            card = None
        return _reopen(self._file, self._threads, self.backend.name, self.label_set, card or self.card)

    def save(self, path: str | Path) -> Path:
        """Write the model file and its card, with an adaptation, to a new path with the same suffix; return the path.

        Raises UsageError if the file exists, or the suffix is another.
        """
        return adapting.save(self._file, self.card, Path(path))

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Run (N, channels, size, size) float32 from images.to_input; return (N, K) float32 logits.

        Raises IntegrityError if one is not finite.
        """
        with self._lock:
            logits = self.backend.logits(batch)
        if not np.isfinite(logits).all():
            raise IntegrityError(
                f"{self.path} returned NaN or infinity instead of logits; the file is damaged or its quantization "
                f"overflows.  Rebuild it:  {suggest_rebuild(self.path)}"
            )
        return logits

    def close(self) -> None:
        """Free the model's memory, and that of its detector; it cannot predict afterwards."""
        self._detector.close()
        with self._lock:
            self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_pixels(self, pixels: np.ndarray) -> None:
        expected = self.card.input.pixels
        if pixels.dtype != np.uint8 or pixels.shape[1:] != expected:
            raise DataError(f"expected (N, {', '.join(map(str, expected))}) uint8, got {pixels.shape} {pixels.dtype}")


def _reopen(
    path: Path,
    threads: int,
    backend: str,
    labels: LabelSet,
    card: Card,
    prior: str | dict[str, float] | None = None,
    strength: float = 1.0,
) -> Model:
    """Open a model again, with an adaptation that its file does not have; IntegrityError if it is another file now."""
    model = open_model(path, threads=threads, backend=backend, labels=labels, prior=prior, prior_strength=strength)
    if model.card.sha256 != card.sha256:
        model.close()
        raise adapting.make_changed_error(path, card)
    model.card = replace(model.card, adaptation=card.adaptation, answers=card.answers)
    return model


def _resolve_labels(card: Card, labels: str | LabelSet | None) -> LabelSet:
    """Return the label set to report in; raise UsageError if the model's labels cannot be merged to it."""
    resolved = (label_set(labels) if isinstance(labels, str) else labels) if labels else get_label_set(card)
    resolved.map_labels(card.labels)
    return resolved


def _check_shapes(card: Card, backend: Backend, file: Path) -> None:
    contract = card.input
    face = (contract.channels, contract.size, contract.size)
    checks = {
        f"one input (N, {', '.join(map(str, face))})": _has_shape(backend.inputs, face),
        f"one output (N, {len(card.labels)}), one per label": _has_shape(backend.outputs, (len(card.labels),)),
        "output 'logits'": card.output == "logits",
    }
    if failed := [what for what, holds in checks.items() if not holds]:
        raise IntegrityError(
            f"{file} and its card do not agree; expected {'; '.join(failed)}; the file has inputs {backend.inputs} and "
            f"outputs {backend.outputs}.  Rebuild both:  {suggest_rebuild(file)}"
        )


def _has_shape(shapes: list[tuple[int | str | None, ...]], rest: tuple[int, ...]) -> bool:
    """Return whether there is one tensor, of a variable batch size and then this shape."""
    return len(shapes) == 1 and shapes[0][1:] == rest and not isinstance(shapes[0][0], int)
