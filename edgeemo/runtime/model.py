"""Load a model with its card, check that they agree, and name the emotion of a face crop."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeemo import images
from edgeemo.card import Card, label_set_of, read_card, remake
from edgeemo.errors import DataError, IntegrityError, UsageError, known
from edgeemo.labels import LabelSet, label_set
from edgeemo.metrics import merge_matrix, softmax
from edgeemo.runtime import shipped
from edgeemo.runtime.advice import advise
from edgeemo.runtime.backends.table import BACKENDS, FORMATS, Backend, backends_of

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)
SLICE = 64  # images run at once; bounds the memory of activations, and a CPU gains nothing from more

Image = np.ndarray | Path | str | bytes


@dataclass(frozen=True)
class Prediction:
    """The emotion that a face shows, by the model's reckoning; not what the person feels."""

    label: str
    probability: float  # of `label`, 0..1
    probabilities: dict[str, float]  # of every label, most probable first; they sum to 1

    def __str__(self) -> str:
        others = [f"{name} {100 * share:.1f} %" for name, share in list(self.probabilities.items())[1:3]]
        return f"{self.label} {100 * self.probability:.1f} % ({', '.join(others)})"


def load(
    model: str | Path | None = None,
    *,
    threads: int = 1,
    backend: str | None = None,
    labels: str | LabelSet | None = None,
) -> Model:
    """A model that edgeemo ships (nano, small, base; None or empty: small), or the one in a file, ready to predict.

    Logs a warning where the file is a poor choice on this machine: `Model.advice`.

    backend: of BACKENDS; by default the first for files of this suffix, ONNX Runtime or TensorRT. One thread is
    the default: a face takes few milliseconds, and a device has other work. labels: a label set to answer in, as `six`
    of a model of FER+'s eight, whose probabilities are added up; by default the model's own. IntegrityError if file and
    card are missing, damaged or do not belong together; UsageError for a suffix without a backend or labels that the
    model does not tell; MachineError if the backend is not installed or an engine is of another machine.
    """
    loaded = open_model(model, threads=threads, backend=backend, labels=labels)
    for sentence in loaded.advice:
        log.warning(sentence)
    return loaded


def open_model(
    model: str | Path | None = None,
    *,
    threads: int = 1,
    backend: str | None = None,
    labels: str | LabelSet | None = None,
) -> Model:
    """What `load` returns, without its warnings: for those who open files to compare them."""
    if threads < 1:
        raise UsageError(f"threads is {threads}; expected 1 or more")
    file = shipped.find(model)
    if file.suffix not in FORMATS:
        raise known("model format", file.suffix or file.name, FORMATS)
    names = backends_of(file.suffix)
    if backend and backend not in names:
        raise known(f"backend of {file.suffix} files", backend, names)
    card = read_card(file)
    view = _view(card, labels)
    opened = BACKENDS[backend or names[0]].open(file, card, threads)
    try:
        _check_agreement(card, opened, file)
    except IntegrityError:
        opened.close()
        raise
    return Model(file, card, opened, view)


