"""The explain stage: pictures of where a trained run looks, and of the mistakes it was surest of."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from edgeemo import images, options, plots
from edgeemo.artifact import check_writable
from edgeemo.card import Card, label_set_of
from edgeemo.data import Faces, load
from edgeemo.data.faces import kind_of
from edgeemo.errors import UsageError, known
from edgeemo.images import to_input
from edgeemo.machine import usable_cores
from edgeemo.metrics import softmax
from edgeemo.stages import Explain
from edgeemo.train import modes, weights
from edgeemo.train.fit import predict_logits
from edgeemo.train.network import EmotionNet, SpatialAttention

log = logging.getLogger(__name__)
COLUMNS = 6  # of the grid of mistakes
MISTAKES = 2  # whose maps are drawn, below those of the face of each class that is told best
INCH = 1.7  # a face on paper
MAX_IMAGES = 50  # of one picture: matplotlib draws no taller one than 65,536 px


@dataclass(frozen=True)
class Looked:
    """One face and where the network looked; maps are (S, S) float32 in 0..1."""

    name: str
    pixels: np.ndarray  # as images.to_pixels gives them
    predicted: str
    probability: float
    true: str | None
    cam: np.ndarray
    attention: np.ndarray | None  # spread over 0..1; None: the network has no attention
    weights: tuple[float, float]  # lowest and highest of the attention before it was spread


def run(config: Explain) -> Path:
    """Plot as configured, of image files or else of faces of a data set; returns the folder of the plots."""
    options.check(config)
    if len(config.images) > MAX_IMAGES:
        raise UsageError(f"{len(config.images)} images: expected at most {MAX_IMAGES} in one plot")
    torch.set_num_threads(config.threads or len(usable_cores()))
    network, card = weights.load(config.run)
    if config.label and config.label not in card.labels:
        raise known("label", config.label, card.labels)
    out = config.out or config.run / "explained"
    check_writable(out)
    if config.images:
        pixels = np.stack([images.to_pixels(images.read(file, name=str(file)), card.input) for file in config.images])
        found = looked_at(network, card, pixels, [file.name for file in config.images], label=config.label)
        drawn = [maps(found, out / "gradcam.png", label=config.label)]
    else:
        drawn = _of_data(config, network, card, out)
    for path in drawn:
        log.info("%s", path)
    return out


def _of_data(config: Explain, network: EmotionNet, card: Card, out: Path) -> list[Path]:
    trained = weights.trained(config.run, card, data=config.data)
    faces = load(trained.data, config.split, label_set_of(card), contract=card.input, protocol=trained.protocol)
    probabilities = softmax(predict_logits(network, faces, card.input), temperature=card.temperature)
    rows = _examples(faces, probabilities)
    ids = [faces.ids[row] for row in rows]
    true = [card.labels[faces.truth[row]] for row in rows]
    found = looked_at(network, card, faces.pixels[rows], ids, label=config.label, true=true)
    if kind_of(trained.data) != "synthetic":
        log.info("the pictures in %s show faces of the data set: its terms are theirs too", out)
    drawn = maps(found, out / "gradcam.png", label=config.label)
    return [drawn, mistakes(faces, probabilities, card, out / "mistakes.png", config.count)]


def _examples(faces: Faces, probabilities: np.ndarray) -> np.ndarray:
    """Rows of faces that show much: of each class the one told best, then the surest mistakes; none twice."""
    of_truth = probabilities[np.arange(len(faces)), faces.truth]
    best = [int(np.flatnonzero(faces.truth == k)[of_truth[faces.truth == k].argmax()]) for k in np.unique(faces.truth)]
    wrong = [row for row in surest_mistakes(faces, probabilities, len(best) + MISTAKES) if row not in best]
    return np.array([*best, *wrong[:MISTAKES]])


def surest_mistakes(faces: Faces, probabilities: np.ndarray, count: int) -> list[int]:
    """Rows of at most `count` wrong faces, the one with the highest probability first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != faces.truth)
    order = np.argsort(-probabilities[wrong].max(1), kind="stable")
    return [int(row) for row in wrong[order[:count]]]


