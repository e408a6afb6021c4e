"""A run that was moved to another folder and user gives the same bits as the one that stayed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from edgeemo.artifact import hash_file
from edgeemo.cli import main
from edgeemo.data.drawing import draw_face
from edgeemo.labels import LABEL_SETS
from edgeemo.train import fit

ROOT = Path(__file__).parents[1]
Process = subprocess.Popen[bytes]

NOBODY = 65534
# Another user, who may read the interpreter wherever it is installed, but not write there.
OTHER_USER = [
    *("setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
]
TRAIN = [
    *("train", "--recipe", "demo", "--backbone", "edge_vgg_nano", "--precision", "fp32", "--threads", "1"),
    *("--epochs", "2", "--batch-size", "16", "--checkpoint-steps", "1", "--data", "folder:faces", "--out", "run"),
]
COMMANDS = [
    ["train", "--out", "run", "--resume"],
    ["compress", "run", "--int8", "--no-time", "--min-agreement", "0", "--min-int8-share", "0", "--threads", "1"],
    ["evaluate", "run", "--out", "evaluation.json", "--threads", "1"],
]
RUN = """
from edgeemo.cli import main
for command in {commands!r}:
    main(command, standalone_mode=False)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may enter, with 120 synthetic faces; tmp_path is its owner's alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    for name in LABEL_SETS["six"].labels:
        (folder / "here/faces" / name).mkdir(parents=True)
        for k in range(20):
            Image.fromarray(draw_face(name, seed=k, size=48)).save(folder / "here/faces" / name / f"{k}.png")
    yield folder
    shutil.rmtree(folder)


def start(folder: Path, commands: list[list[str]], *, user: Sequence[str] = ()) -> Process:
    """Start a process that runs the commands in a folder, and writes to `output` beside it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": "/nonexistent"}
    program = [*user, sys.executable, "-c", RUN.format(commands=commands)]
    with folder.with_name("output").open("w") as output:
        return subprocess.Popen(program, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)


def stop_after(steps: int, folder: Path, command: list[str]) -> None:
    """Train in a folder, and stop as a kill would."""
    taken, step = iter(range(steps)), fit._train_step

    def counted(*arguments: Any) -> None:
        next(taken)
        step(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(fit, "_train_step", counted)
        assert isinstance(CliRunner().invoke(main, command).exception, StopIteration)


def can_switch_user() -> bool:
    """Return whether this is root, with setpriv and its capabilities."""
    if not shutil.which("setpriv"):
        return False
    return subprocess.run([*OTHER_USER, "true"], capture_output=True, check=False).returncode == 0


def change_owner(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)


def read_numbers(file: Path) -> Any:
    content = json.loads(file.read_text())
    return content["faces"], content["rows"]


def test_a_moved_run_is_resumed_compressed_and_evaluated_to_the_same_bits(place: Path) -> None:
    """Another path, another working directory and, where the tests run as root, another user without a home."""
    stayed, moved = place / "here", place / "elsewhere" / "there"
    stop_after(4, stayed, TRAIN)
    shutil.copytree(stayed, moved)
    if other := can_switch_user():
        change_owner(moved.parent)
    resumed, *others = COMMANDS
    elsewhere = [[*resumed, "--data", "folder:faces"], *others]
    processes = {stayed: start(stayed, COMMANDS), moved: start(moved, elsewhere, user=OTHER_USER if other else ())}
    for folder, process in processes.items():
        assert process.wait(300) == 0, folder.with_name("output").read_text()
    models = sorted(path.relative_to(stayed) for path in stayed.glob("run/**/*.onnx"))
    assert [path.name for path in models] == ["model.float.onnx", "model.int8.onnx"]
    for file in (*models, Path("run/model.safetensors"), Path("run/compressed/calibration.json")):
        assert hash_file(stayed / file) == hash_file(moved / file), file
    for file in ("run/compressed/comparison.json", "evaluation.json"):
        assert read_numbers(stayed / file) == read_numbers(moved / file)
    assert json.loads((moved / "run/log.json").read_text())["config"]["data"] == f"folder:{moved / 'faces'}"
    for card in moved.glob("run/**/*.onnx.json"):
        assert str(place) not in card.read_text()
