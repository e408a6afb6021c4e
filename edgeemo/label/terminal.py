"""Labelling in a terminal: the crop in half blocks, one key for each answer; without a terminal, a line each."""

from __future__ import annotations

import os
import sys

import click
import numpy as np
from PIL import Image

from edgeemo.console import print_text
from edgeemo.label.keys import QUIT, SHOW, SKIP, UNDO, find_label
from edgeemo.label.session import Session, Shown
from edgeemo.names import escape_name

SIDE = 48  # columns of a drawn crop, in half as many lines
BLOCK = "\N{UPPER HALF BLOCK}"
RESET = "\x1b[0m"


def label_in_terminal(session: Session) -> None:
    """Ask for each face until all are done, `q` or the end of the input."""
    print_text(describe_keys(session.keys))
    while session.shown:
        _print_face(session, session.shown)
        if not _answer(session, session.shown):
            break


def describe_keys(keys: dict[str, str]) -> str:
    """Return the keys in words: 1 n neutral, …."""
    labels = [f"{' '.join(own)} {label}".strip() for label, own in keys.items()]
    return "; ".join([*labels, f"{UNDO} undo", f"{SKIP} skip", f"{SHOW} show the prediction", f"{QUIT} quit"])


def draw(pixels: np.ndarray, side: int = SIDE) -> str:
    """Return (H, H[, 3]) uint8 as half blocks with 24-bit colours: `side` columns and side / 2 lines."""
    small = np.asarray(Image.fromarray(pixels).convert("RGB").resize((side, side), Image.Resampling.BOX))
    lines = []
    for upper, lower in zip(small[::2], small[1::2], strict=True):
        cells = (_paint(top, bottom) for top, bottom in zip(upper, lower, strict=True))
        lines.append("".join(cells) + RESET)
    return "\n".join(lines)


def _paint(top: np.ndarray, bottom: np.ndarray) -> str:
    front, back = (";".join(map(str, colour)) for colour in (top, bottom))
    return f"\x1b[38;2;{front}m\x1b[48;2;{back}m{BLOCK}"


def _print_face(session: Session, shown: Shown) -> None:
    progress = session.get_progress()
    if can_draw():
        print_text(draw(shown.pixels))
    box = " ".join(f"{value:.0f}" for value in shown.face.box)
    name, person = escape_name(shown.face.image), escape_name(shown.face.person)
    print_text(f"{progress.labelled} labelled, {progress.left} left; person {person}: {name}, box {box}")


def can_draw() -> bool:
    """Return whether standard output is a terminal with colours and half blocks (https://no-color.org)."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        BLOCK.encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return False
    return True


def _answer(session: Session, shown: Shown) -> bool:
    """Read and carry out one answer; return False at the end."""
    word = _read()
    if word is None or word == QUIT:
        return False
    if word == UNDO:
        print_text(f"undone: {session.undo() or 'nothing'}")
    elif word == SKIP:
        session.label(shown.face.number, "")
    elif word == SHOW:
        print_text(", ".join(f"{label} {100 * share:.0f} %" for label, share in shown.face.probabilities[:3]))
    elif label := find_label(word, session.keys):
        session.label(shown.face.number, label)
        print_text(label)
    elif word:
        print_text(f"unknown: {escape_name(word)}.  {describe_keys(session.keys)}")
    return True


def _read() -> str | None:
    """Return a key of a terminal, or a line of anything else; None at the end."""
    if sys.stdin is None:
        return None
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.strip().casefold() if line else None
    try:
        return click.getchar().casefold()
    except EOFError:
        return None
