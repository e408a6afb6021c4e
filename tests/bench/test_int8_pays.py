"""Where INT8 is not worth its loss, every command that compares it with float reports it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import make_tiny
import pytest
import results

from edgeemo.bench import run as bench
from edgeemo.card import Overflow, Precision, read_card, write_card
from edgeemo.compress import compare, search, write
from edgeemo.measure import latency
from edgeemo.report.render import make_page
from edgeemo.report.result import ComparedRow
from edgeemo.report.sections.bench import make_tables
from edgeemo.runtime import advice
from edgeemo.stages import Bench, Compress, Search


@pytest.mark.parametrize(("int8_ms", "sentences"), [(1.0, 1), (0.78, 1), (0.76, 0), (0.3, 0)])
def test_less_than_a_third_faster_does_not_pay(int8_ms: float, sentences: int) -> None:
    """Float takes 1 ms: 1.28 times as fast is too little, 1.32 times is enough; the sentence names the better file."""
    found = latency.advise_on_int8(int8_ms, 1.0)
    assert len(found) == sentences
    assert all("ship the float file here" in sentence for sentence in found)


def timed(stage: str, asked: str, ms: float | None) -> ComparedRow:
    about = {"stage": stage, "file": "", "sha256": "", "size_bytes": 1, "parameters": 1, "macs": 1, "temperature": 1.0}
    latency = None if ms is None else results.timing(ms)
    return ComparedRow(**results.scores(), **about, precision={"asked": asked}, latency_one_core=latency, against=[])


@pytest.mark.parametrize(
    ("float_ms", "int8_ms", "sentences"), [(1.0, 0.9, 1), (1.0, 0.5, 0), (None, 0.9, 0), (1.0, None, 0)]
)
def test_compress_compares_with_the_float_form_that_int8_was_made_from(
    float_ms: float | None, int8_ms: float | None, sentences: int
) -> None:
    """With the pruned network, not with the slower original; without times there is nothing to say."""
    rows = [timed("original", "float32", 9.0), timed("pruned", "float32", float_ms), timed("int8", "int8", int8_ms)]
    if float_ms is None:
        rows = rows[1:]
    assert len(compare._advise_on_int8(rows)) == sentences


@pytest.mark.parametrize(("int8_ms", "sentences"), [(0.9, 1), (0.5, 0)])
def test_search_compares_candidates_of_one_shape(int8_ms: float, sentences: int) -> None:
    """The same pruning and size in both precisions; the table holds the sentence."""
    shapes = [(0.0, int8_ms, "int8"), (0.0, 1.0, "float32"), (0.5, 0.1, "float32")]
    rows = [results.candidate(prune, ms, precision=precision) for prune, ms, precision in shapes]
    result = search.choose(rows, Search(run="runs/any"), {})
    assert len(result.advice) == sentences
    assert ("ship the float file here" in make_page(result).to_markdown()) == bool(sentences)


def test_bench_compares_an_int8_file_with_a_float_one(
    quick: None,  # noqa: ARG001  pytest reads the name
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By what their cards say, and only in this direction; the sentence stands under the table."""
    monkeypatch.setattr(latency, "MIN_INT8_SPEEDUP", 1e9)  # whatever the times
    in_float = make_tiny.write(tmp_path / "float.onnx")
    int8 = make_tiny.write(tmp_path / "int8.onnx")
    precision = Precision("int8", target_format="cpu", overflow=Overflow(safe=True))
    write_card(int8, replace(read_card(int8), precision=precision))
    found = bench.run(Bench(engine=str(int8), against=str(in_float), runs=20))
    assert len(found.against.advice) == 1
    notes = [table.note for table in make_tables(found) if table.title.startswith("Against")]
    assert "ship the float file here" in notes[0]
    assert bench.run(Bench(engine=str(in_float), against=str(int8), runs=20)).against.advice == []


@pytest.mark.parametrize("saturates", [False, True])
@pytest.mark.parametrize("safe", [False, True])
def test_bench_says_whether_a_file_is_safe_and_how_it_ran(
    quick: None,  # noqa: ARG001  pytest reads the name
    saturates: bool,
    safe: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the result, and a sentence where exact arithmetic is used."""
    monkeypatch.setattr(advice, "kernels_saturate", lambda: saturates)
    path = make_tiny.write(tmp_path / "int8.onnx")
    precision = Precision("int8", target_format="cpu", overflow=Overflow(safe=safe))
    write_card(path, replace(read_card(path), precision=precision))
    found = bench.run(Bench(engine=str(path), runs=20)).model
    exact = saturates and not safe
    assert (found.overflow_safe, found.exact_arithmetic) == (safe, exact)
    assert len(found.advice) == exact
    assert all("exact arithmetic" in sentence for sentence in found.advice)


def test_what_else_could_make_int8_more_faithful_is_what_was_not_given() -> None:
    """The cheapest first; GPTQ is named where it could help, and not after QAT, which it cannot follow."""
    every = Compress(run="runs/any", int8=True, rounding="nearest")
    assert write._list_untried_options(every) == ["--rounding gptq", "--method auto", "--qat", "--keep-float auto"]
    assert write._list_untried_options(replace(every, rounding="auto")) == [
        "--method auto",
        "--qat",
        "--keep-float auto",
    ]
    assert write._list_untried_options(replace(every, qat=True, method="auto")) == ["--keep-float auto"]
