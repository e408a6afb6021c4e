"""What adaptation gains under shifts with known truth, made of FER+ valid and of drawn people.

python benchmarks/adapt_shifts.py [DATA]     (writes benchmarks/results/adapt/shifts.json; ends with 1 if a fact fails)

Every draw takes faces of a place at random, of drawn people whole people until the number is reached, and fits on them;
accuracy before and after is that of all other faces of the place. `always` applies the chosen change whether or not the
faces show a gain, as `--unproven` does; the other figures are those of `edgeemo adapt`, which leaves the model as it is
where no gain is shown. Draws are the same for all models.
"""

from __future__ import annotations

import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgeemo.adaptation import Fitted, fit_adaptation
from edgeemo.bench.robustness import corrupt
from edgeemo.data import faces
from edgeemo.data.drawing import camera
from edgeemo.data.drawing.actions import sample_actions
from edgeemo.data.drawing.person import sample_identity
from edgeemo.labels import FERPLUS8
from edgeemo.metrics import ece, softmax
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import Model, open_model, shipped
from edgeemo.runtime.adapting import compute_logits

OUT = Path(__file__).parent / "results" / "adapt" / "shifts.json"
DATA = "ferplus:../shared/data/ferplus.zip"
SIX = ("neutral", "happiness", "surprise", "sadness", "anger", "fear")
SIZES = (10, 30, 100, 300)  # faces to adapt to
DRAWS, UNSHIFTED_DRAWS = 20, 100  # the latter of the unshifted faces, for the share that is accepted
MEDIUM = 1  # strength of a corruption
FRAME = 1.3  # times as much of the image around a face
PEOPLE, SHOTS, SUBTLE = 60, 2, 0.6  # drawn people, faces of each label, and strength of their expressions
FLIPPED = 0.1  # share of wrong labels
MOST_ACCEPTED, LEAST_GAIN = 0.05, -0.5  # share of draws without a shift; points, on average
CORRUPTIONS = {"darkened": "dark", "blurred": "out of focus", "sensor noise": "sensor noise"}
PROCESSES = 2


@dataclass(frozen=True)
class Place:
    """Faces of one place: (N, K) logits over the temperature, (N,) labels, and (N,) who is on each, if known."""

    logits: np.ndarray
    truth: np.ndarray
    people: np.ndarray | None = None


@dataclass(frozen=True)
class Shift:
    """How a place differs from FER+ valid.

    faces: the key of its pixels. labels, share: these labels are that part of the faces, and the rest is in proportion;
    even: these labels alone, each as often. flipped: part of the given labels that are wrong.
    """

    name: str
    faces: str = "unshifted"
    labels: tuple[str, ...] = ()
    share: float = 0.0
    even: tuple[str, ...] = ()
    closed: bool = False
    flipped: float = 0.0


UNSHIFTED = Shift("unshifted")
SHIFTS = (
    UNSHIFTED,
    Shift("neutral 60 %", labels=("neutral",), share=0.6),
    Shift("happiness 60 %", labels=("happiness",), share=0.6),
    Shift("sadness and anger 60 %", labels=("sadness", "anger"), share=0.6),
    Shift("six labels, each as often", even=SIX),
    Shift("no neutral", labels=("neutral",)),
    Shift("no neutral, --closed", labels=("neutral",), closed=True),
    *(Shift(name, faces=name) for name in CORRUPTIONS),
    Shift("wider frame", faces="wider frame"),
    Shift("drawn people", faces="drawn people"),
    Shift("unshifted, 10 % wrong labels", flipped=FLIPPED),
    Shift("blurred, 10 % wrong labels", faces="blurred", flipped=FLIPPED),
    Shift("drawn people, 10 % wrong labels", faces="drawn people", flipped=FLIPPED),
)


def draw_person(number: int, label: str, shot: int, *, size: int) -> np.ndarray:
    """(size, size) uint8: the face of a drawn person, the same in each shot, whose expression is subtle."""
    who = np.random.default_rng((7, number))
    identity = sample_identity(who)
    rng = np.random.default_rng((8, number, shot, zlib.crc32(label.encode())))
    return camera.draw_person(identity, SUBTLE * sample_actions(label, rng), rng, size=size)


