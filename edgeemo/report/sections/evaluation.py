"""Tables of an evaluation: a row per trained run and ensemble, and a sentence per paired test."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeemo.report.amounts import format_amount, format_interval
from edgeemo.report.facts import PairedWith
from edgeemo.report.result import EvaluatedRow, EvaluationResult
from edgeemo.report.sections.answers import make_run_table as make_answers_table
from edgeemo.report.sections.circumstances import list_circumstances
from edgeemo.report.table import Page, Table

RUN = ("accuracy (95 %)", "macro-F1", "lowest recall", "ECE")


def make_page(result: EvaluationResult) -> Page:
    """Make a page of the table for 80 columns, the paired tests, and the caveats."""
    tests = (_test(row.name, row.against_first) for row in result.rows if row.against_first)
    answers = make_answers_table(result.rows)
    return Page(
        title=f"Evaluation of {', '.join(row.name for row in result.rows)}",
        parts=[_make_table(result), *([answers] if answers else []), *tests, *_list_caveats(result)],
        facts=list_circumstances(result.header),
    )


def make_run_table(result: EvaluationResult) -> Table:
    """Make a table with a row per trained run and for their ensemble, for a page."""
    note = f"{_describe_evaluation(result)}, {len(result.labels)} labels, n = {result.faces.n:,}."
    rows = [(*_run_cells(row), _format_change(row.against_first)) for row in result.rows]
    return Table("runs", ("run", *RUN, "against the first"), rows, note)


def make_ensemble_table(results: Sequence[EvaluationResult]) -> Table:
    """Make a table with a row per ensemble of several results, with and without flips."""
    rows: list[tuple[str, ...]] = []
    for result in results:
        about = f"{len(result.labels)} labels, {result.faces.protocol}, n = {result.faces.n:,}"
        rows += [(about, *_run_cells(row)) for row in result.rows if row.name.startswith("ensemble")]
    return Table("ensembles", ("faces", "ensemble", *RUN), rows)


def _describe_evaluation(result: EvaluationResult) -> str:
    return f"{result.faces.name}, {result.faces.protocol}"


def _run_cells(row: EvaluatedRow) -> tuple[str, ...]:
    accuracy = f"{format_amount(row.accuracy, 'share')} ({format_interval(row.accuracy_low, row.accuracy_high)})"
    lowest = f"{row.lowest.label} {100 * row.lowest.recall:.1f} %"
    return (row.name, accuracy, format_amount(row.macro_f1, "share"), lowest, format_amount(row.ece, "share"))


def _format_change(pair: PairedWith | None) -> str:
    return f"{100 * pair.difference:+.2f} points, p = {pair.p_value:.2g}" if pair else ""


def _make_table(result: EvaluationResult) -> Table:
    head = ("model", "acc.", "interval", "F1", *(label[:4] for label in result.labels), "ECE")
    title = f"{_describe_evaluation(result)}, n = {result.faces.n:,}; all in percent"
    return Table(title, head, [_make_cells(row, result.labels) for row in result.rows], style="tight")


def _make_cells(row: EvaluatedRow, labels: list[str]) -> tuple[str, ...]:
    around = f"{100 * row.accuracy_low:.1f}-{100 * row.accuracy_high:.1f}"
    shares = [row.macro_f1, *(row.recall[label] for label in labels), row.ece]
    return (row.name, f"{100 * row.accuracy:.2f}", around, *map(_format_percent, shares))


def _format_percent(share: float | None) -> str:
    """Format a rate in percent with at most four characters."""
    return "-" if share is None else f"{100 * share:.1f}".replace("100.0", "100")


def _test(name: str, pair: PairedWith) -> str:
    moved = f"{pair.only_second} faces won, {pair.only_first} lost"
    change = f"{100 * pair.difference:+.2f} points (p = {pair.p_value:.2g}; {moved})"
    return f"{name} against {pair.name}: {change}"


def _list_caveats(result: EvaluationResult) -> Iterator[str]:
    """Yield the reasons for which the scores are optimistic."""
    split = result.faces.split
    if split == "train":
        yield "Every run was trained on these faces: new ones will be harder."
    if chosen := [row.name for row in result.rows if row.selected_on_these_faces]:
        yield f"The epoch was chosen on these faces, which flatters a little: {', '.join(chosen)}."
    if fitted := [row.name for row in result.rows if row.temperature_from == split]:
        yield f"The temperature was fitted on these faces, which flatters ECE: {', '.join(fitted)}."
