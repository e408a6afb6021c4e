"""A bias per class that balances the recalls, chosen on train faces by networks that did not see them.

Chosen on valid, such a bias would flatter valid; chosen on a network's own train faces, it would be blind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgeemo.artifact import sha256_of_lines, written
from edgeemo.card import InputContract
from edgeemo.data import Faces
from edgeemo.data.faces import pixels_sha1
from edgeemo.errors import UsageError
from edgeemo.stages import Train
from edgeemo.train import checkpoint
from edgeemo.train.fit import FREE_TO_CHANGE, Material, predict_logits
from edgeemo.train.network import EmotionNet

log = logging.getLogger(__name__)
FOLDER = "folds"
ALLOWED_LOSS = 0.005  # of the accuracy, for a higher lowest recall
STEPS = sorted(np.linspace(-1.5, 1.5, 31), key=abs)  # logits, tried for one class at a time, smallest first
ROUNDS = 4

Fit = Callable[..., tuple[EmotionNet, list[dict[str, Any]]]]


def out_of_fold(
    config: Train,
    train: Faces,
    *,
    labels: tuple[str, ...],
    contract: InputContract,
    fit: Fit,
    make: Callable[[], EmotionNet],
) -> np.ndarray:
    """(N, K) float32 logits of each train face from a network that saw neither it nor a copy of it.

    config.bias_folds networks are trained by the same recipe for its fixed epochs, in config.out/folds. A finished fold
    leaves its logits alone, and is read back when the run is resumed.
    """
    check(config, train, labels)
    fold = split(train, folds=config.bias_folds, seed=config.seed)
    logits = np.zeros((len(train), len(labels)), np.float32)
    for k in range(config.bias_folds):
        inside, outside = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        folder = Path(config.out) / FOLDER / str(k)
        answers = folder / f"logits-{_identity(config, train)}.npy"
        if not answers.is_file():
            log.info("fold %d of %d: training on the other %d faces", k + 1, config.bias_folds, len(inside))
            own = replace(config, out=str(folder), patience=0, tensorboard=False)
            material = Material(train.take(inside), train.take(outside), labels, contract)
            network, _ = fit(make(), material, config=own, folder=folder)
            with written(answers) as partial:
                np.save(partial, predict_logits(network, train.take(outside), contract))
            checkpoint.remove(folder)
        logits[outside] = np.load(answers, allow_pickle=False)
    return logits


def check(config: Train, train: Faces, labels: tuple[str, ...]) -> None:
    """UsageError where a class has fewer different train faces than there are folds."""
    fold = split(train, folds=config.bias_folds, seed=config.seed)
    held = [set(fold[train.truth == k]) for k in range(len(labels))]
    scarce = [name for name, own in zip(labels, held, strict=True) if len(own) < config.bias_folds]
    if scarce:
        raise UsageError(
            f"--bias-folds {config.bias_folds}: expected a different train face in every fold of each label, but there "
            f"are fewer of {', '.join(scarce)}.  Use fewer folds, or 0"
        )


def split(faces: Faces, *, folds: int, seed: int) -> np.ndarray:
    """(N,) int64 fold of each face: equal pixels stay together, every class is spread evenly."""
    rng = np.random.default_rng((seed, folds))
    contents = [pixels_sha1(row) for row in faces.pixels]
    first = {content: row for row, content in reversed(list(enumerate(contents)))}
    fold = {}
    for k in range(int(faces.truth.max()) + 1):
        distinct = [content for content, row in first.items() if faces.truth[row] == k]
        for place, chosen in enumerate(rng.permutation(len(distinct))):
            fold[distinct[chosen]] = place % folds
    return np.array([fold[content] for content in contents], np.int64)


def balance(logits: np.ndarray, truth: np.ndarray, *, allowed_loss: float = ALLOWED_LOSS) -> np.ndarray:
    """(K,) float32 bias of mean zero that lifts the lowest recall while accuracy falls by no more than `allowed_loss`.

    One class after the other takes the step of STEPS that serves best, ROUNDS times over; of equals the more accurate.
    Zeros where nothing helps.
    """
    bias = np.zeros(logits.shape[1])
    start = best = _judged(logits, truth)
    for _ in range(ROUNDS):
        for k in range(len(bias)):
            for step in STEPS:
                trial = bias.copy()
                trial[k] = step
                found = _judged(logits + trial, truth)
                if found > best and found[1] >= start[1] - allowed_loss:
                    best, bias = found, trial
    if best[0] == start[0]:
        return np.zeros(logits.shape[1], np.float32)
    centred: np.ndarray = (bias - bias.mean()).astype(np.float32)
    return centred


def balance_and_apply(
    network: EmotionNet, logits: np.ndarray, truth: np.ndarray, labels: tuple[str, ...]
) -> dict[str, Any]:
    """Add the balancing bias to the network's last layer, where every export finds it; returns what it changed."""
    bias = balance(logits, truth)
    apply(network, bias)
    before, after = _judged(logits, truth), _judged(logits + bias, truth)
    return {
        "bias": {label: round(float(value), 4) for label, value in zip(labels, bias, strict=True)},
        "found_on": "out-of-fold predictions of train",
        "n": len(truth),
        "accuracy_before": before[1],
        "accuracy_after": after[1],
        "lowest_recall_before": before[0],
        "lowest_recall_after": after[0],
    }


def apply(network: EmotionNet, bias: np.ndarray) -> None:
    """Add (K,) `bias` to the logits, in the bias of the head's last linear layer."""
    last = [layer for layer in network.head.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.bias.add_(torch.from_numpy(bias).to(last.bias))


def _judged(logits: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """The lowest recall, and the accuracy."""
    return _lowest_recall(logits, truth), float((logits.argmax(1) == truth).mean())


def _lowest_recall(logits: np.ndarray, truth: np.ndarray) -> float:
    """Of the classes that occur."""
    right = logits.argmax(1) == truth
    counts = np.bincount(truth)
    recalls = np.bincount(truth, weights=right)[counts > 0] / counts[counts > 0]
    return float(recalls.min())


def _identity(config: Train, train: Faces) -> str:
    """Names the settings and faces, so that another recipe's fold is not taken for this one's."""
    settings = {name: value for name, value in vars(config).items() if name not in FREE_TO_CHANGE}
    return sha256_of_lines([repr(sorted(settings.items())), train.content_sha256])[:12]
