"""What a user can do wrong, one class per exit code; anything else is a bug and shows its traceback."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType


class EdgeemoError(Exception):
    """A mistake that the message explains: what was expected, what came, where from, the next command."""

    exit_code = 2


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


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """The imported module, or a MachineError that names the extra which brings it."""
    try:
        return importlib.import_module(module)
    except OSError as error:
        raise MachineError(
            f"{purpose}: a package that is installed does not load ({error}).  Install it anew:  "
            f"pip install --force-reinstall 'edgeemo[{extra}]'"
        ) from error
    except ImportError as error:
        missing = getattr(error, "name", None) or module
        raise MachineError(f"{purpose} needs {missing}:  pip install 'edgeemo[{extra}]'  ({error})") from error