class Model:
    """An open model of face crops. Use it in a with-block, or close it.

    Any number of threads may share one. ONNX Runtime runs their calls in parallel; the other backends hold one input at
    a time, so there a call waits for the one before: open a model per thread to run in parallel.
    """

    def __init__(self, path: Path, card: Card, backend: Backend, view: LabelSet) -> None:
        """`load` makes models; the backend is closed with the model."""
        self.path = path
        self.card = card
        self.backend = backend
        self.view = view
        self._merging = merge_matrix(view.map_labels(card.labels))
        self._turn: AbstractContextManager[Any] = nullcontext() if backend.concurrent else Lock()

    def __repr__(self) -> str:
        return f"<edgeemo.Model {self.path.name} in {self.backend.name}: {', '.join(self.labels)}>"

    @property
    def advice(self) -> list[str]:
        """What to know of this file in this backend on this machine, a sentence each; empty if nothing."""
        return advise(self.card, self.backend.name, self.path.name)

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions, in the order of the probabilities."""
        return self.view.labels

    def predict(self, image: Image) -> Prediction:
        """The emotion of one face crop.

        image: (H, W) gray or (H, W, 3) RGB uint8 (OpenCV gives BGR: turn it with `frame[..., ::-1]`), or a PNG, JPEG,
        WebP or BMP as path or bytes. The face should fill the picture; it is cropped to its central square.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, batch: Sequence[Image]) -> list[Prediction]:
        """One prediction per image, in order; images may differ in size."""
        if isinstance(batch, (str, bytes, Path)):
            raise DataError(f"expected a sequence of images, got one {type(batch).__name__}; for one image use predict")
        if not len(batch):
            return []
        pixels = np.stack([images.to_pixels(_picture(image), self.card.input) for image in batch])
        return [_prediction(row, self.labels) for row in self.probabilities(pixels)]

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """(N, size, size) or (N, size, size, 3) uint8, as the card's input says → (N, K) float64, rows sum to 1."""
        self._check_pixels(pixels)
        slices = [pixels[start : start + SLICE] for start in range(0, max(1, len(pixels)), SLICE)]
        logits = [self.logits(images.to_input(part, self.card.input)) for part in slices]
        return self.shares(np.concatenate(logits))

    def shares(self, logits: np.ndarray) -> np.ndarray:
        """(N, K) logits → (N, M) float64 probabilities of `labels`, at the card's temperature."""
        merged: np.ndarray = softmax(logits, temperature=self.card.temperature) @ self._merging
        return merged

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """(N, channels, size, size) float32 from images.to_input → (N, K) float32, all finite or IntegrityError."""
        with self._turn:
            logits = self.backend.logits(batch)
        if not np.isfinite(logits).all():
            raise IntegrityError(
                f"{self.path} returned NaN or infinity, which no label can stand for; the file is damaged or its "
                f"quantization overflows.  Make it anew:  {remake(self.path)}"
            )
        return logits

    def close(self) -> None:
        """Free the model's memory; it cannot predict afterwards."""
        with self._turn:
            self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_pixels(self, pixels: np.ndarray) -> None:
        wanted = self.card.input.pixels
        if pixels.dtype != np.uint8 or pixels.shape[1:] != wanted:
            raise DataError(f"expected (N, {', '.join(map(str, wanted))}) uint8, got {pixels.shape} {pixels.dtype}")


def _view(card: Card, labels: str | LabelSet | None) -> LabelSet:
    """The label set to answer in; UsageError if the model does not tell it."""
    view = (label_set(labels) if isinstance(labels, str) else labels) if labels else label_set_of(card)
    view.map_labels(card.labels)
    return view


def _picture(image: Image) -> np.ndarray:
    if isinstance(image, np.ndarray):
        return image
    if isinstance(image, (str, Path, bytes)):
        return images.read(Path(image) if isinstance(image, str) else image)
    raise DataError(f"expected an image as numpy array, path or bytes, got {type(image).__name__}")


def _prediction(row: np.ndarray, labels: tuple[str, ...]) -> Prediction:
    ranked = {labels[k]: float(row[k]) for k in np.argsort(-row, kind="stable")}
    label, probability = next(iter(ranked.items()))
    return Prediction(label, probability, ranked)


def _check_agreement(card: Card, backend: Backend, file: Path) -> None:
    contract = card.input
    face = (contract.channels, contract.size, contract.size)
    checks = {
        f"one input (N, {', '.join(map(str, face))})": _varies_then(backend.inputs, face),
        f"one output (N, {len(card.labels)}), one per label": _varies_then(backend.outputs, (len(card.labels),)),
        "output 'logits'": card.output == "logits",
    }
    if failed := [what for what, holds in checks.items() if not holds]:
        raise IntegrityError(
            f"{file} and its card do not agree; expected {'; '.join(failed)}; the file has inputs {backend.inputs} and "
            f"outputs {backend.outputs}.  Make both anew:  {remake(file)}"
        )


def _varies_then(shapes: list[tuple[int | str | None, ...]], rest: tuple[int, ...]) -> bool:
    return len(shapes) == 1 and shapes[0][1:] == rest and not isinstance(shapes[0][0], int)
