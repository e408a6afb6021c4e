"""A place to adapt to."""

from __future__ import annotations

from pathlib import Path

import pytest
from place import write_faces


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 faces of ten people."""
    return write_faces(tmp_path_factory.mktemp("place") / "mine", range(20))
