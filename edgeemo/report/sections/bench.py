"""Tables of a bench: accuracy, recall, robustness, the other model, latency, footprint and gates."""

from __future__ import annotations

from collections.abc import Sequence

from edgeemo.metrics import PairedComparison, wilson
from edgeemo.report.amounts import format_amount, format_interval, format_milliseconds, format_optional
from edgeemo.report.facts import DetectorFacts, Frames, FrameTiming, SettingTiming, Timing
from edgeemo.report.result import Accuracy, Against, BenchResult, FaceScores, GateRow, Robustness, WithoutCopies
from edgeemo.report.sections.answers import make_threshold_table
from edgeemo.report.sections.circumstances import describe_cores, list_circumstances
from edgeemo.report.table import Page, Table

PROOF = 0.05  # p-values above it show no difference
TIMED = {
    "total": "batch 1, uint8 pixels of the model's size → probabilities: normalise, infer, softmax",
    "inference": "the part of it inside the backend, normalised input → logits",
}
SUMMARY = (
    "model", "network", "precision", "faces", "accuracy (95 %)", "lowest recall", "p50 / p95 ms, one core",
    "file", "peak memory", "cold start", "verdict",
)  # fmt: skip


def make_page(result: BenchResult) -> Page:
    """Make a page of the tables for which the result has values."""
    model, machine = result.model, result.header.machine
    where = (
        f"{machine.processor}, {describe_cores(machine)}, load {result.header.load_1min} before the run"
        if machine
        else ""
    )
    identity = {
        "model sha256": model.sha256,
        "face ids sha256": (result.accuracy and result.accuracy.faces.ids_sha256) or "-",
    }
    return Page(
        title=f"{model.file} ({model.network}, {model.precision_name})",
        parts=make_tables(result),
        verdict=result.verdict,
        passed=result.passed,
        footer=where,
        facts={**list_circumstances(result.header), **identity},
    )


def make_tables(result: BenchResult) -> list[Table]:
    """Make tables of all scores, of another model and of frames, if measured; of latency, footprint and gates."""
    tables = []
    if result.accuracy:
        tables += [_make_accuracy_table(result.accuracy), _make_recall_table(result, result.accuracy)]
        tables += [make_threshold_table(result.accuracy.answers)] if result.accuracy.answers else []
    if result.robustness:
        tables.append(_make_robustness_table(result.robustness))
    if result.against:
        tables.append(_make_against_table(result, result.against))
    frames = [make_frames_table(result.frames)] if result.frames else []
    gates = make_gates_table(f"Gates of target {result.target.name}", result.gates, _format_doubt(result))
    return [*tables, _make_latency_table(result), *frames, _make_footprint_table(result), gates]


def make_summary(results: Sequence[BenchResult]) -> Table:
    """Make a table with a row per result; accuracy is always next to latency."""
    return Table("", SUMMARY, [_make_summary_row(result) for result in results])


def _make_summary_row(result: BenchResult) -> tuple[str, ...]:
    model, total = result.model, result.latency.one_core.total
    return (
        model.file,
        model.network,
        model.precision_name,
        *_make_faces(result.accuracy, model.labels),
        f"{format_milliseconds(total.ms_p50)} / {format_milliseconds(total.ms_p95)}",
        format_amount(model.size_bytes, "bytes"),
        format_optional(result.cold_start.memory_bytes, "bytes"),
        format_amount(result.cold_start.total_ms, "ms"),
        "PASS" if result.passed else "FAIL",
    )


def _make_faces(scored: Accuracy | None, labels: list[str]) -> tuple[str, str, str]:
    """Return the faces, the accuracy on them, and the lowest recall."""
    if scored is None:
        return "-", "not measured", "-"
    share, name = min((share, name) for name in labels if (share := scored.recall[name]) is not None)
    absent = "".join(f", no {name}" for name in labels if not scored.support[name])
    faces = f"{scored.faces.name}, {len(labels)} labels, {scored.faces.protocol}, n = {scored.n:,}"
    accuracy = (
        f"{format_amount(scored.accuracy, 'share')} ({format_interval(scored.accuracy_low, scored.accuracy_high)})"
    )
    return faces, accuracy, f"{name} {100 * share:.1f} % of {scored.support[name]:,}{absent}"


def _make_accuracy_table(scored: Accuracy) -> Table:
    rows = [_make_accuracy_row(f"{scored.faces.protocol} (requested)", scored)]
    if scored.without_copies and scored.without_copies.accuracy is not None:
        rows.append(_make_without_copies(scored.without_copies))
    if other := scored.other_protocol:
        rows.append(_make_accuracy_row(other.faces.protocol, other))
    head = ("protocol", "n", "accuracy", "95 % interval", "macro-F1", "ECE")
    return Table(f"Accuracy on {scored.faces.name}", head, rows, scored.caveat)


