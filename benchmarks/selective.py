"""Selective accuracy of the packaged models on FER+ valid, and the thresholds in their cards.

python benchmarks/selective.py [DATA]     (writes benchmarks/results/models/selective.json, and cards that change)

Each model file gets the threshold that `edgeemo compress` would write, on the faces on which its temperature was
fitted. How well it holds on other faces is measured on random halves of them: fitted on one, measured on the other;
`rule` is the interval, as edgeemo fits, or the point estimate alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from edgeemo.card import read_card, write_card
from edgeemo.card.history import make_entry
from edgeemo.data import faces
from edgeemo.measure.logits import compute_logits
from edgeemo.options import Config, like
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import open_model, shipped
from edgeemo.selective import (
    MIN_ANSWERS,
    MIN_COVERAGE,
    STEPS,
    SelectiveAccuracy,
    fit_answers,
    fit_threshold,
    measure_answers,
    measure_curve,
)
from edgeemo.stages import Compress

OUT = Path(__file__).parent / "results" / "models" / "selective.json"
DATA = "ferplus:../shared/data/ferplus.zip"
AIM = Compress.answer_accuracy / 100
AIMS = (0.85, AIM, 0.95)
CURVE = tuple(percent / 100 for percent in (0, 40, 50, 60, 65, 70, 75, 80, 85, 90, 95))
LABELS = {"eight": None, "six": "six"}
HALVES = 200  # random splits


@dataclass(frozen=True)
class FitAnswers(Config):
    """The settings of the fit, for the card's history."""

    answer_accuracy: float = like(Compress, "answer_accuracy")


Rule = Callable[[np.ndarray, np.ndarray, float], SelectiveAccuracy | None]


def predict(file: Path, labels: str | None, data: str) -> tuple[np.ndarray, np.ndarray]:
    """(N, K) probabilities of FER+ valid at the card's temperature, and (N,) true labels."""
    with open_model(file, labels=labels) as model:
        valid = faces.load(data, "valid", model.label_set, contract=model.card.input)
        if labels is None and valid.fingerprint != model.card.metrics["valid"].ids_sha256:
            sys.exit(f"{data} does not give the valid faces of the card of {file.name}")
        return model.merge_probabilities(compute_logits(model, valid.pixels)), valid.truth


def update_card(file: Path, data: str) -> dict[str, Any]:
    """Fit the threshold of a model file, and write it into its card if it is another than there."""
    start, card = perf_counter(), read_card(file)
    answers = fit_answers(*predict(file, None, data), AIM)
    if answers != card.answers:
        settings = FitAnswers(answer_accuracy=Compress.answer_accuracy)
        entry = make_entry("fit answers", settings, seconds=perf_counter() - start, parent=card.sha256)
        write_card(file, replace(card, answers=answers).with_entry(entry))
    return {"what": "card", "model": file.name, **(asdict(answers) if answers else {})}


def fit_point(probabilities: np.ndarray, truth: np.ndarray, least_accuracy: float) -> SelectiveAccuracy | None:
    """As `fit_threshold`, but by the accuracy itself instead of the lower end of its interval."""
    reached = None
    for percent in reversed(range(STEPS)):
        found = measure_answers(probabilities, truth, percent / STEPS)
        if found.accuracy is None or found.answered < MIN_ANSWERS or found.coverage < MIN_COVERAGE:
            continue
        if found.accuracy < least_accuracy:
            break
        reached = found
    return reached


RULES: dict[str, Rule] = {"interval": fit_threshold, "point": fit_point}


def measure_transfer(probabilities: np.ndarray, truth: np.ndarray, aim: float, fit: Rule) -> dict[str, Any]:
    """Fit on a random half, measure on the other; halves where no threshold is found count apart."""
    rng, found = np.random.default_rng(0), []
    for _ in range(HALVES):
        order = rng.permutation(len(truth))
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        if fitted := fit(probabilities[first], truth[first], aim):
            found.append(measure_answers(probabilities[second], truth[second], fitted.least_probability))
    accuracies, coverages = (np.array([getattr(one, name) for one in found]) for name in ("accuracy", "coverage"))
    thresholds = np.array([one.least_probability for one in found])
    return {
        "fits": len(found),
        "reached": float((accuracies >= aim).mean()),
        "accuracy_mean": round(float(accuracies.mean()), 4),
        "accuracy_p5": round(float(np.percentile(accuracies, 5)), 4),
        "coverage_mean": round(float(coverages.mean()), 4),
        "threshold_low": float(thresholds.min()),
        "threshold_high": float(thresholds.max()),
    }


