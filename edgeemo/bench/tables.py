"""A result as tables: the same rows for the terminal and for the Markdown report.

A result read from its file has sorted keys, so the order of labels comes from the model's list, never from a dict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from edgeemo.bench.gates import amount
from edgeemo.bench.measure import SETTINGS, TIMED
from edgeemo.metrics import wilson

PROOF = 0.05  # p-values above it show no difference


@dataclass(frozen=True)
class Table:
    """Rows of text under a title, and a note that belongs to them. The first column is left-aligned."""

    title: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""


def show(result: dict[str, Any]) -> Group:
    """The whole result for a terminal, verdict last."""
    colour = "green" if result["passed"] else "red"
    machine = result["machine"]
    where = f"{machine['processor']}, {machine['cores']} cores, load {machine['load_1min']} before the run"
    verdict = Text(result["verdict"], style=f"bold {colour}")
    return Group(*map(rich_of, of_result(result)), Text(where, style="dim"), verdict)


def markdown(table: Table) -> str:
    """The table as Markdown, without its title."""
    rule = ["---"] + ["---:"] * (len(table.head) - 1)
    lines = [" | ".join(cells) for cells in (table.head, rule, *table.rows)]
    return "\n".join(f"| {line} |" for line in lines) + (f"\n\n{table.note}" if table.note else "")


def of_result(result: dict[str, Any]) -> list[Table]:
    """Every table that the result has something for: accuracy, recall, comparison, latency, footprint, gates."""
    found = [_latency(result), _footprint(result), _gates(result)]
    if result["against"]:
        found.insert(0, _against(result))
    if result["accuracy"]:
        found[:0] = [_accuracy(result["accuracy"]), _recall(result)]
    if result.get("robustness"):  # which results of before do not have
        found.insert(2, _robustness(result["robustness"]))
    return found


def precision_of(model: dict[str, Any]) -> str:
    """The precision that the card says was got, with its flavour."""
    precision = model["precision"]
    return " ".join(str(precision[key]) for key in ("got", "flavour") if precision.get(key)) or "not stated"


def network_of(model: dict[str, Any]) -> str:
    """The network's name in the card."""
    return str(model["architecture"].get("backbone") or model["architecture"].get("name") or "not stated")


