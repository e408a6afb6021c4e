"""`edgeemo build --for`: a new folder for another host, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import make_tiny
import pytest
from click.testing import CliRunner

from edgeemo import build, export
from edgeemo.cli import main
from edgeemo.errors import DataError, IntegrityError, UsageError
from edgeemo.stages import Build


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_tiny.write(tmp_path / "model.onnx")


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A host whose folder has one file."""
    fake = SimpleNamespace(write=lambda config, folder: (folder / "model").write_text(config.model))
    monkeypatch.setattr(export, "import_module", lambda _: fake)
    return fake


@pytest.mark.usefixtures("host")
def test_the_folder_is_new_and_its_path_is_printed(source: Path, tmp_path: Path) -> None:
    """No next command follows: another program takes the folder."""
    out = tmp_path / "out" / "repository"
    result = CliRunner().invoke(main, ["build", str(source), "--for", "triton", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert (out / "model").read_text() == str(source)
    assert result.stdout.splitlines() == [str(out)]


def test_a_failed_export_leaves_nothing(source: Path, tmp_path: Path, host: SimpleNamespace) -> None:
    """Neither half a folder nor a temporary one."""

    def fail(_: Build, folder: Path) -> None:
        (folder / "half").touch()
        raise DataError("no")

    host.write = fail
    with pytest.raises(DataError, match="no"):
        build.run(Build(model=str(source), for_="triton", out=tmp_path / "out" / "new"))
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name it with --out DIR"),
        ({"out": "here"}, "is not empty"),
        ({"out": "new", "library": "rtx"}, "--library has no effect with --for"),
        ({"out": "new", "force": True}, "--force has no effect with --for"),
        ({"out": "new", "dla_core": 0}, "--dla-core has no effect with --for"),
        ({"out": "new", "for_": "web", "max_batch": 4}, "--max-batch has no effect with --for web"),
        ({"out": "new", "for_": "tritan"}, "unknown for 'tritan'; known: web, triton, deepstream"),
    ],
)
def test_options_of_an_engine_are_refused(source: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    """And a folder that has something in it."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine").touch()
    out = {"out": tmp_path / options["out"]} if "out" in options else {}
    with pytest.raises(UsageError, match=message):
        build.run(Build(**{"model": str(source), "for_": "triton", **options, **out}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "model.onnx", "model.onnx.json"]


def test_a_model_is_checked_before_it_is_exported(source: Path) -> None:
    """By its suffix, its card and its content."""
    config = Build(model=str(source), for_="triton")
    assert export.read_model(config, target_format="cpu")[1].labels == make_tiny.LABELS
    with pytest.raises(UsageError, match=r"--for triton takes nano, small, base, or a file \(\.onnx\)"):
        export.read_model(Build(model="engine.trt", for_="triton"), target_format="cpu")
    source.write_bytes(source.read_bytes() + b"!")
    with pytest.raises(IntegrityError):
        export.read_model(config, target_format="cpu")


def test_an_export_imports_neither_tensorrt_nor_torch() -> None:
    """It runs where only the base is installed."""
    code = (
        "import sys; import edgeemo.build; "
        "print([name for name in ('torch', 'onnx', 'tensorrt', 'tensorrt_rtx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
