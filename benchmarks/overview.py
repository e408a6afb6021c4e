"""Draw the plot at the top of README.md from committed results: accuracy against latency on one core.

Accuracy is bench's (results/models/NAME.json), latency that of one session in which all networks took turns
(results/models/peers.json). fer's network appears as its latency alone: it was trained on FER+'s own images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeemo.report import plots

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "models"
PLOT = ROOT / "docs" / "images" / "accuracy-latency.png"
NAMES = ("nano", "small", "base")
INT8, FLOAT, PEER = "#1f5fa8", "#9a9a9a", "#b5482f"


def points() -> dict[str, Any]:
    """Read the points of the plot: per model accuracy with interval, p50 in ms in INT8 and in float; fer's p50."""
    rows = {row["name"]: row for row in _read("peers")["rows"]}
    models = {}
    for name in NAMES:
        result = _read(name)
        accuracy = result["accuracy"]
        models[name] = {
            "accuracy": [100 * accuracy[key] for key in ("accuracy", "accuracy_low", "accuracy_high")],
            "float_accuracy": 100 * (accuracy["accuracy"] - result["against"]["accuracy"]["difference"]),
            "ms": rows[f"{name}.onnx"]["total"]["ms_p50"],
            "float_ms": rows[f"{name}, float"]["total"]["ms_p50"],
            "n": accuracy["n"],
        }
    (fer,) = (row for name, row in rows.items() if name.startswith("fer "))
    return {"models": models, "fer": {"name": fer["name"], "ms": fer["total"]["ms_p50"]}}


def draw(values: dict[str, Any]) -> Any:
    """Plot the points."""
    axes = plots.make_axes(7.2, 3.8)
    models = values["models"]
    for name, one in models.items():
        accuracy, low, high = one["accuracy"]
        ends = ([one["ms"], one["float_ms"]], [accuracy, one["float_accuracy"]])
        axes.plot(*ends, color=FLOAT, linewidth=1, linestyle=":", zorder=1)
        axes.errorbar(one["ms"], accuracy, yerr=[[accuracy - low], [high - accuracy]], fmt="o", color=INT8, capsize=3)
        axes.plot(one["float_ms"], one["float_accuracy"], "o", color=FLOAT, markerfacecolor="white")
        axes.annotate(name, (one["ms"], accuracy), (6, 6), textcoords="offset points", color=INT8, weight="bold")
    axes.errorbar([], [], yerr=[], fmt="o", color=INT8, capsize=3, label="INT8, 95 % interval")
    axes.plot([], [], "o", color=FLOAT, markerfacecolor="white", label="the same network in float")
    fer = values["fer"]
    axes.axvline(fer["ms"], color=PEER, linewidth=1, linestyle="--", label=f"{fer['name']}: speed only")
    axes.set(xlim=(0, 1.8), ylim=(80, 87), xlabel="median latency of one face on one core, ms (Xeon with VNNI)")
    axes.set_ylabel(f"accuracy on FER+ valid, 8 labels, %\n(plurality, n = {models['small']['n']:,})")
    axes.legend(loc="lower right", fontsize=9, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return axes.figure


def _read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    PLOT.parent.mkdir(exist_ok=True)
    plots.save_png(draw(points()), PLOT)
