"""A tiny run: 120 drawn faces, two epochs of the slim net."""

from dataclasses import replace

import pytest

from edgeemo.stages import RECIPES
from edgeemo.train import plots

TINY = replace(RECIPES["demo"], data="synthetic:120", epochs=2, batch_size=32, threads=1)


@pytest.fixture
def tiny_with_pictures(tmp_path):
    """As it is for everyone."""
    return replace(TINY, out=str(tmp_path / "run"))


@pytest.fixture
def tiny(tiny_with_pictures, monkeypatch):
    """Without curves and confusion matrix, which would take as long as the two epochs."""
    for picture in ("curves", "confusion"):
        monkeypatch.setattr(plots, picture, lambda *_, **__: None)
    return tiny_with_pictures
