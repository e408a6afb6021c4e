"""At the limits of a machine, every command ends in one line with exit code 5, and loses nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import forked_commands
import onnxruntime
import pytest
from PIL import Image

from edgeemo import images, stages
from edgeemo.artifact import temporary_folder
from edgeemo.card import read_card
from edgeemo.errors import GateError, MachineError
from edgeemo.limits import explain_limit
from edgeemo.report import files
from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.runtime.onnx_check import check_file
from edgeemo.train import checkpoint, pretrained
from edgeemo.train.backbones import BACKBONES

TINY = Path(__file__).parent / "fixtures" / "tiny.onnx"
RESULT = Path(__file__).parents[1] / "benchmarks" / "results" / "resnet50-int8.json"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
# Runs a command line as a user who has no home and no name.
NOBODY = """
import pwd, sys
def fail(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = fail
from edgeemo.cli import main
from edgeemo.measure import latency
latency.MIN_SECONDS = 0.0
main(sys.argv[1:])
"""


def run_as_nobody(line: str, folder: Path, variables: dict[str, str | None]) -> subprocess.CompletedProcess[str]:
    """Run a command line in a folder; a variable that is None is not set."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    settings = {name: value for name, value in environment.items() if value is not None}
    command = [sys.executable, "-c", NOBODY, *line.split()]
    return subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True, check=False)


