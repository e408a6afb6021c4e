"""Targets, gates and the verdict: the limits that a model must meet.

A target is a TOML file with a name and one line per gate. Rates and differences of rates are in percent, as in the
options: `accuracy = 80`. Some targets are packaged with edgeemo, by name.
"""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgeemo.errors import UsageError, known
from edgeemo.report.amounts import format_amount
from edgeemo.report.result import Accuracy, BenchResult, GateRow, Target

if sys.version_info >= (3, 11):
    import tomllib
else:  # a Jetson under JetPack 6 has 3.10
    import tomli as tomllib

TEXTS = ("name", "about")
FOLDER = Path(__file__).with_name("targets")


Value = Callable[[BenchResult], float | str]


@dataclass(frozen=True)
class Gate:
    """A property of a result: its unit, the comparison with the limit, how to read it, and which options measure it."""

    what: str
    unit: str  # share, points, ms, bytes or ratio
    sign: str  # of the limit: >=, <= or <
    value: Value  # reads it from a result made with the options of `needs`; a text: why there is none
    needs: tuple[str, ...] = ()  # options without which it is not measured


def _from_accuracy(value: Callable[[Accuracy], float | str]) -> Value:
    """Return a `Value` that reads the accuracy; without one, `needs` reports the missing option first."""
    return lambda result: value(result.accuracy) if result.accuracy else "no faces"


def _compute_lowest_recall(scored: Accuracy) -> float | str:
    if absent := sorted(name for name, share in scored.recall.items() if share is None):
        return f"no faces of {', '.join(absent)}"
    return min(share for share in scored.recall.values() if share is not None)


def _get_accuracy_without_copies(scored: Accuracy) -> float | str:
    found = scored.without_copies
    return found.accuracy if found and found.accuracy is not None else "no training faces to compare with"


def _compute_robust_accuracy(result: BenchResult) -> float | str:
    return result.robustness.mean if result.robustness else "no corrupted faces"


def _compute_accuracy_drop(result: BenchResult) -> float | str:
    paired = result.against.accuracy if result.against else None
    return -paired.difference if paired else "no other accuracy"


def _compute_latency_ratio(result: BenchResult) -> float | str:
    return result.against.latency_ratio_p50 if result.against else "no other model"


def _get_frame_latency(result: BenchResult) -> float | str:
    rows = result.frames.rows if result.frames else []
    gated = next((row for row in rows if (row.width, row.height, row.drawn) == GATED_FRAME), None)
    if gated is None:
        return "no such frame"
    return gated.total.ms_p95 if gated.found == gated.drawn else f"the detector finds {gated.found} faces in it"


GATED_FRAME = (640, 480, 1)
DATA, AGAINST, ROBUSTNESS, FRAMES = "--data", "--against", "--robustness", "--frames"
CHECKS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}
GATES = {
    "accuracy": Gate("accuracy", "share", ">=", _from_accuracy(lambda scored: scored.accuracy), (DATA,)),
    "accuracy_low": Gate(
        "lower end of the accuracy's 95 % interval",
        "share",
        ">=",
        _from_accuracy(lambda scored: scored.accuracy_low),
        (DATA,),
    ),
    "accuracy_without_copies": Gate(
        "accuracy without copies of training faces",
        "share",
        ">=",
        _from_accuracy(_get_accuracy_without_copies),
        (DATA,),
    ),
    "macro_f1": Gate("macro-F1", "share", ">=", _from_accuracy(lambda scored: scored.macro_f1), (DATA,)),
    "min_recall": Gate("lowest recall", "share", ">=", _from_accuracy(_compute_lowest_recall), (DATA,)),
    "ece": Gate("calibration error", "share", "<=", _from_accuracy(lambda scored: scored.ece), (DATA,)),
    "robust_accuracy": Gate("accuracy when corrupted", "share", ">=", _compute_robust_accuracy, (DATA, ROBUSTNESS)),
    "latency_ms_p50": Gate("p50 on one core", "ms", "<", lambda result: result.latency.one_core.total.ms_p50),
    "latency_ms_p95": Gate("p95 on one core", "ms", "<", lambda result: result.latency.one_core.total.ms_p95),
    "latency_ms_p99": Gate("p99 on one core", "ms", "<", lambda result: result.latency.one_core.total.ms_p99),
    "frame_ms_p95": Gate("p95 of a 640x480 frame with one face", "ms", "<", _get_frame_latency, (FRAMES,)),
    "cold_start_ms": Gate("cold start", "ms", "<", lambda result: result.cold_start.total_ms),
    "size_bytes": Gate("file size", "bytes", "<=", lambda result: result.model.size_bytes),
    "memory_bytes": Gate(
        "peak memory", "bytes", "<=", lambda result: result.cold_start.memory_bytes or "this system does not report it"
    ),
    "max_accuracy_drop": Gate("accuracy lost", "points", "<=", _compute_accuracy_drop, (DATA, AGAINST)),
    "max_latency_ratio": Gate("p50 to the other's", "ratio", "<=", _compute_latency_ratio, (AGAINST,)),
}

