"""A result is read back as what it is, and nothing else is taken for one."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import results

from edgeemo.errors import DataError, UsageError
from edgeemo.report.files import check_replaceable, read, read_as, write
from edgeemo.report.render import MARK, PAGES, make_page, render_files, write_files
from edgeemo.report.result import (
    FORMAT,
    KINDS,
    BenchResult,
    CheckResult,
)


def test_every_kind_has_a_page() -> None:
    """Whatever `edgeemo report` reads, it can show."""
    assert set(PAGES) == set(KINDS)
    assert all(kind.made_by for kind in KINDS.values())


@pytest.mark.parametrize("name", results.MADE)
def test_a_result_survives_its_file_and_has_a_page(name: str, tmp_path: Path) -> None:
    """Of its kind and format, with the same page as before."""
    result, path = results.MADE[name], tmp_path / "result.json"
    write(result, path)
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert raw == result.to_json()
    assert (raw["kind"], raw["format"]) == (name, FORMAT)
    assert read(path) == read_as(type(result), path) == result
    page = make_page(result).to_markdown()
    assert name == "bench" or render_files([path]) == f"{MARK}\n\n{page}"
    assert page.startswith("# ")
    assert "- system: Linux x86_64, 1.0 GiB" in page


def test_a_report_has_one_table_of_benches_and_a_page_per_other_result(tmp_path: Path) -> None:
    """In this order, whatever the order of the files."""
    paths = []
    for number, name in enumerate(("doctor", "bench", "check", "bench")):
        paths.append(tmp_path / f"{number}.json")
        write(results.MADE[name], paths[-1])
    lines = render_files(paths).splitlines()
    assert [line[:12] for line in lines[4:6]] == ["| model.onnx"] * 2
    assert [line for line in lines if line.startswith("# ")] == ["# Engines of this machine", "# Check of models"]
    assert "**FAIL**" in lines
    assert "nano.onnx: too slow" in lines


def test_a_report_replaces_an_earlier_one_and_nothing_else(tmp_path: Path) -> None:
    """Of whatever kinds; neither one of the results nor somebody's page."""
    source, out, page = tmp_path / "doctor.json", tmp_path / "all.md", tmp_path / "README.md"
    write(results.MADE["doctor"], source)
    page.write_text("# Engines of this machine\n")
    for _ in range(2):
        write_files(out, [source])
    assert out.read_text(encoding="utf-8") == render_files([source])
    for taken in (source, source.with_suffix(".md"), page):
        with pytest.raises(UsageError, match=rf"--out .*{taken.name}"):
            write_files(taken, [source])


FOREIGN = {
    '{"a":' * 99_999: "is not JSON",
    "{}": r"expected a result of format 2, found other fields \(\); make one:  edgeemo bench",
    "[]": "is not a JSON object",
    "no JSON": "is not JSON",
    '{"format": 1, "gates": []}': "found a bench result of format 1; make it again:  edgeemo bench",
    '{"format": 1, "candidates": []}': "found a search result of format 1; make it again:  edgeemo search",
    '{"format": 1, "rows": [], "labels": []}': "found a comparison result of format 1; .* edgeemo compress",
    '{"kind": "wasm", "edgeemo": "0.1.0"}': "found the kind 'wasm'",
    '{"kind": "parity", "format": 3}': "expected format 2, found a parity result of format 3; .* edgeemo parity",
    '{"kind": "check", "format": 2}': "header: expected a value, found nothing; make it again:  edgeemo doctor --check",
}


@pytest.mark.parametrize("content", FOREIGN)
def test_what_is_no_result_is_refused(content: str, tmp_path: Path) -> None:
    """In one line: the file, what was found, what was expected, and the command that makes it."""
    file = tmp_path / "foreign.json"
    file.write_text(content)
    with pytest.raises(DataError, match=rf"foreign\.json.*{FOREIGN[content]}") as caught:
        read(file)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_with_the_command_that_makes_it(tmp_path: Path) -> None:
    """Of the kind that was expected."""
    with pytest.raises(DataError, match=r"gone\.json cannot be read .* make one:  edgeemo doctor --check"):
        read_as(CheckResult, tmp_path / "gone.json")


def test_a_result_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Both kinds are named."""
    write(results.MADE["doctor"], tmp_path / "doctor.json")
    with pytest.raises(DataError, match="expected a check result, found a doctor result; make one"):
        read_as(CheckResult, tmp_path / "doctor.json")


@pytest.mark.parametrize("part", ["verdict", "model", "latency.one_core.total.ms_p95", "accuracy.recall"])
def test_a_result_that_lost_a_part_is_refused(part: str, tmp_path: Path) -> None:
    """Down to the last figure; the part that is missing is named, by its path."""
    torn = json.loads(json.dumps(results.bench(verdict="PASS").to_json()))
    *way, last = part.split(".")
    del reduce(getitem, way, torn)[last]
    (tmp_path / "torn.json").write_text(json.dumps(torn))
    with pytest.raises(DataError, match=rf"torn\.json: {part}: expected a value, found nothing"):
        read(tmp_path / "torn.json")


RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize(
    ("file", "emptied"),
    [("resnet50-float.json", "accuracy.recall"), ("compression/mobilenet-minmax.json", "rows")],
    ids=["bench", "comparison"],
)
def test_a_result_whose_values_contradict_each_other_is_refused(file: str, emptied: str, tmp_path: Path) -> None:
    """Each is of its type, but the recalls do not belong to the labels, or there is no row to compare with."""
    content = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    *way, last = emptied.split(".")
    part = reduce(getitem, way, content)
    part[last] = type(part[last])()
    (tmp_path / "odd.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"odd\.json: its values contradict each other .*make it again"):
        render_files([tmp_path / "odd.json"])


def test_only_a_result_of_the_same_kind_may_be_replaced(tmp_path: Path) -> None:
    """Not one of another kind, nor other JSON, nor a page that belongs to something else."""
    path, page = tmp_path / "result.json", tmp_path / "result.md"
    check_replaceable(path, BenchResult, page=page)
    page.write_text("# Ours\n")
    with pytest.raises(UsageError, match=r"result\.md exists and is not a result"):
        check_replaceable(path, BenchResult, page=page)
    write(replace(results.bench(), passed=True), path)
    check_replaceable(path, BenchResult, page=page)
    with pytest.raises(UsageError, match=r"result\.json exists and is not a result"):
        check_replaceable(path, CheckResult)


def test_a_scripts_rows_are_shown_as_far_as_they_fit() -> None:
    """Words first, nested values by their paths; what does not fit into a cell is named."""
    rows = [{"ms": {"p50": 1.5}, "name": "nano", "runs": [1, 2]}, {"ms": {"p50": 2.0}, "name": "base", "why": "x" * 99}]
    lines = make_page(replace(results.MADE["measurement"], rows=rows)).to_markdown().splitlines()
    assert lines[2:6] == ["| name | ms.p50 |", "| --- | ---: |", "| nano | 1.5 |", "| base | 2 |"]
    assert lines[7] == "10 faces of synthetic valid; same: True; only in the JSON: runs, why"