def run_cases(folder: Path, cases: list[dict[str, Any]], *modules: str) -> list[dict[str, Any]]:
    """Run the cases of forked_commands.py in one process, which imports the modules once."""
    (folder / "cases.json").write_text(json.dumps({"cases": cases, "modules": modules}))
    command = [sys.executable, forked_commands.__file__, str(folder / "cases.json")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ended: list[dict[str, Any]] = json.loads(done.stdout)
    return ended


def find_error(code: int, errors: str) -> str:
    """Return the error of a command that has ended at a limit, which is its last line; the lines before are its log."""
    assert code == 5, errors
    *log, line = errors.splitlines()
    assert line.startswith("error: ")
    assert not [other for other in log if "Traceback" in other or "rror" in other], log
    return line


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with checkpoint, trained for an epoch."""
    folder = tmp_path_factory.mktemp("limits") / "run"
    config = replace(stages.RECIPES["demo"], data="synthetic:120", epochs=1, threads=1, precision="fp32", out=folder)
    trained: Path = stages.run(config)
    return trained.parent


TRAINING = ("edgeemo.train.run", "edgeemo.compress.search", "edgeemo.train.explain")
DEMO = "train --recipe demo --data synthetic:120 --epochs 1 --threads 1 --out out"
GATES = "--threads 1 --calibration-count 64 --rounding nearest --min-agreement 0 --min-int8-share 0 --out out"
COMPRESS = f"compress RUN --int8 --no-time {GATES}"
OUT = "--out out/result.json"
# Command lines that write, by what does not fit, and the largest size of a file in bytes.
WRITING = {
    "a probe": (1 << 10, DEMO),
    "a checkpoint": (300_000, DEMO),
    "TensorBoard": (70_000, f"{DEMO} --tensorboard --checkpoint-steps 1"),
    "a model": (300_000, COMPRESS),
    "a plot": (70_000, "explain RUN --threads 1 --out out"),
    "an evaluation": (1 << 10, f"evaluate RUN --threads 1 {OUT}"),
    "an audit": (1 << 10, f"data audit --data synthetic:120 {OUT}"),
    "a bench": (1 << 10, f"bench --engine {TINY} --runs 1 {OUT}"),
    "a parity": (1 << 10, f"parity {TINY} --data synthetic:120 --count 8 {OUT}"),
    "a report": (100, f"report {RESULT} --out out/report.md"),
}


MEMORY = {
    "a batch": (24 << 20, f"{DEMO} --batch-size 64", "choose a smaller --batch-size or --size"),
    "a model to open": (4 << 20, "predict --sample --model base", "close other programs"),
}
DISKS = {"out": "700k", "temporary": "1500k"}  # the second holds half of what calibration writes


def can_mount() -> bool:
    return subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def ended(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """By name, the folder of every case and how its command has ended; all run in forks of one process."""
    top = tmp_path_factory.mktemp("ended")

    def make(name: str, line: str, **about: Any) -> dict[str, Any]:
        for folder in ("out", "temporary"):
            (top / name / folder).mkdir(parents=True)
        variables = {"TMPDIR": str(top / name / "temporary")}
        return {"args": line.replace("RUN", str(run)).split(), "cwd": str(top / name), "env": variables, **about}

    cases = {name: make(name, line, limit=["file", largest]) for name, (largest, line) in WRITING.items()}
    cases |= {name: make(name, line, limit=["memory", more]) for name, (more, line, _) in MEMORY.items()}
    if can_mount():
        cases |= {name: make(name, COMPRESS, disk=[str(top / name / name), size]) for name, size in DISKS.items()}
    results = run_cases(top, list(cases.values()), *TRAINING)
    return {name: (top / name, result) for name, result in zip(cases, results, strict=True)}


@pytest.mark.parametrize("what", WRITING)
def test_a_file_that_does_not_fit_is_one_line(what: str, ended: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    """A quota of the largest file, which every writer meets as it meets a full disk; no temporary file is left."""
    folder, result = ended[what]
    assert "cannot write" in find_error(result["code"], result["err"])
    left = [file.name for file in folder.rglob("*") if file.is_file()]
    assert not [name for name in left if re.search(r"partial|\.probe$|\.lock$", name)]


@pytest.mark.skipif(not can_mount(), reason="a small disk needs the right to mount one")
@pytest.mark.parametrize("where", DISKS)
def test_a_full_disk_is_one_line(where: str, ended: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    """Of the output or of temporary files; some libraries raise their own errors, or write half a file in silence."""
    _, result = ended[where]
    assert ("TMPDIR" in find_error(result["code"], result["err"])) == (where == "temporary")


@pytest.mark.parametrize("what", MEMORY)
def test_too_little_memory_is_one_line_with_what_takes_less(
    what: str, ended: dict[str, tuple[Path, dict[str, Any]]]
) -> None:
    """Not a damaged model, whatever the library calls it."""
    _, result = ended[what]
    error = find_error(result["code"], result["err"])
    assert error.startswith("error: not enough memory")
    assert MEMORY[what][2] in error


def test_a_library_that_does_not_fit_into_memory_is_not_called_broken(tmp_path: Path) -> None:
    """Its import fails with the words of the loader."""
    (ended,) = run_cases(tmp_path, [{"args": DEMO.split(), "cwd": str(tmp_path), "limit": ["memory", 30 << 20]}])
    assert "error: not enough memory" in find_error(ended["code"], ended["err"])


HOMES: dict[str, dict[str, str | None]] = {
    "no home, no such user": dict.fromkeys(("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "MPLCONFIGDIR")),
    "a home that cannot be written": {"HOME": "/proc/no", "XDG_CACHE_HOME": "/proc/no", "XDG_CONFIG_HOME": "/proc/no"},
    "an empty home": {"HOME": "home", "MPLCONFIGDIR": None, "XDG_CACHE_HOME": None, "XDG_CONFIG_HOME": None},
    "an unusable TMPDIR": {"HOME": "home", "TMPDIR": "/proc/no"},
}


BENCH = f"bench --engine {TINY} --runs 1 {OUT}"
NEEDS_NOTHING = [*((home, BENCH) for home in HOMES), ("no home, no such user", DEMO), ("an empty home", DEMO)]


@pytest.mark.parametrize(("home", "line"), NEEDS_NOTHING)
def test_no_command_needs_a_home_or_leaves_something_there(home: str, line: str, tmp_path: Path) -> None:
    """Nor among temporary files; plots are drawn all the same, by matplotlib, which wants a cache."""
    for folder in ("home", "temporary", "out"):
        (tmp_path / folder).mkdir()
    variables = {"TMPDIR": str(tmp_path / "temporary"), **HOMES[home]}
    if variables.get("HOME") == "home":
        variables["HOME"] = str(tmp_path / "home")
    done = run_as_nobody(line, tmp_path, variables)
    assert done.returncode in (0, 1), done.stderr  # 1: the default gates of bench
    assert list((tmp_path / "out").glob("*.png"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["home", "out", "temporary"]
    assert not list((tmp_path / "home").iterdir())
    assert not list((tmp_path / "temporary").iterdir())


def test_weights_are_not_downloaded_to_a_folder_named_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a home, torch.hub takes ~ for a name."""
    for name in ("HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", fail_with(KeyError("uid not found")))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MachineError, match="Set TORCH_HOME"):
        pretrained.build_trunk(BACKBONES["resnet18"], "resnet18", weights="imagenet")
    assert not list(tmp_path.iterdir())


