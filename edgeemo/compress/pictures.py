"""The pictures of a compression: what each layer bears in pruning, and what it costs in INT8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeemo import plots
from edgeemo.compress.fidelity import Fidelity

LINE = 0.24  # inches of height per layer


def sensitivity(found: dict[str, Any], path: Path) -> None:
    """Accuracy on train faces after each layer alone lost a share of its channels, as a PNG."""
    rows = found["rows"]
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    shares = sorted({row["share"] for row in rows})
    axes = plots.axes(8, 1.6 + LINE * len(layers))
    for k, share in enumerate(shares):
        accuracy = {row["layer"]: 100 * row["accuracy"] for row in rows if row["share"] == share}
        places = [place + (k - 1) * 0.25 for place in range(len(layers))]
        axes.barh(places, [accuracy[name] for name in layers], height=0.25, label=f"{100 * share:.0f} % cut")
    axes.axvline(100 * found["faces"]["accuracy"], color="black", linewidth=1, linestyle=":", label="whole network")
    axes.set_yticks(range(len(layers)), layers, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel=f"accuracy on {found['faces']['n']} train faces, %, without recovery", xlim=(0, 100))
    axes.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    plots.save(axes.figure, path)


def layers(errors: dict[str, Fidelity], path: Path, *, flavour: str) -> None:
    """The divergence from float when each layer alone is in INT8, worst first, as a PNG."""
    axes = plots.axes(8, 1.4 + LINE * len(errors))
    axes.barh(list(errors), [error.divergence for error in errors.values()], height=0.6)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.set(xlabel="divergence from float, nats per face", title=f"each layer alone in INT8, flavour {flavour}")
    plots.save(axes.figure, path)
