"""The audit report as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table

SHOWN = 10  # unreadable files named


def of_audit(report: dict[str, Any]) -> Group:
    """Label counts per split and protocol, faults per split, copies across splits, and what to do about them."""
    parts: list[Any] = [_labels(report), _faults(report["splits"])]
    if report["copies_across"]:
        parts.append(_copies(report["copies_across"], report["near_bits"]))
    unreadable = [line for split in report["splits"].values() for line in split["unreadable"].values()]
    parts += [f"unreadable: {line}" for line in unreadable[:SHOWN]]
    if len(unreadable) > SHOWN:
        parts.append(f"… and {len(unreadable) - SHOWN} more unreadable files (all are in the JSON, --out FILE)")
    return Group(*parts)


def _labels(report: dict[str, Any]) -> Table:
    columns = [
        (f"{split} {protocol}", counts)
        for split, found in report["splits"].items()
        for protocol, counts in found["labels"].items()
    ]
    table = Table(title=f"faces per label ({report['data']}, label set {report['label_set']})", title_justify="left")
    table.add_column("label")
    for head, _ in columns:
        table.add_column(head.replace(" ", "\n"), justify="right")
    for name in columns[0][1]:
        table.add_row(name, *(str(counts[name]) for _, counts in columns), end_section=name == "dropped")
    kept = (sum(counts.values()) - counts["dropped"] for _, counts in columns)
    table.add_row("n", *map(str, kept))
    return table


def _faults(splits: dict[str, Any]) -> Table:
    table = Table(title="faults inside a split", title_justify="left")
    columns = ("unreadable", "ties", "exact_repeats", "near_repeats")
    table.add_column("split")
    for column in ("faces", *columns):
        table.add_column(column.replace("_", " "), justify="right")
    for split, found in splits.items():
        table.add_row(split, str(found["faces"]), *(str(len(found[column])) for column in columns))
    return table


def _copies(rows: list[dict[str, Any]], near_bits: int) -> Table:
    title = f"copies across splits (near: within {near_bits} of 64 bits, mirrored too)"
    table = Table(title=title, title_justify="left")
    table.add_column("faces of … that are also in …")
    for column in ("n", "exact", "exact %", "near", "near %"):
        table.add_column(column, justify="right")
    for row in rows:
        counts = [len(row["exact"]), len(row["near"])]
        cells = [cell for count in counts for cell in (str(count), f"{100 * count / max(1, row['n']):.1f}")]
        table.add_row(f"{row['of']} in {row['in']}", str(row["n"]), *cells)
    return table
