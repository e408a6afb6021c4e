"""The bench stage from end to end, and its result for people."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgeemo.bench.run import run, write
from edgeemo.errors import MachineError, UsageError
from edgeemo.machine import usable_cores
from edgeemo.measure import latency, turns
from edgeemo.report import plots
from edgeemo.report.files import check_replaceable, read, read_as
from edgeemo.report.render import check_out, render_files, show, write_files
from edgeemo.report.result import BenchResult
from edgeemo.report.sections.bench import make_summary
from edgeemo.stages import Bench

MIB = 2**20


def test_every_setting_has_at_least_the_runs_that_were_asked_for(result: BenchResult) -> None:
    """Every run is kept as a sample, for the whole and for the inference in it."""
    settings = result.latency.by_setting()
    assert "one core" in settings
    for setting in settings.values():
        for part in (setting.total, setting.inference):
            assert len(part.samples_us.split()) == part.n >= result.runs_asked


def test_quantiles_are_ordered_and_inference_is_part_of_the_total(result: BenchResult) -> None:
    """On one core with one thread."""
    one = result.latency.one_core
    assert one.threads == len(one.cores) == 1
    total = one.total
    assert 0 < total.ms_min <= total.ms_p50 <= total.ms_p95 <= total.ms_p99
    assert one.inference.ms_min < total.ms_min


def test_cold_start_is_the_sum_of_its_parts(result: BenchResult) -> None:
    """Nothing between process and first prediction is left out."""
    start = result.cold_start
    parts = (start.interpreter_ms, start.import_ms, start.load_ms, start.first_prediction_ms)
    assert sum(parts) == pytest.approx(start.total_ms, abs=0.3)  # five roundings to 0.1


@pytest.mark.usefixtures("quick")
def test_peak_memory_is_the_childs_own_not_the_parents(tiny: Path) -> None:
    """400 MiB in this process do not count for the one it starts."""
    ballast = np.ones(400 * MIB, np.uint8)
    assert 20 * MIB < latency.measure_cold_start(tiny).memory_bytes < ballast.nbytes


def test_summary_keeps_order_and_quantiles_of_known_samples() -> None:
    """Three samples worked by hand."""
    found = latency.summarise([1_000_000 * k for k in (3, 1, 2)])
    assert found.samples_us == "3000 1000 2000"
    assert (found.n, found.ms_p50, found.ms_min, found.ms_mean) == (3, 2.0, 1.0, 2.0)


@pytest.mark.usefixtures("quick")
def test_a_model_against_itself_is_equally_right(tiny: Path) -> None:
    """On the same faces."""
    found = run(Bench(engine=str(tiny), against=str(tiny), data="synthetic:60", runs=5))
    assert found.against.accuracy.difference == 0
    assert found.against.accuracy.p_value == 1


def test_models_take_turns_in_short_slices() -> None:
    """Neither side of a comparison is favoured: each has a slice in every round, and neither is always first."""
    played: list[str] = []

    class Player:
        def __init__(self, name: str) -> None:
            self.name, self.total = name, []

        def run_slice(self) -> None:
            played.append(self.name)
            self.total += [1] * turns.SLICE_RUNS

    turns.alternate([Player("a"), Player("b")], runs=60, seconds=0.0)  # type: ignore[list-item]
    rounds = [set(played[k : k + 2]) for k in range(0, len(played), 2)]
    assert len(rounds) == 60 / turns.SLICE_RUNS
    assert all(both == {"a", "b"} for both in rounds)
    assert set(played[::2]) == {"a", "b"}


def test_each_model_is_timed_by_its_own_backend_on_the_cores_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned to the last core, then on all; what held the core shows."""
    jobs: list[dict[str, Any]] = []

    def child(_: str, job: str) -> dict[str, Any]:
        jobs.append(json.loads(job))
        steady, held = ({"total": [10] * 19 + [last], "inference": [9] * 20} for last in (10, 10_000))
        return {"pinned": True, "models": [steady, held]}

    monkeypatch.setattr(latency, "_run_module", child)
    monkeypatch.setattr(latency, "usable_cores", lambda: [0, 1, 2])
    first, second = latency.measure_latency([(Path("a.onnx"), "openvino"), (Path("b.onnx"), "")], runs=20)
    assert [job["cores"] for job in jobs] == [[2], [0, 1, 2]]
    assert all(job["models"] == [["a.onnx", "openvino"], ["b.onnx", ""]] for job in jobs)
    assert (first.one_core.pinned, first.one_core.threads, first.all_cores.threads) == (True, 1, 3)
    assert not first.one_core.unstable
    assert second.one_core.unstable


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process to a core")
def test_a_measuring_process_keeps_to_its_core(tiny: Path) -> None:
    """In a process of its own, so that this one stays where it is."""
    core = usable_cores()[-1]
    call = f"turns.measure([({str(tiny)!r}, '')], [{core}], 3, 0.0)"
    code = f"import os; from edgeemo.measure import turns; print({call}['pinned'], os.sched_getaffinity(0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == f"True {{{core}}}"