# Two gates of targets/origin.toml. Not strict: they were not requested, and speed can be measured without faces.
DEFAULT = Target("default", {"accuracy": 0.80, "latency_ms_p95": 50.0}, "any edge device: accurate and fast", False)
DEFAULT_FRAMES = replace(DEFAULT, limits={**DEFAULT.limits, "frame_ms_p95": 50.0})  # if frames are timed


def read_target(target: str | None, *, frames: bool = False) -> Target:
    """Read a packaged target by name, or a TOML file; both are strict. None: the default, with its gate for frames.

    Raises UsageError for an unknown gate or an invalid limit.
    """
    if not target:
        return DEFAULT_FRAMES if frames else DEFAULT
    path = _find_file(target)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"target {path} cannot be read: {error.strerror}; expected a TOML file of gates") from error
    except ValueError as error:
        raise UsageError(f"target {path} is not TOML: {error}") from error
    texts = {key: str(raw.pop(key)) for key in TEXTS if key in raw}
    limits = {key: _parse_limit(key, value, path) for key, value in raw.items()}
    if not limits:
        raise UsageError(f"target {path} has no gate; known: {', '.join(GATES)}")
    return Target(texts.get("name", path.stem), limits, texts.get("about", ""))


def _find_file(target: str) -> Path:
    """Return the file of a packaged target, or the path as given."""
    if not re.fullmatch(r"[\w-]+", target):
        return Path(target)
    names = sorted(file.stem for file in FOLDER.glob("*.toml"))
    if target not in names:
        raise known("target", target, (*names, "or a TOML file"))
    return FOLDER / f"{target}.toml"


def check_gates(target: Target, result: BenchResult) -> list[GateRow]:
    """Return one row per gate of the target."""
    parts = {DATA: result.accuracy, AGAINST: result.against, ROBUSTNESS: result.robustness, FRAMES: result.frames}
    given = {option for option, part in parts.items() if part}
    return [_check_gate(key, limit, result, given) for key, limit in target.limits.items()]


def make_verdict(target: Target, rows: list[GateRow]) -> tuple[bool, str]:
    """Return whether the model passed, and the verdict in words."""
    missing = [row.says for row in rows if row.outcome == "not measured"]
    failed = [row.says for row in rows if row.outcome == "fail"] + (missing if target.strict else [])
    if failed:
        return False, "FAIL: " + "; ".join(failed)
    if missing:
        return True, f"PASS (speed and size only; {'; '.join(missing)})"
    return True, f"PASS ({len(rows)} of {len(rows)} gates)"


def _parse_limit(key: str, value: Any, path: Path) -> float:
    if key not in GATES:
        raise known(f"gate in {path.name}:", key, GATES)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise UsageError(f"{path.name}: {key} = {value!r}; expected a number from 0")
    if GATES[key].unit not in ("share", "points"):
        return float(value)
    if value > 100:
        raise UsageError(f"{path.name}: {key} = {value}; expected percent, 0 to 100")
    if GATES[key].sign == ">=" and 0 < value <= 1:
        raise UsageError(
            f"{path.name}: {key} = {value}; rates are in percent, write {100 * value:g} for {100 * value:g} %"
        )
    return value / 100


def _check_gate(key: str, limit: float, result: BenchResult, given: set[str]) -> GateRow:
    gate = GATES[key]
    missing = " and ".join(option for option in gate.needs if option not in given)
    measured = f"add {missing}" if missing else gate.value(result)
    return make_row(key, gate.what, gate.unit, gate.sign, limit=limit, measured=measured)


def make_row(key: str, what: str, unit: str, sign: str, *, limit: float, measured: float | str) -> GateRow:
    """Compare a measured value with its limit; a text: why it was not measured."""
    row = partial(GateRow, gate=key, what=what, unit=unit, sign=sign, limit=limit)
    if isinstance(measured, str):
        return row(measured=None, margin=None, outcome="not measured", says=f"{what} not measured: {measured}")
    margin = measured - limit if sign == ">=" else limit - measured
    passes = CHECKS[sign](measured, limit)
    gap = format_amount(abs(margin), "points" if unit == "share" else unit)
    says = f"{what} {format_amount(measured, unit)}, limit {format_amount(limit, unit)}: "
    says += f"met with {gap} to spare" if passes else f"missed by {gap}"
    return row(measured=measured, margin=margin, outcome="pass" if passes else "fail", says=says)