def widen(pixels: np.ndarray) -> np.ndarray:
    """(N, S, S) uint8 → the same with FRAME times as much around each face: its edge is repeated."""
    size = pixels.shape[1]
    small = round(size / FRAME)
    before = (size - small) // 2
    edges = ((before, size - small - before),) * 2
    reduced = (Image.fromarray(face).resize((small, small), Image.Resampling.BILINEAR) for face in pixels)
    return np.stack([np.pad(np.asarray(face), edges, mode="edge") for face in reduced])


def load_places(name: str, data: str) -> dict[str, Place]:
    """The faces of every place, as a model sees them."""
    with open_model(shipped.find(name)) as model:
        if model.labels != FERPLUS8:
            sys.exit(f"{name} predicts {', '.join(model.labels)}; expected {', '.join(FERPLUS8)}")
        valid = faces.load(data, "valid", model.label_set, contract=model.card.input)
        pixels = np.asarray(valid.pixels[:])
        seen = {"unshifted": pixels, "wider frame": widen(pixels)}
        seen |= {what: corrupt(pixels, corruption, MEDIUM) for what, corruption in CORRUPTIONS.items()}
        places = {what: Place(compute_scaled(model, one), valid.truth) for what, one in seen.items()}
        drawn = list(product(range(PEOPLE), SIX, range(SHOTS)))
        crops = np.stack([draw_person(*one, size=model.card.input.size) for one in drawn])
        truth = np.array([FERPLUS8.index(label) for _, label, _ in drawn])
        people = np.array([f"person {number}" for number, *_ in drawn])
        places["drawn people"] = Place(compute_scaled(model, crops), truth, people)
    return places


def compute_scaled(model: Model, pixels: np.ndarray) -> np.ndarray:
    """(N, K) float64 logits over the temperature, as `edgeemo adapt` fits them."""
    scaled: np.ndarray = compute_logits(model, pixels).astype(np.float64) / model.card.temperature
    return scaled


def draw_mix(truth: np.ndarray, shift: Shift, rng: np.random.Generator) -> np.ndarray:
    """Rows of as many faces as give the mix of a shift, without replacement, in random order."""
    if shift.even:
        rows = [rng.permutation(np.flatnonzero(truth == FERPLUS8.index(label))) for label in shift.even]
        fewest = min(map(len, rows))
        return rng.permutation(np.concatenate([one[:fewest] for one in rows]))
    order = rng.permutation(len(truth))
    if not shift.labels:
        return order
    chosen = np.isin(truth[order], [FERPLUS8.index(label) for label in shift.labels])
    groups = [(order[chosen], shift.share), (order[~chosen], 1 - shift.share)]
    total = min(len(rows) / share for rows, share in groups if share)
    return rng.permutation(np.concatenate([rows[: round(total * share)] for rows, share in groups]))


