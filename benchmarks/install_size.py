"""Size of the base install in an empty environment, package by package, and how fast it starts; now, and before.

python benchmarks/install_size.py [--before REF] [OUT.json]   (default: benchmarks/results/install.json)

Builds the sdist and from it the wheel, and installs the wheel with pip, which needs a package index. Sizes are bytes of
files in site-packages, the byte code that pip compiles included. REF: a commit whose wheel is built, installed and
measured in the same way; the processes of both take turns, STARTS of each, and medians are reported.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgeemo.report import files
from edgeemo.report.facts import make_header
from edgeemo.report.result import Measurement
from edgeemo.report.table import Table

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "install.json"
USE = """
import json, site, sys
import numpy
import edgeemo
from edgeemo.cli import main
with edgeemo.load("nano") as model:
    model.predict(numpy.zeros((48, 48, 3), numpy.uint8))
code = main(["doctor", "--check", "nano"], standalone_mode=False)
files = [module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]
print(json.dumps({"exit_code": code or 0, "files": files, "site": site.getsitepackages()[0]}))
"""

STARTS = 21  # processes of each kind
# The clock of perf_counter is the system's, so that the first span begins before the process does.
COLD = """
import json, sys
from time import perf_counter_ns
spans, before = {}, int(sys.argv[1])

def mark(name):
    global before
    now = perf_counter_ns()
    spans[name] = (now - before) / 1e6
    before = now

mark("start Python")
import edgeemo
mark("import edgeemo")
"""
PREDICT = """
import numpy
model = edgeemo.load("nano")
mark("load nano")
model.predict(numpy.full((48, 48), 128, numpy.uint8))
mark("first prediction of a crop")
"""
DETECT = """
import numpy
from edgeemo.faces import load_detector
detector = load_detector()
mark("load the detector")
detector.detect(numpy.full((480, 640, 3), 128, numpy.uint8))
mark("first detection in 640x480")
"""
END = """
from time import process_time_ns
processor_ms = process_time_ns() / 1e6
from edgeemo.measure.cold_start import read_peak_memory
print(json.dumps({"ms": spans, "processor_ms": processor_ms, "memory_bytes": read_peak_memory()}))
"""
STEPS = ("start Python", "import edgeemo", "load the detector", "first detection in 640x480", "load nano")
STEPS += ("first prediction of a crop",)
WORK = {"a crop": COLD + PREDICT + END, "a picture": COLD + DETECT + PREDICT + END}


def main() -> None:
    """Build, install, measure, and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--before", metavar="REF")
    parser.add_argument("out", type=Path, nargs="?", default=OUT)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheels = {"now": build(folder / "now")[1]}
        if given.before:
            wheels["before"] = build(folder / "before", check_out(given.before, folder / "source"))[1]
        pythons = {name: empty_environment(folder / f"env-{name}") for name in wheels}
        for name, wheel in wheels.items():
            install(pythons[name], wheel)
        sizes = {name: packages(used(python)) for name, python in pythons.items()}
        facts = {
            "command": f"pip install {wheels['now'].name}",
            "date": datetime.now(timezone.utc).date().isoformat(),
            "pip": metadata.version("pip"),
            "starts": start_all(pythons),
            **describe(wheels["now"], sizes["now"]),
        }
        if given.before:
            facts["before"] = {"commit": name_commit(given.before), **describe(wheels["before"], sizes["before"])}
    header = make_header(timed=True)
    result = Measurement(header=header, script="install_size", rows=sizes["now"], facts=facts)
    files.write(result, given.out)
    print(table(result).to_markdown(), make_start_table(result).to_markdown(), sep="\n\n")


def describe(wheel: Path, rows: list[dict[str, Any]]) -> dict[str, int]:
    """Bytes of the wheel, of all packages, and of edgeemo among them."""
    (own,) = (row["bytes"] for row in rows if row["name"] == "edgeemo")
    return {"wheel_bytes": wheel.stat().st_size, "bytes": sum(row["bytes"] for row in rows), "edgeemo_bytes": own}


