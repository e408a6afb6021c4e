"""Tables, and pages of tables and sentences, for the terminal and for Markdown.

Names and other foreign text appear as they are: neither rich nor Markdown takes them for markup, and control characters
become escapes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import quote

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from edgeemo.names import escape_markdown, escape_message

Style = Literal["grid", "compact", "tight", "wide"]
GAP = "  "  # between the columns of a wide table


@dataclass(frozen=True)
class Table:
    """Rows of text with a title and a note."""

    title: str
    head: tuple[str, ...]  # line breaks are kept in the terminal
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    align: str = ""  # l or r per column; empty: the first left, the others right
    style: Style = "grid"  # in a terminal; tight: for 80 columns; wide: not folded, however narrow the terminal
    total: bool = False  # the last row sums up the others

    @property
    def aligns(self) -> str:
        """The alignment per column, l or r."""
        return self.align or "l" + "r" * (len(self.head) - 1)

    def to_terminal(self) -> RenderableType:
        """Return the table for rich."""
        if self.style == "wide":
            return Text("\n".join(filter(None, [_clean(self.title), *self._list_lines(), _clean(self.note)])))
        title, note = Text(_clean(self.title), "table.title"), Text(_clean(self.note), "table.caption")
        table = RichTable(title=title or None, caption=note or None, **_FORMS[self.style])
        for number, (head, align) in enumerate(zip(self.head, self.aligns, strict=True)):
            tight = {"no_wrap": number > 0, "overflow": "fold"} if self.style == "tight" else {}
            justify = "left" if align == "l" else "right"
            table.add_column(Text(_clean(head)), justify=justify, **tight)  # type: ignore[arg-type]
        for number, row in enumerate(self.rows, start=2):
            table.add_row(
                *(Text(escape_message(cell)) for cell in row), end_section=self.total and number == len(self.rows)
            )
        return table

    def to_markdown(self) -> str:
        """Return the table without its title, and its note."""
        rule = ["---" if align == "l" else "---:" for align in self.aligns]
        head, *rows = ([escape_markdown(cell.replace("\n", " ")) for cell in row] for row in (self.head, *self.rows))
        lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
        return "\n".join(lines) + (f"\n\n{escape_markdown(self.note)}" if self.note else "")

    def _list_lines(self) -> Iterator[str]:
        """Yield lines of aligned text."""
        rows = [tuple(map(escape_message, row)) for row in (self.head, *self.rows)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = zip(row, widths, self.aligns, strict=True)
            padded = (cell.ljust(width) if align == "l" else cell.rjust(width) for cell, width, align in cells)
            yield GAP.join(padded).rstrip()


def _clean(text: str) -> str:
    """Return a title, head or note for a terminal; its line breaks are edgeemo's own."""
    return "\n".join(map(escape_message, text.split("\n")))


_FORMS: dict[Style, dict[str, Any]] = {
    "grid": {"title_justify": "left", "caption_justify": "left"},
    "compact": {"box": SIMPLE, "pad_edge": False},
    "tight": {"box": SIMPLE, "pad_edge": False, "padding": 0},
}


@dataclass(frozen=True)
class Page:
    """A rendered result: tables and sentences in order, the verdict, and the circumstances of the measurement."""

    title: str  # of the Markdown page
    parts: Sequence[Table | str]
    verdict: str = ""
    passed: bool = True
    footer: str = ""  # in a terminal
    facts: dict[str, str] = field(default_factory=dict)  # in Markdown, under the last heading

    @property
    def wide(self) -> bool:
        """The terminal must not fold or crop the lines."""
        return any(isinstance(part, Table) and part.style == "wide" for part in self.parts)

    def to_terminal(self) -> Group:
        """Return the page for rich, the verdict last."""
        shown: list[RenderableType] = [
            Text(escape_message(part)) if isinstance(part, str) else part.to_terminal() for part in self.parts
        ]
        if self.footer:
            shown.append(Text(escape_message(self.footer), style="dim"))
        if self.verdict:
            shown.append(Text(escape_message(self.verdict), style=f"bold {'green' if self.passed else 'red'}"))
        return Group(*shown)

    def to_markdown(self, images: Sequence[str] = ()) -> str:
        """Return the page; images: names of image files next to it, or a sentence instead."""
        blocks = [f"# {escape_markdown(self.title)}"]
        if self.verdict:
            blocks.append(f"**{escape_markdown(self.verdict)}**")
        blocks += [escape_markdown(part) if isinstance(part, str) else _format_section(part) for part in self.parts]
        blocks += [_format_image(name) for name in images]
        if self.facts:
            facts = (f"- {escape_markdown(name)}: {escape_markdown(text)}" for name, text in self.facts.items())
            blocks.append("## Circumstances\n\n" + "\n".join(facts))
        return "\n\n".join(blocks) + "\n"


def _format_section(table: Table) -> str:
    return f"## {escape_markdown(table.title)}\n\n{table.to_markdown()}" if table.title else table.to_markdown()


def _format_image(name: str) -> str:
    if not name.endswith(".png"):
        return escape_markdown(name)
    return f"![{escape_markdown(name.removesuffix('.png'))}]({quote(os.fsencode(name))})"
