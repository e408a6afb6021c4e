"""Progress bars in a terminal, one log line elsewhere, and nothing with --quiet."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edgeemo.names import escape_message

log = logging.getLogger(__name__)
Item = TypeVar("Item")


def track(items: Iterable[Item], what: str, *, total: int) -> Iterator[Item]:
    """Yield the items while a progress bar counts them."""
    with counter(what, total=total) as advance:
        for item in items:
            yield item
            advance(1, "")


@contextmanager
def counter(what: str, *, total: int) -> Iterator[Callable[[int, str], None]]:
    """Yield a function `advance(count, note)` that advances a bar and shows the note (loss, images/s) next to it."""
    start = perf_counter()
    text, note = (TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[note]"))
    columns = (text, BarColumn(), MofNCompleteColumn(), note)
    console = Console(stderr=True)
    bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
    with bar if sys.stderr.isatty() and log.isEnabledFor(logging.INFO) else _silent(bar):
        task = bar.add_task(escape_message(what), total=total, note="")
        yield lambda count, note: bar.update(task, advance=count, note=note)
    seconds = perf_counter() - start
    if seconds > 1:
        log.info("%s: %d in %.1f s", what, total, seconds)


@contextmanager
def _silent(bar: Progress) -> Iterator[None]:
    bar.disable = True
    yield
