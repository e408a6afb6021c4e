"""How far INT8 is from float: by calibration method and by layer, judged on train faces, and as it ends, on valid.

Nothing is chosen on valid faces; they only say whether what was chosen holds on faces that the network does not know.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo import card
from edgeemo.card import InputContract
from edgeemo.compress.quantize.qdq import quantize
from edgeemo.compress.quantize.ranges import METHODS, Ranges, file_logits, observe
from edgeemo.data import Faces
from edgeemo.errors import GateError, UsageError
from edgeemo.metrics import divergence
from edgeemo.progress import track

log = logging.getLogger(__name__)
JUDGES = 256  # calibration faces that judge a layer or a method
WITNESSES = 512  # faces on which a file must agree with its float form
ENOUGH = 0.98  # agreement with float below which a form is another model
AIM = 0.99  # agreement on the judges' faces that keep-float auto stops at; the network knows them, new ones agree less
MOST_KEPT = 0.25  # of the layers that keep-float auto leaves in float; more, and INT8 is the wrong choice
SHARED = ("Add", "Concat")  # operators whose inputs meet in one range
MISMATCH = 16.0  # a branch with a 16th of the other's range keeps 4 of 8 bits


@dataclass(frozen=True)
class Fidelity:
    """What quantization changed: the mean divergence of the probabilities in nats, and how often the label stays."""

    divergence: float
    agreement: float

    @classmethod
    def of(cls, expected: np.ndarray, got: np.ndarray) -> Fidelity:
        """Of (N, K) logits `got`, where float gave `expected`."""
        return cls(divergence(expected, got), float((expected.argmax(1) == got.argmax(1)).mean()))

    def to_dict(self) -> dict[str, float]:
        """JSON-ready form."""
        return {name: round(value, 6) for name, value in asdict(self).items()}

    def section(self, faces: int | None = None) -> card.Fidelity:
        """The card's section, for that number of faces."""
        return card.Fidelity(**self.to_dict(), faces=faces)


@dataclass(frozen=True)
class Judge:
    """A float model, the faces it judges its INT8 forms on, and what it says of them itself."""

    faces: Faces
    contract: InputContract
    target_format: str
    reduce_range: bool
    threads: int
    expected: np.ndarray  # (N, K) float logits

    @classmethod
    def of(
        cls,
        source: Path,
        faces: Faces,
        contract: InputContract,
        *,
        target_format: str,
        threads: int,
        reduce_range: bool = True,
    ) -> Judge:
        """The judge that the float model `source` is on (at most 256 of) `faces`."""
        some = faces.take_evenly(JUDGES)
        expected = file_logits(source, some, contract, threads=threads)
        return cls(some, contract, target_format, reduce_range, threads, expected)

    def fidelity(self, ranges: Ranges, *, keep_float: Collection[str] = (), only: Collection[str] = ()) -> Fidelity:
        """Of the INT8 form that `quantize` writes."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "candidate.onnx"
            how: dict[str, Any] = {"target_format": self.target_format, "reduce_range": self.reduce_range}
            quantize(ranges, path, **how, keep_float=keep_float, only=only)
            got = file_logits(path, self.faces, self.contract, threads=self.threads)
        return Fidelity.of(self.expected, got)


def agreement_faces(valid: Faces, train: Faces) -> Faces:
    """The 512 faces that a file is asked about: valid ones, and where there are too few, train ones after them.

    Of 24 faces one is four percent; alone they could not tell 98 % from less.
    """
    known = train.take_evenly(max(0, WITNESSES - len(valid)))
    return valid.take_evenly(WITNESSES) + known


def compare_files(source: Path, path: Path, faces: Faces, contract: InputContract, *, threads: int) -> Fidelity:
    """What the quantized file `path` changed of its float form `source`, on these faces."""
    expected, got = (file_logits(file, faces, contract, threads=threads) for file in (source, path))
    return Fidelity.of(expected, got)


def check(found: Fidelity, faces: int, *, least: float, untried: Sequence[str] = ()) -> None:
    """GateError if INT8 names the emotion of its float form on less than the share `least` of the faces.

    untried: the options that may help.
    """
    if found.agreement < least:
        advice = f"Try {', then '.join(untried)}; or accept" if untried else "Leave it in float, or accept"
        raise GateError(
            f"INT8 names the emotion of its float form on {100 * found.agreement:.1f} % of {faces} faces, "
            f"expected {100 * least:g} %. {advice} it with --min-agreement"
        )


def choose_ranges(
    source: Path, faces: Faces, contract: InputContract, *, method: str, **how: Any
) -> tuple[Ranges, dict[str, card.Fidelity]]:
    """Ranges by the named method and {}, or by `auto` the least divergent method's and what each one measured.

    `auto` takes ranges from every second face, judges on the others, then observes all faces by the winner. how: as of
    `Judge.of`.
    """
    if method != "auto":
        return observe(source, faces, contract, method=method), {}
    seen, unseen = (faces.take(np.arange(start, len(faces), 2)) for start in (0, 1))
    judge = Judge.of(source, unseen, contract, **how)
    tried = {}
    for name in METHODS:
        try:
            tried[name] = judge.fidelity(observe(source, seen, contract, method=name))
        except UsageError as error:
            log.warning("passed over: %s", error)
    best = min(tried, key=lambda name: tried[name].divergence)
    told = ", ".join(f"{name} {found.divergence:.5f}" for name, found in tried.items())
    log.info("calibration by %s: least divergence from float on %d train faces (%s)", best, len(unseen), told)
    measured = {name: found.section() for name, found in tried.items()}
    return observe(source, faces, contract, method=best), measured


def measure_layers(ranges: Ranges, judge: Judge) -> dict[str, Fidelity]:
    """What each layer costs when it alone is quantized, the worst first."""
    found = {
        name: judge.fidelity(ranges, only=[name])
        for name in track(ranges.layers, "quantizing each layer alone", total=len(ranges.layers))
    }
    return dict(sorted(found.items(), key=lambda item: -item[1].divergence))


def choose_float_layers(ranges: Ranges, judge: Judge, errors: dict[str, Fidelity]) -> tuple[str, ...]:
    """The fewest worst layers to leave in float for 99 % agreement with float: none where INT8 agrees by itself.

    At most a quarter of the layers are kept; where that is not enough, the error of the whole says so in the log.
    """
    names = list(errors)
    most = max(1, int(MOST_KEPT * len(names)))
    found = judge.fidelity(ranges)
    kept = 0
    while found.agreement < AIM and kept < most:
        kept += 1
        found = judge.fidelity(ranges, keep_float=names[:kept])
    level = logging.INFO if found.agreement >= AIM else logging.WARNING
    log.log(
        level,
        "keeping %d of %d layers in float: %.1f %% agreement with float on %d train faces",
        *(kept, len(names), 100 * found.agreement, len(judge.faces)),
    )
    return tuple(names[:kept])


def find_mismatched_branches(ranges: Ranges) -> list[str]:
    """A sentence for every sum or concatenation of which one branch has under a 16th of another's range."""
    told = []
    for node in ranges.model.graph.node:
        if node.op_type not in SHARED:
            continue
        widths = {name: found[1] - found[0] for name in node.input if (found := ranges.of(name))}
        if len(widths) > 1 and (ratio := max(widths.values()) / max(min(widths.values()), 1e-12)) >= MISMATCH:
            wide, narrow = max(widths, key=widths.__getitem__), min(widths, key=widths.__getitem__)
            told.append(f"{node.op_type} {node.name}: {wide} has {ratio:.0f} times the range of {narrow}")
    return told
