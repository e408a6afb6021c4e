"""The standard streams: of any encoding, closed, full or unread, every command prints or reports in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import forked_commands
import pytest
import results

from edgeemo import console, stages
from edgeemo.report import render
from edgeemo.report.files import write
from edgeemo.report.render import show
from edgeemo.report.table import Page, Style, Table

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks, and writes to /dev/full")
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
COMPARISON, SEARCH = RESULTS / "compression" / "edge.json", RESULTS / "compression" / "search.json"
# A command line of every stage; one of them with --json where that prints something else, and pages of help.
LINES: dict[str, list[str]] = {
    "data audit": ["data", "audit"],
    "data crop": ["data", "crop", "folder:photos", "--out", "crops"],
    "train": ["train"],
    "evaluate": ["evaluate", "run"],
    "explain": ["explain", "run"],
    "compress": ["compress", "run"],
    "search": ["search", "run"],
    "build": ["build", "nano"],
    "bench": ["bench"],
    "parity": ["parity", "nano", "--data", "synthetic"],
    "predict": ["predict", "--sample"],
    "adapt": ["adapt", "nano", "--data", "synthetic"],
    "detectors": ["detectors"],
    "label": ["label", "photos", "--out", "mine", "--terminal"],
    "watch": ["watch", "--print-config"],
    "serve": ["serve", "--print-config"],
    "report": ["report", str(COMPARISON)],
    "doctor": ["doctor"],
    "doctor --check": ["doctor", "--check", "--json"],
    "help": ["--help"],
    "train --help-all": ["train", "--help-all"],
    "train --show-recipe": ["train", "--show-recipe"],
}
STYLES: tuple[Style, ...] = ("grid", "compact", "tight", "wide")
ENCODINGS = ("utf-8", "ascii", "latin-1", "cp1252", "cp437")
NARROW = {"COLUMNS": "20", "TERM": "dumb", "NO_COLOR": "1"}


@pytest.fixture(scope="module")
def run_cases(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that runs cases of forked_commands.py in one process."""
    folder = tmp_path_factory.mktemp("console")
    returned = {
        "data crop": "crops",
        "label": "mine",
        "train": "run/model.safetensors",
        "explain": "run/plots",
        "build": "nano.trt",
    }
    for name, command in {"audit": "data audit", "doctor": "doctor"}.items():
        returned[command] = str(folder / f"{name}.json")
        write(results.MADE[name], folder / f"{name}.json")
    for name, file in {
        "evaluate": RESULTS / "training" / "ablation.json",
        "bench": RESULTS / "resnet50-int8.json",
        "parity": RESULTS / "engines" / "parity.json",
    }.items():
        returned[name] = str(file)
    (folder / "best").mkdir()
    for name, file, model in (
        ("compress", COMPARISON, "comparison/model.onnx"),
        ("search", SEARCH, "search/best/model.onnx"),
    ):
        returned[name] = str(folder / model)
        target = folder / model.partition("/")[0] / f"{'comparison' if name == 'compress' else 'search'}.json"
        target.parent.mkdir()
        target.write_bytes(file.read_bytes())

    def run(cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
        (folder / "cases.json").write_text(json.dumps({"results": returned, "cases": cases}))
        command = [sys.executable, forked_commands.__file__, str(folder / "cases.json")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        ended: list[dict[str, Any]] = json.loads(done.stdout)
        return ended

    return run


def test_every_stage_is_among_them() -> None:
    """A new command is tried as well."""
    assert {stage.command for stage in stages.STAGES} <= set(LINES)


def test_every_command_prints_in_any_encoding(run_cases: Any) -> None:
    """Letters that it does not have are escaped; also where a terminal is 20 columns wide and knows no colours."""
    cases = [{"args": line, "encoding": encoding, "env": NARROW} for line in LINES.values() for encoding in ENCODINGS]
    for case, ended in zip(cases, run_cases(cases), strict=True):
        assert ended["code"] in (0, 1), (case, ended)
        assert "Error" not in ended["err"], case
        assert ended["out"].strip(), case
        ended["out"].encode("latin-1").decode(case["encoding"])


@pytest.mark.parametrize("kind", ["full", "closed"])
def test_output_that_cannot_be_written_is_one_line_and_a_fault_of_the_machine(kind: str, run_cases: Any) -> None:
    """Not exit code 1, which is a failed gate, nor 120, which Python gives where a stream fails at its exit."""
    reasons = {"full": "No space left on device", "closed": "it is closed"}
    cases = [{"args": line, "out": kind} for name, line in LINES.items() if kind != "closed" or "help" not in name]
    for case, ended in zip(cases, run_cases(cases), strict=True):
        assert ended["code"] == 5, (case, ended)
        (line,) = ended["err"].splitlines()
        assert line.startswith("error: ")
        assert reasons[kind] in line


def test_output_that_nobody_reads_any_more_is_no_error(run_cases: Any) -> None:
    """The command ends silently, with the code of other commands that SIGPIPE ends."""
    for case, ended in zip(LINES, run_cases([{"args": line, "out": "unread"} for line in LINES.values()]), strict=True):
        assert (ended["code"], ended["err"]) == (141, ""), (case, ended)


@pytest.mark.parametrize("kind", ["full", "closed", "unread"])
def test_an_error_that_cannot_be_written_keeps_its_exit_code(kind: str, run_cases: Any) -> None:
    """Of usage, data, integrity, a failed gate and of the machine itself; what can be written is written."""
    lines = {
        "predict /nowhere.png": 3,
        "predict": 2,
        "bench --speed fast": 2,
        "report /nowhere.json": 3,
        "predict --sample --model /nowhere.onnx": 4,
        "predict --sample": 0,
    }
    cases = [{"args": line.split(), "err": kind} for line in lines]
    for (line, code), ended in zip(lines.items(), run_cases(cases), strict=True):
        assert ended["code"] == code, (line, ended)
        assert ("surprise" in ended["out"]) == (code == 0)


def test_no_file_takes_the_place_of_a_closed_stream() -> None:
    """A library that prints would write into it."""
    script = (
        "import os, sys; from edgeemo.console import prepare_streams; prepare_streams(); "
        "number = os.open(sys.argv[1], os.O_RDONLY); os._exit(number)"
    )
    closed = f"exec {sys.executable} -c '{script}' {__file__} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", closed], check=False).returncode > 2


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_any_name_is_printed_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a foreign file named a model, a label or a machine; no name controls the terminal."""
    stream = TextIOWrapper(written := BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    console.prepare_streams()
    odd = "Prozeß\u202eor \x1b[2J 😀 \ud800\udce9"
    page = Page(odd, [Table(odd, (odd,), [(odd,)], odd, style=style) for style in STYLES], odd, footer=odd)
    monkeypatch.setattr(render, "make_page", lambda _: page)
    show(results.bench())
    text = written.getvalue().decode(encoding)
    assert "Proze" in text
    assert not set(text) & {"\x1b", "\u202e"}
