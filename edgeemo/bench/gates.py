"""What a model must reach: targets, gates and the verdict.

A target is a TOML file with a name and one line per gate. Shares are fractions: `accuracy = 0.80`.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from edgeemo.errors import UsageError, known

if sys.version_info >= (3, 11):
    import tomllib
else:  # a Jetson under JetPack 6 has 3.10
    import tomli as tomllib

TEXTS = ("name", "about")


@dataclass(frozen=True)
class Gate:
    """One property with its unit, the comparison that passes, where a result holds it, and what measures it."""

    what: str
    unit: str  # share, points, ms, bytes or ratio
    sign: str  # of the limit: >=, <= or <
    value: Callable[[dict[str, Any]], float | str]  # from a result that has what it needs; a text: why there is none
    needs: tuple[str, ...] = ()  # options without which it is not measured


@dataclass(frozen=True)
class Target:
    """Named limits, by gate."""

    name: str
    limits: dict[str, float]
    about: str = ""
    strict: bool = True  # a gate that is not measured fails, because somebody asked for it


def at(path: str) -> Callable[[dict[str, Any]], Any]:
    """A function that follows the keys in `latency.one_core.threads` into a result."""
    return lambda result: reduce(operator.getitem, path.split("."), result)


def _lowest_recall(result: dict[str, Any]) -> float | str:
    recall = result["accuracy"]["recall"]
    absent = sorted(name for name, share in recall.items() if share is None)
    return f"no faces of {', '.join(absent)}" if absent else min(recall.values())


def _memory(result: dict[str, Any]) -> float | str:
    return result["cold_start"]["memory_bytes"] or "this system does not tell"


def _drop(result: dict[str, Any]) -> float:
    return -float(result["against"]["accuracy"]["difference"])


DATA, AGAINST, ROBUSTNESS = "--data", "--against", "--robustness"
GIVES = {DATA: "accuracy", AGAINST: "against", ROBUSTNESS: "robustness"}  # the part of a result that an option adds
CHECKS = {">=": operator.ge, "<=": operator.le, "<": operator.lt}
GATES = {
    "accuracy": Gate("accuracy", "share", ">=", at("accuracy.accuracy"), (DATA,)),
    "macro_f1": Gate("macro-F1", "share", ">=", at("accuracy.macro_f1"), (DATA,)),
    "min_recall": Gate("lowest recall", "share", ">=", _lowest_recall, (DATA,)),
    "ece": Gate("calibration error", "share", "<=", at("accuracy.ece"), (DATA,)),
    "robust_accuracy": Gate("accuracy when corrupted", "share", ">=", at("robustness.mean"), (DATA, ROBUSTNESS)),
    "latency_ms_p50": Gate("p50 on one core", "ms", "<", at("latency.one_core.total.ms_p50")),
    "latency_ms_p95": Gate("p95 on one core", "ms", "<", at("latency.one_core.total.ms_p95")),
    "latency_ms_p99": Gate("p99 on one core", "ms", "<", at("latency.one_core.total.ms_p99")),
    "cold_start_ms": Gate("cold start", "ms", "<", at("cold_start.total_ms")),
    "size_bytes": Gate("file size", "bytes", "<=", at("model.size_bytes")),
    "memory_bytes": Gate("peak memory", "bytes", "<=", _memory),
    "max_accuracy_drop": Gate("accuracy lost", "points", "<=", _drop, (DATA, AGAINST)),
    "max_latency_ratio": Gate("p50 to the other's", "ratio", "<=", at("against.latency_ratio_p50"), (AGAINST,)),
}

# Two of the origin document's gates (benchmarks/targets/origin.toml has all), in code because the wheel does not hold
# benchmarks/. Not strict: nobody asked for them, and a machine without faces can still measure speed.
DEFAULT = Target("default", {"accuracy": 0.80, "latency_ms_p95": 50.0}, "any edge device: right and in time", False)


def read_target(path: Path | None) -> Target:
    """The target in a TOML file, strict; None: the default. UsageError for what is not a gate or not a limit."""
    if not path:
        return DEFAULT
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"target {path} cannot be read: {error.strerror}; expected a TOML file of gates") from error
    except ValueError as error:
        raise UsageError(f"target {path} is not TOML: {error}") from error
    texts = {key: str(raw.pop(key)) for key in TEXTS if key in raw}
    limits = {key: _limit(key, value, path) for key, value in raw.items()}
    if not limits:
        raise UsageError(f"target {path} has no gate; known: {', '.join(GATES)}")
    return Target(texts.get("name", path.stem), limits, texts.get("about", ""))


def judge(target: Target, result: dict[str, Any]) -> list[dict[str, Any]]:
    """One JSON-ready row per gate: limit, measured, margin (positive is good) and the outcome in one word or three."""
    given = {option for option in (DATA, AGAINST, ROBUSTNESS) if result.get(GIVES[option])}
    return [_row(key, limit, result, given) for key, limit in target.limits.items()]


def verdict(target: Target, rows: list[dict[str, Any]]) -> tuple[bool, str]:
    """Whether the model passed, and the sentence that says so."""
    missing = [row["says"] for row in rows if row["outcome"] == "not measured"]
    failed = [row["says"] for row in rows if row["outcome"] == "fail"] + (missing if target.strict else [])
    if failed:
        return False, "FAIL: " + "; ".join(failed)
    if missing:
        return True, f"PASS (speed and size only; {'; '.join(missing)})"
    return True, f"PASS ({len(rows)} of {len(rows)} gates)"


def amount(value: float, unit: str) -> str:
    """A measured value in words: 82.01 %, 1.25 points, 61.3 ms, 1.53 MB (10^6 bytes) or 0.31x."""
    if unit in ("share", "points"):
        hundredths = round(100 * value, 2) + 0.0  # a small loss below zero is 0.00, not -0.00
        return f"{hundredths:.2f} {'%' if unit == 'share' else 'points'}"
    if unit == "bytes":
        return f"{_short(value / 1e6)} MB" if value >= 1e6 else f"{_short(value / 1e3)} kB"
    return f"{_short(value)}{'x' if unit == 'ratio' else ' ms'}"


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _limit(key: str, value: Any, path: Path) -> float:
    if key not in GATES:
        raise known(f"gate in {path.name}:", key, GATES)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise UsageError(f"{path.name}: {key} = {value!r}; expected a number from 0")
    if GATES[key].unit in ("share", "points") and value > 1:
        raise UsageError(f"{path.name}: {key} = {value}; shares are fractions, write {value / 100:g} for {value:g} %")
    return float(value)


def _row(key: str, limit: float, result: dict[str, Any], given: set[str]) -> dict[str, Any]:
    gate = GATES[key]
    row = {"gate": key, "what": gate.what, "unit": gate.unit, "sign": gate.sign, "limit": limit}
    missing = " and ".join(option for option in gate.needs if option not in given)
    measured = f"add {missing}" if missing else gate.value(result)
    if isinstance(measured, str):
        says = f"{gate.what} not measured: {measured}"
        return {**row, "measured": None, "margin": None, "outcome": "not measured", "says": says}
    margin = measured - limit if gate.sign == ">=" else limit - measured
    passes = CHECKS[gate.sign](measured, limit)
    gap = amount(abs(margin), "points" if gate.unit == "share" else gate.unit)
    says = f"{gate.what} {amount(measured, gate.unit)}, limit {amount(limit, gate.unit)}: "
    says += f"met with {gap} to spare" if passes else f"missed by {gap}"
    return {**row, "measured": measured, "margin": margin, "outcome": "pass" if passes else "fail", "says": says}
