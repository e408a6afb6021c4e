"""Foreign text in a terminal, a log and a Markdown page: shown as it is, and never as a command."""

from __future__ import annotations

import logging
import os
import sys

import pytest

from edgeemo.console import OneLineFormatter, print_error
from edgeemo.errors import DataError
from edgeemo.names import escape_markdown, escape_message, escape_name

ODD = {
    "\x1b[2J": r"\x1b[2J",  # clears the screen
    "a\nb": r"a\x0ab",
    "a\r": r"a\x0d",
    "a\u202eb": r"a\u202eb",  # reads from right to left from here on
    "a\u2066b": r"a\u2066b",
    "a\u2028b": r"a\u2028b",  # a line separator
    "a\x9bb": r"a\x9bb",  # an escape sequence's start in one byte
    "\U000e0041": r"\U000e0041",  # an invisible tag
    "\ud800": r"\ud800",  # half of a pair, as JSON can hold it
    os.fsdecode(b"caf\xe9"): r"caf\xe9",
}
KEPT = ("café", "😀", "👩\u200d👧", "a\u200cb", "a  b", "[red]x[/red]")


@pytest.mark.parametrize("name", ODD)
def test_what_controls_a_terminal_or_hides_text_is_escaped(name: str) -> None:
    """Control, format and separator characters, and what is not UTF-8."""
    assert escape_name(name) == ODD[name]


@pytest.mark.parametrize("name", KEPT)
def test_words_and_emoji_are_kept(name: str) -> None:
    """Also where they need a joiner."""
    assert escape_name(name) == escape_message(name) == name


def test_a_message_of_several_lines_becomes_one() -> None:
    """An indented line continues the one before it; a bare line break can only come from a name."""
    assert escape_message("broken\n  make it again:  edgeemo compress\n") == "broken  make it again:  edgeemo compress"
    assert escape_message("a\nerror: b") == r"a\x0aerror: b"


@pytest.mark.parametrize("name", ODD)
def test_an_error_and_a_log_record_are_one_line_whatever_names_they_contain(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Escaped where they are printed, so that no message needs to think of it."""
    print_error(DataError(f"{name} cannot be read"))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(message)s"))
    handler.emit(logging.LogRecord("edgeemo", logging.INFO, "", 0, "%s: 3 faces", (name,), None))
    assert capsys.readouterr().err == f"error: {ODD[name]} cannot be read\n{ODD[name]}: 3 faces\n"


def test_a_traceback_in_the_log_keeps_its_lines() -> None:
    """It is edgeemo's own."""
    try:
        int("x")
    except ValueError:
        record = logging.LogRecord("edgeemo", logging.ERROR, "", 0, "a\nb", (), sys.exc_info())
    first, *rest = OneLineFormatter("%(message)s").format(record).splitlines()
    assert first == r"a\x0ab"
    assert len(rest) > 2


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("`rm`", r"\`rm\`"),
        ("**a**", r"\*\*a\*\*"),
        ("_a_ and a_b", r"\_a_ and a_b"),
        ("._a.png", "._a.png"),
        ("<script>", r"\<script>"),
        ("[x](http://y)", r"[x]\(http://y)"),
        ("a\\|b", r"a\\\|b"),
        ("&lt;", r"\&lt;"),
        ("a\nb", r"a\x0ab"),
        ("[red]x[/red] < 50 ms, 3 (2 to 4) & more", "[red]x[/red] < 50 ms, 3 (2 to 4) & more"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, escaped: str) -> None:
    """In a cell, too; what needs no escape has none."""
    assert escape_markdown(text) == escaped
