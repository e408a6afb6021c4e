"""Write what is generated in README.md and docs/ again: `make readme`.

That is every table, from benchmarks/results/; docs/cli.md (cli_reference.py); and the plot of README.md (overview.py).

The pages next to the results are also written again; their plots are kept.

A table stands between `<!-- table: WHAT FILE... -->` and `<!-- end -->`. WHAT is `summary` (a row a result), `parity`,
`processors` (of parity too), `steps` (of a compression), `runs` (of `edgeemo evaluate`), `ensembles` (of several such),
`peers` and `forms` (of peers.py), `large` (of large_dataset.py), `models` (of peers.py, then of bench, a row a shipped
model), `install` and `starts` (of install_size.py), `speed` (of face_speed.py), `detectors` (of detector_cards.py),
`chain` (of face_chain.py), `thresholds` and `transfer` (of selective.py), `small`, `clipped`, `tilt` and `found` (of
face_quality.py), `uniform` and `mixes` (of priors.py), `shifts` and `unproven` (of adapt_shifts.py), `orders` (of
adapt_orders.py), `web` (of web_speed.py), `cpp` (of cpp_host.py), `cost` and `hosts` (of adapt_hosts.py), `watching`
(of watch_speed.py), `flicker`, `tracks`, `streams`, `troubles`, `delivery` and `soak` (of watch_tables.py),
`decoding` and, of watch_speed.py before it, `cores` (of scale.py), `posts` (of serve_load.py by scale.py),
`agreement` (of agreement.py: of each host's result), `serving` (of serve_load.py), `malformed` (of serve_fuzz.py), or
the first word of a table in bench's report of one result: accuracy, recall, selective, robustness, against, latency,
footprint, gates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import adapt_hosts
import adapt_orders
import adapt_shifts
import agreement
import cli_reference
import cpp_host
import detector_cards
import face_chain
import face_quality
import face_speed
import install_size
import large_dataset
import overview
import peers
import priors
import scale
import selective
import serve_fuzz
import serve_load
import watch_speed
import watch_tables
import web_speed

from edgeemo.report import plots, render
from edgeemo.report.amounts import format_amount
from edgeemo.report.files import read, read_as
from edgeemo.report.result import BenchResult, EvaluationResult, Measurement
from edgeemo.report.sections import bench, comparison, evaluation, parity
from edgeemo.report.table import Table

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BLOCK = re.compile(r"(<!-- table: (?P<what>\w+) (?P<files>[^>]+) -->\n).*?(<!-- end -->)", re.DOTALL)
PAGES = tuple(
    page
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    if BLOCK.search(page.read_text(encoding="utf-8"))
)
OTHERS = {  # of one result, by WHAT
    "processors": parity.make_processor_table,
    "parity": parity.make_table,
    "steps": comparison.make_step_table,
    "runs": evaluation.make_run_table,
    "speed": face_speed.table,
    "peers": peers.shipped_alone,
    "forms": peers.table,
    "install": install_size.table,
    "starts": install_size.make_start_table,
    "large": large_dataset.table,
    "detectors": detector_cards.table,
    "chain": face_chain.summarize,
    "decoding": scale.table,
    "posts": scale.posts_table,
    "small": face_quality.small_table,
    "clipped": face_quality.clipped_table,
    "tilt": face_quality.tilt_table,
    "found": face_quality.found_table,
    "thresholds": selective.table,
    "transfer": selective.transfer_table,
    "uniform": priors.uniform_table,
    "mixes": priors.mix_table,
    "shifts": adapt_shifts.table,
    "unproven": adapt_shifts.unproven_table,
    "cost": adapt_hosts.table,
    "hosts": adapt_hosts.hosts_table,
    "orders": adapt_orders.table,
    "flicker": watch_tables.flicker,
    "tracks": watch_tables.tracks,
    "streams": watch_tables.streams,
    "troubles": watch_tables.troubles,
    "delivery": watch_tables.delivery,
    "soak": watch_tables.soak,
    "watching": watch_speed.table,
    "web": web_speed.table,
    "cpp": cpp_host.table,
    "serving": serve_load.table,
    "malformed": serve_fuzz.table,
}


def rendered(text: str) -> str:
    """Return the text with every table written again."""
    return BLOCK.sub(lambda block: block[1] + _table(block["what"], block["files"].split()) + "\n" + block[4], text)


def _table(what: str, files: list[str]) -> str:
    paths = [RESULTS / name for name in files]
    if what in SEVERAL:
        return SEVERAL[what](paths).to_markdown()
    (path,) = paths
    if what in OTHERS:
        return OTHERS[what](read(path)).to_markdown()
    return _named(bench.make_tables(read_as(BenchResult, path)), what).to_markdown()


def _read_all(kind: type[Any], paths: list[Path]) -> list[Any]:
    return [read_as(kind, path) for path in paths]


SEVERAL: dict[str, Callable[[list[Path]], Table]] = {  # of several results, by WHAT
    "summary": lambda paths: bench.make_summary(_read_all(BenchResult, paths)),
    "ensembles": lambda paths: evaluation.make_ensemble_table(_read_all(EvaluationResult, paths)),
    "models": lambda paths: models(read_as(Measurement, paths[0]), _read_all(BenchResult, paths[1:])),
    "cores": lambda paths: scale.cores_table(*_read_all(Measurement, paths)),
    "agreement": lambda paths: agreement.table(_read_all(Measurement, paths)),
}


def models(timed: Measurement, found: list[BenchResult]) -> Table:
    """A row per shipped model: accuracy of its own result; latency and ratios of peers.py."""
    speed = {row[0]: row[2:] for row in peers.shipped_alone(timed).rows}
    rows = [(*_of_model(result), *speed[result.model.file]) for result in found]
    head = ("model", "accuracy (95 %)", "lowest recall", "file", "p50 / p95 ms")
    return Table("models", (*head, "times fer's", "times its float form's"), rows, _about_models(found[-1]))


def _of_model(result: BenchResult) -> tuple[str, ...]:
    scores = result.accuracy
    if not scores:
        raise ValueError(f"{result.model.file} was measured without faces")
    accuracy, low, high = (100 * share for share in (scores.accuracy, scores.accuracy_low, scores.accuracy_high))
    recall, label = min((share, label) for label, share in scores.recall.items() if share is not None)
    shares = (f"{accuracy:.2f} % ({low:.2f} to {high:.2f})", f"{label} {100 * recall:.1f} %")
    return (result.model.file.removesuffix(".onnx"), *shares, format_amount(result.model.size_bytes, "bytes"))


def _about_models(result: BenchResult) -> str:
    if not result.accuracy:
        raise ValueError(f"{result.model.file} was measured without faces")
    faces, labels = result.accuracy.faces, len(result.accuracy.recall)
    return (
        f"{faces.data} {faces.split}, {labels} labels, {faces.protocol}, n = {result.accuracy.n:,}; "
        "latency of one face on one core, all networks taking turns in the same process."
    )


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
    cli_reference.PAGE.write_text(cli_reference.page(), encoding="utf-8")
    plots.save_png(overview.draw(overview.points()), overview.PLOT)
    for page in PAGES:
        page.write_text(rendered(page.read_text(encoding="utf-8")), encoding="utf-8")
    for page, text in result_pages():
        page.write_text(text, encoding="utf-8")
