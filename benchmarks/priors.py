"""What prior correction costs and brings on FER+ valid, and the settings of its estimate.

python benchmarks/priors.py [DATA]     (writes benchmarks/results/adapt/prior.json)

The settings of `auto` are chosen on a random half of valid (rows `choice`, `training`), the mixes are measured on the
other half. Faces are drawn with replacement, first the label by the mix, then a face of it. `differences` are accuracy
minus that without a prior, on the same faces, a mean over the draws.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from edgeemo.data import faces
from edgeemo.labels import LABEL_SETS, LabelSet
from edgeemo.measure.logits import compute_logits
from edgeemo.metrics import scores
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import open_model, shipped
from edgeemo.runtime.prior import (
    BOUND,
    MINIMUM,
    PSEUDO_FACES,
    WINDOW,
    EstimatedCorrection,
    correct,
    estimate_shares,
    find_shares,
    find_training_shares,
)

OUT = Path(__file__).parent / "results" / "adapt" / "prior.json"
DATA = "ferplus:../shared/data/ferplus.zip"
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
UNSHIFTED = "as valid"
MIXES = {  # as `prior` takes them, but that the other labels share what is left as in valid
    UNSHIFTED: {},
    "uniform": "uniform",
    "no neutral": {"neutral": 0},
    "neutral 60 %": {"neutral": 0.6},
    "happiness 60 %": {"happiness": 0.6},
    "sadness 30 %, anger 30 %": {"sadness": 0.3, "anger": 0.3},
}
DRAWS, FACES = 20, 300
AFTER = (30, 100, 300)  # faces that the estimate has seen
SEEN = (*AFTER, 500, 1000)  # to choose the settings
PSEUDO, BOUNDS = (0.0, 30.0, 100.0, 200.0, 400.0), (2.0, 4.0, 8.0)
HEADS = {"given": "mix given", "auto": "auto", **{f"auto after {n}": f"auto after {n}" for n in AFTER}}
Fix = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Case:
    """One model on FER+ valid in one label set."""

    model: str
    labels: LabelSet
    probabilities: np.ndarray  # (N, K), without a prior
    truth: np.ndarray  # (N,)
    training: np.ndarray  # (K,) shares of training, as the loss weighs them
    plain: np.ndarray  # (K,) shares of the train faces
    halves: tuple[np.ndarray, np.ndarray]  # rows: to choose on, to measure on

    @property
    def about(self) -> dict[str, Any]:
        """The model and its labels, for a row."""
        return {"model": self.model, "labels": len(self.labels.labels)}

    def find_mix(self, name: str) -> np.ndarray:
        """(K,) shares of a mix."""
        own = np.bincount(self.truth, minlength=len(self.training)) / len(self.truth)
        return find_shares(MIXES[name], self.labels.labels, own) if MIXES[name] else own

    def draw(self, rng: np.random.Generator, half: np.ndarray, mix: np.ndarray, n: int) -> np.ndarray:
        """(n,) rows."""
        of_label = [half[self.truth[half] == k] for k in range(len(mix))]
        return np.array([rng.choice(of_label[k]) for k in rng.choice(len(mix), n, p=mix)])

    def gain(self, rows: np.ndarray, fix: Fix) -> float:
        """Points of accuracy that a correction brings on these rows."""
        before = self.probabilities[rows]
        right = fix(before).argmax(1) == self.truth[rows]
        return 100 * float(right.mean() - (before.argmax(1) == self.truth[rows]).mean())


def open_cases(data: str) -> Iterator[Case]:
    """Every packaged model with eight and with six labels."""
    listed = faces.list_labelled(data, "train", LABEL_SETS["ferplus8"]).truth
    plain = np.bincount(listed) / len(listed)
    for name in shipped.NAMES:
        with open_model(name) as model:
            card = model.card
            valid = faces.load(data, "valid", model.label_set, contract=card.input)
            if valid.fingerprint != card.metrics["valid"].ids_sha256:
                sys.exit(f"{data} does not give the valid faces of the card of {name}")
            logits = compute_logits(model, valid.pixels)
        order = np.random.default_rng(0).permutation(len(valid))
        halves = (order[: len(order) // 2], order[len(order) // 2 :])
        for labels in (LABEL_SETS["ferplus8"], LABEL_SETS["six"]):
            positions = np.array(labels.map_labels(card.labels))
            with open_model(name, labels=labels) as model:
                probabilities = model.merge_probabilities(logits)
            training = find_training_shares(card, labels, model.path)
            merged = np.bincount(positions, plain)
            yield Case(name, labels, probabilities, positions[valid.truth], training, merged, halves)


def measure_uniform(case: Case) -> Iterator[dict[str, Any]]:
    """What a uniform prior costs on valid, which is far from uniform."""
    uniform = np.full_like(case.training, 1 / len(case.training))
    for strength in STRENGTHS:
        corrected = correct(case.probabilities, (uniform / case.training) ** strength)
        found = scores(corrected, case.truth, case.labels.labels)
        recall = {label: share for label, share in found.recall.items() if share is not None}
        lowest = min(recall, key=lambda label: recall[label])
        yield {
            "what": "uniform",
            **case.about,
            "strength": strength,
            "accuracy": round(found.accuracy, 4),
            "macro_recall": round(float(np.mean(list(recall.values()))), 4),
            "lowest_recall": round(recall[lowest], 4),
            "lowest_label": lowest,
        }


def measure_mix(case: Case, name: str) -> dict[str, Any]:
    """The true mix given; `auto` face by face over a stream, and on other faces after some."""
    mix, rng, half = case.find_mix(name), np.random.default_rng(1), case.halves[1]
    found: dict[str, list[float]] = {way: [] for way in HEADS}
    before = []
    for _ in range(DRAWS):
        rows = case.draw(rng, half, mix, FACES)
        before.append(100 * float((case.probabilities[rows].argmax(1) == case.truth[rows]).mean()))
        found["given"].append(case.gain(rows, lambda some: correct(some, mix / case.training)))
        estimate = EstimatedCorrection(case.training)
        found["auto"].append(case.gain(rows, lambda some, own=estimate: one_by_one(some, own)))
        for n in AFTER:
            estimate = EstimatedCorrection(case.training)
            estimate.correct(case.probabilities[case.draw(rng, half, mix, n)])
            factors = estimate.find_factors()
            found[f"auto after {n}"].append(case.gain(rows, lambda some, own=factors: correct(some, own)))
    about = {"what": "mix", **case.about, "mix": name, "accuracy": round(float(np.mean(before)), 2)}
    return {**about, "differences": {way: round(float(np.mean(gains)), 2) for way, gains in found.items()}}


def one_by_one(probabilities: np.ndarray, estimate: EstimatedCorrection) -> np.ndarray:
    """Correct each face by the faces up to it."""
    return np.concatenate([estimate.correct(row[None]) for row in probabilities])


def choose(cases: Iterable[Case]) -> Iterator[dict[str, Any]]:
    """`auto` after some faces, with several settings: mean over models, label sets and draws, and the worst mean."""
    settings = [(n, pseudo, bound) for n in SEEN for pseudo in PSEUDO for bound in BOUNDS]
    means: dict[tuple[Any, ...], list[float]] = {}
    for case, name in product(cases, MIXES):
        for setting, gain in try_settings(case, name, settings, case.training).items():
            means.setdefault((*setting, name == UNSHIFTED), []).append(gain)
    for n, pseudo, bound in settings:
        same, others = means[n, pseudo, bound, True], means[n, pseudo, bound, False]
        yield {
            "what": "choice",
            "faces": n,
            "pseudo_faces": pseudo,
            "bound": bound,
            "unshifted": round(float(np.mean(same)), 2),
            "unshifted_worst": round(min(same), 2),
            "shifted": round(float(np.mean(others)), 2),
            "shifted_worst": round(min(others), 2),
        }


def compare_training(cases: Iterable[Case]) -> Iterator[dict[str, Any]]:
    """`auto` after most faces, by the shares as the loss weighs them, and by the plain ones: the worst mean."""
    setting = (AFTER[-1], PSEUDO_FACES, BOUND)
    for case in cases:
        for shares, training in {"weighted": case.training, "plain": case.plain}.items():
            found = {name: try_settings(case, name, [setting], training)[setting] for name in MIXES}
            row = {"what": "training", **case.about, "shares": shares}
            yield {**row, "differences": {name: round(gain, 2) for name, gain in found.items()}}


def try_settings(
    case: Case, name: str, settings: list[tuple[int, float, float]], training: np.ndarray
) -> dict[tuple[int, float, float], float]:
    """Mean gain of each (faces, pseudo-faces, bound) on faces of the first half."""
    mix, rng, half = case.find_mix(name), np.random.default_rng(2), case.halves[0]
    found: dict[tuple[int, float, float], list[float]] = {setting: [] for setting in settings}
    for _ in range(DRAWS):
        rows, seen = case.draw(rng, half, mix, FACES), case.draw(rng, half, mix, max(SEEN))
        for n, pseudo in dict.fromkeys(setting[:2] for setting in settings):
            ratios = estimate_shares(case.probabilities[seen[:n]], training, pseudo_faces=pseudo) / training
            for bound in dict.fromkeys(setting[2] for setting in settings):
                factors = np.clip(ratios, 1 / bound, bound)
                found[n, pseudo, bound].append(case.gain(rows, lambda some, own=factors: correct(some, own)))
    return {setting: float(np.mean(gains)) for setting, gains in found.items()}


def uniform_table(result: Measurement) -> Table:
    """A row per model and label set, a column per strength."""
    rows = [row for row in result.rows if row["what"] == "uniform"]
    head = ("model", "labels", *("no prior" if s == 0 else f"strength {s:g}" for s in STRENGTHS))
    keys = dict.fromkeys((row["model"], row["labels"]) for row in rows)
    body = [
        (key[0], str(key[1]), *(_cell(row) for row in rows if (row["model"], row["labels"]) == key)) for key in keys
    ]
    about = "FER+ valid, plurality: accuracy (mean recall of the labels, lowest recall of a label)."
    return Table("uniform", head, body, about)


def _cell(row: dict[str, Any]) -> str:
    accuracy, mean, lowest = (100 * row[name] for name in ("accuracy", "macro_recall", "lowest_recall"))
    return f"{accuracy:.1f} % ({mean:.1f}, {lowest:.1f})"


def mix_table(result: Measurement) -> Table:
    """A row per mix and label set: the mean of the models, and the worst."""
    rows = [row for row in result.rows if row["what"] == "mix"]
    body = []
    for mix, labels in product(MIXES, (8, 6)):
        some = [row for row in rows if (row["mix"], row["labels"]) == (mix, labels)]
        cells = (_spread([row["differences"][way] for row in some]) for way in HEADS)
        body.append((mix, str(labels), f"{np.mean([row['accuracy'] for row in some]):.1f} %", *cells))
    head = ("mix", "labels", "no prior", *HEADS.values())
    about = (
        f"Half of FER+ valid, mean of {DRAWS} draws of {FACES} faces and of the three models (in brackets the model "
        "with the least): accuracy without a prior, and points gained by the others. auto: face by face, from the "
        "first one on; after N: on these faces, with the estimate from N others of the same mix."
    )
    return Table("mixes", head, body, about)


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):+.1f} ({min(values):+.1f})"


def main() -> None:
    """Measure, and write the result."""
    cases = list(open_cases(sys.argv[1] if len(sys.argv) > 1 else DATA))
    rows = [row for case in cases for row in measure_uniform(case)]
    pairs = list(product(cases, MIXES))
    rows += [measure_mix(case, name) for case, name in track(pairs, "mixes", total=len(pairs))]
    rows += [*choose(cases), *compare_training(cases)]
    chosen = {"window": WINDOW, "minimum": MINIMUM, "pseudo_faces": PSEUDO_FACES, "bound": BOUND}
    settings = {"data": "ferplus", "split": "valid", "protocol": "plurality", "draws": DRAWS, "faces": FACES, **chosen}
    result = Measurement(header=make_header(), script="priors", settings=settings, rows=rows)
    files.write(result, OUT)
    print(uniform_table(result).to_markdown(), mix_table(result).to_markdown(), sep="\n\n")


if __name__ == "__main__":
    main()
