"""Import optional packages where they are needed, with an error that says how to install them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

from edgeemo.errors import MachineError
from edgeemo.limits import check_shortage

MATPLOTLIB = "MPLCONFIGDIR"
CACHES = (MATPLOTLIB, "TORCHINDUCTOR_CACHE_DIR")  # of fonts, in the user's home; of compiled kernels, in TMPDIR


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
        check_shortage(error)
        raise MachineError(
            f"{purpose}: an installed package does not load ({error}); reinstall it, or its dependencies"
        ) from error


@contextmanager
def no_caches() -> Iterator[None]:
    """Import packages in the block without the caches that they would leave in the user's home or among its files.

    A cache of matplotlib's that is there is used, because it saves time; so is any folder that the user has set.
    """
    variables = [name for name in CACHES if name not in os.environ and not (name == MATPLOTLIB and _has_font_cache())]
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(dict.fromkeys(variables, folder))
        try:
            yield
        finally:
            for name in variables:
                os.environ.pop(name, None)


def _has_font_cache() -> bool:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111  raises nothing
    return os.access(os.path.join(home, "matplotlib"), os.W_OK)  # noqa: PTH118


def _is_ours(error: Exception) -> bool:
    return (getattr(error, "name", None) or "").partition(".")[0] == "edgeemo"
