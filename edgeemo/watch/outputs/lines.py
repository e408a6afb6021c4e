"""JSON Lines and CSV: files that grow by whole lines for as long as the program runs; and text, on standard output.

- Lines are appended without a buffer: after a SIGKILL all but the last are whole, which the system may cut between two
  pages. They are in the system's cache; a power loss may cost the last seconds.
- A file that exists is continued if edgeemo watch wrote it, and refused otherwise. If its last line is cut, as by a
  full disk and a kill, that is logged, and the next line begins on a line of its own.
- If the file is renamed or removed, as by logrotate, a new one is begun; if it is emptied (copytruncate), it goes on.
- While the disk is full, records wait in the queue; a line that was written in part is taken back.
- One process at a time writes to a file (flock, where the system has it).
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from edgeemo.artifact import check_file, make_folder
from edgeemo.console import writing_output
from edgeemo.errors import MachineError, UsageError
from edgeemo.watch.events import Record, describe
from edgeemo.watch.outputs.background import UndeliveredError
from edgeemo.watch.outputs.terminal import ERASE

log = logging.getLogger(__name__)
BATCH = 1000
COMMON = ("event", "time", "position")
FACE = ("frame", "track", "label", "probability", "x", "y", "width", "height", "unsure")
COLUMNS = {  # of CSV, before those of the labels
    "frames": (*COMMON, *FACE, "flags", "detected"),
    "changes": (*COMMON, *FACE, "previous", "lasted", "reason"),
    "periods": (*COMMON, "seconds", "partial", "withheld", "frames", "people"),
}
LABEL_COLUMNS = {"frames": ("smoothed_", "raw_"), "changes": (), "periods": ("people_", "share_")}


class Format(Protocol):
    """How records become lines."""

    header: bytes  # first line of a file, empty without one

    def format(self, records: Sequence[Record]) -> bytes:
        """Return whole lines."""

    def owns(self, start: bytes) -> bool:
        """Return whether a file that starts with these bytes was written in this format."""


class JsonLines:
    """A JSON object a line, in UTF-8; `event` is its first key."""

    header = b""

    def format(self, records: Sequence[Record]) -> bytes:
        """Return a line per record."""
        return b"".join(to_json(record) + b"\n" for record in records)

    def owns(self, start: bytes) -> bool:
        """Return whether the first key is `event`."""
        return start.startswith(b'{"event":')


class Csv:
    """A row per record, with columns for these labels; what a record does not have is empty (RFC 4180, UTF-8).

    kind: `frames`, `changes` or `periods`.
    """

    def __init__(self, kind: str, labels: Sequence[str]) -> None:
        self._columns = (*COLUMNS[kind], *(prefix + label for prefix in LABEL_COLUMNS[kind] for label in labels))
        self.header = self._write([self._columns])

    def format(self, records: Sequence[Record]) -> bytes:
        """Return a row per record."""
        cells = map(_flatten, records)
        return self._write([[row.get(column) for column in self._columns] for row in cells])

    def owns(self, start: bytes) -> bool:
        """Return whether the columns are the same."""
        return start.startswith(self.header)

    def _write(self, rows: Sequence[Sequence[Any]]) -> bytes:
        text = io.StringIO()
        csv.writer(text).writerows(rows)
        return text.getvalue().encode()


class Text:
    """A line per record for people.

    erase: standard output is a terminal that also shows the state (terminal.py), which each line replaces.
    """

    header = b""

    def __init__(self, *, erase: bool = False) -> None:
        self._start = ERASE if erase else ""

    def format(self, records: Sequence[Record]) -> bytes:
        """Return a line per record."""
        return "".join(f"{self._start}{describe(record)}\n" for record in records).encode()

    def owns(self, start: bytes) -> bool:
        """Return False: text goes to standard output alone."""
        del start
        return False


def to_json(value: Any) -> bytes:
    """Return a value as JSON in UTF-8 without spaces."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _flatten(record: Record) -> Record:
    """Return the cells of a record by column."""
    cells = dict(record)
    cells |= zip(("x", "y", "width", "height"), cells.pop("box", ()), strict=False)
    cells["flags"] = " ".join(cells.get("flags", ()))
    for kind, shares in cells.pop("probabilities", {}).items():
        cells |= {f"{kind}_{label}": share for label, share in shares.items()}
    for label, counts in cells.pop("labels", {}).items():
        cells |= {f"{what}_{label}": value for what, value in counts.items()}
    return cells


class LineFile:
    """A sink that appends the lines of a format to a file.

    Raises UsageError for a file that is not one of this format, or to which another process writes; MachineError if it
    cannot be opened.
    """

    batch = BATCH

    def __init__(self, path: Path, form: Format) -> None:
        self.name, self._path, self._form = str(path), path, form
        check_file(path)
        try:
            make_folder(path.parent)
            self._file = self._open()
        except OSError as error:
            raise MachineError(f"cannot write {path}: {error.strerror or error}") from error

    def send(self, items: Sequence[Record]) -> None:
        """Append the lines of records, all of them or none."""
        if self._was_moved():
            self._reopen()
        size = os.fstat(self._file).st_size
        lines = self._form.format(items)
        self._append(lines if size else self._form.header + lines, size)

    def abort(self) -> None:
        """A write to a file ends by itself."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _reopen(self) -> None:
        try:
            self._file, old = self._open(), self._file
        except UsageError as error:  # meanwhile somebody else's file is there
            raise UndeliveredError(str(error)) from error
        os.close(old)

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        file = os.open(self._path, flags, 0o666)
        try:
            self._lock(file)
            self._check(file)
        except BaseException:
            os.close(file)
            raise
        return file

    def _lock(self, file: int) -> None:
        try:
            fcntl = import_module("fcntl")
        except ModuleNotFoundError:  # Windows
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(f"another process is writing to {self._path}; choose another file") from error
        except OSError:  # a file system without locks
            return

    def _check(self, file: int) -> None:
        """Raise UsageError unless the file is empty or of this format; end a line that is cut."""
        size = os.fstat(file).st_size
        if not size:
            return
        os.lseek(file, 0, os.SEEK_SET)
        if not self._form.owns(os.read(file, max(64, len(self._form.header)))):
            raise UsageError(
                f"{self._path} exists and is no file of edgeemo watch with the same fields; choose another name, or "
                "move it away"
            )
        os.lseek(file, size - 1, os.SEEK_SET)
        if os.read(file, 1) != b"\n":
            log.warning("the last line of %s is cut: an earlier program was stopped while writing it", self._path)
            self._append(b"\n", size, file)

    def _append(self, data: bytes, size: int, file: int | None = None) -> None:
        """Append bytes to a file of this size; take them back if not all can be written."""
        file = self._file if file is None else file
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(file, view) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(file, size)
            raise

    def _was_moved(self) -> bool:
        try:
            return not os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return True


class StandardOutput:
    """A sink that prints lines; raises ClosedPipeError where nobody reads them any more, as after `| head`."""

    name, batch = "standard output", BATCH

    def __init__(self, form: Format) -> None:
        self._form, self._started = form, False

    def send(self, items: Sequence[Record]) -> None:
        """Print the lines of records."""
        lines = self._form.format(items)
        with writing_output():
            _print(lines if self._started else self._form.header + lines)
        self._started = True

    def abort(self) -> None:
        """Leave it to the end of the process: a write to a pipe that is not read cannot be ended."""

    def close(self) -> None:
        """Leave standard output open."""


def _print(data: bytes) -> None:
    """Write to standard output without its lock, which a thread that waits for a reader would hold at exit."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # of a test
        sys.stdout.write(data.decode())
        return
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
