"""A tiny run: 120 drawn faces, one epoch of the slim net."""

from dataclasses import replace

import pytest

from edgeemo.stages import RECIPES

TINY = replace(RECIPES["demo"], data="synthetic:120", epochs=2, batch_size=32, threads=1)


@pytest.fixture
def tiny(tmp_path):
    return replace(TINY, out=str(tmp_path / "run"))
