"""What the project promises as a whole."""

import ast
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeemo.data.drawing import draw_face

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgeemo"
HEAVY = ("torch", "torchvision", "albumentations", "onnx", "torch_pruning", "matplotlib", "cv2", "safetensors", "scipy")
STAGES = (
    *(
        "train",
        "evaluate",
        "explain",
        "compress",
        "search",
        "build",
        "bench",
        "parity",
        "doctor",
        "report",
        "predict",
        "label",
    ),
)
COMMANDS = ([], ["data"], ["data", "audit"], ["data", "crop"], *([stage] for stage in STAGES))
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


def run_blocked(code, blocked):
    """Run Python code in a fresh process in which the blocked packages do not exist."""
    program = BLOCKER.format(blocked=set(blocked)) + code
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)


def functions():
    """Where every function begins, its name, and how many lines it has."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{file.relative_to(ROOT)}:{node.lineno} {node.name}", node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words) or "edgeemo")
def test_help_needs_none_of_the_heavy_packages(command):
    """Every --help works on a machine with the base install, and even without ONNX Runtime."""
    code = f"from edgeemo.cli import main; main({[*command, '--help']!r})"
    done = run_blocked(code, (*HEAVY, "onnxruntime", "tensorrt"))
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_import_needs_none_of_the_heavy_packages():
    """`import edgeemo` and the runtime package load with torch and every engine absent."""
    done = run_blocked("import edgeemo, edgeemo.runtime; edgeemo.load", (*HEAVY, "onnxruntime", "tensorrt"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [([], r"\S+/face\.png: \w+ [\d.]+ % \("), (["--json", "--model", "nano", "--label-set", "six"], r'"label": "\w+"')],
    ids=["as a sentence", "as JSON"],
)
def test_a_face_is_told_without_the_heavy_packages(options, says, face, tmp_path):
    """`edgeemo predict` on a device: one line per image."""
    Image.fromarray(face).save(tmp_path / "face.png")
    command = ["predict", "--crop", str(tmp_path / "face.png"), *options]
    done = run_blocked(f"from edgeemo.cli import main; main({command!r})", HEAVY)
    assert done.returncode == 0, done.stderr
    assert re.search(says, done.stdout), done.stdout
    if options:
        assert len(json.loads(done.stdout)["faces"][0]["probabilities"]) == 6


def test_photos_are_cropped_without_the_heavy_packages(tmp_path):
    """A machine that collects photos needs no torch."""
    photo = np.full((240, 320), 110, np.uint8)
    photo[56:184, 90:218] = draw_face("neutral", seed=18, size=128)
    (tmp_path / "photos" / "happy").mkdir(parents=True)
    Image.fromarray(photo).save(tmp_path / "photos" / "happy" / "one.png")
    command = ["data", "crop", f"folder:{tmp_path / 'photos'}", "--out", str(tmp_path / "crops")]
    done = run_blocked(f"from edgeemo.cli import main; main({command!r})", (*HEAVY, "filelock", "imagehash"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "crops" / "train" / "happy" / "one.png").is_file()


@pytest.mark.parametrize("command", [["train"], ["compress", "run"]], ids=lambda words: words[0])
def test_missing_packages_are_named_with_the_extra_that_brings_them(command):
    """The training commands on a device: one line, exit 5, no traceback."""
    done = run_blocked(f"from edgeemo.cli import main; main({command!r})", HEAVY)
    assert done.returncode == 5
    assert "pip install 'edgeemo[train]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_call_of_tensorrt_is_a_type_error(tmp_path):
    """`make types` reads the signatures off NVIDIA's module, and mypy holds our calls against them."""
    pytest.importorskip("tensorrt_rtx", reason="pip install 'edgeemo[rtx]'; it is for x86-64 alone")
    if not (ROOT / ".venv" / "stubs").is_dir():
        pytest.skip("make types, which reads the signatures, has not run")
    planted = tmp_path / "planted.py"
    planted.write_text(
        "import tensorrt_rtx_bindings.tensorrt_rtx as trt\n\n\n"
        "def plant(profile: trt.IOptimizationProfile, network: trt.INetworkDefinition) -> None:\n"
        '    """Two mistakes."""\n'
        "    profile.set_shap('image')\n"
        "    network.get_input('first')\n"
    )
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), str(planted)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert '"IOptimizationProfile" has no attribute "set_shap"' in done.stdout
    assert 'Argument 1 to "get_input" of "INetworkDefinition" has incompatible type' in done.stdout


def test_functions_stay_small():
    """Half of all functions have at most 12 lines, nine of ten at most 40, none but the training loop over 60."""
    sizes = dict(functions())
    assert len(sizes) == len(list(functions()))
    ordered = sorted(sizes.values())
    assert statistics.median(ordered) <= 12
    assert ordered[int(0.9 * len(ordered))] <= 40
    assert {name: size for name, size in sizes.items() if size > 60} == {}


def test_package_does_not_assert():
    """Assertions vanish under -O: a user's mistake is an error, never an assert."""
    found = [
        f"{file.name}:{node.lineno}"
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_no_file_over_16_megabytes_is_tracked():
    """The repository stays light."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout, so what is tracked is not known")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    files = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    assert files
    assert [file for file in files if file.is_file() and file.stat().st_size > 16_000_000] == []
