"""Difference between INT8 and float: by calibration method and by layer on train faces, and of the result on valid.

Nothing is chosen on valid faces; they only test the result on faces that the network was not trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo import card
from edgeemo.artifact import temporary_folder
from edgeemo.card import InputContract
from edgeemo.compress.quantize.qdq import quantize
from edgeemo.compress.quantize.ranges import METHODS, Ranges, observe, predict_onnx
from edgeemo.data import Faces
from edgeemo.errors import GateError, UsageError
from edgeemo.metrics import divergence
from edgeemo.progress import track

log = logging.getLogger(__name__)
REFERENCE_FACES = 256  # calibration faces on which layers and methods are compared
AGREEMENT_FACES = 512  # faces on which the agreement of a file with its float form is measured
MIN_AGREEMENT = 0.98  # with float; below, it is another model
TARGET_AGREEMENT = 0.99  # at which keep-float auto stops; on train faces, as agreement on new faces is lower
MAX_FLOAT_SHARE = (
    0.25  # of the layers that keep-float auto keeps in float; if more are needed, INT8 is the wrong choice
)
SHARED_RANGE = ("Add", "Concat")  # operators whose inputs share one range
MISMATCH_RATIO = 16.0  # a branch with 1/16 of the other's range has 4 of 8 bits left


@dataclass(frozen=True)
class Fidelity:
    """Mean divergence of the probabilities from float in nats, and the share of faces with the same label."""

    divergence: float
    agreement: float

    @classmethod
    def compare(cls, expected: np.ndarray, actual: np.ndarray) -> Fidelity:
        """Compare (N, K) logits with those of the float model."""
        return cls(divergence(expected, actual), float((expected.argmax(1) == actual.argmax(1)).mean()))

    def to_dict(self) -> dict[str, float]:
        """Return a JSON-ready dict."""
        return {name: round(value, 6) for name, value in asdict(self).items()}

    def to_card(self, faces: int | None = None) -> card.Fidelity:
        """Return the section of a card, with the number of faces."""
        return card.Fidelity(**self.to_dict(), faces=faces)


@dataclass(frozen=True)
class Reference:
    """The logits of a float model on some faces, with which its INT8 forms are compared."""

    faces: Faces
    contract: InputContract
    target_format: str
    reduce_range: bool
    threads: int
    expected: np.ndarray  # (N, K) float logits

    @classmethod
    def compute(
        cls,
        source: Path,
        faces: Faces,
        contract: InputContract,
        *,
        target_format: str,
        threads: int,
        reduce_range: bool = True,
    ) -> Reference:
        """Compute the logits of the float model `source` on at most 256 of the faces."""
        faces = faces.take_evenly(REFERENCE_FACES)
        expected = predict_onnx(source, faces, contract, threads=threads)
        return cls(faces, contract, target_format, reduce_range, threads, expected)

    def measure(self, ranges: Ranges, *, keep_float: Collection[str] = (), only: Collection[str] = ()) -> Fidelity:
        """Quantize with these layers and compare the INT8 file with float."""
        with temporary_folder() as folder:
            path = folder / "candidate.onnx"
            quantize(
                ranges,
                path,
                target_format=self.target_format,
                reduce_range=self.reduce_range,
                keep_float=keep_float,
                only=only,
            )
            actual = predict_onnx(path, self.faces, self.contract, threads=self.threads)
        return Fidelity.compare(self.expected, actual)


def select_agreement_faces(valid: Faces, train: Faces) -> Faces:
    """Select 512 faces on which to measure agreement: valid faces, and train faces if there are too few.

    One of 24 faces is four percent, too coarse for a threshold of 98 %.
    """
    extra = train.take_evenly(max(0, AGREEMENT_FACES - len(valid)))
    return valid.take_evenly(AGREEMENT_FACES) + extra


def compare_files(source: Path, path: Path, faces: Faces, contract: InputContract, *, threads: int) -> Fidelity:
    """Compare the quantized file `path` with its float form `source` on these faces."""
    expected, actual = (predict_onnx(file, faces, contract, threads=threads) for file in (source, path))
    return Fidelity.compare(expected, actual)


def check_agreement(fidelity: Fidelity, faces: int, *, least: float, untried: Sequence[str] = ()) -> None:
    """Raise GateError if INT8 agrees with float on less than the share `least` of the faces.

    untried: options that may improve it, in the order to try.
    """
    if fidelity.agreement < least:
        advice = f"Try {', then '.join(untried)}; or accept" if untried else "Keep the model in float, or accept"
        raise GateError(
            f"INT8 agrees with its float form on {100 * fidelity.agreement:.1f} % of {faces} faces, "
            f"expected {100 * least:g} %. {advice} it with --min-agreement"
        )


def choose_ranges(
    source: Path, faces: Faces, contract: InputContract, *, method: str, **settings: Any
) -> tuple[Ranges, dict[str, card.Fidelity]]:
    """Return the ranges by the named method and {}, or for `auto` those of the best method and the results of all.

    `auto` observes every second face, measures the divergence from float on the others, then observes all faces with
    the least divergent method.

    settings: arguments of `Reference.compute`.
    """
    if method != "auto":
        return observe(source, faces, contract, method=method), {}
    observed, held_out = (faces.take(np.arange(start, len(faces), 2)) for start in (0, 1))
    reference = Reference.compute(source, held_out, contract, **settings)
    tried = {}
    for name in METHODS:
        try:
            tried[name] = reference.measure(observe(source, observed, contract, method=name))
        except UsageError as error:
            log.warning("skipped: %s", error)
    best = min(tried, key=lambda name: tried[name].divergence)
    divergences = ", ".join(f"{name} {fidelity.divergence:.5f}" for name, fidelity in tried.items())
    log.info("calibration by %s: least divergence from float on %d train faces (%s)", best, len(held_out), divergences)
    measured = {name: fidelity.to_card() for name, fidelity in tried.items()}
    return observe(source, faces, contract, method=best), measured


def measure_layers(ranges: Ranges, reference: Reference) -> dict[str, Fidelity]:
    """Measure the fidelity with each layer alone quantized, the worst first."""
    errors = {
        name: reference.measure(ranges, only=[name])
        for name in track(ranges.layers, "quantizing each layer alone", total=len(ranges.layers), unit="layers")
    }
    return dict(sorted(errors.items(), key=lambda item: -item[1].divergence))


def choose_float_layers(ranges: Ranges, reference: Reference, errors: dict[str, Fidelity]) -> tuple[str, ...]:
    """Return the layers to keep in float: as many of the worst as 99 % agreement with float needs, possibly none.

    At most a quarter of the layers are kept; if that is not enough, a warning is logged.
    """
    names = list(errors)
    most = max(1, int(MAX_FLOAT_SHARE * len(names)))
    fidelity = reference.measure(ranges)
    kept = 0
    while fidelity.agreement < TARGET_AGREEMENT and kept < most:
        kept += 1
        fidelity = reference.measure(ranges, keep_float=names[:kept])
    level = logging.INFO if fidelity.agreement >= TARGET_AGREEMENT else logging.WARNING
    log.log(
        level,
        "keeping %d of %d layers in float: %.1f %% agreement with float on %d train faces",
        *(kept, len(names), 100 * fidelity.agreement, len(reference.faces)),
    )
    return tuple(names[:kept])


def find_mismatched_branches(ranges: Ranges) -> list[str]:
    """Describe every sum or concatenation with a branch whose range is at most 1/16 of another's."""
    mismatches = []
    for node in ranges.model.graph.node:
        if node.op_type not in SHARED_RANGE:
            continue
        widths = {name: limits[1] - limits[0] for name in node.input if (limits := ranges.get(name))}
        if len(widths) > 1 and (ratio := max(widths.values()) / max(min(widths.values()), 1e-12)) >= MISMATCH_RATIO:
            wide, narrow = max(widths, key=widths.__getitem__), min(widths, key=widths.__getitem__)
            mismatches.append(f"{node.op_type} {node.name}: {wide} has {ratio:.0f} times the range of {narrow}")
    return mismatches
