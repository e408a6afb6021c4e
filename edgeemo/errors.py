"""What a command can end with, one class per exit code; anything else is a bug and shows its traceback.

0: success. 1: a gate failed. 2: wrong usage. 3: unusable data. 4: a damaged or foreign file. 5: the machine lacks
something. 130: interrupted.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


class EdgeemoError(Exception):
    """A mistake that the message explains: what was expected, what came, where from, the next command."""

    exit_code = 2


class GateError(EdgeemoError):
    """A measured value misses its required threshold.

    result: the file with all that was measured, if one was written.
    """

    exit_code = 1

    def __init__(self, message: str, *, result: Path | None = None) -> None:
        super().__init__(message)
        self.result = result


class UsageError(EdgeemoError):
    """An option, a name or a combination that edgeemo does not know."""


class DataError(EdgeemoError):
    """Faces or labels that cannot be used as they are."""

    exit_code = 3


class IntegrityError(EdgeemoError):
    """A model or card that is missing, foreign, changed or damaged."""

    exit_code = 4


class MachineError(EdgeemoError):
    """Something this machine lacks: a package, a device, a network, disk space."""

    exit_code = 5


def known(what: str, name: str, names: Iterable[str]) -> UsageError:
    """The error for a name that a table does not hold; it lists the names that the table does hold."""
    return UsageError(f"unknown {what} {name!r}; known: {', '.join(names)}")
