"""Tables of a compression: a row per step, and a sentence per paired test."""

from __future__ import annotations

from edgeemo.report.facts import PairedWith
from edgeemo.report.result import ComparedRow, ComparisonResult
from edgeemo.report.sections.circumstances import list_circumstances
from edgeemo.report.table import Page, Table

COST = ("stage", "parameters", "MACs (M)", "KB", "ms", "accuracy %", "95 % interval", "macro-F1")


def make_page(result: ComparisonResult) -> Page:
    """Make a page of the table, with its legend, tests and advice as separate lines."""
    table = Table("", (*COST, *result.labels), _list_rows(result), style="wide")
    return Page(
        title=f"Compression to {result.rows[-1].file}",
        parts=[table, _format_legend(result), *_list_tests(result), *result.advice],
        facts=list_circumstances(result.header),
    )


def make_step_table(result: ComparisonResult) -> Table:
    """Make a table with a row per step and recall per label in percent; the note has the faces and the tests."""
    note = ". ".join([_format_legend(result), *_list_tests(result)]) + "."
    return Table("steps", (*COST, *result.labels), _list_rows(result), " ".join([note, *result.advice]))


def _format_legend(result: ComparisonResult) -> str:
    faces = result.faces
    where = f"{faces.name}, {faces.protocol}, n = {faces.n}"
    return f"{where}; under a label its recall in percent; ms: p50 on one core"


def _list_rows(result: ComparisonResult) -> list[tuple[str, ...]]:
    return [_make_cells(row, result.labels) for row in result.rows]


def _make_cells(row: ComparedRow, labels: list[str]) -> tuple[str, ...]:
    around = f"{100 * row.accuracy_low:.2f}..{100 * row.accuracy_high:.2f}"
    took = f"{row.latency_one_core.ms_p50:.2f}" if row.latency_one_core else "-"
    cost = [f"{row.parameters:,}", f"{row.macs / 1e6:.2f}", f"{row.size_bytes / 1000:,.0f}", took]
    recall = ["-" if share is None else f"{100 * share:.1f}" for share in map(row.recall.get, labels)]
    return (row.stage, *cost, f"{100 * row.accuracy:.2f}", around, f"{row.macro_f1:.3f}", *recall)


def _list_tests(result: ComparisonResult) -> list[str]:
    return [_test(row.stage, pair) for row in result.rows for pair in row.against]


def _test(name: str, pair: PairedWith) -> str:
    change, worst = min((share, label) for label, share in pair.recall_difference.items() if share is not None)
    lost = f"lost most: {worst} {100 * change:+.1f}" if change < 0 else "no label lost"
    p_value = f"p = {pair.p_value:.3f}" if pair.p_value >= 0.001 else "p < 0.001"
    return (
        f"{name} against {pair.name}: {100 * pair.difference:+.2f} points ({p_value}; "
        f"{pair.only_first} faces lost, {pair.only_second} won); {lost}"
    )
