"""Write the tables of README.md and of the pages in docs/ again from benchmarks/results/: `make readme`.

The pages beside the results are written again, too; their pictures stay.

A table stands between `<!-- table: WHAT FILE... -->` and `<!-- end -->`. WHAT is `summary` (a row a result), `parity`,
`processors` (of parity too), `steps` (of a compression), `runs` (of `edgeemo evaluate`), `ensembles` (of several such),
`peers` and `forms` (of peers.py), `install` (of install_size.py), or the first word of a table in bench's report of one
result: accuracy, recall, robustness, against, latency, footprint, gates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import install_size
import peers

from edgeemo.report import render
from edgeemo.report.files import read, read_as
from edgeemo.report.result import BenchResult, EvaluationResult, Measurement
from edgeemo.report.sections import bench, comparison, evaluation, parity
from edgeemo.report.table import Table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("install", "models", "processors")))
BLOCK = re.compile(r"(<!-- table: (?P<what>\w+) (?P<files>[^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)
OTHERS = {  # of one result, by WHAT
    "processors": parity.make_processor_table,
    "parity": parity.make_table,
    "steps": comparison.make_step_table,
    "runs": evaluation.make_run_table,
    "peers": peers.shipped_alone,
    "forms": peers.table,
    "install": install_size.table,
}


def rendered(text: str) -> str:
    """The text with every table written anew."""
    return BLOCK.sub(lambda block: block[1] + _table(block["what"], block["files"].split()) + "\n" + block[4], text)


def _table(what: str, files: list[str]) -> str:
    paths = [RESULTS / name for name in files]
    if what == "summary":
        return bench.make_summary([read_as(BenchResult, path) for path in paths]).to_markdown()
    if what == "ensembles":
        return evaluation.make_ensemble_table([read_as(EvaluationResult, path) for path in paths]).to_markdown()
    (path,) = paths
    if what in OTHERS:
        return OTHERS[what](read(path)).to_markdown()
    return _named(bench.make_tables(read_as(BenchResult, path)), what).to_markdown()


def result_pages() -> Iterator[tuple[Path, str]]:
    """The path of every page that lies beside a result, and its text as the code renders it now."""
    for page in sorted(RESULTS.rglob("*.md")):
        yield page, _page(page.with_suffix(".json"))


def _page(path: Path) -> str:
    result = read(path)
    if isinstance(result, Measurement):
        return str(import_module(result.script).page(result))
    names = (f"{path.stem}-{kind}.png" for kind in ("confusion", "recall", "latency"))
    return render.make_page(result).to_markdown([name for name in names if path.with_name(name).is_file()])


def _named(tables: list[Table], what: str) -> Table:
    return next(table for table in tables if table.title.lower().startswith(what))


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
    for page, text in result_pages():
        page.write_text(text, encoding="utf-8")
