"""A tiny run: 120 synthetic faces, two epochs of the slim network."""

from dataclasses import replace

import pytest

from edgeemo.stages import RECIPES
from edgeemo.train import plots

TINY = replace(RECIPES["demo"], data="synthetic:120", epochs=2, batch_size=32, threads=1)


@pytest.fixture
def tiny_with_plots(tmp_path):
    """The settings of a tiny run, with plots."""
    return replace(TINY, out=str(tmp_path / "run"))


@pytest.fixture
def tiny(tiny_with_plots, monkeypatch):
    """The settings of a tiny run without plots, which would take as long as the two epochs."""
    for plot in ("plot_curves", "plot_confusion"):
        monkeypatch.setattr(plots, plot, lambda *_, **__: None)
    return tiny_with_plots
