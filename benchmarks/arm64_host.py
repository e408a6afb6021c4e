"""Run edgeemo in Python and in C++ on emulated ARM64 cores, and compare the answers with those of hosts/fixtures.

benchmarks/arm64_root.sh ROOT
python benchmarks/arm64_host.py ROOT

Correctness, not speed: every packaged model and the detector, on Cortex-A53, A72 and A76, in ONNX Runtime's wheel for
ARM64. Wants qemu-user and g++-aarch64-linux-gnu; writes benchmarks/results/hosts/arm64.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cpp_build import FIXTURES, ROOT, build, compare, expect, find_tool, list_fixtures

from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.runtime import shipped

RESULT = Path(__file__).parent / "results" / "hosts" / "arm64.json"
CORES = ("cortex-a53", "cortex-a72", "cortex-a76")
KINDS = {"pictures": [], "ready": ["--crop"]}
PACKAGES = Path("usr") / "lib" / "python3" / "dist-packages"
CROSS = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
    "-DCMAKE_LIBRARY_ARCHITECTURE=aarch64-linux-gnu",
    "-DJSON_INCLUDE=/usr/include",
    "-DEDGEEMO_TESTS=ON",
)
Lines = list[dict[str, Any]]


def main() -> None:
    """Build the host, run both on every core, and write how far the answers are from the expected ones."""
    root = Path(sys.argv[1]).resolve()
    header = make_header()
    with tempfile.TemporaryDirectory() as temporary:
        folder = build(Path(temporary), *make_options(root))
        rows = [row for core in CORES for row in run_core(root, core, folder)]
    settings = {"tolerances": json.loads((FIXTURES / "expected.json").read_text(encoding="utf-8"))["tolerances"]}
    versions = sorted(path.name for path in (root / PACKAGES).glob("*.dist-info"))
    emulator = subprocess.run([find_tool("qemu-aarch64"), "--version"], capture_output=True, text=True, check=True)
    facts = {"wheels": versions, "emulator": emulator.stdout.splitlines()[0]}
    result = Measurement(header=header, script="arm64_host", settings=settings, rows=rows, facts=facts)
    files.write(result, RESULT)
    for row in rows:
        print(json.dumps(row))


def make_options(root: Path) -> list[str]:
    """Return the options of CMake that build for ARM64, with the libraries of `root`."""
    headers = root / "usr" / "include" / "aarch64-linux-gnu"
    return [*CROSS, f"-DCMAKE_PREFIX_PATH={root / 'usr'}", f"-DCMAKE_CXX_FLAGS=-isystem {headers}"]


def run_core(root: Path, core: str, folder: Path) -> list[dict[str, Any]]:
    """Return a row per host and model."""
    rows = []
    for name in shipped.NAMES:
        for host, command in (
            ("python", command_python(root, core, name)),
            ("cpp", command_cpp(root, core, folder, name)),
        ):
            row: dict[str, Any] = {"core": core, "host": host, "model": name}
            for kind, options in KINDS.items():
                lines = run([*command, *options, *list_fixtures(kind)])
                row[kind] = vars(compare(expect(name, lines, kind), lines))
            rows.append(row)
            print(json.dumps(row), file=sys.stderr)
    vectors = [*emulate(root, core), folder / "crop_vectors", ROOT / "docs" / "crop-vectors.json"]
    found = subprocess.run(vectors, capture_output=True, text=True, check=True).stdout.splitlines()
    rows.append(
        {"core": core, "host": "cpp", "crop_vectors": len(found), "crop_levels": max(int(one[0]) for one in found)}
    )
    return rows


def command_python(root: Path, core: str, model: str) -> list[str | Path]:
    """Return the command of the packaged command line."""
    return [root / core / "python", "-m", "edgeemo", "predict", "--json", "--quiet", "--model", model]


def command_cpp(root: Path, core: str, folder: Path, model: str) -> list[str | Path]:
    """Return the command of the C++ host, with the wheel's library."""
    library = root / PACKAGES / "onnxruntime"
    program = folder / "edgeemo-predict"
    return [*emulate(root, core), program, "--onnxruntime", library, "--model", shipped.find(model)]


def emulate(root: Path, core: str) -> list[str | Path]:
    """Return the start of a command on an emulated core."""
    return [find_tool("qemu-aarch64"), "-cpu", core, "-L", root / core]


def run(command: Sequence[str | Path]) -> Lines:
    """Run a command in the checkout; return its lines of JSON."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return [json.loads(line) for line in done.stdout.splitlines()]


if __name__ == "__main__":
    main()
