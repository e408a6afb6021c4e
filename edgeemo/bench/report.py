"""Results for people: one Markdown page per result, and one table over many results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeemo import options
from edgeemo.artifact import write_text
from edgeemo.bench import plots
from edgeemo.bench.gates import amount, at
from edgeemo.bench.tables import Table, markdown, milliseconds, network_of, of_result, precision_of, told
from edgeemo.errors import DataError, MachineError, UsageError
from edgeemo.stages import Report

FORMAT = 1  # of a result file; another one is refused
HEAD = (
    "model", "network", "precision", "faces", "accuracy (95 %)", "lowest recall", "p50 / p95 ms, one core",
    "file", "peak memory", "cold start", "verdict",
)  # fmt: skip
NEEDED = (  # of every result
    "gates", "passed", "verdict", "model.file", "model.labels", "model.architecture", "model.precision",
    "model.size_bytes", "latency.one_core.total.ms_p50", "latency.one_core.total.ms_p95", "cold_start.memory_bytes",
    "cold_start.total_ms", "accuracy",
)  # fmt: skip
SCORED = ("data", "split", "protocol", "n", "accuracy", "accuracy_low", "accuracy_high", "recall", "support")


def write(result: dict[str, Any], json_path: Path) -> Path:
    """The Markdown page beside the result's JSON, with plots where matplotlib is installed; returns its path."""
    stem, path = json_path.with_suffix(""), page_of(json_path)
    try:
        pictures = [f"![{path.stem}]({path.name})" for path in plots.draw(result, stem)]
    except MachineError as error:
        pictures = [f"No plots: {error}"]
    page = [_heading(result), *map(_section, of_result(result)), *pictures, _circumstances(result)]
    write_text(path, "\n\n".join(page) + "\n")
    return path


def run(config: Report) -> str:
    """The Markdown of the result files; where it is written to config.out, a line that says so."""
    options.check(config)
    if config.out:
        check_out(config.out, config.results)
    text = render_files(config.results)
    if not config.out:
        return text.rstrip()
    write_text(config.out, text)
    return str(config.out)


def show(text: str) -> str:
    """As it is."""
    return text


def page_of(result: Path) -> Path:
    """Where the Markdown page of a result file lies: model.int8.json has model.int8.md."""
    return result.with_name(f"{result.stem}.md")


def render_table(results: Sequence[dict[str, Any]]) -> str:
    """One Markdown table with a row per result; accuracy always stands next to latency."""
    return markdown(Table("", HEAD, [_row(result) for result in results]))


def render_files(paths: Sequence[Path]) -> str:
    """The table over result files; DataError names a file that is not a result of bench."""
    return render_table([read(path) for path in paths]) + "\n"


def check_out(out: Path, results: Sequence[Path]) -> None:
    """UsageError if the table would replace anything but an earlier table, as a result or its page."""
    if out.resolve() in {path.resolve() for result in results for path in (result, page_of(result))}:
        raise UsageError(f"--out {out} is one of the results, or its page, and would be replaced; choose another name")
    if out.exists() and not out.read_bytes().startswith(render_table([]).encode()):
        raise UsageError(f"--out {out} stands there already and is no table of this command; choose another name")


def read(path: Path) -> dict[str, Any]:
    """One result file; DataError if it is none, of another format, or lacks what the table shows."""
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if result["format"] != FORMAT:
            raise DataError(f"{path} has result format {result['format']}; expected {FORMAT}; measure again")
        for needed in (*NEEDED, *(f"accuracy.{key}" for key in SCORED if result["accuracy"])):
            at(needed)(result)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}); make it with:  edgeemo bench --out {path}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a result of edgeemo bench ({type(error).__name__}: {error})") from error
    return result


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    model, total, start = result["model"], result["latency"]["one_core"]["total"], result["cold_start"]
    return (
        model["file"],
        network_of(model),
        precision_of(model),
        *_faces(result["accuracy"], model["labels"]),
        f"{milliseconds(total['ms_p50'])} / {milliseconds(total['ms_p95'])}",
        amount(model["size_bytes"], "bytes"),
        told(start["memory_bytes"], "bytes"),
        amount(start["total_ms"], "ms"),
        "PASS" if result["passed"] else "FAIL",
    )


def _faces(scored: dict[str, Any] | None, labels: list[str]) -> tuple[str, str, str]:
    if scored is None:
        return "-", "not measured", "-"
    share, name = min((scored["recall"][name], name) for name in labels if scored["support"][name])
    absent = "".join(f", no {name}" for name in labels if not scored["support"][name])
    faces = f"{scored['data']} {scored['split']}, {len(labels)} labels, {scored['protocol']}, n = {scored['n']:,}"
    low, high = 100 * scored["accuracy_low"], 100 * scored["accuracy_high"]
    accuracy = f"{amount(scored['accuracy'], 'share')} ({low:.2f} to {high:.2f})"
    return faces, accuracy, f"{name} {100 * share:.1f} % of {scored['support'][name]:,}{absent}"


def _heading(result: dict[str, Any]) -> str:
    model = result["model"]
    return f"# {model['file']} ({network_of(model)}, {precision_of(model)})\n\n**{result['verdict']}**"


def _section(table: Table) -> str:
    return f"## {table.title}\n\n{markdown(table)}"


def _circumstances(result: dict[str, Any]) -> str:
    machine = result["machine"]
    known = machine["features"] is not None
    features = (", ".join(machine["features"]) or "no instructions for INT8") if known else "instructions not told"
    versions = ", ".join(f"{name} {text}" for name, text in sorted(result["versions"].items()))
    facts = {
        "processor": f"{machine['processor']}, {machine['cores']} cores, {features}",
        "system": f"{machine['system']}, {machine['memory_gib']} GiB, load {machine['load_1min']} before the run",
        "measured": result["measured_utc"],
        "versions": f"edgeemo {result['edgeemo']}, {versions}",
        "model sha256": result["model"]["sha256"],
        "face ids sha256": (result["accuracy"] or {}).get("ids_sha256", "-"),
    }
    return "## Circumstances\n\n" + "\n".join(f"- {what}: {text}" for what, text in facts.items())
