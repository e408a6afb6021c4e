"""The table of a script in benchmarks/, for rows of any shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeemo.report.result import Measurement
from edgeemo.report.sections.circumstances import list_circumstances
from edgeemo.report.table import Page, Table

LONGEST = 60  # characters of a cell


def make_page(result: Measurement) -> Page:
    """Make a page: a row per measurement, a column per value that fits into a cell, words first; then the facts."""
    rows = [dict(_list_values(row)) for row in result.rows]
    names = list(dict.fromkeys(name for row in rows for name in row))
    fitting = [name for name in names if all(_fits(row.get(name)) for row in rows)]
    words = [name for name in fitting if any(isinstance(row.get(name), str) for row in rows)]
    head = (*words, *(name for name in fitting if name not in words))
    cells = [tuple(_format_cell(row.get(name)) for name in head) for row in rows]
    align = "l" * len(words) + "r" * (len(head) - len(words))
    left_out = [name for name in names if name not in fitting]
    table = Table("", head, cells, _format_note(result, left_out), align=align)
    return Page(title=f"benchmarks/{result.script}.py", parts=[table], facts=list_circumstances(result.header))


def _format_note(result: Measurement, left_out: list[str]) -> str:
    about = [f"{result.faces.n} faces of {result.faces.name}"] if result.faces else []
    facts = [f"{name}: {_format_cell(value)}" for name, value in _list_values(result.facts) if _fits(value)]
    hidden = [f"only in the JSON: {', '.join(left_out)}"] if left_out else []
    return "; ".join([*about, *facts, *hidden])


def _list_values(found: dict[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a nested object by path, as total.ms_p50; a list is one value."""
    for name, value in found.items():
        if isinstance(value, dict):
            yield from _list_values(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value


def _fits(value: Any) -> bool:
    return not isinstance(value, list) and len(_format_cell(value)) <= LONGEST


def _format_cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
