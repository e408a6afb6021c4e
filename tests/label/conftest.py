"""Photos of two people and three faces, with a session over them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from candidates import LABELS, make_candidate
from PIL import Image
from scenes import draw

from edgeemo.card import InputContract
from edgeemo.label.find import Candidate, cut
from edgeemo.label.session import Session
from edgeemo.label.store import Store

TINT = np.array([1.0, 0.9, 0.8])


@pytest.fixture(scope="session")
def drawn_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """anna/one.png and anna/two.png with a face each, ben/both.png with two, ben/none.png without one."""
    folder = tmp_path_factory.mktemp("drawn")
    scenes = {
        "anna/one.png": draw((240, 320), (90, 50, 128)),
        "anna/two.png": draw((240, 320), (60, 40, 140), emotion="happiness"),
        "ben/both.png": draw((240, 400), (20, 60, 128), (230, 60, 128)),
        "ben/none.png": draw((240, 320)),
    }
    for name, gray in scenes.items():
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray((gray[..., None] * TINT).astype(np.uint8)).save(folder / name)
    return folder


@pytest.fixture
def photos(drawn_photos: Path, tmp_path: Path) -> Path:
    """A copy of them, to change."""
    for file in drawn_photos.glob("*/*"):
        target = tmp_path / "photos" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    return tmp_path / "photos"


@pytest.fixture
def crops(tmp_path: Path, rng: np.random.Generator) -> list[Candidate]:
    """Four ready crops of two people."""
    made = []
    for number, person in enumerate(("anna", "ben", "anna", "ben")):
        file = tmp_path / "crops" / person / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(file)
        made.append(make_candidate(number, file, person=person))
    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def open_session(crops: list[Candidate], out: Path) -> Callable[[], Session]:
    """Return a session over the crops that are not labelled yet, as a call of the command opens it."""

    def make() -> Session:
        store = Store(out, LABELS, None)
        store.prepare()
        return Session(store.leave_out_known(crops), crops, store, LABELS, partial(cut, contract=InputContract(48)))

    return make


@pytest.fixture
def session(open_session: Callable[[], Session]) -> Session:
    return open_session()
