"""Size of the base install in an empty environment: megabytes per package, and which packages are imported.

python benchmarks/install_size.py [OUT.json]   (default: benchmarks/results/install.json)

Builds the sdist and from it the wheel, and installs the wheel with pip, which needs a package index. Sizes are bytes of
files in site-packages, the byte code that pip compiles included.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
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


def main() -> None:
    """Build, install, measure, and write the result."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _, wheel = build(folder / "dist")
        python = empty_environment(folder / "env")
        install(python, wheel)
        rows = packages(used(python))
        facts = {
            "command": f"pip install {wheel.name}",
            "date": datetime.now(timezone.utc).date().isoformat(),
            "pip": metadata.version("pip"),
            "wheel_bytes": wheel.stat().st_size,
            "bytes": sum(row["bytes"] for row in rows),
        }
    result = Measurement(header=make_header(), script="install_size", rows=rows, facts=facts)
    files.write(result, out)
    print(table(result).to_markdown())


def build(folder: Path) -> tuple[Path, Path]:
    """The sdist of this checkout, and the wheel that is built from the sdist."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (source,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return source, wheel


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


if __name__ == "__main__":
    main()
