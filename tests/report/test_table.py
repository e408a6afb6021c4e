"""One table, in the terminal and in Markdown."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from edgeemo.report.table import Page, Style, Table

TABLE = Table("Speed", ("model", "fast\nmode", "why"), [("nano", "1", "small"), ("base", "22", "")], "Both.", "lrl")


def printed(page: Page, *, width: int = 80) -> str:
    """What a terminal of so many columns shows."""
    console = Console(width=width, file=(screen := StringIO()))
    console.print(page.to_terminal(), soft_wrap=page.wide)
    return screen.getvalue()


def test_markdown_aligns_columns_and_keeps_a_head_on_one_line() -> None:
    """The note follows the table; the title is the page's business."""
    head, rule, first, *_, note = TABLE.to_markdown().splitlines()
    assert (head, rule, first) == ("| model | fast mode | why |", "| --- | ---: | --- |", "| nano | 1 | small |")
    assert note == "Both."


def test_the_first_column_is_left_aligned_by_default() -> None:
    """And the others are numbers."""
    assert Table("", ("a", "b", "c"), []).aligns == "lrr"


def test_every_style_shows_every_cell() -> None:
    """Also where a terminal is narrow: a wide table is neither folded nor cropped."""
    for style in ("grid", "compact", "tight"):
        shown = printed(Page("", [Table("Speed", TABLE.head, TABLE.rows, "Both.", "lrl", style)]))
        assert all(text in shown for text in ("Speed", "nano", "22", "small", "Both."))
    long = Table("", ("model", "a long name of a column", "b"), [("nano", "1", "2")], style="wide")
    assert printed(Page("", [long, "A sentence of some length."]), width=10).splitlines() == [
        "model  a long name of a column  b",
        "nano                         1  2",
        "A sentence of some length.",
    ]


def test_a_page_has_verdict_parts_pictures_and_facts_in_order() -> None:
    """In Markdown the verdict comes first, in the terminal last."""
    page = Page("Nano", [TABLE, "A sentence."], verdict="PASS", footer="measured here", facts={"system": "Linux"})
    text = page.to_markdown(["nano-latency.png", "No plots: none"])
    parts = ["# Nano", "**PASS**", "## Speed", "A sentence.", "![nano-latency](nano-latency.png)", "No plots: none"]
    places = [text.index(part) for part in [*parts, "## Circumstances\n\n- system: Linux\n"]]
    assert places == sorted(places)
    assert printed(page).rstrip().splitlines()[-2:] == ["measured here", "PASS"]


HOSTILE = "[red]x[/red] [/b] :smile: a|b `c` \x1b[2J\u202e\nerror: d"


@pytest.mark.parametrize("style", ["grid", "compact", "tight", "wide"])
@pytest.mark.parametrize("markup", [True, False])
def test_a_name_is_neither_markup_nor_a_control_sequence_anywhere(style: Style, markup: bool) -> None:
    """In the title, head, cells, note, sentences, verdict and footer, whatever console prints them."""
    table = Table(HOSTILE, (HOSTILE.replace("\n", " "),), [(HOSTILE,)], HOSTILE, style=style)
    page = Page("", [table, HOSTILE], verdict=HOSTILE, footer=HOSTILE)
    console = Console(width=400, file=(screen := StringIO()), markup=markup)
    console.print(page.to_terminal(), soft_wrap=page.wide)
    shown = screen.getvalue()
    assert not set(shown) & {"\x1b", "\u202e"}
    assert shown.count("[red]x[/red] [/b] :smile: a|b `c` \\x1b[2J\\u202e") == 7


def test_a_name_does_not_change_the_structure_of_a_markdown_page() -> None:
    """A row stays a row, a heading a heading, and an image's address one address."""
    table = Table(HOSTILE, (HOSTILE, "n"), [(HOSTILE, "1")], HOSTILE)
    page = Page(HOSTILE, [table, HOSTILE], verdict=HOSTILE, facts={"model": HOSTILE})
    plain = Page("x", [Table("x", ("x", "n"), [("x", "1")], "x"), "x"], verdict="x", facts={"model": "x"})
    shown, expected = page.to_markdown(["a (1) b.png"]).splitlines(), plain.to_markdown(["y.png"]).splitlines()
    assert len(shown) == len(expected)
    assert all(line[:2] == other[:2] for line, other in zip(shown, expected, strict=True) if other[:1] in "#|-*")
    assert all(line.replace(r"\|", "").count("|") == 3 for line in shown if line.startswith("|"))
    assert "![a (1) b](a%20%281%29%20b.png)" in shown
