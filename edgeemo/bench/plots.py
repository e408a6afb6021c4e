"""Plots of a bench result: confusion, recall and latency. None shows a face."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgeemo.metrics import wilson
from edgeemo.report import plots
from edgeemo.report.facts import SettingTiming
from edgeemo.report.result import Accuracy, BenchResult


def draw(result: BenchResult, stem: Path) -> list[Path]:
    """Write the plots as PNG next to `stem` and return their paths; raise MachineError without matplotlib."""
    figures = {"latency": _plot_latency(result)}
    if scored := result.accuracy:
        labels = result.model.labels
        confusion = plots.plot_confusion(scored.confusion, labels, title=_format_title(scored))
        figures = {"confusion": confusion, "recall": _plot_recall(scored, labels)} | figures
    return [plots.save_png(figure, stem.with_name(f"{stem.name}-{name}.png")) for name, figure in figures.items()]


def _plot_recall(scored: Accuracy, labels: list[str]) -> Any:
    support = [scored.support[name] for name in labels]
    names = [f"{name} ({n:,})" for name, n in zip(labels, support, strict=True)]
    shares = np.array([100 * (scored.recall[name] or 0) for name in labels])
    intervals = 100 * np.array([_compute_interval(share / 100, n) for share, n in zip(shares, support, strict=True)])
    axes = plots.make_axes(7.5, 1.4 + 0.42 * len(names))
    errors = np.maximum([shares - intervals[:, 0], intervals[:, 1] - shares], 0)
    axes.barh(names, shares, xerr=errors, color="#4c78a8", ecolor="#333333", capsize=3)
    axes.axvline(100 * scored.accuracy, color="black", linestyle=":", label="accuracy")
    axes.set(xlim=(0, 100), xlabel="recall in %, with 95 % interval", title=_format_title(scored))
    axes.invert_yaxis()
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8, frameon=False)
    return axes.figure


def _compute_interval(share: float, n: int) -> tuple[float, float]:
    return wilson(round(share * n), n) if n else (0.0, 0.0)


def _plot_latency(result: BenchResult) -> Any:
    """Plot the cumulative distribution of latency: every run counts, the slow ones at the top right."""
    axes = plots.make_axes(7.5, 4)
    for name, setting in result.latency.by_setting().items():
        _plot_curve(axes, setting, name)
    if against := result.against:
        _plot_curve(axes, against.latency.one_core, f"{against.model.file}, one core", line="--")
    axes.set(xscale="log", ylim=(0, 1.005), xlabel="ms from pixels to probabilities", ylabel="share of runs done")
    axes.set_title(result.header.machine.processor if result.header.machine else "", fontsize=10)
    axes.xaxis.get_major_locator().set_params(subs=(1, 2, 5))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    return axes.figure


def _plot_curve(axes: Any, setting: SettingTiming, name: str, *, line: str = "-") -> None:
    values = np.sort([int(us) for us in setting.total.samples_us.split()]) / 1000
    text = f"{name}: p50 {setting.total.ms_p50:.3g}, p95 {setting.total.ms_p95:.3g}"
    axes.step(values, np.arange(1, len(values) + 1) / len(values), where="post", linestyle=line, label=text)


def _format_title(scored: Accuracy) -> str:
    name = f"{scored.faces.name}, {scored.faces.protocol}, n = {scored.n:,}"
    return f"{name}: {100 * scored.accuracy:.2f} %"
