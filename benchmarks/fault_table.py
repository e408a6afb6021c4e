"""Write docs/faults.md, what can go wrong and the tests that hold it, from tests/faults.toml: `make faults`.

A test is named as `FOLDER/FILE.py::NAME` below tests/; every name is looked up, so that the table never names a test
that is gone.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
TESTS, SOURCE, PAGE = ROOT / "tests", ROOT / "tests" / "faults.toml", ROOT / "docs" / "faults.md"
HEAD = """\
<!-- Written by benchmarks/fault_table.py from tests/faults.toml: `make faults`. -->
# Faults and tests

What can go wrong with images, data sets, labels, models and machines, what edgeemo does then,
and the tests that hold it.
"""


@dataclass(frozen=True)
class Fault:
    """A fault, what edgeemo does, and its tests."""

    kind: str
    fault: str
    behaviour: str
    tests: tuple[str, ...]


def read_faults() -> list[Fault]:
    """Read tests/faults.toml, in its order."""
    rows = tomllib.loads(SOURCE.read_text(encoding="utf-8"))["fault"]
    return [Fault(row["kind"], row["fault"], row["behaviour"], tuple(row["tests"])) for row in rows]


def find_missing(faults: list[Fault]) -> list[str]:
    """Return the tests that do not exist."""
    return [name for fault in faults for name in fault.tests if name.partition("::")[2] not in _list_tests(name)]


def render(faults: list[Fault]) -> str:
    """Return the page: a table for each kind of fault."""
    parts = [HEAD]
    for kind in dict.fromkeys(fault.kind for fault in faults):
        parts.append(f"## {kind}\n\n| fault | what edgeemo does | tests |\n|---|---|---|")
        parts += [
            f"| {one.fault} | {one.behaviour} | {'<br>'.join(map(_link, one.tests))} |"
            for one in faults
            if one.kind == kind
        ]
        parts.append("")
    return "\n".join(parts)


def _link(name: str) -> str:
    file, _, test = name.partition("::")
    return f"[{test.removeprefix('test_').replace('_', ' ')}](../tests/{file})"


@cache
def _read_names(file: Path) -> frozenset[str]:
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _list_tests(name: str) -> frozenset[str]:
    return _read_names(TESTS / name.partition("::")[0])


def main() -> None:
    """Write the page; exit with the tests that do not exist."""
    faults = read_faults()
    if missing := find_missing(faults):
        sys.exit("tests/faults.toml names tests that do not exist:\n  " + "\n  ".join(missing))
    PAGE.write_text(render(faults), encoding="utf-8")
    print(
        f"{PAGE.relative_to(ROOT)}: {len(faults)} faults, {len({name for one in faults for name in one.tests})} tests"
    )


if __name__ == "__main__":
    main()
