"""The explain stage: plots of Grad-CAM and attention maps, and of a run's most confident mistakes."""

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

from edgeemo import images, options
from edgeemo.artifact import check_writable, lock_folder
from edgeemo.card import Card, get_label_set
from edgeemo.data import Faces, load
from edgeemo.data.faces import kind_of
from edgeemo.errors import UsageError, known
from edgeemo.images import to_input
from edgeemo.machine import usable_cores
from edgeemo.metrics import softmax
from edgeemo.report import plots
from edgeemo.stages import Explain
from edgeemo.train import modes, run_folder
from edgeemo.train.fit import predict_logits
from edgeemo.train.network import EmotionNet, SpatialAttention

log = logging.getLogger(__name__)
COLUMNS = 6  # of the grid of mistakes
MISTAKES = 2  # with maps, below those of the best-classified face of each class
INCH = 1.7  # side of a face in a plot
MAX_IMAGES = 50  # in one plot: matplotlib's limit is 65,536 px in height


@dataclass(frozen=True)
class Explanation:
    """One face with its prediction and maps, which are (S, S) float32 in 0..1."""

    name: str
    pixels: np.ndarray  # from images.to_pixels
    predicted: str
    probability: float
    true: str | None
    cam: np.ndarray
    attention: np.ndarray | None  # stretched to 0..1; None: the network has no attention
    weights: tuple[float, float]  # minimum and maximum of the attention before stretching


def run(config: Explain) -> Path:
    """Plot image files, or else faces of a data set; return the folder of the plots."""
    options.check(config)
    if len(config.images) > MAX_IMAGES:
        raise UsageError(f"{len(config.images)} images: expected at most {MAX_IMAGES} in one plot")
    torch.set_num_threads(config.threads or len(usable_cores()))
    network, card = run_folder.load(config.run)
    if config.label and config.label not in card.labels:
        raise known("label", config.label, card.labels)
    out = config.out or config.run / "explained"
    check_writable(out)
    with lock_folder(out):
        paths = _plot_images(config, network, card, out) if config.images else _plot_dataset(config, network, card, out)
    for path in paths:
        log.info("%s", path)
    return out


def _plot_images(config: Explain, network: EmotionNet, card: Card, out: Path) -> list[Path]:
    pixels = np.stack([images.to_pixels(images.read(file, name=str(file)), card.input) for file in config.images])
    explanations = explain_faces(network, card, pixels, [file.name for file in config.images], label=config.label)
    return [plot_maps(explanations, out / "gradcam.png", label=config.label)]


def _plot_dataset(config: Explain, network: EmotionNet, card: Card, out: Path) -> list[Path]:
    trained = run_folder.load_config(config.run, card, data=config.data)
    faces = load(trained.data, config.split, get_label_set(card), contract=card.input, protocol=trained.protocol)
    probabilities = softmax(predict_logits(network, faces, card.input), temperature=card.temperature)
    rows = _select_examples(faces, probabilities)
    ids = [faces.ids[row] for row in rows]
    true = [card.labels[faces.truth[row]] for row in rows]
    explanations = explain_faces(network, card, faces.pixels[rows], ids, label=config.label, true=true)
    if kind_of(trained.data) != "synthetic":
        log.info("the plots in %s show faces of the data set, so its licence applies to them", out)
    gradcam = plot_maps(explanations, out / "gradcam.png", label=config.label)
    return [gradcam, plot_mistakes(faces, probabilities, card, out / "mistakes.png", config.count)]


def _select_examples(faces: Faces, probabilities: np.ndarray) -> np.ndarray:
    """Return the best-classified face of each class, then the most confident mistakes, as rows without repeats."""
    of_truth = probabilities[np.arange(len(faces)), faces.truth]
    best = [int(np.flatnonzero(faces.truth == k)[of_truth[faces.truth == k].argmax()]) for k in np.unique(faces.truth)]
    wrong = [row for row in rank_mistakes(faces, probabilities, len(best) + MISTAKES) if row not in best]
    return np.array([*best, *wrong[:MISTAKES]])


def rank_mistakes(faces: Faces, probabilities: np.ndarray, count: int) -> list[int]:
    """Return at most `count` rows of misclassified faces, by decreasing probability of the predicted label."""
    wrong = np.flatnonzero(probabilities.argmax(1) != faces.truth)
    order = np.argsort(-probabilities[wrong].max(1), kind="stable")
    return [int(row) for row in wrong[order[:count]]]


