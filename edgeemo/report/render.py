"""Render results: in the terminal, as a Markdown page each, and as one table of several."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from edgeemo.artifact import write_text
from edgeemo.console import writing_output
from edgeemo.errors import DataError, UsageError
from edgeemo.report import files
from edgeemo.report.files import page_path, read
from edgeemo.report.result import BenchResult, Result
from edgeemo.report.sections import audit, bench, comparison, detection, doctor, evaluation, measurement, parity, search
from edgeemo.report.table import Page

MARK = "<!-- edgeemo report -->"  # first line of the output of `edgeemo report`, unless it is only a table of benches
PAGES: dict[str, Callable[[Any], Page]] = {
    "audit": audit.make_page,
    "bench": bench.make_page,
    "check": doctor.make_check_page,
    "comparison": comparison.make_page,
    "detection": detection.make_page,
    "doctor": doctor.make_page,
    "evaluation": evaluation.make_page,
    "measurement": measurement.make_page,
    "parity": parity.make_page,
    "search": search.make_page,
}


def make_page(result: Result) -> Page:
    """Return the result's tables and sentences."""
    return PAGES[result.kind](result)


def show(result: Result, console: Console | None = None) -> None:
    """Print a result, the verdict last; by default to the terminal."""
    page = make_page(result)
    with nullcontext() if console else writing_output():
        (console or _Terminal()).print(page.to_terminal(), soft_wrap=page.wide)


class _Terminal(Console):
    """Standard output, without rich's own end of a process whose output nobody reads: 1 is a failed gate here."""

    def on_broken_pipe(self) -> None:
        """Leave it to whoever prints."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def write(result: Result, path: Path, *, images: Sequence[str] = ()) -> Path:
    """Write a result's JSON and, next to it, its Markdown page; return the path of the page.

    images: names of image files next to the page, or a sentence instead.
    """
    files.write(result, path)
    write_text(page_path(path), make_page(result).to_markdown(images))
    return page_path(path)


def render_files(paths: Sequence[Path]) -> str:
    """Render result files as Markdown: one table with a row per bench result, then a page per other result.

    Raises DataError with the name of a file that is not a result, or whose values contradict each other.
    """
    results = [read(path) for path in paths]
    rendered = [_render(path, result) for path, result in zip(paths, results, strict=True)]
    benches = [result for result in results if isinstance(result, BenchResult)]
    pages = [page for page, result in zip(rendered, results, strict=True) if not isinstance(result, BenchResult)]
    table = [bench.make_summary(benches).to_markdown() + "\n"] if benches else []
    mark = [MARK + "\n"] if pages else []
    return "\n".join([*mark, *table, *pages])


def _render(path: Path, result: Result) -> str:
    """Return a result's page; raise DataError if each value is of its type, but they contradict each other."""
    try:
        return make_page(result).to_markdown()
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{path}: its values contradict each other ({reason}); make it again:  {result.made_by}"
        ) from error


def write_files(out: Path, paths: Sequence[Path]) -> None:
    """Write `render_files` to `out`; raise UsageError if that would replace anything but an earlier one."""
    check_out(out, paths)
    write_text(out, render_files(paths))


def check_out(out: Path, results: Sequence[Path]) -> None:
    """Raise UsageError if `out` is one of the results, its page, or a file that the report command did not write."""
    if out.resolve() in {path.resolve() for result in results for path in (result, page_path(result))}:
        raise UsageError(f"--out {out} is one of the results, or its page, and would be replaced; choose another name")
    if out.exists() and not out.read_bytes().startswith((MARK.encode(), bench.make_summary([]).to_markdown().encode())):
        raise UsageError(f"--out {out} exists and is not a report of this command; choose another name")