def measure(name: str, data: str) -> Iterator[dict[str, Any]]:
    """Curve, the card's threshold, and transfer of one model, in both label sets."""
    threshold = read_card(shipped.find(name)).answers
    for labels, label_set in LABELS.items():
        probabilities, truth = predict(shipped.find(name), label_set, data)
        about = {"model": name, "labels": labels}
        yield from ({"what": "curve", **about, **asdict(one)} for one in measure_curve(probabilities, truth, CURVE))
        if threshold:
            at = measure_answers(probabilities, truth, threshold.least_probability)
            yield {"what": "threshold", **about, **asdict(at)}
        for aim in AIMS:
            for rule, fit in RULES.items():
                transfer = measure_transfer(probabilities, truth, aim, fit)
                yield {"what": "transfer", **about, "aim": aim, "rule": rule, **transfer}


def table(result: Measurement) -> Table:
    """Accuracy and coverage at the threshold of each card and around it."""
    rows = [row for row in result.rows if row["what"] in ("curve", "threshold")]
    shown = [row for row in rows if row["what"] == "threshold" or row["least_probability"] in (0, 0.5, 0.9)]
    shown.sort(key=lambda row: (shipped.NAMES.index(row["model"]), row["labels"] == "six", row["least_probability"]))
    head = ("model", "labels", "answers from", "accuracy of the answers (95 %)", "share of the faces")
    return Table("thresholds", head, [_cells(row) for row in shown], "FER+ valid, plurality.")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    accuracy, low, high = (100 * row[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
    at = f"{100 * row['least_probability']:.0f} %"
    cells = (f"{accuracy:.1f} % ({low:.1f} to {high:.1f})", f"{100 * row['coverage']:.1f} %")
    return (row["model"], row["labels"], f"{at} (card)" if row["what"] == "threshold" else at, *cells)


def transfer_table(result: Measurement) -> Table:
    """How often a threshold that was fitted on one half holds on the other."""
    rows = [row for row in result.rows if row["what"] == "transfer" and row["labels"] == "eight"]
    head = (
        "model",
        "aim",
        "fitted by",
        "thresholds",
        "aim reached",
        "accuracy",
        "5th percentile",
        "share of the faces",
    )
    return Table("transfer", head, [_transfer_cells(row) for row in rows], _describe_halves(result))


def _transfer_cells(row: dict[str, Any]) -> tuple[str, ...]:
    thresholds = f"{100 * row['threshold_low']:.0f} to {100 * row['threshold_high']:.0f} %"
    shares = (f"{100 * row[name]:.1f} %" for name in ("accuracy_mean", "accuracy_p5", "coverage_mean"))
    reached = f"{100 * row['reached']:.0f} % of {row['fits']}"
    return (row["model"], f"{100 * row['aim']:.0f} %", row["rule"], thresholds, reached, *shares)


def _describe_halves(result: Measurement) -> str:
    return f"{result.settings['halves']} random halves of FER+ valid, eight labels; measured on the other halves."


def main() -> None:
    """Update the cards, measure, and write the result."""
    data = sys.argv[1] if len(sys.argv) > 1 else DATA
    names = shipped.NAMES
    paths = [shipped.find(name, target_format=target_format) for name in names for target_format in shipped.SUFFIXES]
    rows = [update_card(path, data) for path in paths]
    for name in track(names, "measuring", total=len(names)):
        rows += measure(name, data)
    settings = {"data": "ferplus", "split": "valid", "protocol": "plurality", "halves": HALVES, "aim": AIM}
    result = Measurement(header=make_header(), script="selective", settings=settings, rows=rows)
    files.write(result, OUT)
    print(table(result).to_markdown(), transfer_table(result).to_markdown(), sep="\n\n")


if __name__ == "__main__":
    main()
