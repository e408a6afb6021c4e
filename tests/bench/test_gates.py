"""Targets and verdicts, on results made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import results

from edgeemo.bench.gates import DEFAULT, FOLDER, GATES, Target, check_gates, make_verdict, read_target
from edgeemo.errors import UsageError
from edgeemo.report.amounts import format_amount
from edgeemo.report.result import Against, WithoutCopies

TARGETS = Path(__file__).parents[2] / "benchmarks" / "targets"


def check(target: Target = DEFAULT, *, p95: float = 10.0, accuracy: float | None = 0.9) -> tuple[bool, str]:
    return make_verdict(target, check_gates(target, results.bench(p95=p95, share=accuracy)))


def test_a_gate_that_fails_says_which_and_by_how_much() -> None:
    """Measured value, limit and gap in one sentence."""
    assert check(p95=61.3) == (False, "FAIL: p95 on one core 61.3 ms, limit 50 ms: missed by 11.3 ms")


def test_every_failing_gate_is_named() -> None:
    """Not only the first."""
    passed, says = check(p95=61.3, accuracy=0.781)
    assert not passed
    assert "accuracy 78.10 %, limit 80.00 %: missed by 1.90 points" in says
    assert "missed by 11.3 ms" in says


def test_a_model_that_meets_every_gate_passes() -> None:
    """The sentence counts the gates."""
    assert check() == (True, "PASS (2 of 2 gates)")


def test_without_faces_speed_passes_and_the_verdict_says_what_is_missing() -> None:
    """Only the default target is lenient: it was not requested."""
    assert check(accuracy=None) == (True, "PASS (speed and size only; accuracy not measured: add --data)")


def test_a_gate_that_is_not_measured_does_not_hide_one_that_fails() -> None:
    """A slow model fails without faces too."""
    passed, says = check(accuracy=None, p95=61.3)
    assert not passed
    assert "missed by 11.3 ms" in says


def test_a_target_of_which_nothing_was_measured_does_not_pass() -> None:
    """Both options that it needs are named."""
    passed, says = check(Target("own", {"max_accuracy_drop": 0.01}), accuracy=None)
    assert not passed
    assert "add --data and --against" in says


def test_only_the_option_that_is_missing_is_named() -> None:
    """--against was given, --data was not."""
    made = results.bench(share=None)
    compared = replace(made, against=Against(made.model, made.latency, 0.4, None))
    target = Target("own", {"max_accuracy_drop": 0.01, "max_latency_ratio": 0.5})
    assert make_verdict(target, check_gates(target, compared)) == (
        False,
        "FAIL: accuracy lost not measured: add --data",
    )


def test_accuracy_can_be_required_at_the_end_of_its_interval_and_without_copies() -> None:
    """80 % on few faces, or with the help of copies of training faces, is not 80 %."""
    made = results.bench(share=0.82)
    assert made.accuracy
    accuracy = replace(made.accuracy, accuracy_low=0.79, without_copies=WithoutCopies(50, 100, 0.78, 0.7, 0.85))
    target = Target("own", {"accuracy": 0.8, "accuracy_low": 0.8, "accuracy_without_copies": 0.8})
    passed, says = make_verdict(target, check_gates(target, replace(made, accuracy=accuracy)))
    assert not passed
    assert "lower end of the accuracy's 95 % interval 79.00 %, limit 80.00 %: missed by 1.00 points" in says
    assert "accuracy without copies of training faces 78.00 %, limit 80.00 %" in says
    alone = replace(made, accuracy=replace(made.accuracy, without_copies=None))
    assert "no training faces to compare with" in make_verdict(target, check_gates(target, alone))[1]


def test_a_target_from_a_file_fails_on_a_gate_that_is_not_measured() -> None:
    """Even the default's own gates: naming a target requires every line of it."""
    passed, says = check(read_target("origin"), accuracy=None)
    assert (passed, says) == (False, "FAIL: accuracy not measured: add --data; lowest recall not measured: add --data")


@pytest.mark.parametrize("nothing", [None, 0])
def test_memory_that_the_system_does_not_tell_is_not_under_a_limit(nothing: int | None) -> None:
    """Nothing is not zero bytes."""
    target = Target("own", {"memory_bytes": 1e8})
    made = results.bench()
    (row,) = check_gates(target, replace(made, cold_start=replace(made.cold_start, memory_bytes=nothing)))
    assert row.outcome == "not measured"
    assert make_verdict(target, [row]) == (False, "FAIL: peak memory not measured: this system does not report it")


def test_limits_on_the_edge_a_floor_is_met_and_a_latency_ceiling_is_not() -> None:
    """80 % of >= 80 % passes, 50 ms of < 50 ms does not."""
    assert check(accuracy=0.80)[0]
    assert not check(p95=50.0)[0]


def test_a_result_that_is_not_a_number_fails() -> None:
    """NaN is neither above a floor nor below a ceiling."""
    assert not check(p95=float("nan"))[0]
    assert not check(accuracy=float("nan"))[0]