def explain_faces(
    network: EmotionNet,
    card: Card,
    pixels: np.ndarray,
    names: list[str],
    *,
    label: str | None = None,
    true: list[str] | None = None,
) -> list[Explanation]:
    """Compute Grad-CAM (Selvaraju et al. 2017) of the last stage, and attention, for (N, S, S[, 3]) uint8 faces.

    Grad-CAM is that of `label`, or of each face's predicted label. Faces are processed one at a time, so memory use
    does not grow with N.
    """
    batch = torch.from_numpy(to_input(pixels, card.input))
    targets = [ClassifierOutputTarget(card.labels.index(label))] if label else None  # None: the predicted label
    explanations = []
    with (
        GradCAM(model=network, target_layers=[find_last_stage(network)]) as cam,
        _record_attention(network) as recorded,
    ):
        for row, name in enumerate(names):
            heat = cam(input_tensor=batch[row : row + 1], targets=targets)[0]
            probabilities = softmax(cam.outputs.detach().numpy(), temperature=card.temperature)[0]
            attention = recorded.pop() if recorded else None
            explanations.append(
                Explanation(
                    name=name,
                    pixels=pixels[row],
                    predicted=card.labels[probabilities.argmax()],
                    probability=float(probabilities.max()),
                    true=true[row] if true else None,
                    cam=heat,
                    attention=None if attention is None else _upsample(attention, card.input.size),
                    weights=(0, 1) if attention is None else (float(attention.min()), float(attention.max())),
                )
            )
    return explanations


def find_last_stage(network: EmotionNet) -> nn.Module:
    """Return the layer of the last features after their activation; pooling after it would make the map coarser."""
    return [layer for layer in network.backbone.children() if not isinstance(layer, modes.POOLS)][-1]


@contextmanager
def _record_attention(network: EmotionNet) -> Iterator[list[np.ndarray]]:
    """Yield a list that receives the (h, w) attention of each face that the network processes inside the block."""
    recorded: list[np.ndarray] = []
    if not isinstance(network.attention, SpatialAttention):
        yield recorded
        return
    hook = network.attention.conv.register_forward_hook(
        lambda _module, _inputs, output: recorded.extend(torch.sigmoid(output.detach())[:, 0].numpy())
    )
    try:
        yield recorded
    finally:
        hook.remove()


def _upsample(small: np.ndarray, side: int) -> np.ndarray:
    """Enlarge (h, w) to (side, side), stretched to 0..1 to make differences visible."""
    large: np.ndarray = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
    stretched: np.ndarray = np.clip((large - large.min()) / max(float(np.ptp(large)), 1e-6), 0, 1)
    return stretched


def plot_maps(explanations: list[Explanation], path: Path, *, label: str | None = None) -> Path:
    """Plot one row per face: the face, with Grad-CAM (of `label`), and with attention if there is any."""
    columns = 3 if any(face.attention is not None for face in explanations) else 2
    figure = Figure(figsize=(columns * INCH + 1.4, len(explanations) * INCH + 0.3), layout="constrained")
    grid = figure.subplots(len(explanations), columns, squeeze=False)
    for axes, face in zip(grid, explanations, strict=True):
        for ax in axes:
            _draw_face(ax, face.pixels)
        axes[0].set_ylabel(_format_caption(face), fontsize=8, rotation=0, ha="right", va="center")
        axes[1].imshow(face.cam, cmap="jet", alpha=0.45, vmin=0, vmax=1)
        if face.attention is not None:
            axes[2].imshow(face.attention, cmap="jet", alpha=0.45, vmin=0, vmax=1)
            axes[2].set_xlabel("{:.2f} to {:.2f}".format(*face.weights), fontsize=7)
    for ax, title in zip(grid[0], ("face", f"Grad-CAM {label or ''}".rstrip(), "attention"), strict=False):
        ax.set_title(title, fontsize=9)
    return plots.save_png(figure, path)


def plot_mistakes(faces: Faces, probabilities: np.ndarray, card: Card, path: Path, count: int) -> Path:
    """Plot a grid of the most confident mistakes: true → predicted, with the probability."""
    rows = rank_mistakes(faces, probabilities, count)
    height = max(1, -(-len(rows) // COLUMNS))
    figure = Figure(figsize=(COLUMNS * INCH, height * (INCH + 0.4) + 0.4), layout="constrained")
    cells = figure.subplots(height, COLUMNS, squeeze=False).ravel()
    for ax in cells:
        ax.set_axis_off()
    for ax, row in zip(cells, rows, strict=False):
        _draw_face(ax, faces.pixels[row])
        predicted = probabilities[row].argmax()
        title = (
            f"{card.labels[faces.truth[row]]} → {card.labels[predicted]}\n{100 * probabilities[row, predicted]:.0f} %"
        )
        ax.set_title(title, fontsize=8)
    wrong = int((probabilities.argmax(1) != faces.truth).sum())
    figure.suptitle(
        f"true → predicted: the {len(rows)} most confident of {wrong} mistakes (n = {len(faces):,})", fontsize=10
    )
    return plots.save_png(figure, path)


def _format_caption(face: Explanation) -> str:
    true = f"\ntrue: {face.true}" if face.true else ""
    name = face.name if len(face.name) <= 18 else f"…{face.name[-17:]}"
    return f"{name}\n{face.predicted} {100 * face.probability:.0f} %{true}"


def _draw_face(ax: Any, pixels: np.ndarray) -> None:
    ax.imshow(pixels, cmap="gray" if pixels.ndim == 2 else None, vmin=0, vmax=255)
    ax.set_xticks([])
    ax.set_yticks([])