@pytest.mark.usefixtures("quick")
def test_a_shipped_model_is_judged_in_six_labels_beside_another_backend() -> None:
    """Both models in the requested labels, each in the requested backend."""
    pytest.importorskip("openvino", reason="extra openvino is not installed")
    sides = {"engine": "nano", "backend": "openvino", "against": "nano", "against_backend": "onnxruntime"}
    found = run(Bench(**sides, label_set="six", data="synthetic:60", runs=3))
    assert len(found.model.labels) == len(found.accuracy.recall) == 6
    assert (found.model.backend, found.against.model.backend) == ("openvino", "onnxruntime")
    assert abs(found.against.accuracy.difference) < 0.1


def test_a_result_survives_json_and_tells_where_it_comes_from(result: BenchResult, out: Path) -> None:
    """Model hash, machine and face count travel with it, the output folder does not."""
    assert read(out).to_json() == json.loads(out.read_text()) == result.to_json()
    assert result.model.sha256
    assert result.header.machine.cores >= 1
    assert result.accuracy.n == 24
    assert str(out.parent) not in out.read_text()


def test_a_random_model_fails_the_accuracy_gate_and_says_by_how_much(result: BenchResult) -> None:
    """The verdict names gate, limit and gap."""
    assert not result.passed
    assert result.verdict.startswith("FAIL: accuracy ")
    assert "limit 80.00 %: missed by" in result.verdict


@pytest.mark.usefixtures("quick")
def test_without_faces_speed_alone_is_judged(tiny: Path) -> None:
    """The default target passes on speed, and the verdict says what was not measured."""
    found = run(Bench(engine=str(tiny), runs=3))
    assert found.accuracy is None
    assert found.passed
    assert found.verdict == "PASS (speed and size only; accuracy not measured: add --data)"


