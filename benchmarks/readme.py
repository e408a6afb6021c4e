"""Write the tables of README.md and of the pages in docs/ again from benchmarks/results/: `make readme`.

A table stands between `<!-- table: WHAT FILE... -->` and `<!-- end -->`. WHAT is `summary` (a row a result), `parity`,
`processors` (of parity too), `steps` (of a compression), `runs` (of `edgeemo evaluate`), `ensembles` (of several such),
`peers` and `forms` (of peers.py), `install` (of install_size.py), or the first word of a table in bench's report of one
result: accuracy, recall, robustness, against, latency, footprint, gates.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import install_size
import peers

from edgeemo.bench import parity
from edgeemo.bench.report import read, render_table
from edgeemo.bench.tables import Table, markdown, of_result
from edgeemo.compress import compare

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("install", "models", "processors")))
BLOCK = re.compile(r"(<!-- table: (?P<what>\w+) (?P<files>[^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(text: str) -> str:
    """The text with every table written anew."""
    return BLOCK.sub(lambda block: block[1] + _table(block["what"], block["files"].split()) + "\n" + block[4], text)


def _table(what: str, files: list[str]) -> str:
    if what == "ensembles":
        return markdown(ensembles([json.loads((RESULTS / name).read_text(encoding="utf-8")) for name in files]))
    if what in OTHERS:
        (name,) = files
        return markdown(OTHERS[what](json.loads((RESULTS / name).read_text(encoding="utf-8"))))
    results = [read(RESULTS / name) for name in files]
    if what == "summary":
        return render_table(results)
    (result,) = results
    return markdown(next(table for table in of_result(result) if table.title.lower().startswith(what)))


def runs(found: dict[str, Any]) -> Table:
    """A row per trained run and for their ensemble, of `edgeemo evaluate`."""
    faces = found["faces"]
    note = f"{faces['data']} {faces['split']}, {faces['protocol']}, {len(found['labels'])} labels, n = {faces['n']:,}."
    head = ("run", "accuracy (95 %)", "macro-F1", "lowest recall", "ECE", "against the first")
    return Table("runs", head, [_of_run(row) for row in found["rows"]], note)


def _of_run(row: dict[str, Any]) -> tuple[str, ...]:
    accuracy, low, high = (100 * row[name] for name in ("accuracy", "accuracy_low", "accuracy_high"))
    label, recall = min(((k, v) for k, v in row["recall"].items() if v is not None), key=lambda pair: pair[1])
    pair = row.get("against_first")
    change = f"{100 * pair['difference']:+.2f} points, p = {pair['p_value']:.2g}" if pair else ""
    shares = (f"{100 * row['macro_f1']:.2f} %", f"{label} {100 * recall:.1f} %", f"{100 * row['ece']:.2f} %")
    return (row["name"], f"{accuracy:.2f} % ({low:.2f} to {high:.2f})", *shares, change)


def ensembles(results: list[dict[str, Any]]) -> Table:
    """A row per ensemble of several results of `edgeemo evaluate`, with and without flips."""
    rows = []
    for found in results:
        faces = found["faces"]
        about = f"{len(found['labels'])} labels, {faces['protocol']}, n = {faces['n']:,}"
        rows += [(about, *_of_run(row)[:-1]) for row in found["rows"] if row["name"].startswith("ensemble")]
    head = ("faces", "ensemble", "accuracy (95 %)", "macro-F1", "lowest recall", "ECE")
    return Table("ensembles", head, rows)


def processors(found: dict[str, Any]) -> Table:
    """A row per file and processor of `edgeemo parity --processors`, each beside the file's first row."""
    head = ("file", "run in", "accuracy", "same labels", "largest difference of a logit")
    rows = [_on_processor(row) for row in found["rows"] if "not_run" not in row]
    about = found["faces"]
    note = f"{about['n']:,} faces of {about['data']} {about['split']}; compared with the first row of each file."
    return Table("processors", head, rows, note)


def _on_processor(row: dict[str, Any]) -> tuple[str, ...]:
    where = f"ONNX Runtime as {row['processor']}, {row['how']}" if "processor" in row else row["backend"]
    cells = (row["file"], where, f"{100 * row['accuracy']:.2f} %")
    if not (same := row["same_file"]):
        return (*cells, "", "")
    return (*cells, f"{100 * same['agreement']:.2f} %", f"{same['largest_logit_difference']:.4f}")


OTHERS = {  # not bench's
    "processors": processors,
    "parity": parity.table,
    "steps": compare.as_table,
    "runs": runs,
    "peers": peers.shipped_alone,
    "forms": peers.table,
    "install": install_size.table,
}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
