"""Write README.md's tables anew from benchmarks/results/: `make readme`.

A table stands between `<!-- table: WHAT FILE... -->` and `<!-- end -->`. WHAT is `summary` (a row a result), `parity`,
`steps` (of a compression), or the first word of a table in bench's report of one result: accuracy, recall, robustness,
against, latency, footprint, gates.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgeemo.bench import parity
from edgeemo.bench.report import read, render_table
from edgeemo.bench.tables import markdown, of_result
from edgeemo.compress import compare

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
OTHERS = {"parity": parity.table, "steps": compare.as_table}  # of results that are not bench's
BLOCK = re.compile(r"(<!-- table: (?P<what>\w+) (?P<files>[^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rendered(text: str) -> str:
    """The text with every table written anew."""
    return BLOCK.sub(lambda block: block[1] + _table(block["what"], block["files"].split()) + "\n" + block[4], text)


def _table(what: str, files: list[str]) -> str:
    if what in OTHERS:
        (name,) = files
        return markdown(OTHERS[what](json.loads((RESULTS / name).read_text(encoding="utf-8"))))
    results = [read(RESULTS / name) for name in files]
    if what == "summary":
        return render_table(results)
    (result,) = results
    return markdown(next(table for table in of_result(result) if table.title.lower().startswith(what)))


if __name__ == "__main__":
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")