@pytest.mark.usefixtures("result")
def test_report_has_every_table_and_shows_its_plots(out: Path) -> None:
    """Five tables and three plots, which are next to the page."""
    page = out.with_suffix(".md").read_text()
    for title in ("Accuracy on synthetic valid", "Recall per label", "Against other.onnx", "Latency", "Gates"):
        assert f"## {title}" in page
    for name in ("confusion", "recall", "latency"):
        assert f"(tiny-{name}.png)" in page
        assert out.with_name(f"tiny-{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("result")
def test_a_result_read_from_its_file_gives_the_same_page_and_pictures(out: Path, tmp_path: Path) -> None:
    """Its keys are sorted there; labels must not change places under the confusion matrix."""
    again = write(read_as(BenchResult, out), tmp_path / out.name)
    assert again.read_text() == out.with_suffix(".md").read_text()
    for plot in out.parent.glob("*.png"):
        assert (tmp_path / plot.name).read_bytes() == plot.read_bytes()


def test_report_without_matplotlib_says_so_and_keeps_its_tables(
    result: BenchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device without the bench extra still gets its page."""

    def absent(*_: object, **__: object) -> None:
        raise MachineError("drawing plots needs matplotlib:  pip install 'edgeemo[bench]'")

    monkeypatch.setattr(plots, "require", absent)
    page = write(result, tmp_path / "bare.json").read_text()
    assert "No plots: drawing plots needs matplotlib" in page
    assert "## Latency" in page
    assert not list(tmp_path.glob("*.png"))


def test_the_terminal_shows_tables_and_verdict(result: BenchResult) -> None:
    """The same tables as the page."""
    console = Console(width=140, file=(screen := StringIO()))
    show(result, console)
    shown = screen.getvalue()
    assert "Latency in ms" in shown
    assert result.verdict in shown


@pytest.mark.usefixtures("result")
def test_one_table_has_a_row_per_result_with_accuracy_beside_latency(out: Path) -> None:
    """Two results give two rows under one head."""
    lines = render_files([out, out]).splitlines()
    assert len(lines) == 4
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert "synthetic valid, 6 labels, plurality, n = 24" in lines[2]
    assert lines[2].endswith("| FAIL |")


def test_a_row_without_faces_says_that_accuracy_was_not_measured(result: BenchResult) -> None:
    """An empty cell could be taken for a zero."""
    assert "not measured" in make_summary([replace(result, accuracy=None)]).to_markdown()


def test_labels_without_faces_are_named_beside_the_lowest_recall(result: BenchResult) -> None:
    """The lowest of the measured recalls is no floor for the others."""
    scored = result.accuracy
    gone = replace(scored, support={**scored.support, "fear": 0}, recall={**scored.recall, "fear": None})
    assert ", no fear |" in make_summary([replace(result, accuracy=gone)]).to_markdown()


def test_memory_that_the_system_does_not_tell_is_a_dash(result: BenchResult, tmp_path: Path) -> None:
    """Neither the page nor the table calls it 0 kB."""
    untold = replace(result, cold_start=replace(result.cold_start, memory_bytes=None))
    assert "| peak memory of a process that predicts once | - |" in write(untold, tmp_path / "a.json").read_text()
    assert "0 kB" not in make_summary([untold]).to_markdown()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Bench(runs=0), "--runs 0: expected 1 to 5000"),
        (Bench(runs=5001), "--runs 5001: expected 1 to 5000"),  # at most so many are kept
        (Bench(out="result.md"), "expected a .json file"),
        (Bench(target="none.toml"), "target none.toml cannot be read"),
        (Bench(against_backend="openvino"), "--against-backend has no effect without --against"),
        (Bench(split="test"), "--split has no effect without --data"),
        (Bench(protocol="majority"), "--protocol has no effect without --data"),
    ],
)
def test_a_mistake_in_the_options_is_told_before_anything_is_measured(
    config: Bench, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is measured for a result that cannot be written or checked."""
    monkeypatch.setattr(latency, "_run_module", None)
    with pytest.raises(UsageError, match=message):
        run(config)


def test_no_other_file_is_written_over(result: BenchResult, out: Path, tiny: Path, tmp_path: Path) -> None:
    """A model's card is refused before measuring; an earlier result may be replaced; a report replaces no result."""
    card = tmp_path / "model.onnx.json"
    card.write_bytes(tiny.with_name("tiny.onnx.json").read_bytes())
    with pytest.raises(UsageError, match="is not a result of this command"):
        run(Bench(engine=str(tiny), out=str(card)))
    check_replaceable(out, BenchResult, page=out.with_suffix(".md"))
    page = tmp_path / "README.md"
    page.write_text("# Ours\n")
    for taken in (page, tmp_path / "model.onnx.json"):  # a page, and JSON without what a result has
        with pytest.raises(UsageError, match=f"{taken.name} exists and is not a result"):
            check_replaceable(taken.with_suffix(".json"), BenchResult, page=taken.with_suffix(".md"))
    for name in (out, out.with_suffix(".md")):
        with pytest.raises(UsageError, match="one of the results, or its page"):
            check_out(name, [out])
    with pytest.raises(UsageError, match="is not a report of this command"):
        check_out(page, [out])
    for _ in range(2):  # the second over the first
        write_files(tmp_path / "all.md", [out])
    assert render_files([out]) in (tmp_path / "all.md").read_text()
    pages = [write(result, tmp_path / f"model.{form}.json").name for form in ("int8", "float")]
    assert pages == ["model.int8.md", "model.float.md"]


def test_a_measuring_process_that_dies_is_reported_with_its_last_words(tmp_path: Path) -> None:
    """The child's error reaches the user, not only its exit code."""
    with pytest.raises(MachineError, match=r"gone\.onnx"):
        latency.measure_cold_start(tmp_path / "gone.onnx")


def test_a_message_of_the_measuring_process_is_read_in_any_encoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Python is told to write another one than the console's."""
    monkeypatch.setenv("PYTHONIOENCODING", "latin-1")
    missing = tmp_path / "Gesichtsausdrücke.onnx"
    with pytest.raises(MachineError, match=f"{missing.name} does not exist"):
        latency.measure_cold_start(missing)
