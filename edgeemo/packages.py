"""Import optional packages where they are needed, with an error that says how to install them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from types import ModuleType

from edgeemo.errors import MachineError


def require(
    module: str, *, purpose: str, install: str = "", extra: str = "", load: Callable[[], ModuleType] | None = None
) -> ModuleType:
    """Import an optional package, or a module of edgeemo that needs optional packages.

    purpose: what needs it, for the error, as "pruning". install: the command that installs it; by default pip with
    edgeemo's `extra`. load: imports it where `import_module` is not enough.

    Raises MachineError if a third-party package is not installed or does not load. An ImportError from edgeemo's own
    code is a bug and is propagated.
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
    except (ImportError, OSError) as error:  # OSError: of a shared library that it is linked against
        if _is_ours(error):
            raise
        raise MachineError(
            f"{purpose}: an installed package does not load ({error}); reinstall it, or its dependencies"
        ) from error


def _is_ours(error: Exception) -> bool:
    return (getattr(error, "name", None) or "").partition(".")[0] == "edgeemo"
