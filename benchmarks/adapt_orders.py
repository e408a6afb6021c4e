"""In which order to label faces: what the first ones of each order of `edgeemo label` gain when a model adapts to them.

python benchmarks/adapt_orders.py [DATA]     (writes benchmarks/results/adapt/orders.json)

Of a place, as adapt_shifts.py makes it, some faces are at hand to be labelled: POOL at random, or all of HALF of the
drawn people. The first of each order are labelled and adapted to; accuracy is that of all other faces of the place, of
other people where they are known. `shown` is what `edgeemo adapt` gives, which changes nothing where no gain is shown.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from adapt_shifts import DATA, Place, load_places

from edgeemo.adaptation import fit_adaptation
from edgeemo.label.find import Candidate
from edgeemo.label.photos import NOBODY, Photo
from edgeemo.label.queue import sort_candidates
from edgeemo.labels import FERPLUS8
from edgeemo.metrics import softmax
from edgeemo.predict.sources import Source
from edgeemo.progress import track
from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table
from edgeemo.runtime import shipped

OUT = Path(__file__).parent / "results" / "adapt" / "orders.json"
PLACES = ("unshifted", "blurred", "sensor noise", "drawn people")
ORDERS = ("random", "margin", "mixed")
SIZES = (10, 30, 100)  # faces that are labelled
DRAWS = 20
POOL, HALF = 400, 30  # faces, drawn people


def draw_pool(place: Place, rng: np.random.Generator) -> np.ndarray:
    """(N,) bool: the faces that are at hand."""
    if place.people is None:
        chosen = np.zeros(len(place.truth), bool)
        chosen[rng.permutation(len(place.truth))[:POOL]] = True
        return chosen
    return np.isin(place.people, rng.permutation(np.unique(place.people))[:HALF])


def make_candidates(place: Place, rows: np.ndarray, number: int) -> list[Candidate]:
    """The faces of these rows as `edgeemo label` has them; number: of the draw, so that it has an order of its own."""
    probabilities = softmax(place.logits[rows])
    candidates = []
    for row, shares in zip(rows.tolist(), probabilities, strict=True):
        ranked = sorted(zip(FERPLUS8, shares.tolist(), strict=True), key=lambda one: -one[1])
        name = f"{number}/{row}.png"
        person = NOBODY if place.people is None else str(place.people[row])
        photo = Photo(Source(Path(name), Path(name)), name, person)
        candidates.append(Candidate(row, photo, (0.0, 0.0, 48.0, 48.0), None, tuple(ranked), 0))
    return candidates


def measure_draw(place: Place, order: str, size: int, number: int) -> tuple[float, bool]:
    """The points that the other faces gain, and whether the labelled ones show it."""
    at_hand = draw_pool(place, np.random.default_rng((size, number)))
    first = sort_candidates(make_candidates(place, np.flatnonzero(at_hand), number), order=order)[:size]
    rows = np.sort([one.number for one in first])
    people = None if place.people is None else place.people[rows].tolist()
    fitted = fit_adaptation(place.logits[rows], place.truth[rows], FERPLUS8, people=people)
    logits, truth = place.logits[~at_hand], place.truth[~at_hand]
    right = [(one.argmax(1) == truth).mean() for one in (logits, fitted.change.apply(logits))]
    return 100 * float(right[1] - right[0]), fitted.shown


def measure(model: str, what: str, place: Place) -> list[dict[str, Any]]:
    """A row per order and size."""
    rows = []
    for order in ORDERS:
        for size in SIZES:
            drawn = [measure_draw(place, order, size, number) for number in range(DRAWS)]
            gain, shown = (np.array(one) for one in zip(*drawn, strict=True))
            kept = np.where(shown, gain, 0)
            figures = {"gain": kept.mean(), "worst": kept.min(), "gain_always": gain.mean(), "adapted": shown.mean()}
            about = {"model": model, "place": what, "order": order, "size": size}
            rows.append(about | {name: round(float(value), 4) for name, value in figures.items()})
    return rows


def table(result: Measurement) -> Table:
    """A row per place and number of faces, a column per order: the mean of the models, always and shown."""
    body = []
    for what in PLACES:
        for size in SIZES:
            of = [row for row in result.rows if (row["place"], row["size"]) == (what, size)]
            cells = []
            for order in ORDERS:
                always, shown = (
                    np.mean([row[name] for row in of if row["order"] == order]) for name in ("gain_always", "gain")
                )
                cells.append(f"{shown:+.1f} ({always:+.1f})")
            body.append((f"{what}, {size} faces", *cells))
    note = (
        f"Points of accuracy gained on the other faces, mean of {', '.join(shipped.NAMES)} and of "
        f"{result.settings['draws']} draws each, where a gain is shown; in brackets, by the chosen change in any case."
    )
    return Table("orders", ("place", *ORDERS), body, note)


def main() -> None:
    """Measure, and write the result."""
    data = sys.argv[1] if len(sys.argv) > 1 else DATA
    rows = []
    for name in track(shipped.NAMES, "adapting", total=len(shipped.NAMES)):
        places = load_places(name, data)
        rows += [row for what in PLACES for row in measure(name, what, places[what])]
    settings = {"data": "ferplus", "split": "valid", "draws": DRAWS, "pool": POOL, "people": HALF}
    result = Measurement(header=make_header(), script="adapt_orders", settings=settings, rows=rows)
    files.write(result, OUT)
    print(table(result).to_markdown())


if __name__ == "__main__":
    main()
