"""The tiny model, and copies of it that can be spoiled."""

from __future__ import annotations

from pathlib import Path

import make_tiny
import pytest


@pytest.fixture(scope="session")
def tiny() -> Path:
    return make_tiny.HERE / "tiny.onnx"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the tiny model with its card."""
    return make_tiny.write(tmp_path / "copy.onnx")
