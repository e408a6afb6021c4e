"""Tables of selective accuracy: of the predictions from a probability on, and the share of the faces that these are."""

from __future__ import annotations

from collections.abc import Sequence

from edgeemo.report.amounts import format_amount, format_interval
from edgeemo.report.result import Answers, EvaluatedRow
from edgeemo.report.table import Table
from edgeemo.selective import SelectiveAccuracy


def make_threshold_table(answers: Answers) -> Table:
    """Make a table with a row per threshold of one model."""
    threshold = answers.card_threshold
    rows = [_make_row(point, is_card=point.least_probability == threshold) for point in answers.points]
    note = (
        "Predictions below the card's threshold are unsure." if threshold is not None else "The card has no threshold."
    )
    return Table(
        "Selective accuracy", ("probability from", "faces", "coverage", "accuracy", "95 % interval"), rows, note
    )


def make_run_table(rows: Sequence[EvaluatedRow]) -> Table | None:
    """Make a table with a row per evaluated model and a column per threshold; None if it was not recorded."""
    measured = [(row.name, row.answers) for row in rows if row.answers]
    if not measured:
        return None
    thresholds = [point.least_probability for point in measured[0][1]]
    head = ("model", *(f"{100 * threshold:.0f} %" for threshold in thresholds))
    cells = [(name, *map(_format_point, points)) for name, points in measured]
    return Table(
        "Selective accuracy / coverage from a probability on; all in percent",
        head,
        cells,
        style="tight",
    )


def _make_row(point: SelectiveAccuracy, *, is_card: bool) -> tuple[str, ...]:
    name = f"{100 * point.least_probability:.0f} %" + " (card)" * is_card
    shares = (f"{point.answered:,}", format_amount(point.coverage, "share"))
    if point.accuracy is None:
        return (name, *shares, "-", "-")
    around = format_interval(point.accuracy_low or 0.0, point.accuracy_high or 0.0)
    return (name, *shares, format_amount(point.accuracy, "share"), around)


def _format_point(point: SelectiveAccuracy) -> str:
    accuracy = "-" if point.accuracy is None else f"{100 * point.accuracy:.1f}"
    return f"{accuracy} / {100 * point.coverage:.1f}"
