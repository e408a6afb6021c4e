"""Tables of a parity run: a row per file and backend, and the labels that changed."""

from __future__ import annotations

from collections.abc import Iterator

from edgeemo.report.result import SAME_LOGIT, Differences, NotRun, ParityResult, ParityRow
from edgeemo.report.sections.circumstances import list_circumstances
from edgeemo.report.table import Page, Table


def make_page(result: ParityResult) -> Page:
    """Make a page of the table, a sentence per finding, and the verdict."""
    files = ", ".join(dict.fromkeys(row.file for row in result.rows))
    return Page(
        title=f"Parity of {files}",
        parts=[make_table(result), *_list_sentences(result)],
        verdict=result.verdict,
        passed=result.passed,
        facts=list_circumstances(result.header),
    )


def make_table(result: ParityResult) -> Table:
    """Make a table with a row per file and backend."""
    head = ("file", "backend", "acc. %", "same %", "dp", "first %", "dp")
    note = (
        f"{result.faces.n} faces of {result.faces.name}. same: faces with the same label as in the file's first row; "
        "first: as in the first row of all; dp: largest difference of a probability."
    )
    return Table("Parity", head, [_make_cells(row) for row in result.rows], note)


def make_processor_table(result: ParityResult) -> Table:
    """Make a table with a row per file and processor, each compared with the file's first row."""
    head = ("file", "run in", "accuracy", "same labels", "largest difference of a logit")
    rows = [_make_processor_cells(row) for row in result.rows if isinstance(row, ParityRow)]
    note = f"{result.faces.n:,} faces of {result.faces.name}; compared with the first row of each file."
    return Table("processors", head, rows, note)


def _make_cells(row: ParityRow | NotRun) -> tuple[str, ...]:
    if isinstance(row, NotRun):
        return (row.file, row.where, "not run", "", "", "", "")
    pairs = (*_make_difference_cells(row.same_file), *_make_difference_cells(row.first_file))
    return (row.file, row.where, f"{100 * row.accuracy:.2f}", *pairs)


def _make_difference_cells(found: Differences | None) -> tuple[str, str]:
    return (f"{100 * found.agreement:.2f}", f"{found.largest_difference:.4f}") if found else ("", "")


def _make_processor_cells(row: ParityRow) -> tuple[str, ...]:
    where = f"ONNX Runtime as {row.processor}, {row.how}" if row.processor else row.backend
    cells = (row.file, where, f"{100 * row.accuracy:.2f} %")
    if not (same := row.same_file):
        return (*cells, "", "")
    logit = "-" if same.largest_logit_difference is None else f"{same.largest_logit_difference:.4f}"
    return (*cells, f"{100 * same.agreement:.2f} %", logit)


def _list_sentences(result: ParityResult) -> Iterator[str]:
    """Yield the labels that changed, and the files that were not run."""
    for row in result.rows:
        if isinstance(row, NotRun):
            yield f"{row.name} was not run: {row.not_run}"
        else:
            yield from _list_findings(row)


def _list_findings(row: ParityRow) -> Iterator[str]:
    name, against = row.name, row.same_file or row.first_file
    if row.not_finite:
        yield f"{name}: NaN or infinity for {row.not_finite} faces"
    if against and against.moved:
        moved = ", ".join(f"{label} {against.moved[label]}" for label in row.model.labels if label in against.moved)
        yield f"{name}: faces that left or joined a label: {moved}"
    if row.processor and not row.passed and row.same_file and row.same_file.largest_logit_difference is not None:
        largest = row.same_file.largest_logit_difference
        yield f"{name}: logits differ by up to {largest:.3g}; x86 processors may differ by {SAME_LOGIT:g}"