def split(place: Place, shift: Shift, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Rows to adapt to, `size` or as many as whole people have, and all other rows of the place."""
    if place.people is None:
        rows = draw_mix(place.truth, shift, rng)
        return rows[:size], rows[size:]
    order, counts = np.unique(place.people, return_counts=True)
    turns = rng.permutation(len(order))
    taken = order[turns[: int(np.searchsorted(counts[turns].cumsum(), size)) + 1]]
    chosen = np.isin(place.people, taken)
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def flip(truth: np.ndarray, share: float, occurring: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N,) labels, a share of which is another one of those that occur."""
    flipped = truth.copy()
    for row in rng.permutation(len(truth))[: round(share * len(truth))]:
        flipped[row] = rng.choice(occurring[occurring != truth[row]])
    return flipped


def measure_draw(place: Place, shift: Shift, size: int, number: int) -> dict[str, Any]:
    """Fit on one draw, and measure on the other faces."""
    rng = np.random.default_rng((zlib.crc32(shift.name.encode()), size, number))
    rows, others = split(place, shift, size, rng)
    given = flip(place.truth[rows], shift.flipped, np.unique(place.truth), rng)
    people = None if place.people is None else place.people[rows].tolist()
    fitted = fit_adaptation(place.logits[rows], given, FERPLUS8, people=people, closed=shift.closed)
    logits, truth = place.logits[others], place.truth[others]
    before, after = softmax(logits), softmax(fitted.change.apply(logits))
    gained = (after.argmax(1) == truth).astype(int) - (before.argmax(1) == truth)
    missing = ~np.isin(truth, given)
    return {
        "faces": len(rows),
        "others": len(others),
        "before": float((before.argmax(1) == truth).mean()),
        "gain": 100 * float(gained.mean()),
        "missing": int(missing.sum()),
        "missing_gain": int(gained[missing].sum()),
        "ece_before": ece(before, truth),
        "ece": ece(after, truth),
        **describe(fitted),
    }


def describe(fitted: Fitted) -> dict[str, Any]:
    """The form that was chosen, whether it is shown, and how many faces are estimated to show it."""
    form = fitted.candidate.form if fitted.candidate else "none"
    return {"form": form, "shown": fitted.shown, "needed": fitted.evidence.needed}


def measure_shift(model: str, shift: Shift, place: Place) -> list[dict[str, Any]]:
    """A row per size."""
    draws = UNSHIFTED_DRAWS if shift == UNSHIFTED else DRAWS
    about = {"model": model, "shift": shift.name}
    return [
        {**about, "size": size, **summarize([measure_draw(place, shift, size, number) for number in range(draws)])}
        for size in SIZES
    ]


def summarize(draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of the draws; always: the chosen change, otherwise the model as it is where no gain is shown.

    gain, worst: points of accuracy. missing_recall: points of recall, over all faces with labels that no face of their
    draw has. needed: the median of the faces that are estimated to show a gain, where there is one.
    """
    gain, shown = (np.array([one[name] for one in draws]) for name in ("gain", "shown"))
    calibration, before = (np.array([one[name] for one in draws]) for name in ("ece", "ece_before"))
    lost = np.array([one["missing_gain"] for one in draws])
    missing = sum(one["missing"] for one in draws)
    needed = [one["needed"] for one in draws if one["needed"] is not None]
    return {
        "draws": len(draws),
        "faces": round(float(np.mean([one["faces"] for one in draws])), 1),
        "others": round(float(np.mean([one["others"] for one in draws])), 1),
        "before": _round(np.mean([one["before"] for one in draws])),
        "adapted": _round(shown.mean()),
        "gain": _round(np.where(shown, gain, 0).mean()),
        "gain_deviation": _round(np.where(shown, gain, 0).std()),
        "worst": _round(np.where(shown, gain, 0).min()),
        "gain_always": _round(gain.mean()),
        "gain_always_deviation": _round(gain.std()),
        "worst_always": _round(gain.min()),
        "forms": dict(sorted(Counter(one["form"] for one in draws).items())),
        "forms_adapted": dict(sorted(Counter(one["form"] for one in draws if one["shown"]).items())),
        "missing_recall": _round(100 * lost[shown].sum() / missing) if missing else None,
        "missing_recall_always": _round(100 * lost.sum() / missing) if missing else None,
        "ece_before": _round(before.mean()),
        "ece": _round(np.where(shown, calibration, before).mean()),
        "ece_always": _round(calibration.mean()),
        "needed": round(float(np.median(needed))) if needed else None,
        "needed_known": _round(len(needed) / len(draws)),
    }


def _round(value: float | np.floating[Any]) -> float:
    return round(float(value), 4)


def state_facts(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What is accepted without a shift, and what is lost at most, each with its limit and whether it is kept."""
    unshifted = [row for row in rows if row["shift"] == UNSHIFTED.name]
    accepted = {str(size): _share([row for row in unshifted if row["size"] == size]) for size in SIZES}
    worst, always = (min(rows, key=lambda row: row[name]) for name in ("gain", "gain_always"))
    return {
        "accepted_unshifted": accepted,
        "accepted_unshifted_most": MOST_ACCEPTED,
        "accepted_unshifted_kept": max(accepted.values()) <= MOST_ACCEPTED,
        "worst_mean": {name: worst[name] for name in ("model", "shift", "size", "gain")},
        "worst_mean_least": LEAST_GAIN,
        "worst_mean_kept": worst["gain"] >= LEAST_GAIN,
        "worst_mean_always": {name: always[name] for name in ("model", "shift", "size", "gain_always")},
    }


def _share(rows: Sequence[dict[str, Any]]) -> float:
    """The share of draws that are adapted, of all models."""
    return _round(sum(row["adapted"] * row["draws"] for row in rows) / sum(row["draws"] for row in rows))


def table(result: Measurement) -> Table:
    """A row per shift, a column per size: the mean of the models, as `edgeemo adapt` decides."""
    worst = result.facts["worst_mean"]
    note = (
        f"{_describe(result)} In brackets, the share of the draws that show a gain; the others change nothing. Lowest "
        f"mean of one model: {worst['gain']:+.1f} ({worst['model']}, {worst['shift']}, {worst['size']} faces)."
    )
    return _make_table(
        result, "shifts", lambda rows: f"{_format(_mean(rows, 'gain'))} ({100 * _share(rows):.0f} %)", note
    )


def unproven_table(result: Measurement) -> Table:
    """The same for the chosen change, shown or not."""
    note = f"{_describe(result)} The chosen change, whether or not a gain is shown; in brackets, the worst draw."

    def make_cell(rows: list[dict[str, Any]]) -> str:
        return f"{_format(_mean(rows, 'gain_always'))} ({_format(min(row['worst_always'] for row in rows))})"

    return _make_table(result, "unproven", make_cell, note)


def _format(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}"  # without -0.0


def _make_table(result: Measurement, title: str, make_cell: Callable[[list[dict[str, Any]]], str], note: str) -> Table:
    body = []
    for shift in dict.fromkeys(row["shift"] for row in result.rows):
        of = [row for row in result.rows if row["shift"] == shift]
        cells = [make_cell([row for row in of if row["size"] == size]) for size in SIZES]
        body.append((shift, f"{100 * _mean(of, 'before'):.1f} %", *cells))
    return Table(title, ("place", "before", *(f"{size} faces" for size in SIZES)), body, note)


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def _describe(result: Measurement) -> str:
    draws, unshifted = result.settings["draws"], result.settings["unshifted_draws"]
    return (
        f"Accuracy before, and points gained on the other faces; mean of {', '.join(shipped.NAMES)} and of {draws} "
        f"draws each ({unshifted} of the unshifted faces)."
    )


def run_all(names: Iterable[str], data: str) -> list[dict[str, Any]]:
    """All rows, model by model."""
    with ProcessPoolExecutor(PROCESSES) as pool:
        waiting = []
        for name in names:
            places = load_places(name, data)
            waiting += [pool.submit(measure_shift, name, shift, places[shift.faces]) for shift in SHIFTS]
        return [row for one in track(waiting, "adapting", total=len(waiting)) for row in one.result()]


def main() -> None:
    """Measure, and write the result."""
    rows = run_all(shipped.NAMES, sys.argv[1] if len(sys.argv) > 1 else DATA)
    settings = {"data": "ferplus", "split": "valid", "protocol": "plurality"}
    settings |= {"draws": DRAWS, "unshifted_draws": UNSHIFTED_DRAWS, "people": PEOPLE, "shots": SHOTS}
    facts = state_facts(rows)
    result = Measurement(header=make_header(), script="adapt_shifts", settings=settings, rows=rows, facts=facts)
    files.write(result, OUT)
    print(table(result).to_markdown(), unproven_table(result).to_markdown(), facts, sep="\n\n")
    sys.exit(0 if facts["accepted_unshifted_kept"] and facts["worst_mean_kept"] else 1)


if __name__ == "__main__":
    main()
