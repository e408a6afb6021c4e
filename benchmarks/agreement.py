"""How far the answers of hosts are from those of hosts/fixtures: one table of the results of their own scripts.

For docs/hosts.md: results of web_speed.py (JavaScript), cpp_host.py (C++) and arm64_host.py (both languages on
emulated ARM64).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

KINDS = ("pictures", "ready")
ARM64 = {"python": "Python", "cpp": "C++"}


@dataclass(frozen=True)
class Agreement:
    """Of a host with a model: whether faces, labels and flags are those expected, and the largest differences."""

    host: str
    model: str
    same: bool
    box_px: float
    probability: float


def table(results: Sequence[Measurement]) -> Table:
    """A row for each host: its models together."""
    found = [one for result in results for one in READERS[result.script](result)]
    hosts = {one.host: [other for other in found if other.host == one.host] for one in found}
    rows = [
        (
            host,
            ", ".join(one.model for one in each),
            "the same" if all(one.same for one in each) else "others",
            f"{max(one.box_px for one in each):.3f}",
            f"{max(one.probability for one in each):.1e}",
        )
        for host, each in hosts.items()
    ]
    head = ("host", "models", "faces, labels, flags", "box, px", "probability")
    note = "All pictures of hosts/fixtures; the largest difference from Python on x86-64."
    return Table("agreement", head, rows, note, align="lllrr")


def _read_web(result: Measurement) -> Iterator[Agreement]:
    host = f"JavaScript in {result.facts['browser']}"
    for row in result.rows:
        same = not row["labels_changed"] and not row["flags_changed"]
        differences = row["largest_box_difference_px"], row["largest_probability_difference"]
        yield Agreement(host, row["model"], same, *differences)


def _read_cpp(result: Measurement) -> Iterator[Agreement]:
    for row in result.rows:
        yield _sum_up("C++", row["model"], (row[kind]["difference_from_python"] for kind in KINDS))


def _read_arm64(result: Measurement) -> Iterator[Agreement]:
    for row in result.rows:
        if "model" in row:
            host = f"{ARM64[row['host']]} on ARM64, {row['core']} in qemu"
            yield _sum_up(host, row["model"], (row[kind] for kind in KINDS))


def _sum_up(host: str, model: str, differences: Iterable[dict[str, Any]]) -> Agreement:
    each = list(differences)
    same = all(one["same"] for one in each)
    return Agreement(host, model, same, *(max(one[key] for one in each) for key in ("box_px", "probability")))


READERS: dict[str, Callable[[Measurement], Iterator[Agreement]]] = {
    "web_speed": _read_web,
    "cpp_host": _read_cpp,
    "arm64_host": _read_arm64,
}
