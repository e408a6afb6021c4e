"""Errors that end a command, one class per exit code; any other exception is a bug and shows its traceback.

0: success. 1: a gate failed. 2: wrong usage. 3: unusable data. 4: a damaged or foreign file. 5: the machine lacks
something. 130: interrupted. 141: standard output is not read any more.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class EdgeemoError(Exception):
    """An error that its message explains: what was expected, the actual value, its source, and the next command."""

    exit_code = 2


class GateError(EdgeemoError):
    """A measured value misses its required threshold.

    result: the file with all measured values, if one was written.
    """

    exit_code = 1

    def __init__(self, message: str, *, result: Path | None = None) -> None:
        super().__init__(message)
        self.result = result


class UsageError(EdgeemoError):
    """An option, a name or a combination that edgeemo does not know."""


class DataError(EdgeemoError):
    """Faces or labels that cannot be used."""

    exit_code = 3


class IntegrityError(EdgeemoError):
    """A model or card that is missing, foreign, changed or damaged."""

    exit_code = 4


class MachineError(EdgeemoError):
    """Something that this machine lacks: a package, a device, a network, disk space."""

    exit_code = 5


class ClosedPipeError(MachineError):
    """Nobody reads standard output any more, as after `| head`: the command stops without a message."""

    exit_code = 141  # 128 + SIGPIPE, by convention of the shell


def known(what: str, name: str, names: Iterable[str]) -> UsageError:
    """Return the error for an unknown name, which lists the known ones."""
    return UsageError(f"unknown {what} {name!r}; known: {', '.join(names)}")
