"""A clock that is set back or forwards: it dates records, and neither times nor decides anything."""

from __future__ import annotations

import ast
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from edgeemo import progress
from edgeemo.measure import turns

PACKAGE = Path(turns.__file__).parents[1]
TINY = Path(__file__).parent / "fixtures" / "tiny.onnx"
CLOCKS = {"time", "time_ns", "now", "utcnow", "today", "localtime", "gmtime"}  # of the modules time and datetime
MODIFIED = {"st_mtime", "st_mtime_ns", "st_ctime", "st_ctime_ns", "getmtime"}
# The date of a result, a label, an adaptation, a frame, a line of a log and the start of a program, a date that a
# server asks to wait for, and files whose decoded faces are kept as long as size and times are equal, never by order.
ALLOWED = {
    "report/facts.py": {"now"},
    "label/store.py": {"now"},
    "runtime/adapting.py": {"now"},
    "watch/capture.py": {"time"},
    "watch/sources/source.py": {"time"},
    "watch/metrics.py": {"time"},
    "watch/outputs/webhook.py": {"now"},
    "serve/guard.py": {"now"},
    "data/cache.py": {"st_mtime_ns", "st_ctime_ns"},
}


def list_names(file: Path) -> Iterator[str]:
    """Yield the attributes of time and datetime, and the dates of files, that a module uses."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime"):
            yield from (alias.name for alias in node.names if alias.name in CLOCKS)
        if isinstance(node, ast.Attribute) and node.attr in CLOCKS | MODIFIED:
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner in ("time", "datetime", "date") or node.attr in MODIFIED:
                yield node.attr


def test_nothing_is_timed_by_the_clock_or_chosen_by_its_date() -> None:
    """Durations come from perf_counter, and no file is taken because it is newer."""
    used = {file.relative_to(PACKAGE).as_posix(): set(list_names(file)) for file in PACKAGE.rglob("*.py")}
    assert {file: names for file, names in used.items() if names} == ALLOWED


def test_times_do_not_depend_on_the_clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """While it jumps by a day, forwards and back, at every call."""
    jumping = cycle((time.time() + 86_400, time.time() - 86_400))
    monkeypatch.setattr(time, "time", lambda: next(jumping))
    monkeypatch.setattr(time, "time_ns", lambda: int(next(jumping) * 1e9))
    model = turns.open_timed(str(TINY), "", threads=1)
    turns.alternate([model], runs=20, seconds=0.0)
    model.model.close()
    assert all(0 < inference <= total < 60e9 for total, inference in zip(model.total, model.inference, strict=True))
    caplog.set_level("INFO", logger="edgeemo")
    assert list(progress.track(range(3), "counting", total=3)) == [0, 1, 2]
    assert "counting" not in caplog.text  # it took less than a second