def test_lowest_recall_is_that_of_the_worst_label() -> None:
    """One gate for all labels."""
    assert check_gates(Target("own", {"min_recall": 0.5}), results.bench())[0].measured == 0.4


def test_lowest_recall_is_not_measured_while_a_label_has_no_faces() -> None:
    """A label without faces may be the worst; the verdict names it."""
    target = Target("own", {"min_recall": 0.1})
    rows = check_gates(target, results.bench(accuracy=results.accuracy(recall={"fear": 0.4, "anger": None})))
    assert make_verdict(target, rows) == (False, "FAIL: lowest recall not measured: no faces of anger")


def test_an_unknown_gate_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    """A misspelled gate must not be a gate that never fails."""
    file = tmp_path / "own.toml"
    file.write_text("latency_p95 = 5\n")
    with pytest.raises(UsageError, match="latency_ms_p95"):
        read_target(str(file))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("accuracy = 0.8", "rates are in percent, write 80 for 80 %"),
        ("accuracy = 180", "expected percent, 0 to 100"),
        ("accuracy = true", "expected a number"),
        ("latency_ms_p95 = -1", "expected a number"),
        ("latency_ms_p95 = nan", "expected a number"),
        ("name = 'empty'", "has no gate"),
        ("accuracy = ", "is not TOML"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(tmp_path: Path, text: str, says: str) -> None:
    """Fractions, more than a hundred percent, negative and non-numbers, empty and broken files."""
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_target(str(file))


def test_a_missing_target_is_refused(tmp_path: Path) -> None:
    """By its path, not by falling back to the default."""
    with pytest.raises(UsageError, match="cannot be read"):
        read_target(str(tmp_path / "none.toml"))


def test_the_default_target_is_part_of_the_origin_documents() -> None:
    """Its latency; 80 % instead of 82 %, and no gate for every label."""
    assert read_target(None) == DEFAULT
    assert DEFAULT.limits == {"accuracy": 0.8, "latency_ms_p95": read_target("origin").limits["latency_ms_p95"]}


def test_a_target_is_found_by_its_name() -> None:
    """Those that come with edgeemo; an unknown one lists them."""
    assert read_target("small-edge").limits["accuracy"] == 0.8
    with pytest.raises(UsageError, match=r"unknown target 'toaster'; known: int8-pays, origin, small-edge, or a TOML"):
        read_target("toaster")


def test_frames_are_gated_by_default_where_they_are_timed() -> None:
    """One face in 640x480 within 50 ms; without --frames, the default asks for nothing that was not measured."""
    assert "frame_ms_p95" not in read_target(None).limits
    target = read_target(None, frames=True)
    made = results.bench(frames=results.frames(61.3))
    rows = check_gates(target, made)
    assert make_verdict(target, rows) == (
        False,
        "FAIL: p95 of a 640x480 frame with one face 61.3 ms, limit 50 ms: missed by 11.3 ms",
    )
    assert make_verdict(target, check_gates(target, replace(made, frames=results.frames(49.9))))[0]


def test_a_named_target_with_a_gate_for_frames_needs_them() -> None:
    """The verdict names the option."""
    target = Target("own", {"frame_ms_p95": 50.0})
    assert make_verdict(target, check_gates(target, results.bench())) == (
        False,
        "FAIL: p95 of a 640x480 frame with one face not measured: add --frames",
    )


@pytest.mark.parametrize(("found", "says"), [(0, "finds 0 faces"), (2, "finds 2 faces")])
def test_a_frame_whose_face_is_not_found_is_not_fast(found: int, says: str) -> None:
    """A detector that finds nothing leaves nothing to crop and to classify."""
    target = Target("own", {"frame_ms_p95": 50.0})
    passed, verdict = make_verdict(target, check_gates(target, results.bench(frames=results.frames(10.0, found=found))))
    assert not passed
    assert says in verdict


@pytest.mark.parametrize(
    "file", [*sorted(TARGETS.rglob("*.toml")), *sorted(FOLDER.glob("*.toml"))], ids=lambda file: file.stem
)
def test_every_committed_target_can_be_read_and_has_its_file_name(file: Path) -> None:
    """With known gates alone."""
    target = read_target(str(file))
    assert target.name == file.stem
    assert set(target.limits) <= set(GATES)


@pytest.mark.parametrize(
    ("value", "unit", "says"),
    [
        (0.8201, "share", "82.01 %"),
        (0.0125, "points", "1.25 points"),
        (-0.00002, "points", "0.00 points"),
        (61.34, "ms", "61.3 ms"),
        (1234.5, "ms", "1234 ms"),
        (1_530_000, "bytes", "1.53 MB"),
        (1332, "bytes", "1.33 kB"),
        (0.311, "ratio", "0.311x"),
    ],
)
def test_amounts_read_well(value: float, unit: str, says: str) -> None:
    """Three digits, and the unit of a person."""
    assert format_amount(value, unit) == says