def test_no_place_for_temporary_files_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none of the folders that Python tries can be written."""

    def fail() -> None:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr("tempfile.gettempdir", fail)
    monkeypatch.setattr("tempfile._sanitize_params", lambda *_: fail())
    with pytest.raises(MachineError, match="set TMPDIR"), temporary_folder():
        pass


LIMITS = {
    "numpy": (MemoryError("Unable to allocate 1.2 GiB for an array"), "not enough memory"),
    "torch": (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), "memory"),
    "CUDA": (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), "not enough memory"),
    "ONNX Runtime": (Exception("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bad allocation"), "not enough memory"),
    "C++": (Exception("std::bad_alloc"), "not enough memory"),
    "OpenCV": (Exception("OpenCV(4.12) (-4:Insufficient memory) Failed to allocate 4 bytes"), "not enough memory"),
    "fork": (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "close other programs"),
    "threads": (RuntimeError("can't start new thread"), "--workers 0"),
    "a worker": (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "--workers 0"),
    "files": (OSError(errno.EMFILE, "Too many open files", "a.png"), r"a\.png: Too many open files; .* ulimit -n"),
    "disk": (OSError(errno.ENOSPC, "No space left on device", "study"), r"study: No space left on device; free space"),
    "a disk": (OSError(errno.EIO, "Input/output error", "a"), "whether the disk or share still works"),
    "read-only": (OSError(errno.EROFS, "Read-only file system", "a"), "may read and write"),
    "permission": (PermissionError(errno.EACCES, "Permission denied", "a"), "may read and write"),
    "Rust": (Exception("I/O error: No space left on device (os error 28)"), "No space left on device"),
}


@pytest.mark.parametrize("name", LIMITS)
def test_an_error_of_a_library_at_a_limit_is_explained(name: str) -> None:
    """Whatever its class, and where it was raised from; in one line with what to do."""
    error, words = LIMITS[name]
    wrapped = RuntimeError("something else")
    wrapped.__cause__ = error
    for one in (error, wrapped):
        explained = explain_limit(one)
        assert explained is not None
        assert re.search(words, str(explained))


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), KeyError("memory"), FileNotFoundError(2, "No such file"), ValueError()]
)
def test_a_bug_is_not_called_a_limit(error: Exception) -> None:
    """It keeps its traceback."""
    assert explain_limit(error) is None


def test_too_little_room_for_temporary_files_is_found_before_they_are_written() -> None:
    """ONNX Runtime would write half a model and say nothing; what is needed and what there is are told."""
    with (
        pytest.raises(
            MachineError, match=r"need 1,000,000,000,000.0 MB, .* has .* MB: free space there, or set TMPDIR"
        ),
        temporary_folder(room=10**18),
    ):
        pass


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("1000 requested and 0 written")]
)
def test_a_full_disk_of_temporary_files_names_the_variable(error: Exception) -> None:
    """And nothing else is called so."""
    with (
        pytest.raises(MachineError, match=r"cannot write .*set TMPDIR to a folder on another disk"),
        temporary_folder(),
    ):
        raise error
    with pytest.raises(ZeroDivisionError), temporary_folder():
        raise ZeroDivisionError


def test_a_failed_gate_on_a_full_disk_stays_a_failed_gate() -> None:
    """What edgeemo has decided is not looked behind."""
    with pytest.raises(GateError), temporary_folder():
        raise GateError("too slow")


def fail_with(error: Exception) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_no_memory_is_not_called_a_damaged_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Which a data set would go on without."""
    Image.new("L", (48, 48)).save(tmp_path / "face.png")
    monkeypatch.setattr(Image.Image, "load", fail_with(MemoryError()))
    with pytest.raises(MachineError, match="not enough memory"):
        images.read(tmp_path / "face.png")


def test_no_memory_is_not_called_a_damaged_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would be copied or built again."""
    monkeypatch.setattr(onnxruntime, "InferenceSession", fail_with(Exception("std::bad_alloc")))
    with pytest.raises(MachineError, match="not enough memory"):
        OnnxBackend(TINY, threads=1)


def test_no_memory_is_not_called_a_damaged_checkpoint(
    monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path
) -> None:
    """Whose advice is to delete it."""
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()  # with it, the run is finished and no checkpoint is read
    monkeypatch.setattr(checkpoint, "load_file", fail_with(RuntimeError("DefaultCPUAllocator: can't allocate memory")))
    config = replace(stages.RECIPES["demo"], data="synthetic:120", epochs=1, threads=1, precision="fp32", resume=True)
    with pytest.raises(MachineError, match="not enough memory"):
        stages.run(replace(config, out=tmp_path / "run"))
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_no_memory_is_not_called_foreign_weights(monkeypatch: pytest.MonkeyPatch, run: Path) -> None:
    """Nor a file that is no state dict."""
    monkeypatch.setattr(pretrained, "load_file", fail_with(RuntimeError("can't allocate memory")))
    with pytest.raises(MachineError, match="not enough memory"):
        pretrained._read_state_dict(run / "model.safetensors")


SHORT = {
    "files": OSError(errno.EMFILE, "Too many open files"),
    "memory": OSError(errno.ENOMEM, "Cannot allocate memory"),
}


@pytest.mark.parametrize("what", SHORT)
@pytest.mark.parametrize("kind", ["card", "model", "result"])
def test_a_shortage_is_not_called_a_damaged_file(kind: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which would be copied, or made again, for nothing."""
    readers = {"card": lambda: read_card(TINY), "model": lambda: check_file(TINY), "result": lambda: files.read(RESULT)}
    for name in ("open", "read_text", "read_bytes", "stat"):
        monkeypatch.setattr(Path, name, fail_with(SHORT[what]))
    monkeypatch.setattr(Path, "is_file", lambda _: True)
    with pytest.raises(MachineError, match=r"Too many open files|not enough memory"):
        readers[kind]()
