"""The calibration list: balanced, seeded, of train faces only, and protected by a hash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeemo.card import InputContract
from edgeemo.compress.quantize import calibrate
from edgeemo.data import load, samples
from edgeemo.errors import DataError, IntegrityError
from edgeemo.labels import LABEL_SETS, label_set
from edgeemo.train.network import contract_for

SIX = LABEL_SETS["six"]
SHIPPED = Path(__file__).parents[2] / "calibration" / "ferplus-six-512.json"


def draw(*, seed: int = 0, count: int = 64) -> calibrate.CalibrationList:
    return calibrate.draw("synthetic:120", SIX, protocol="plurality", count=count, seed=seed)


def change(path: Path, **fields: object) -> Path:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return path


def test_every_label_gets_the_same_number_of_faces() -> None:
    """64 faces of six labels: ten or eleven of each."""
    counts = [sum(f"/{name}/" in face for face in draw().ids) for name in SIX.labels]
    assert sum(counts) == 64
    assert max(counts) - min(counts) <= 1


def test_a_rare_label_gives_all_its_faces_and_the_others_fill_up(folder_of_faces: Path) -> None:
    """With two fear faces and many of the other labels, both are drawn and the rest is balanced."""
    for name in ("neutral", "happy", "surprise", "sadness", "angry"):
        for image in sorted((folder_of_faces / name).iterdir()):
            for copy in range(3):
                pixels = bytearray(image.read_bytes())
                image.with_name(f"{image.stem}-{copy}.png").write_bytes(pixels)
    chosen = calibrate.draw(f"folder:{folder_of_faces}", SIX, protocol="plurality", count=100, seed=0)
    counts = np.array([sum(f"{name}" in face for face in chosen.ids) for name in ("neutral", "happy", "fear")])
    fear = [sample for sample in samples(f"folder:{folder_of_faces}", "train", SIX) if "fear" in sample.id]
    assert counts[2] == len(fear)
    assert counts[2] < counts[0]
    assert abs(counts[0] - counts[1]) <= 1


def test_the_seed_decides_the_list() -> None:
    """The same seed gives the same faces, another seed others."""
    assert draw() == draw()
    assert draw().ids != draw(seed=1).ids


def test_no_evaluation_face_is_drawn() -> None:
    """A list shares no id with valid or test."""
    for split in ("valid", "test"):
        assert not set(draw(count=120).ids) & {sample.id for sample in samples("synthetic:120", split, SIX)}


def test_a_list_survives_writing_and_reading(tmp_path: Path) -> None:
    """Nothing is changed, and its faces are decoded at the size of the contract."""
    calibrate.write(draw(), tmp_path / "list.json")
    chosen = calibrate.read(tmp_path / "list.json")
    assert chosen == draw()
    faces = calibrate.load_faces(chosen, "synthetic:120", contract_for("edge_vgg_slim"))
    assert set(faces.ids) == set(chosen.ids)
    assert faces.pixels.shape == (64, 48, 48)


def test_a_changed_list_is_refused(tmp_path: Path) -> None:
    """An added id does not match the hash."""
    path = tmp_path / "list.json"
    calibrate.write(draw(), path)
    ids = json.loads(path.read_text())["ids"]
    with pytest.raises(IntegrityError, match="changed after it was drawn"):
        calibrate.read(change(path, ids=[*ids, "train/fear/999999"]))


def test_a_list_with_a_face_outside_train_is_refused() -> None:
    """A valid face in the list is an error, even with a correct hash."""
    ids = (*draw().ids, "valid/happiness/000001")
    mixed = calibrate.CalibrationList("synthetic", "six", "plurality", 0, ids)
    with pytest.raises(DataError, match=r"not train faces.*valid/happiness/000001"):
        calibrate.load_faces(mixed, "synthetic:120", contract_for("edge_vgg_slim"))


def test_a_list_of_other_data_is_refused() -> None:
    """A FER+ list cannot be used with synthetic faces."""
    foreign = calibrate.CalibrationList("ferplus", "six", "plurality", 0, draw().ids)
    with pytest.raises(DataError, match="ferplus faces"):
        calibrate.load_faces(foreign, "synthetic:120", contract_for("edge_vgg_slim"))


def test_too_few_faces_are_refused_and_few_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    """An error below 64 faces, a warning below 256, and a warning for fewer than requested."""
    with pytest.raises(DataError, match="--calibration-count 63: expected 64 or more; the data has 120"):
        draw(count=63)
    with pytest.raises(DataError, match=r"at least 64 labelled train faces .* the data has 60: add faces") as refused:
        calibrate.draw("synthetic:60", label_set("six"), protocol="plurality", count=512, seed=0)
    assert "--calibration-count" not in str(refused.value)  # more cannot be drawn
    draw(count=200)
    assert "calibrating on 120 faces" in caplog.text
    assert "requested 200" in caplog.text


def test_a_file_that_is_not_a_list_is_refused(tmp_path: Path) -> None:
    """A missing file, other JSON and a list of another split are DataErrors."""
    with pytest.raises(DataError, match="does not exist"):
        calibrate.read(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(DataError, match="not a calibration list"):
        calibrate.read(tmp_path / "other.json")
    calibrate.write(draw(), tmp_path / "list.json")
    with pytest.raises(DataError, match="expected format and split"):
        calibrate.read(change(tmp_path / "list.json", split="valid"))


def test_the_shipped_list_is_reproducible(ferplus: str) -> None:
    """calibration/ferplus-six-512.json matches its header: 512 train faces of FER+, drawn with seed 0."""
    shipped = calibrate.read(SHIPPED)
    assert shipped == calibrate.draw(ferplus, SIX, protocol="plurality", count=512, seed=0)


def test_own_labels_keep_their_name() -> None:
    """A list of own labels stores them, so that it can be read again."""
    own = label_set("sadness,anger")
    assert label_set(calibrate.format_label_set(own)).labels == own.labels


def test_copies_of_valid_faces_and_blank_images_are_not_drawn(folder_of_faces: Path, tmp_path: Path) -> None:
    """By their pixels, whatever their names and formats are."""
    root = tmp_path / "data"
    for label in sorted(folder_of_faces.iterdir()):
        for k, image in enumerate(sorted(label.iterdir())):
            for name in ("train", "valid") if k < 2 else ("train",):
                (root / name / label.name).mkdir(parents=True, exist_ok=True)
                suffix = "bmp" if name == "valid" else "png"
                with Image.open(image) as face:
                    face.save(root / name / label.name / f"{name}{k}.{suffix}")
                    if name == "train":
                        face.rotate(90).save(root / name / label.name / f"turned{k}.png")
        Image.new("L", (48, 48), 128).save(root / "train" / label.name / "blank.png")
        (root / "train" / label.name / "broken.png").write_bytes(b"broken")
    chosen = calibrate.draw(f"folder:{root}", SIX, protocol="plurality", count=200, seed=0)
    assert len(chosen.ids) == 6 * (20 - 2)
    assert not [
        face for face in chosen.ids if "blank" in face or "broken" in face or face.endswith(("n0.png", "n1.png"))
    ]
    train, valid = (load(f"folder:{root}", split, SIX, contract=InputContract(48)) for split in ("valid", "valid"))
    with pytest.raises(DataError, match=r"12 faces of the calibration list are copies of valid faces.*draw\.py"):
        calibrate.check_apart(train, valid, f"folder:{root}")


def test_lists_of_blank_images_or_too_few_labels_are_refused(folder_of_faces: Path) -> None:
    """Ranges from them would not hold for faces."""
    data = f"folder:{folder_of_faces}"
    ids = [sample.id for sample in samples(data, "train", SIX)]
    few = calibrate.CalibrationList("folder", "six", "plurality", 0, tuple(one for one in ids if one[0] in "af"))
    with pytest.raises(DataError, match="show 2 of 6 labels; expected 4"):
        calibrate.load_faces(few, data, InputContract(48))
    Image.new("L", (48, 48), 0).save(folder_of_faces / ids[0])
    blank = calibrate.CalibrationList("folder", "six", "plurality", 0, tuple(samples_of(data)))
    with pytest.raises(DataError, match="1 calibration images are blank"):
        calibrate.load_faces(blank, data, InputContract(48))


def samples_of(data: str) -> list[str]:
    return [sample.id for sample in samples(data, "train", SIX)]
