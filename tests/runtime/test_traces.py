"""Nothing that edgeemo depends on leaves a file in the user's home or asks the network for anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from edgeemo.sessions import DISABLE_TELEMETRY, import_onnxruntime

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "edgeemo"
# So may compress, whose __init__ imports ONNX Runtime through ort.py.
MAY_IMPORT = {"sessions.py", "runtime/backends/openvino.py"}
IMPORTS = r"^\s*(?:import|from) (?:onnxruntime|openvino)\b|import_module\(.(?:onnxruntime|openvino)"
SECONDS = 12  # of predictions; 9 s after it was imported, ONNX Runtime 1.31 asks for its collector
PREDICT = "import edgeemo, numpy; edgeemo.load('nano', backend={!r}).predict(numpy.zeros((48, 48), numpy.uint8))"
CLI = "import edgeemo.measure.latency as m; m.MIN_SECONDS = 0.02; from edgeemo.cli import main; main({!r})"
BENCH = ["bench", "--engine", "nano", "--runs", "20", "--backend"]
PROGRAMS = {
    "import": "import edgeemo; edgeemo.load",
    "load and predict, onnxruntime": PREDICT.format("onnxruntime"),
    "load and predict, openvino": PREDICT.format("openvino"),
    "edgeemo predict": CLI.format(["predict", "../face.png"]),
    "edgeemo bench, onnxruntime": CLI.format([*BENCH, "onnxruntime"]),
    "edgeemo bench, openvino": CLI.format([*BENCH, "openvino"]),
    "edgeemo bench with plots": CLI.format([*BENCH, "onnxruntime", "--out", "../bench.json"]),
    "edgeemo doctor --check": CLI.format(["doctor", "--check"]),
    "edgeemo parity": CLI.format(["parity", "nano", "--data", "synthetic:80", "--count", "16"]),
    "edgeemo doctor": CLI.format(["doctor"]),
    "edgeemo compress": "import edgeemo.compress.quantize.precision",
}
KEEP_PREDICTING = """
import sys, time
import edgeemo, numpy
models = [edgeemo.load("nano", backend=name) for name in sys.argv[2:]]
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for model in models:
        model.predict(numpy.zeros((48, 48), numpy.uint8))
    time.sleep(0.1)
"""
# The host's environment and modules around loading a model.
COMPARE_HOST = """
import os, sys
import edgeemo
before = dict(os.environ)
edgeemo.load("nano", backend=sys.argv[1])
assert dict(os.environ) == before
assert "openvino_telemetry" not in sys.modules
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home, and an image next to it."""
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(tmp_path / "face.png")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def run(command: list[str], home: Path) -> None:
    """Run it there, in an environment of its own: CI=true alone would switch telemetry off."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def require_openvino() -> None:
    if find_spec("openvino") is None:
        pytest.skip("OpenVINO is not installed: pip install 'edgeemo[openvino]'")


def strace() -> str:
    """The path of strace, or a skip with its reason."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed: apt-get install strace")
    if subprocess.run([found, "-o", os.devnull, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace is not allowed to trace here")
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_home_stays_empty(name: str, home: Path) -> None:
    """No file and no folder is left in the home or in the working directory, whatever is run and in which backend."""
    if "openvino" in name:
        require_openvino()
    run([sys.executable, "-c", PROGRAMS[name]], home)
    assert list(home.rglob("*")) == []


def test_predictions_open_no_internet_socket(home: Path) -> None:
    """A process that predicts for some seconds in every backend that is here creates no AF_INET or AF_INET6 socket."""
    names = ["onnxruntime", *(["openvino"] if find_spec("openvino") else [])]
    trace = home.parent / "trace"
    command = [strace(), "-f", "-e", "trace=socket", "-o", str(trace)]
    run([*command, sys.executable, "-c", KEEP_PREDICTING, str(SECONDS), *names], home)
    calls = trace.read_text(encoding="utf-8")
    assert "exited with 0" in calls  # it was traced
    assert re.findall(r"socket\(AF_INET6?,.*", calls) == []
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_switch_is_not_left_on_the_host(backend: str, home: Path) -> None:
    """Neither the environment, which child processes inherit, nor sys.modules keeps what the import needed."""
    if backend == "openvino":
        require_openvino()
    run([sys.executable, "-c", COMPARE_HOST, backend], home)


@pytest.mark.parametrize(("value", "calls"), [(None, 1), ("0", 0), ("1", 0)])
def test_telemetry_is_disabled_unless_the_user_set_the_variable(
    monkeypatch: pytest.MonkeyPatch, value: str | None, calls: int
) -> None:
    """An ONNX Runtime that the host imported first stops its telemetry; a variable that the user set is respected."""
    monkeypatch.delenv(DISABLE_TELEMETRY, raising=False)
    if value is not None:
        monkeypatch.setenv(DISABLE_TELEMETRY, value)
    calls_made: list[bool] = []
    monkeypatch.setattr(onnxruntime, "disable_telemetry_events", lambda: calls_made.append(True))
    assert import_onnxruntime() is onnxruntime
    assert len(calls_made) == calls
    assert os.environ.get(DISABLE_TELEMETRY) == value


def test_the_runtime_alone_imports_the_engines() -> None:
    """An import of ONNX Runtime or OpenVINO elsewhere would leave their telemetry on."""
    pattern = re.compile(IMPORTS, re.MULTILINE)
    files = {file.relative_to(PACKAGE).as_posix(): file for file in PACKAGE.rglob("*.py")}
    found = {name for name, file in files.items() if pattern.search(file.read_text(encoding="utf-8"))}
    assert {name for name in found if not name.startswith("compress/")} == MAY_IMPORT
    assert "import_onnxruntime()" in files["compress/__init__.py"].read_text(encoding="utf-8")
