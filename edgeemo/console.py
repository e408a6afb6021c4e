"""The standard streams of a command: open, for any encoding, and written to in one place.

Standard output gets results, standard error one line per error or log record. What cannot be written is an error of the
machine; it neither costs what was written to files nor changes the exit code of another error.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from edgeemo.errors import ClosedPipeError, MachineError
from edgeemo.names import escape_message


class OneLineFormatter(logging.Formatter):
    """Formats a record's message as one line, whatever names it contains; a traceback after it stays."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  logging's name
        """Return the formatted message without control characters."""
        return escape_message(super().formatMessage(record))


def prepare_streams() -> None:
    """Open missing standard streams, and let them write escapes for letters that their encoding does not have."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # the next file to be opened would become this stream, and a library could print into it
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123  for the rest of the process
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def finish_streams() -> None:
    """Discard what a stream could not write: Python would try again at exit, and end with code 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _discard(stream)


@contextmanager
def writing_output() -> Iterator[None]:
    """Write to standard output inside the block; raise MachineError if it is closed or full.

    Raises ClosedPipeError if it is not read any more.
    """
    if sys.stdout is None:
        raise MachineError("cannot write to standard output: it is closed; redirect it to a file or /dev/null")
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        _discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise ClosedPipeError("standard output is not read any more") from error
        raise MachineError(f"cannot write to standard output: {error.strerror or error}") from error


def print_text(text: str) -> None:
    """Print text and a line break to standard output; raise MachineError if that cannot be written."""
    with writing_output():
        sys.stdout.write(f"{text}\n")


def print_error(error: object, *, word: str = "error: ") -> None:
    """Print an error as one line to standard error, as far as that can be written."""
    with suppress(OSError, ValueError):
        sys.stderr.write(f"{word}{escape_message(str(error))}\n")
        sys.stderr.flush()


def start_logging(level: int) -> None:
    """Print log records of edgeemo from this level on, and warnings of others, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("edgeemo").setLevel(level)


def _discard(stream: TextIO) -> None:
    """Let a stream write to the null device from now on."""
    with suppress(OSError, ValueError):  # a stream of a test has no descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
