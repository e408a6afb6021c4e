"""Faces to find: drawn scenes, and public-domain photos where a package brings them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hard_faces import find_photos

from edgeemo import images
from edgeemo.faces import load_detector
from edgeemo.faces.search import SearchDetector

YUNET = {
    name: Path(__file__).parents[3] / "shared" / "data" / f"{name}.onnx"
    for name in ("yunet_n_dynamic", "yunet_s_640_640")
}


@pytest.fixture(scope="session")
def detector() -> SearchDetector:
    """The packaged detector."""
    return load_detector()


@pytest.fixture(scope="session")
def photo() -> Callable[[str], np.ndarray]:
    """A public-domain photo by the name of its file, or a skip with its reason."""
    found = find_photos()

    def read(name: str) -> np.ndarray:
        if name not in found:
            pytest.skip(f"{name} is in none of the installed packages (pip install matplotlib scikit-image)")
        return images.read(found[name])

    return read


@pytest.fixture(params=sorted(YUNET))
def yunet(request: pytest.FixtureRequest) -> Path:
    """A file of YuNet, or a skip with its reason."""
    path = YUNET[request.param]
    if not path.is_file():
        pytest.skip(f"{path.name} is not in ../shared/data")
    return path