def _make_accuracy_row(name: str, scored: FaceScores) -> tuple[str, ...]:
    around = format_interval(scored.accuracy_low, scored.accuracy_high)
    shares = (format_amount(scored.macro_f1, "share"), format_amount(scored.ece, "share"))
    return (name, f"{scored.n:,}", format_amount(scored.accuracy, "share"), around, *shares)


def _make_without_copies(clean: WithoutCopies) -> tuple[str, ...]:
    around = format_interval(clean.accuracy_low or 0.0, clean.accuracy_high or 0.0)
    accuracy = format_amount(clean.accuracy or 0.0, "share")
    return (f"… less {clean.copies:,} copies from train", f"{clean.n:,}", accuracy, around, "", "")


def _make_recall_table(result: BenchResult, scored: Accuracy) -> Table:
    paired = result.against.accuracy if result.against else None
    head = ("label", "faces", "recall (95 % interval)") + (("change",) if paired else ())
    rows = []
    for name in result.model.labels:
        n = scored.support[name]
        cells = (name, f"{n:,}", _format_recall_cell(scored.recall[name], n))
        rows.append(cells + ((_format_points(paired.recall_difference[name]),) if paired else ()))
    return Table("Recall per label", head, rows)


def _format_recall_cell(share: float | None, n: int) -> str:
    if share is None:
        return "no faces"
    low, high = wilson(round(share * n), n)
    return f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _make_robustness_table(robustness: Robustness) -> Table:
    rows = [("none", *[format_amount(robustness.clean, "share")] * len(robustness.strengths))]
    rows += [
        (name, *(format_amount(share, "share") for share in shares))
        for name, shares in sorted(robustness.accuracy.items())
    ]
    lost = 100 * (robustness.clean - robustness.mean)
    mean = f"Mean over all corruptions {format_amount(robustness.mean, 'share')}, {lost:.2f} points below clean faces"
    note = f"{mean}; n = {robustness.n:,}. The strengths are edgeemo's own: compare models with them, not papers."
    return Table("Robustness: accuracy under corruption", ("corruption", *robustness.strengths), rows, note)


def _make_against_table(result: BenchResult, against: Against) -> Table:
    other, model = against.model, result.model
    rows = _list_ratios(result, against)
    note = " ".join(["Both models took turns in slices of 0.1 s in the same process.", *against.advice])
    if (paired := against.accuracy) and result.accuracy:
        ours = result.accuracy.accuracy
        shares = (format_amount(share, "share") for share in (ours, ours - paired.difference))
        rows.insert(0, ("accuracy", *shares, _format_points(paired.difference)))
        note += " " + _format_paired_note(paired)
    same = model.backend == other.backend
    names = ("this model", "the other") if same else (f"in {model.backend}", f"in {other.backend}")
    title = f"Against {other.file} ({other.network}, {other.precision_name})"
    return Table(title, ("", *names, "difference or ratio"), rows, note)


def _list_ratios(result: BenchResult, against: Against) -> list[tuple[str, ...]]:
    """Return rows of p50 in each setting in which both were measured, and of the file size."""
    ours, theirs = result.latency.by_setting(), against.latency.by_setting()
    rows = [_make_ratio(name, ours[name].total, theirs[name].total) for name in ours if name in theirs]
    sizes = result.model.size_bytes, against.model.size_bytes
    return [*rows, ("file", *(format_amount(size, "bytes") for size in sizes), f"{sizes[0] / sizes[1]:.2f}x")]


def _make_ratio(setting: str, ours: Timing, theirs: Timing) -> tuple[str, ...]:
    cells = (format_milliseconds(ours.ms_p50), format_milliseconds(theirs.ms_p50))
    return (f"p50 on {setting}, ms", *cells, f"{ours.ms_p50 / theirs.ms_p50:.2f}x")


def _format_paired_note(paired: PairedComparison) -> str:
    shown = "a difference" if paired.p_value <= PROOF else "no difference shown"
    return (
        f"Same {paired.n:,} faces: only this one right on {paired.only_second}, only the other on "
        f"{paired.only_first}; McNemar's exact p = {paired.p_value:.2g}: {shown}. They agree on "
        f"{100 * paired.agreement:.2f} % of the faces."
    )