def settings(latency: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The settings that were measured, one core first."""
    return [(name, latency[name]) for name in SETTINGS if name in latency]


def milliseconds(value: float) -> str:
    """Three digits, whatever the size: 0.412, 61.3, 1204."""
    return amount(value, "ms").removesuffix(" ms")


def told(value: float | None, unit: str) -> str:
    """The amount, or a dash where nothing was measured."""
    return "-" if value is None else amount(value, unit)


def _accuracy(scored: dict[str, Any]) -> Table:
    rows = [_accuracy_row(f"{scored['protocol']} (judged)", scored)]
    clean, other = scored["without_copies"], scored["other_protocol"]
    if clean and clean["n"]:
        rows.append((f"… less {clean['copies']:,} copies from train", f"{clean['n']:,}", *_interval(clean), "", ""))
    if other:
        rows.append(_accuracy_row(other["protocol"], other))
    head = ("protocol", "n", "accuracy", "95 % interval", "macro-F1", "ECE")
    return Table(f"Accuracy on {scored['data']} {scored['split']}", head, rows, scored["caveat"])


def _accuracy_row(name: str, scored: dict[str, Any]) -> tuple[str, ...]:
    rest = (amount(scored[key], "share") for key in ("macro_f1", "ece"))
    return (name, f"{scored['n']:,}", *_interval(scored), *rest)


def _interval(scored: dict[str, Any]) -> tuple[str, str]:
    low, high = 100 * scored["accuracy_low"], 100 * scored["accuracy_high"]
    return amount(scored["accuracy"], "share"), f"{low:.2f} to {high:.2f}"


def _recall(result: dict[str, Any]) -> Table:
    scored, paired = result["accuracy"], (result["against"] or {}).get("accuracy")
    head = ("label", "faces", "recall (95 % interval)") + (("change",) if paired else ())
    rows = []
    for name in result["model"]["labels"]:
        n = scored["support"][name]
        cells = (name, f"{n:,}", _recall_cell(scored["recall"][name], n))
        rows.append(cells + ((_points(paired["recall_difference"][name]),) if paired else ()))
    return Table("Recall per label", head, rows)


def _recall_cell(share: float | None, n: int) -> str:
    if share is None:
        return "no faces"
    low, high = wilson(round(share * n), n)
    return f"{100 * share:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


def _robustness(found: dict[str, Any]) -> Table:
    rows = [("none", *[amount(found["clean"], "share")] * len(found["strengths"]))]
    rows += [(name, *(amount(share, "share") for share in shares)) for name, shares in found["accuracy"].items()]
    lost = 100 * (found["clean"] - found["mean"])
    mean = f"Mean over all corruptions {amount(found['mean'], 'share')}, {lost:.2f} points below the faces as they are"
    note = f"{mean}; n = {found['n']:,}. The strengths are edgeemo's own: compare models with them, not papers."
    return Table("Robustness: accuracy under corruption", ("corruption", *found["strengths"]), rows, note)


def _against(result: dict[str, Any]) -> Table:
    against, latency = result["against"], result["latency"]
    other = against["model"]
    rows = [
        *(_ratio(name, setting, against["latency"][name]) for name, setting in settings(latency)),
        _sizes(result["model"]["size_bytes"], other["size_bytes"]),
    ]
    turns = "Both models took turns in slices of 0.1 s in the same process."
    note = " ".join([turns, *against.get("advice", [])])
    if paired := against["accuracy"]:
        ours = result["accuracy"]["accuracy"]
        shares = (amount(share, "share") for share in (ours, ours - paired["difference"]))
        rows.insert(0, ("accuracy", *shares, _points(paired["difference"])))
        note += " " + _paired_note(paired)
    ours, theirs = (model.get("backend", "onnxruntime") for model in (result["model"], other))
    names = ("this model", "the other") if ours == theirs else (f"in {ours}", f"in {theirs}")
    title = f"Against {other['file']} ({network_of(other)}, {precision_of(other)})"
    return Table(title, ("", *names, "difference or ratio"), rows, note)


def _ratio(setting: str, ours: dict[str, Any], theirs: dict[str, Any]) -> tuple[str, ...]:
    first, second = (side["total"]["ms_p50"] for side in (ours, theirs))
    return (
        f"p50 on {setting.replace('_', ' ')}, ms",
        milliseconds(first),
        milliseconds(second),
        f"{first / second:.2f}x",
    )


def _sizes(ours: int, theirs: int) -> tuple[str, ...]:
    return "file", amount(ours, "bytes"), amount(theirs, "bytes"), f"{ours / theirs:.2f}x"


def _paired_note(paired: dict[str, Any]) -> str:
    shown = "a difference" if paired["p_value"] <= PROOF else "no difference shown"
    return (
        f"Same {paired['n']:,} faces: only this one right on {paired['only_second']}, only the other on "
        f"{paired['only_first']}; McNemar's exact p = {paired['p_value']:.2g}: {shown}. They agree on "
        f"{100 * paired['agreement']:.2f} % of the faces."
    )


def _latency(result: dict[str, Any]) -> Table:
    rows = [
        (f"{name.replace('_', ' ')}, {part}", f"{setting[part]['n']:,}", *_quantiles(setting[part]))
        for name, setting in settings(result["latency"])
        for part in TIMED
    ]
    shaky = [name.replace("_", " ") for name, setting in settings(result["latency"]) if setting["unstable"]]
    note = " ".join(f"{part}: {what}." for part, what in TIMED.items())
    note = " ".join([note, *result["model"].get("advice", [])])
    if shaky:
        note += f" Unstable on {' and '.join(shaky)}: p95 is over twice p50; something else held the machine."
    return Table("Latency in ms", ("setting", "runs", "p50", "p95", "p99", "min", "mean"), rows, note)


def _quantiles(part: dict[str, Any]) -> tuple[str, ...]:
    return tuple(milliseconds(part[f"ms_{key}"]) for key in ("p50", "p95", "p99", "min", "mean"))


def _footprint(result: dict[str, Any]) -> Table:
    start = result["cold_start"]
    parts = ("interpreter", "import", "load", "first prediction")
    rows = [
        ("file", amount(result["model"]["size_bytes"], "bytes")),
        ("peak memory of a process that predicts once", told(start["memory_bytes"], "bytes")),
        ("cold start, process to first prediction", f"{start['total_ms']:.0f} ms"),
        *((f"… {part}", f"{start[part.replace(' ', '_') + '_ms']:.0f} ms") for part in parts),
    ]
    return Table("Footprint", ("", "measured"), rows)


def _gates(result: dict[str, Any]) -> Table:
    rows = [
        (row["what"], _limit(row), told(row["measured"], row["unit"]), _margin(row), row["outcome"])
        for row in result["gates"]
    ]
    head = ("gate", "limit", "measured", "margin", "outcome")
    return Table(f"Gates of target {result['target']['name']}", head, rows, _doubt(result))


def _doubt(result: dict[str, Any]) -> str:
    """A limit within the interval is met or missed by chance as much as by merit."""
    limit, scored = result["target"]["limits"].get("accuracy"), result["accuracy"]
    if limit is None or not scored or not scored["accuracy_low"] <= limit <= scored["accuracy_high"]:
        return ""
    return "The accuracy limit lies within the 95 % interval: only more faces could settle it."


def _limit(row: dict[str, Any]) -> str:
    return f"{row['sign']} {amount(row['limit'], row['unit'])}"


def _margin(row: dict[str, Any]) -> str:
    if row["margin"] is None:
        return "-"
    sign = "+" if row["margin"] >= 0 else "-"
    return sign + amount(abs(row["margin"]), "points" if row["unit"] == "share" else row["unit"])


def _points(difference: float | None) -> str:
    return "-" if difference is None else f"{round(100 * difference, 2) + 0.0:+.2f} points"


def rich_of(table: Table) -> RichTable:
    """The table for a terminal."""
    rich = RichTable(title=table.title, caption=table.note or None, title_justify="left", caption_justify="left")
    for number, head in enumerate(table.head):
        rich.add_column(head, justify="right" if number else "left")
    for row in table.rows:
        rich.add_row(*row)
    return rich
