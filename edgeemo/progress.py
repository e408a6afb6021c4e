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


def track(items: Iterable[Item], what: str, *, total: int, unit: str = "steps", prints: bool = False) -> Iterator[Item]:
    """Yield the items while a progress bar counts them; unit, prints: as in `counter`."""
    with counter(what, total=total, unit=unit, prints=prints) as advance:
        for item in items:
            yield item
            advance(1, "")


@contextmanager
def counter(
    what: str, *, total: int, unit: str = "steps", prints: bool = False
) -> Iterator[Callable[[int, str], None]]:
    """Yield a function `advance(count, note)` that advances a bar and shows the note (loss, images/s) next to it.

    unit: of what is counted, in the plural. prints: the block prints results, which a bar would disturb if standard
    output is a terminal, too.
    """
    start = perf_counter()
    text, note = (TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[note]"))
    console = Console(stderr=True)
    columns = (text, BarColumn(), MofNCompleteColumn(), note, TimeElapsedColumn(), TimeRemainingColumn())
    # Redirected, results for standard output would be printed to the bar's console, which is standard error.
    bar = Progress(*columns, console=console, transient=True, redirect_stdout=False)
    with bar if _is_shown(prints=prints) else _silent(bar):
        task = bar.add_task(escape_message(what), total=total, note="")
        yield lambda count, note: bar.update(task, advance=count, note=note)
    seconds = perf_counter() - start
    if seconds > 1:
        log.info("%s: %d %s in %.1f s", what, total, unit, seconds)


def _is_shown(*, prints: bool) -> bool:
    disturbs = prints and sys.stdout is not None and sys.stdout.isatty()
    return sys.stderr.isatty() and log.isEnabledFor(logging.INFO) and not disturbs


@contextmanager
def _silent(bar: Progress) -> Iterator[None]:
    bar.disable = True
    yield
