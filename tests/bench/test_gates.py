"""Targets and verdicts, on results made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeemo.bench.gates import DEFAULT, GATES, Target, amount, judge, read_target, verdict
from edgeemo.errors import UsageError

TARGETS = Path(__file__).parents[2] / "benchmarks" / "targets"


def result_of(*, p95: float = 10.0, accuracy: float | None = 0.9) -> dict[str, Any]:
    scored = None if accuracy is None else {"accuracy": accuracy, "recall": {"fear": 0.4, "anger": None}}
    total = {"ms_p50": p95 / 2, "ms_p95": p95, "ms_p99": 2 * p95}
    return {
        "accuracy": scored,
        "latency": {"one_core": {"total": total}},
        "model": {"size_bytes": 1e6},
        "against": None,
    }


def judged(target: Target = DEFAULT, **values: Any) -> tuple[bool, str]:
    return verdict(judge(target, result_of(**values)))


def test_a_gate_that_fails_says_which_and_by_how_much() -> None:
    assert judged(p95=61.3) == (False, "FAIL: p95 on one core 61.3 ms, limit 50 ms: missed by 11.3 ms")


def test_every_failing_gate_is_named() -> None:
    passed, says = judged(p95=61.3, accuracy=0.781)
    assert not passed
    assert "accuracy 78.10 %, limit 80.00 %: missed by 1.90 points" in says
    assert "missed by 11.3 ms" in says


def test_a_model_that_meets_every_gate_passes() -> None:
    assert judged() == (True, "PASS (2 of 2 gates)")


def test_without_faces_speed_passes_and_the_verdict_says_what_is_missing() -> None:
    assert judged(accuracy=None) == (True, "PASS (speed and size only; accuracy not measured: add --data)")


def test_a_gate_that_is_not_measured_does_not_hide_one_that_fails() -> None:
    passed, says = judged(accuracy=None, p95=61.3)
    assert not passed
    assert "missed by 11.3 ms" in says


def test_a_target_of_which_nothing_was_measured_does_not_pass() -> None:
    passed, says = judged(Target("own", {"max_accuracy_drop": 0.01}), accuracy=None)
    assert not passed
    assert "add --data and --against" in says


def test_only_the_option_that_is_missing_is_named() -> None:
    compared = result_of(accuracy=None) | {"against": {"accuracy": None, "latency_ratio_p50": 0.4}}
    passed, says = verdict(judge(Target("own", {"max_accuracy_drop": 0.01, "max_latency_ratio": 0.5}), compared))
    assert passed
    assert says.endswith("accuracy lost not measured: add --data)")


def test_limits_on_the_edge_a_floor_is_met_and_a_latency_ceiling_is_not() -> None:
    assert judged(accuracy=0.80)[0]
    assert not judged(p95=50.0)[0]


def test_a_result_that_is_not_a_number_fails() -> None:
    assert not judged(p95=float("nan"))[0]
    assert not judged(accuracy=float("nan"))[0]


def test_lowest_recall_ignores_labels_without_faces() -> None:
    assert judge(Target("own", {"min_recall": 0.5}), result_of())[0]["measured"] == 0.4


def test_an_unknown_gate_is_refused_and_the_known_ones_are_named(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text("latency_p95 = 5\n")
    with pytest.raises(UsageError, match="latency_ms_p95"):
        read_target(str(file))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("accuracy = 80", "write 0.8 for 80 %"),
        ("accuracy = true", "expected a number"),
        ("latency_ms_p95 = -1", "expected a number"),
        ("latency_ms_p95 = nan", "expected a number"),
        ("name = 'empty'", "has no gate"),
        ("accuracy = ", "is not TOML"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=says):
        read_target(str(file))


def test_a_missing_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_target(str(tmp_path / "none.toml"))


def test_the_default_target_in_code_is_the_one_in_the_file() -> None:
    assert read_target("") == DEFAULT == read_target(str(TARGETS / "default.toml"))


@pytest.mark.parametrize("file", sorted(TARGETS.glob("*.toml")), ids=lambda file: file.stem)
def test_every_shipped_target_can_be_read_and_has_its_file_name(file: Path) -> None:
    target = read_target(str(file))
    assert target.name == file.stem
    assert set(target.limits) <= set(GATES)


@pytest.mark.parametrize(
    ("value", "unit", "says"),
    [
        (0.8201, "share", "82.01 %"),
        (0.0125, "points", "1.25 points"),
        (61.34, "ms", "61.3 ms"),
        (1234.5, "ms", "1234 ms"),
        (1_530_000, "bytes", "1.53 MB"),
        (1332, "bytes", "1.33 kB"),
        (0.311, "ratio", "0.311x"),
    ],
)
def test_amounts_read_well(value: float, unit: str, says: str) -> None:
    assert amount(value, unit) == says