def start_all(pythons: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Medians of STARTS processes by work, then by environment; those without a detector find no faces."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number in range(STARTS + 1):
        turns = sorted(pythons.items(), reverse=number % 2 == 0)
        for work, code in WORK.items():
            for name, python in turns:
                if "load_detector" in code and not has_detector(python):
                    continue
                one = json.loads(outside([str(python), "-c", code, str(perf_counter_ns())], python.parent))
                if number:  # the first reads the files from the disk
                    found.setdefault((work, name), []).append(one)
    medians: dict[str, dict[str, Any]] = {}
    for (work, name), runs in found.items():
        spans = {span: round(statistics.median(run["ms"][span] for run in runs), 1) for span in runs[0]["ms"]}
        total = round(statistics.median(sum(run["ms"].values()) for run in runs), 1)
        medians.setdefault(work, {})[name] = {
            "ms": spans,
            "total_ms": total,
            "processor_ms": round(statistics.median(run["processor_ms"] for run in runs), 1),
            "memory_bytes": statistics.median_low([run["memory_bytes"] for run in runs]),
        }
    return medians


def has_detector(python: Path) -> bool:
    """Whether the edgeemo of an environment finds faces."""
    return bool(list(python.parents[1].glob("lib/python*/site-packages/edgeemo/faces")))


def check_out(ref: str, folder: Path) -> Path:
    """The files of a commit."""
    command = ["git", "-C", str(ROOT), "archive", ref]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        members.extractall(folder, filter="data")
    return folder


def name_commit(ref: str) -> str:
    """The short hash of a commit."""
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=7", ref]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def build(folder: Path, source: Path = ROOT) -> tuple[Path, Path]:
    """The sdist of a checkout, by default this one, and the wheel that is built from the sdist."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def empty_environment(folder: Path) -> Path:
    """The interpreter of a new virtual environment that holds nothing, not even pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin" / "python"


def install(python: Path, *what: Path | str) -> None:
    """Install into the environment of `python` with the pip of this one."""
    outside(
        [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install", *map(str, what)], python.parent
    )


def used(python: Path) -> dict[str, Any]:
    """Where site-packages is, which files a prediction and `doctor --check` import, and the exit code of the latter."""
    found: dict[str, Any] = json.loads(outside([str(python), "-c", USE], python.parent).splitlines()[-1])
    return found


def outside(command: list[str], folder: Path) -> str:
    """What a command prints that runs in `folder`, unaware of this checkout and its packages."""
    run = subprocess.run(command, check=True, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True)
    return run.stdout


def environment() -> dict[str, str]:
    """The environment variables without those that lead Python to packages elsewhere, such as PYTHONPATH."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def packages(use: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per installed package, the largest first."""
    site = Path(use["site"]).resolve()
    imported = {Path(name).resolve() for name in use["files"]}
    installed = list(metadata.distributions(path=[str(site)]))
    parents = required_by(installed)
    rows = []
    for package in installed:
        files = {Path(str(package.locate_file(name))).resolve() for name in package.files or ()}
        name = canonicalize_name(package.name)
        rows.append(
            {
                "name": name,
                "version": package.version,
                "bytes": sum(file.stat().st_size for file in files if file.is_relative_to(site) and file.is_file()),
                "imported": not files.isdisjoint(imported),
                "required_by": sorted(parents.get(name, ())),
            }
        )
    return sorted(rows, key=lambda row: (-row["bytes"], row["name"]))


def required_by(installed: list[metadata.Distribution]) -> dict[str, set[str]]:
    """Which of the installed packages require a package, extras aside."""
    found: dict[str, set[str]] = {}
    for package in installed:
        for requirement in map(Requirement, package.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                found.setdefault(canonicalize_name(requirement.name), set()).add(canonicalize_name(package.name))
    return found


def table(result: Measurement) -> Table:
    """A row per package."""
    head = ("package", "version", "MB", "required by", "imported")
    rows = [
        (
            row["name"],
            row["version"],
            f"{row['bytes'] / 1e6:.1f}",
            ", ".join(row["required_by"]),
            "yes" if row["imported"] else "no",
        )
        for row in result.rows
    ]
    rest = sum(row["bytes"] for row in result.rows if not row["imported"])
    machine, facts = result.header.machine, result.facts
    where = f"{machine.system}, Python {machine.python}" if machine else "an unrecorded machine"
    note = (
        f"{facts['command']} on {facts['date']}, {where}: {facts['bytes'] / 1e6:.0f} MB in all, of which "
        f"{rest / 1e6:.0f} MB are in packages that neither a prediction nor doctor --check imports. "
        f"The wheel of edgeemo is {facts['wheel_bytes'] / 1e6:.1f} MB."
    )
    return Table("install", head, rows, note)


def make_start_table(result: Measurement) -> Table:
    """Sizes, then milliseconds by step and peak memory of a process that predicts a crop, or finds faces first."""
    facts, before = result.facts, result.facts.get("before")
    sizes = {"wheel": "wheel_bytes", "edgeemo, installed": "edgeemo_bytes", "base install": "bytes"}
    rows = [
        (name, f"{before[key] / 1e6:.1f} MB" if before else "", f"{facts[key] / 1e6:.1f} MB")
        for name, key in sizes.items()
    ]
    for work, found in facts["starts"].items():
        steps = [*(step for step in STEPS if step in found["now"]["ms"]), *TOTALS]
        rows += [(f"{work}: {step}", *(_show(found.get(name), step) for name in ("before", "now"))) for step in steps]
    head = ("", f"before ({before['commit']})" if before else "before", "now")
    note = (
        f"Medians of {STARTS} processes of each, in turn, on {facts['date']}. A crop: 48x48 px. A picture: faces are "
        "searched in 640x480 px, where there are none, before the crop is predicted. What is loaded first also imports "
        "NumPy and ONNX Runtime."
    )
    return Table("starts", head, rows, note)


TOTALS = {"in all": "total_ms", "processor time in all": "processor_ms", "peak memory": "memory_bytes"}


def _show(found: dict[str, Any] | None, step: str) -> str:
    if found is None:
        return "-"
    if step == "peak memory":
        return f"{found[TOTALS[step]] / 1e6:.0f} MB"
    return f"{found[TOTALS[step]] if step in TOTALS else found['ms'][step]:.0f} ms"


if __name__ == "__main__":
    main()
