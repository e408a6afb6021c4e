"""Plots of compression: sensitivity of layers to pruning, their error in INT8, and the candidates of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeemo.compress.quantize.fidelity import Fidelity
from edgeemo.report import plots
from edgeemo.report.result import Candidate, SearchResult

LINE = 0.24  # inches of height per layer


def plot_sensitivity(result: dict[str, Any], path: Path) -> None:
    """Plot the accuracy on train faces with each layer alone pruned, as a PNG."""
    rows = result["rows"]
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    shares = sorted({row["share"] for row in rows})
    axes = plots.make_axes(8, 1.6 + LINE * len(layers))
    for k, share in enumerate(shares):
        own = [row for row in rows if row["share"] == share]
        positions = [layers.index(row["layer"]) + (k - 1) * 0.25 for row in own]
        accuracy = [100 * row["accuracy"] for row in own]
        bars = axes.barh(positions, accuracy, height=0.25, label=f"{100 * share:.0f} % requested")
        widths = [f"{row['channels'][0]} to {row['channels'][1]}" for row in own]
        axes.bar_label(bars, widths, label_type="edge", padding=2, fontsize=5)
    axes.axvline(100 * result["faces"]["accuracy"], color="black", linewidth=1, linestyle=":", label="not pruned")
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel=f"accuracy on {result['faces']['n']} train faces, %, without fine-tuning", xlim=(0, 100))
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    plots.save_png(axes.figure, path)


def plot_layers(errors: dict[str, Fidelity], path: Path, *, target_format: str) -> None:
    """Plot the divergence from float with each layer alone in INT8, the worst first, as a PNG."""
    axes = plots.make_axes(8, 1.4 + LINE * len(errors))
    axes.barh(list(errors), [error.divergence for error in errors.values()], height=0.6)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set(
        xlabel="divergence from float, nats per face", title=f"each layer alone in INT8, target format {target_format}"
    )
    plots.save_png(axes.figure, path)


def plot_pareto(result: SearchResult, path: Path) -> None:
    """Plot accuracy over p95 latency of all candidates, the Pareto front, the limits and the best one, as a PNG."""
    rows = [row for row in result.candidates if isinstance(row, Candidate)]
    axes = plots.make_axes(8, 5)
    for precision in sorted({row.precision for row in rows}):
        own = [row for row in rows if row.precision == precision]
        axes.scatter([row.latency.ms_p95 for row in own], [100 * row.accuracy for row in own], label=precision)
    front = sorted((row for row in rows if row.on_front), key=lambda row: row.latency.ms_p95)
    line = [row.latency.ms_p95 for row in front], [100 * row.accuracy for row in front]
    axes.plot(*line, color="gray", linewidth=1, zorder=0, label="Pareto front")
    for row in front:
        point = (row.latency.ms_p95, 100 * row.accuracy)
        size = f", {row.size} px" if row.size else ""
        text = f"{100 * row.prune:.0f} % pruned{size}"
        axes.annotate(text, point, textcoords="offset points", xytext=(6, -10), fontsize=7)
        if result.best and not row.verdict:
            axes.scatter(*point, s=160, facecolors="none", edgecolors="black", label="best within both limits")
    axes.axvline(result.budget_ms, color="black", linestyle=":", linewidth=1, label="budget and minimum accuracy")
    axes.axhline(result.min_accuracy, color="black", linestyle=":", linewidth=1)
    axes.set(xlabel="p95 on one core, ms", ylabel="valid accuracy, %")
    axes.legend(fontsize=8, loc="lower right")
    plots.save_png(axes.figure, path)
