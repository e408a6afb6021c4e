"""Tables of a face detector on labelled boxes: faces, sizes and gates."""

from __future__ import annotations

from edgeemo.metrics import wilson
from edgeemo.report.amounts import format_amount, format_interval, format_milliseconds
from edgeemo.report.result import DetectionResult, SizeScores
from edgeemo.report.sections.bench import describe_detector, make_gates_table
from edgeemo.report.sections.circumstances import list_circumstances
from edgeemo.report.table import Page, Table

SHOWN = 10  # images with mistakes that are named


def make_page(result: DetectionResult) -> Page:
    """Make a page of the faces that were found, by size, of images with mistakes, and of gates."""
    tables = [_make_boxes_table(result), _make_sizes_table(result)]
    if result.wrong:
        tables.append(_make_wrong_table(result))
    if result.gates:
        tables.append(make_gates_table("Gates", result.gates))
    identity = {"detector sha256": result.detector.sha256, "boxes sha256": result.boxes.sha256}
    return Page(
        title=f"{result.detector.name} on {result.boxes.file}",
        parts=tables,
        verdict=result.verdict,
        passed=result.passed,
        facts={**list_circumstances(result.header), **identity},
    )


def _make_boxes_table(result: DetectionResult) -> Table:
    total, boxes, spent = result.total, result.boxes, result.latency
    rows = [
        ("images with the right number of faces", f"{result.right_counts:,} of {boxes.images:,}"),
        ("recall (95 %)", _format_rate(total.found, total.labelled, total.recall)),
        ("precision (95 %)", _format_rate(total.found, total.found + total.false, total.precision)),
        ("faces found / missed", f"{total.found:,} / {total.labelled - total.found:,}"),
        ("false boxes", f"{total.false:,}"),
        ("… in images without faces", f"{result.faceless_false:,} in {boxes.without_faces:,}"),
        ("ignored labels", f"{boxes.ignored:,}"),
        ("p50 / p95 ms per image", f"{format_milliseconds(spent.ms_p50)} / {format_milliseconds(spent.ms_p95)}"),
    ]
    note = (
        f"Detector: {describe_detector(result.detector)}. A face is found if a box overlaps its label by an IoU of "
        f"{result.min_iou:g}, one-to-one; one thread, without reading the image."
    )
    return Table("Faces found", ("", "measured"), rows, note)


def _make_sizes_table(result: DetectionResult) -> Table:
    head = ("longer side in px", "labelled", "found", "recall", "false", "precision")
    note = "Faces are of the size of their label, false boxes of their own."
    return Table("By size", head, [_make_size_row(row) for row in result.sizes], note)


def _make_size_row(row: SizeScores) -> tuple[str, ...]:
    side = f"{row.least} or more" if row.below is None else f"{row.least} to below {row.below}"
    counts = (f"{row.labelled:,}", f"{row.found:,}", _format_share(row.recall), f"{row.false:,}")
    return (side, *counts, _format_share(row.precision))


def _make_wrong_table(result: DetectionResult) -> Table:
    rows = [
        (one.image, f"{one.labelled:,}", f"{one.labelled - one.found:,}", f"{one.false:,}")
        for one in result.wrong[:SHOWN]
    ]
    note = f"The first {SHOWN} of {len(result.wrong):,}; all are in the JSON." if len(result.wrong) > SHOWN else ""
    return Table("Images with mistakes", ("image", "faces", "missed", "false"), rows, note)


def _format_rate(right: int, n: int, share: float | None) -> str:
    if share is None:
        return "-"
    return f"{format_amount(share, 'share')} ({format_interval(*wilson(right, n))})"


def _format_share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
