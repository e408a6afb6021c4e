"""The calibration list: even, seeded, of train faces only, and sealed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgeemo.compress.quantize import calibrate
from edgeemo.data import samples
from edgeemo.errors import DataError, IntegrityError
from edgeemo.labels import LABEL_SETS, label_set
from edgeemo.train.network import contract_for

SIX = LABEL_SETS["six"]
SHIPPED = Path(__file__).parents[2] / "calibration" / "ferplus-six-512.json"


def drawn(*, seed: int = 0, count: int = 64) -> calibrate.CalibrationList:
    return calibrate.draw("synthetic:120", SIX, protocol="plurality", count=count, seed=seed)


def changed(path: Path, **fields: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return path


def test_every_label_gets_the_same_number_of_faces() -> None:
    """64 faces of six labels are ten or eleven of each."""
    counts = [sum(f"/{name}/" in face for face in drawn().ids) for name in SIX.labels]
    assert sum(counts) == 64
    assert max(counts) - min(counts) <= 1


def test_a_rare_label_gives_all_it_has_and_the_others_fill_up(folder_of_faces: Path) -> None:
    """With two fear faces of twelve a label, both are drawn and the rest stays even."""
    for name in ("neutral", "happy", "surprise", "sadness", "angry"):
        for picture in sorted((folder_of_faces / name).iterdir()):
            for copy in range(3):
                pixels = bytearray(picture.read_bytes())
                picture.with_name(f"{picture.stem}-{copy}.png").write_bytes(pixels)
    chosen = calibrate.draw(f"folder:{folder_of_faces}", SIX, protocol="plurality", count=100, seed=0)
    counts = np.array([sum(f"{name}" in face for face in chosen.ids) for name in ("neutral", "happy", "fear")])
    fear = [sample for sample in samples(f"folder:{folder_of_faces}", "train", SIX) if "fear" in sample.id]
    assert counts[2] == len(fear)
    assert counts[2] < counts[0]
    assert abs(counts[0] - counts[1]) <= 1


def test_the_seed_decides_the_list() -> None:
    """The same seed draws the same faces, another seed others."""
    assert drawn() == drawn()
    assert drawn().ids != drawn(seed=1).ids


def test_no_face_that_judges_is_drawn() -> None:
    """A list shares no id with valid or test."""
    for split in ("valid", "test"):
        assert not set(drawn(count=120).ids) & {sample.id for sample in samples("synthetic:120", split, SIX)}


def test_a_list_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """Writing and reading changes nothing, and the faces come decoded in the contract's size."""
    calibrate.write(drawn(), tmp_path / "list.json")
    chosen = calibrate.read(tmp_path / "list.json")
    assert chosen == drawn()
    faces = calibrate.faces(chosen, "synthetic:120", contract_for("edge_vgg_slim"))
    assert set(faces.ids) == set(chosen.ids)
    assert faces.pixels.shape == (64, 48, 48)


def test_a_changed_list_is_refused(tmp_path: Path) -> None:
    """An id added after the draw breaks the seal."""
    path = tmp_path / "list.json"
    calibrate.write(drawn(), path)
    ids = json.loads(path.read_text())["ids"]
    with pytest.raises(IntegrityError, match="changed after it was drawn"):
        calibrate.read(changed(path, ids=[*ids, "train/fear/999999"]))


def test_a_list_with_a_face_outside_train_is_refused() -> None:
    """A valid face in a list, even with a right hash, stops the calibration."""
    ids = (*drawn().ids, "valid/happiness/000001")
    sneaky = calibrate.CalibrationList("synthetic", "six", "plurality", 0, ids)
    with pytest.raises(DataError, match=r"not train faces.*valid/happiness/000001"):
        calibrate.faces(sneaky, "synthetic:120", contract_for("edge_vgg_slim"))


def test_a_list_of_other_data_is_refused() -> None:
    """A FER+ list cannot calibrate on drawn faces."""
    foreign = calibrate.CalibrationList("ferplus", "six", "plurality", 0, drawn().ids)
    with pytest.raises(DataError, match="ferplus faces"):
        calibrate.faces(foreign, "synthetic:120", contract_for("edge_vgg_slim"))


def test_too_few_faces_are_refused_and_few_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """Under 64 faces it stops, under 256 it warns, and fewer than asked for are named."""
    with pytest.raises(DataError, match="at least 64"):
        drawn(count=63)
    drawn(count=200)
    assert "calibrating on 120 faces" in caplog.text
    assert "asked for 200" in caplog.text


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    """A missing file, other JSON and a list of another split are the user's mistakes."""
    with pytest.raises(DataError, match="does not exist"):
        calibrate.read(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DataError, match="not a calibration list"):
        calibrate.read(tmp_path / "other.json")
    calibrate.write(drawn(), tmp_path / "list.json")
    with pytest.raises(DataError, match="expected format and split"):
        calibrate.read(changed(tmp_path / "list.json", split="valid"))


def test_the_shipped_list_is_sealed_and_even(ferplus: str) -> None:
    """calibration/ferplus-six-512.json is what its header says: 512 train faces of FER+, drawn by seed 0."""
    shipped = calibrate.read(SHIPPED)
    assert shipped == calibrate.draw(ferplus, SIX, protocol="plurality", count=512, seed=0)


def test_own_labels_keep_their_name() -> None:
    """A list of own labels says which, so that it can be read again."""
    own = label_set("sadness,anger")
    assert label_set(calibrate.name_of(own)).labels == own.labels