def _make_latency_table(result: BenchResult) -> Table:
    settings = result.latency.by_setting()
    rows = [row for name, setting in settings.items() for row in _list_latency_rows(name, setting)]
    note = " ".join([*(f"{part}: {what}." for part, what in TIMED.items()), *result.model.advice])
    if shaky := [name for name, setting in settings.items() if setting.unstable]:
        note += f" Unstable on {' and '.join(shaky)}: p95 is over twice p50; another process used the machine."
    return Table("Latency in ms", ("setting", "runs", "p50", "p95", "p99", "min", "mean"), rows, note)


def _list_latency_rows(name: str, setting: SettingTiming) -> list[tuple[str, ...]]:
    parts = {"total": setting.total, "inference": setting.inference}
    return [(f"{name}, {part}", f"{timing.n:,}", *_make_quantiles(timing)) for part, timing in parts.items()]


def _make_quantiles(timing: Timing) -> tuple[str, ...]:
    return tuple(map(format_milliseconds, (timing.ms_p50, timing.ms_p95, timing.ms_p99, timing.ms_min, timing.ms_mean)))


def make_frames_table(frames: Frames) -> Table:
    """Make a table with a row per frame: p50 of each part, and how it compares with the model's."""
    rows = [_make_frame_row(row) for row in frames.rows]
    note = (
        "p50 of each part of the same runs, on one core with one thread, and the ratio detect : crop : classify; "
        f"frames of synthetic faces. Detector: {describe_detector(frames.detector)}."
    )
    if any(row.unstable for row in frames.rows):
        note += " Unstable: p95 is over twice p50; another process used the core."
    head = ("frame", "found", "runs", "detect", "crop", "classify", "p50 / p95", "ratio")
    return Table("Frames, from pixels to emotions, in ms", head, rows, note, style="tight")


def describe_detector(detector: DetectorFacts) -> str:
    """Return name, threshold and way of searching."""
    searched = f"{detector.faces} faces" if detector.faces else "few or many faces by the size of the image"
    return f"{detector.name}, score from {detector.threshold:g}, {searched}"


def _make_frame_row(row: FrameTiming) -> tuple[str, ...]:
    parts = (row.detect.ms_p50, row.crop.ms_p50, row.classify.ms_p50)
    both = f"{format_milliseconds(row.total.ms_p50)} / {format_milliseconds(row.total.ms_p95)}"
    ratio = " : ".join(_format_ratio(part / parts[-1]) for part in parts) if row.found and parts[-1] else "-"
    cells = map(format_milliseconds, parts)
    return (row.size, f"{row.found} of {row.drawn}", f"{row.total.n:,}", *cells, both, ratio)


def _format_ratio(value: float) -> str:
    return f"{value:.0f}" if value >= 9.5 else f"{value:.2g}"


def _make_footprint_table(result: BenchResult) -> Table:
    start = result.cold_start
    parts = {
        "interpreter": start.interpreter_ms,
        "import": start.import_ms,
        "load": start.load_ms,
        "first prediction": start.first_prediction_ms,
    }
    rows = [
        ("file", format_amount(result.model.size_bytes, "bytes")),
        ("peak memory of a process that predicts once", format_optional(start.memory_bytes, "bytes")),
        ("cold start, process to first prediction", f"{start.total_ms:.0f} ms"),
        *((f"… {part}", f"{ms:.0f} ms") for part, ms in parts.items()),
    ]
    return Table("Footprint", ("", "measured"), rows)


def make_gates_table(title: str, gates: Sequence[GateRow], note: str = "") -> Table:
    """Make a table with a row per gate."""
    rows = [
        (row.what, _limit(row), format_optional(row.measured, row.unit), _format_margin(row), row.outcome)
        for row in gates
    ]
    return Table(title, ("gate", "limit", "measured", "margin", "outcome"), rows, note)


def _format_doubt(result: BenchResult) -> str:
    """Return a note if the limit is within the interval: it may be met or missed by chance."""
    limit, scored = result.target.limits.get("accuracy"), result.accuracy
    if limit is None or not scored or not scored.accuracy_low <= limit <= scored.accuracy_high:
        return ""
    return "The accuracy limit lies within the 95 % interval: only more faces could settle it."


def _limit(row: GateRow) -> str:
    return f"{row.sign} {format_amount(row.limit, row.unit)}"


def _format_margin(row: GateRow) -> str:
    if row.margin is None:
        return "-"
    sign = "+" if row.margin >= 0 else "-"
    return sign + format_amount(abs(row.margin), "points" if row.unit == "share" else row.unit)


def _format_points(difference: float | None) -> str:
    return "-" if difference is None else f"{round(100 * difference, 2) + 0.0:+.2f} points"
