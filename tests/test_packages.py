"""A missing package is named with what installs it; a fault of edgeemo's own is not called a missing package."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeemo.errors import MachineError
from edgeemo.packages import require


def test_a_missing_package_names_its_command() -> None:
    """Of an extra of edgeemo's, or any other."""
    with pytest.raises(MachineError, match=r"^pruning needs nobody_has_it:  pip install 'edgeemo\[train\]'$"):
        require("nobody_has_it", purpose="pruning", extra="train")
    with pytest.raises(MachineError, match=r"needs nobody_has_it:  apt-get install it$"):
        require("nobody_has_it", purpose="a GPU", install="apt-get install it")


@pytest.mark.parametrize(
    "fault",
    [
        "import edgeemo.no_such_module",
        "from edgeemo.errors import NoSuchError",
        "import edgeemo; edgeemo.no_such_name",
    ],
)
def test_an_import_error_of_our_own_is_a_bug(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """It shows its traceback: no package that a user installs would mend it."""
    name = f"planted_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(fault)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises((ImportError, AttributeError)):
        require(name, purpose="the audit", extra="train")


@pytest.mark.parametrize("fault", ["raise OSError('libcudart.so.12')", "raise ImportError('libcudart.so.12')"])
def test_a_package_that_does_not_load_is_to_be_reinstalled(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """With the reason that it gives."""
    name = f"broken_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(fault)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MachineError, match=r"does not load \(libcudart.so.12\); reinstall it"):
        require(name, purpose="training", extra="train")