def looked_at(
    network: EmotionNet,
    card: Card,
    pixels: np.ndarray,
    names: list[str],
    *,
    label: str | None = None,
    true: list[str] | None = None,
) -> list[Looked]:
    """Grad-CAM (Selvaraju et al. 2017) of the last stage, and the attention map, for (N, S, S[, 3]) uint8 faces.

    The map is of `label`, or of each face's predicted label. One face at a time: the memory does not grow with N.
    """
    batch = torch.from_numpy(to_input(pixels, card.input))
    asked = [ClassifierOutputTarget(card.labels.index(label))] if label else None  # None: the predicted label
    found = []
    with GradCAM(model=network, target_layers=[last_stage(network)]) as cam, _attention_maps(network) as seen:
        for row, name in enumerate(names):
            heat = cam(input_tensor=batch[row : row + 1], targets=asked)[0]
            shares = softmax(cam.outputs.detach().numpy(), temperature=card.temperature)[0]
            attention = seen.pop() if seen else None
            found.append(
                Looked(
                    name=name,
                    pixels=pixels[row],
                    predicted=card.labels[shares.argmax()],
                    probability=float(shares.max()),
                    true=true[row] if true else None,
                    cam=heat,
                    attention=None if attention is None else _smooth(attention, card.input.size),
                    weights=(0, 1) if attention is None else (float(attention.min()), float(attention.max())),
                )
            )
    return found


def last_stage(network: EmotionNet) -> nn.Module:
    """The layer that gives the last features, rectified; a pooling after it would only make the map coarser."""
    return [layer for layer in network.backbone.children() if not isinstance(layer, modes.POOLS)][-1]


@contextmanager
def _attention_maps(network: EmotionNet) -> Iterator[list[np.ndarray]]:
    """A list that receives the (h, w) sigmoids of the attention for each face that the block shows the network."""
    seen: list[np.ndarray] = []
    if not isinstance(network.attention, SpatialAttention):
        yield seen
        return
    hook = network.attention.conv.register_forward_hook(
        lambda _module, _inputs, output: seen.extend(torch.sigmoid(output.detach())[:, 0].numpy())
    )
    try:
        yield seen
    finally:
        hook.remove()


def _smooth(small: np.ndarray, side: int) -> np.ndarray:
    """(h, w) → (side, side), spread over 0..1 so that differences can be seen."""
    large: np.ndarray = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    spread: np.ndarray = np.clip((large - large.min()) / max(float(np.ptp(large)), 1e-6), 0, 1)
    return spread


def maps(found: list[Looked], path: Path, *, label: str | None = None) -> Path:
    """A row per face: the face, Grad-CAM (of `label`) over it, attention over it where there is one."""
    columns = 3 if any(face.attention is not None for face in found) else 2
    figure = Figure(figsize=(columns * INCH + 1.4, len(found) * INCH + 0.3), layout="constrained")
    grid = figure.subplots(len(found), columns, squeeze=False)
    for axes, face in zip(grid, found, strict=True):
        for ax in axes:
            _show(ax, face.pixels)
        axes[0].set_ylabel(_caption(face), fontsize=8, rotation=0, ha="right", va="center")
        axes[1].imshow(face.cam, cmap="jet", alpha=0.45, vmin=0, vmax=1)
        if face.attention is not None:
            axes[2].imshow(face.attention, cmap="jet", alpha=0.45, vmin=0, vmax=1)
            axes[2].set_xlabel("{:.2f} to {:.2f}".format(*face.weights), fontsize=7)
    for ax, title in zip(grid[0], ("face", f"Grad-CAM {label or ''}".rstrip(), "attention"), strict=False):
        ax.set_title(title, fontsize=9)
    return plots.save(figure, path)


def mistakes(faces: Faces, probabilities: np.ndarray, card: Card, path: Path, count: int) -> Path:
    """A grid of the wrong faces that the run was surest of: true → predicted, and the probability."""
    rows = surest_mistakes(faces, probabilities, count)
    height = max(1, -(-len(rows) // COLUMNS))
    figure = Figure(figsize=(COLUMNS * INCH, height * (INCH + 0.4) + 0.4), layout="constrained")
    cells = figure.subplots(height, COLUMNS, squeeze=False).ravel()
    for ax in cells:
        ax.set_axis_off()
    for ax, row in zip(cells, rows, strict=False):
        _show(ax, faces.pixels[row])
        said = probabilities[row].argmax()
        title = f"{card.labels[faces.truth[row]]} → {card.labels[said]}\n{100 * probabilities[row, said]:.0f} %"
        ax.set_title(title, fontsize=8)
    wrong = int((probabilities.argmax(1) != faces.truth).sum())
    figure.suptitle(f"true → predicted: the surest {len(rows)} of {wrong} mistakes (n = {len(faces):,})", fontsize=10)
    return plots.save(figure, path)


def _caption(face: Looked) -> str:
    true = f"\ntrue: {face.true}" if face.true else ""
    name = face.name if len(face.name) <= 18 else f"…{face.name[-17:]}"
    return f"{name}\n{face.predicted} {100 * face.probability:.0f} %{true}"


def _show(ax: Any, pixels: np.ndarray) -> None:
    ax.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, vmin=0, vmax=255)
    ax.set_xticks([])
    ax.set_yticks([])
