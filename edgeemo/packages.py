"""Packages that are imported only where they are needed, with an error that says how to install them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from edgeemo.errors import MachineError


def require(
    module: str, *, purpose: str, install: str = "", extra: str = "", load: Callable[[], ModuleType] | None = None
) -> ModuleType:
    """Import a package, or a module of edgeemo's that needs some.

    purpose: what needs it, for the error, as "pruning". install: the command that installs it; by default pip with
    edgeemo's `extra`. load: imports it where `import_module` is not enough. MachineError if a foreign package is not
    installed or does not load. An ImportError from edgeemo's own code is a bug and passes through.
    """
    install = install or f"pip install 'edgeemo[{extra}]'"
    try:
        return load() if load else import_module(module)
    except ModuleNotFoundError as error:
        if _is_ours(error):
            raise
        name = error.name or module
        reason = "" if name == module else f"  ({error})"
        raise MachineError(f"{purpose} needs {name}:  {install}{reason}") from error
    except (ImportError, OSError) as error:  # OSError: a shared library that it is linked against
        if _is_ours(error):
            raise
        raise MachineError(
            f"{purpose}: a package is installed and does not load ({error}); reinstall that package, or what it needs"
        ) from error


def _is_ours(error: Exception) -> bool:
    return (getattr(error, "name", None) or "").partition(".")[0] == "edgeemo"
