"""The learning curve of an adaptation: accuracy on held-out people by number of labelled faces."""

from __future__ import annotations

from pathlib import Path

from edgeemo.adaptation.choose import Evidence
from edgeemo.metrics import wilson
from edgeemo.report import plots


def draw_curve(evidence: Evidence, path: Path) -> Path:
    """Write the curve as PNG and return its path; raise MachineError without matplotlib."""
    axes = plots.make_axes(7, 4)
    sizes = [one.faces for one in evidence.curve]
    shares = [100 * one.accuracy for one in evidence.curve]
    n = evidence.before.n
    intervals = [tuple(100 * end for end in wilson(round(one.accuracy * n), n)) for one in evidence.curve]
    if sizes:
        axes.fill_between(sizes, [low for low, _ in intervals], [high for _, high in intervals], alpha=0.2, linewidth=0)
        axes.plot(sizes, shares, marker="o", label="adapted to this many faces")
        axes.axhline(shares[0], color="black", linestyle=":", label="not adapted")
        axes.set_xscale("symlog", linthresh=5)
        axes.set_xticks(sizes, [str(one) for one in sizes])
        axes.set_xlim(left=0)
        axes.minorticks_off()
    held_out = "people" if evidence.folds.by_people else "faces"
    axes.set(
        xlabel="labelled faces", ylabel="accuracy in %", title=f"Accuracy on held-out {held_out}, with 95 % interval"
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    return plots.save_png(axes.figure, path)
