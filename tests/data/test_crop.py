"""Crops out of labelled photos: the same pixels as when a model runs, and an account of every photo."""

from __future__ import annotations

import csv
import json
import logging
import shutil
import tarfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import make_tiny
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import edgeemo
from edgeemo import images, stages
from edgeemo.bench import accuracy
from edgeemo.card import Crop, InputContract
from edgeemo.cli import main
from edgeemo.data import audit, cache, faces
from edgeemo.data.crop import run
from edgeemo.data.crop_record import RECORD, TABLE
from edgeemo.data.drawing import draw_face
from edgeemo.data.layouts.folder import open_folder
from edgeemo.errors import DataError, UsageError
from edgeemo.faces import Detection, crop, load_detector
from edgeemo.faces.search import SearchDetector
from edgeemo.labels import label_set
from edgeemo.names import is_reserved_name
from edgeemo.stages import Audit, CropPhotos

SIX = label_set("six")
CONTRACTS = (
    InputContract(48),
    InputContract(48, "rgb", (0.5,) * 3, (0.25,) * 3),
    InputContract(48, "gray3", (0.5,) * 3, (0.25,) * 3),
)
TINT = np.array([1.0, 0.9, 0.8])


def paint(*places: tuple[int, int, int], tilt: float = 0, seed: int = 18) -> Image.Image:
    """A colour photo of 480x360 px with synthetic faces: x, y and side of each; turned about its middle."""
    gray = np.full((360, 480), 110, np.uint8)
    for number, (x, y, side) in enumerate(places):
        gray[y : y + side, x : x + side] = draw_face("neutral", seed=(seed, 6, 20)[number], size=side)
    photo = Image.fromarray((gray[..., None] * TINT).astype(np.uint8))
    return photo.rotate(-tilt, Image.Resampling.BICUBIC, fillcolor=(110, 99, 88))


ONE, TWO = ((170, 110, 128),), ((40, 40, 128), (260, 120, 200))


def save(path: Path, photo: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    photo.save(path)


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos of two labels: one face level, one tilted; none; two; and a file that is no image."""
    folder = tmp_path / "photos"
    save(folder / "train" / "happy" / "level.png", paint(*ONE))
    save(folder / "train" / "happy" / "tilted.png", paint(*ONE, tilt=25))
    save(folder / "train" / "happy" / "two.png", paint(*TWO))
    save(folder / "valid" / "sad" / "empty.png", paint())
    save(folder / "valid" / "sad" / "level.png", paint(*ONE, seed=21))
    (folder / "valid" / "sad" / "broken.png").write_bytes(b"\x89PNG")
    return folder


def config(photos: Path, **settings: object) -> CropPhotos:
    about = {"source": f"folder:{photos}", "out": photos.parent / "crops", "threads": 2, "skip_unreadable": True}
    return CropPhotos(**{**about, **settings})


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda one: one.colour)
def test_a_crop_is_what_the_runtime_makes_of_the_photo(photos: Path, contract: InputContract) -> None:
    """To the bit, turned or not, and so is the prediction; of a face that is not turned for every input size."""
    out = run(config(photos))
    detector = load_detector()
    for name in ("level", "tilted"):
        photo = images.read(photos / "train" / "happy" / f"{name}.png")
        (face,) = detector.detect(photo)
        expected = crop(photo, face, contract)
        written = out / "train" / "happy" / f"{name}.png"
        assert np.array_equal(images.to_pixels(images.read(written), contract), expected)
        if name == "level":
            large = replace(contract, size=224)
            assert np.array_equal(images.to_pixels(images.read(written), large), crop(photo, face, large))


def test_a_model_predicts_the_same_for_crop_and_photo(photos: Path, tmp_path: Path) -> None:
    """Every probability, to the bit."""
    out = run(config(photos))
    with edgeemo.load(make_tiny.write(tmp_path / "tiny.onnx")) as model:
        for name in ("level", "tilted"):
            photo = images.read(photos / "train" / "happy" / f"{name}.png")
            (face,) = model.faces(photo, color="rgb", augment=False)
            assert model.predict(out / "train" / "happy" / f"{name}.png") == face.prediction


def test_resized_crops_are_the_input_of_an_rgb_model(photos: Path) -> None:
    """To the bit; that of a gray one to a level or two, since each step is rounded to 8 bits."""
    out = run(config(photos, resize=True))
    for name in ("level", "tilted"):
        photo = images.read(photos / "train" / "happy" / f"{name}.png")
        (face,) = load_detector().detect(photo)
        written = images.read(out / "train" / "happy" / f"{name}.png")
        assert np.array_equal(written, crop(photo, face, CONTRACTS[1]))
        gray = images.to_pixels(written, CONTRACTS[0])
        assert np.abs(gray.astype(int) - crop(photo, face, CONTRACTS[0])).max() <= 2


def test_every_photo_is_accounted_for(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the table with its face and why there is no crop of it, in the record by number, in the log in words."""
    with caplog.at_level(logging.INFO):
        out = run(config(photos))
    rows = {row["photo"]: row for row in read_table(out)}
    outcomes = {name: row["outcome"] for name, row in rows.items()}
    assert outcomes == {
        "train/happy/level.png": "cropped",
        "train/happy/tilted.png": "cropped",
        "train/happy/two.png": "several faces",
        "valid/sad/broken.png": "unreadable",
        "valid/sad/empty.png": "no face",
        "valid/sad/level.png": "cropped",
    }
    assert {name for name, row in rows.items() if row["crop"]} == {n for n, o in outcomes.items() if o == "cropped"}
    assert all((out / row["crop"]).is_file() for row in rows.values() if row["crop"])
    assert rows["train/happy/two.png"]["faces"] == "2"
    tilted = rows["train/happy/tilted.png"]
    assert (abs(float(tilted["tilt"]) - 25) < 8, tilted["turned"]) == (True, "True")
    assert rows["train/happy/level.png"]["turned"] == "False"
    assert "broken.png" in rows["valid/sad/broken.png"]["reason"]
    record = json.loads((out / RECORD).read_text())
    assert record["outcomes"] == {"cropped": 3, "several faces": 1, "no face": 1, "unreadable": 1}
    assert record["crops"] == {"train": {"happy": 2}, "valid": {"sad": 1}}
    assert record["crop"] == {"side_eye_distances": 2.8, "below_eyes": 0.3, "turn_from_degrees": 10.0}
    assert "train: happy 2 of 3" in caplog.text
    assert "1 photo with several faces left out; --several largest" in caplog.text


def test_the_largest_of_several_faces_is_taken_on_request(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And the log says that it may not be the labelled one."""
    out = run(config(photos, several="largest"))
    (row,) = (row for row in read_table(out) if row["photo"].endswith("two.png"))
    assert (row["outcome"], row["faces"]) == ("cropped", "2")
    assert float(row["x"]) > 240  # the right one is 200 px, the left one 128
    assert "1 photo with several faces: the largest was taken" in caplog.text


def test_unreadable_photos_are_an_error_after_all_others_are_cropped(photos: Path) -> None:
    """Exit code 3, as elsewhere, with their names; --skip-unreadable makes it 0."""
    command = ["data", "crop", f"folder:{photos}", "--out"]
    done = CliRunner().invoke(main, [*command, str(photos.parent / "first")])
    assert done.exit_code == DataError.exit_code
    error = next(line for line in done.output.splitlines() if line.startswith("error: "))
    assert "1 of 6 photos cannot be read, as listed in" in error
    assert error.endswith(f"Next:  edgeemo train --data folder:{photos.parent / 'first'}")
    assert (photos.parent / "first" / RECORD).is_file()
    done = CliRunner().invoke(main, [*command, str(photos.parent / "second"), "--skip-unreadable"])
    assert done.exit_code == 0, done.output
    assert "next:  edgeemo train --data folder:" in done.output


@pytest.mark.parametrize("skip", [False, True])
def test_unreadable_photos_are_logged_one_by_one(photos: Path, caplog: pytest.LogCaptureFixture, skip: bool) -> None:
    """The first ten, each with its name; the table has the others."""
    for number in range(11):
        (photos / "valid" / "sad" / f"empty-{number:02}.png").touch()
    with nullcontext() if skip else pytest.raises(DataError, match="12 of 17 photos cannot be read, as listed in"):
        run(config(photos, skip_unreadable=skip))
    logged = [message.partition(":")[0] for message in caplog.messages if "sad/" in message]
    assert logged == ["valid/sad/broken.png", *(f"valid/sad/empty-{number:02}.png" for number in range(9))]


def test_photos_without_a_label_are_logged(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those beside the folders of labels, which would be missed in silence."""
    for number in range(6):
        save(photos / "train" / f"loose-{number}.png", paint(*ONE))
    with caplog.at_level(logging.INFO):
        run(config(photos))
    expected = f"{photos}: not used: 6 images outside of the label folders: train/loose-0.png, train/loose-1.png"
    assert [message for message in caplog.messages if message.startswith(expected) and message.endswith(", …")]


def test_photos_of_heads_turned_far_sideways_are_marked(
    photos: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the table and the log: their eyes are so close together that the box gave the square's side."""
    row = next(row for row in read_table(run(config(photos))) if row["photo"].endswith("happy/level.png"))
    assert row["sideways"] == "False"
    assert "sideways" not in caplog.text
    detect = SearchDetector.detect

    def detect_sideways(self: SearchDetector, image: np.ndarray) -> list[Detection]:
        return [
            replace(one, landmarks=(one.landmarks[0], (one.landmarks[0][0] + 5, one.landmarks[0][1])))
            for one in detect(self, image)
        ]

    monkeypatch.setattr(SearchDetector, "detect", detect_sideways)
    rows = read_table(run(config(photos, out=photos.parent / "other")))
    assert {row["sideways"] for row in rows if row["outcome"] == "cropped"} == {"True"}
    assert "3 crops of heads turned far sideways" in caplog.text


def test_names_of_any_bytes_stay_apart(tmp_path: Path) -> None:
    """Same stems, same names in other folders or case, bytes that are not UTF-8, and names longer than a file's."""
    below = tmp_path / "photos" / "train" / "happy"
    names = [b"a.png", b"A.bmp", b"x/a.png", b"y/a.png", b"\xff.png", b"\xfe.png", b"what?.png", b"what*.png"]
    names += ["é.png".encode(), "e\u0301.png".encode(), b"n" * 200 + b"1.png", b"n" * 200 + b"2.png"]
    for name in names:
        path = Path(str(below), *[part.decode(errors="surrogateescape") for part in name.split(b"/")])
        save(path, paint(*ONE))
    rows = read_table(run(config(tmp_path / "photos")))
    files = [row["crop"] for row in rows]
    total = sum(row["outcome"] == "cropped" for row in rows)
    assert total == len(rows) == len(names)
    assert len({file.casefold() for file in files}) == total
    assert all((tmp_path / "crops" / file).is_file() for file in files)
    assert all(len(Path(file).name.encode()) < 200 and not set(file) & set('\\:*?"<>|') for file in files)
    assert {"n", "w", "a", "é"} <= {Path(file).name[0].casefold() for file in files}  # they begin as their photos do


def test_a_name_that_looks_marked_is_marked_again(tmp_path: Path) -> None:
    """The mark of a repeated name may itself be the name of a photo."""
    below = tmp_path / "photos" / "train" / "happy"
    for name in ("a.png", "a.bmp"):
        save(below / name, paint(*ONE))
    first = run(config(tmp_path / "photos", out=tmp_path / "first"))
    marked = next(Path(row["crop"]).stem for row in read_table(first) if row["photo"].endswith("a.bmp"))
    save(below / f"{marked}.png", paint(*ONE))
    files = [row["crop"] for row in read_table(run(config(tmp_path / "photos", out=tmp_path / "second")))]
    assert len(set(files)) == 3


def write_affectnet(folder: Path, names: list[str]) -> str:
    """AffectNet's tables with a row of train per name, each with another box; return the data set."""
    head = "subDirectory_filePath,face_x,face_y,face_width,face_height,expression"
    folder.mkdir(exist_ok=True)
    (folder / "training.csv").write_text(
        "\n".join([head, *(f"{name},{k},0,480,360,1" for k, name in enumerate(names))])
    )
    (folder / "validation.csv").write_text(head)
    return f"affectnet:{folder}"


def test_a_photo_that_a_table_lists_twice_gives_two_crops(tmp_path: Path) -> None:
    """Of two faces, or by mistake: each row has a file of its own."""
    save(tmp_path / "affectnet" / "1" / "a.png", paint(*ONE))
    source = write_affectnet(tmp_path / "affectnet", ["1/a.png"] * 3)
    rows = read_table(run(config(tmp_path / "affectnet", source=source)))
    assert [row["photo"] for row in rows] == ["1/a.png"] * 3
    assert {row["outcome"] for row in rows} == {"cropped"}
    assert len({row["crop"] for row in rows}) == 3


def test_a_data_set_without_a_photo_is_refused(tmp_path: Path) -> None:
    """A table may have its header only."""
    source = write_affectnet(tmp_path / "affectnet", [])
    with pytest.raises(DataError, match=r"affectnet lists no photo \(AffectNet's tables\)"):
        run(config(tmp_path / "affectnet", source=source))
    assert not (tmp_path / "crops").exists()


@pytest.mark.parametrize("name", ["CON", "nul", "com1.x", "Lpt9 .y", "aux."])
def test_names_that_windows_does_not_allow_are_changed(tmp_path: Path, name: str) -> None:
    """Whatever their suffix; those that only begin like them stay."""
    below = tmp_path / "photos" / "train" / "happy"
    for one in (name, "console", "com12"):
        save(below / f"{one}.png", paint(*ONE))
    files = {row["photo"]: Path(row["crop"]).name for row in read_table(run(config(tmp_path / "photos")))}
    assert files["train/happy/console.png"] == "console.png"
    assert files["train/happy/com12.png"] == "com12.png"
    assert not is_reserved_name(files[f"train/happy/{name}.png"])
    assert not is_reserved_name(Path(files[f"train/happy/{name}.png"]).stem)


@pytest.mark.parametrize("label", ["aux", "joy.", "joy "])
def test_labels_that_windows_does_not_allow_are_refused(tmp_path: Path, label: str) -> None:
    """The folder could not be copied there, or would be that of another label."""
    save(tmp_path / "photos" / "train" / label / "a.png", paint(*ONE))
    with pytest.raises(DataError, match=f"the label '{label}' cannot be the name of a folder on Windows; rename it"):
        run(config(tmp_path / "photos"))


def test_an_unknown_label_of_crops_is_not_blamed_on_the_record(photos: Path) -> None:
    """The images are in folders by label already; crop.json and crops.csv hold no labels to move them by."""
    out = run(config(photos))
    (out / "train" / "happy").rename(out / "train" / "smirk")
    with pytest.raises(UsageError, match=r"label smirk; expected .*Choose another --label-set") as caught:
        audit.run(Audit(data=f"folder:{out}", near=0))
    assert "are not read" not in str(caught.value)


def test_loading_the_faces_of_an_archive_opens_it_once_a_split(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which reads a whole tar: what is known of its crop stays known, until it is opened again."""
    out = run(config(photos))
    with tarfile.open(out.parent / "crops.tar", "w") as archive:
        archive.add(out, "crops")
    opened = []
    monkeypatch.setitem(faces.OPEN, "folder", lambda path: opened.append(path) or open_folder(path))
    for split in ("train", "valid"):
        faces.load(f"folder:{out.parent / 'crops.tar'}", split, SIX, contract=InputContract(48))
    assert len(opened) == 2


def test_audit_and_training_read_the_folder(photos: Path) -> None:
    """As folders by split and label, in which nothing is unused, with the crop; in an archive as well."""
    numbers = {"side_eye_distances": 3.0, "below_eyes": 0.4, "turn_from_degrees": 15.0}
    out = run(config(photos, **numbers))
    found = audit.run(Audit(data=f"folder:{out}", near=0))
    assert found.interpretation
    assert (found.interpretation.unused, found.interpretation.layout) == (0, "folders by split and label")
    assert [(split.split, split.faces) for split in found.splits] == [("train", 2), ("valid", 1)]
    assert faces.find_crop(f"folder:{out}") == Crop(3.0, 0.4, 15.0)
    with tarfile.open(out.parent / "crops.tar", "w") as archive:
        archive.add(out, "crops")
    assert faces.find_crop(f"folder:{out.parent / 'crops.tar'}") == Crop(3.0, 0.4, 15.0)
    assert faces.find_crop(f"folder:{photos}") is None
    assert faces.find_crop("synthetic") is None


def test_data_of_two_crops_is_refused(photos: Path) -> None:
    """As where folders of crops were put together; of the same crop, they are one data set."""
    out = run(config(photos))
    shutil.copy(out / RECORD, out / "train" / RECORD)
    assert faces.find_crop(f"folder:{out}") == Crop()
    record = json.loads((out / RECORD).read_text())
    record["crop"]["side_eye_distances"] = 3.5
    (out / "valid" / RECORD).write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"side_eye_distances 2\.8.*side_eye_distances 3\.5"):
        faces.samples(f"folder:{out}", "train", SIX)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "crop.json does not state"),
        ("[]", "expected an object"),
        ('{"format": 2, "crop": {}}', "one of 1, got 2"),
        ('{"format": 1}', "crop is missing"),
        (
            '{"format": 1, "crop": {"side_eye_distances": 2.8, "below_eyes": 0.3, "turn_from_degrees": 999}}',
            "at most 180",
        ),
        ('{"format": 1, "format": 1}', "twice"),
        (" " * (1 << 20) + "{}", "more than"),
    ],
)
def test_a_record_that_states_no_crop_is_refused(folder_of_faces: Path, content: str, says: str) -> None:
    """With what was expected; a crop that is not known is never taken for the default."""
    (folder_of_faces / RECORD).write_text(content)
    with pytest.raises(DataError, match=says):
        faces.find_crop(f"folder:{folder_of_faces}")


@pytest.mark.parametrize("loaded", ["load", "listed", "bench"])
@pytest.mark.parametrize("crop", [None, Crop(), Crop(3.5)])
def test_data_of_another_crop_than_the_models_is_logged(
    folder_of_faces: Path, caplog: pytest.LogCaptureFixture, loaded: str, crop: Crop | None
) -> None:
    """By evaluate and parity, compress and search, and bench; not where it is the same, stated or not."""
    record = {"format": 1, "crop": {"side_eye_distances": 2.8, "below_eyes": 0.3, "turn_from_degrees": 10.0}}
    (folder_of_faces / RECORD).write_text(json.dumps(record))
    data, contract = f"folder:{folder_of_faces}", InputContract(48, crop=crop)
    if loaded == "load":
        for _ in range(2):
            faces.load(data, "train", SIX, contract=contract)
    elif loaded == "listed":
        listed = cache.list_faces(data, ("train",), SIX, protocol="plurality")
        listed.load(contract, cache=cache.Cache(folder_of_faces.parent / "cache", given=False), threads=1)
    else:
        accuracy.decode_faces(accuracy.make_eval_set(data, "train", "plurality", make_tiny.card()), contract)
    warned = "cropped with side_eye_distances 2.8" in caplog.text and "expects side_eye_distances 3.5" in caplog.text
    assert warned == (crop == Crop(3.5))
    assert caplog.text.count("cropped with") <= 1


def test_votes_are_refused(tmp_path: Path) -> None:
    """A folder by label would lose them."""
    (tmp_path / "plus" / "FER2013Train").mkdir(parents=True)
    save(tmp_path / "plus" / "FER2013Train" / "fer0000000.png", paint(*ONE))
    (tmp_path / "plus" / "FER2013Train" / "label.csv").write_text(
        'fer0000000.png,"(0, 0, 48, 48)",4,6,0,0,0,0,0,0,0,0\n'
    )
    with pytest.raises(UsageError, match="10 votes, which folders by label cannot hold"):
        run(config(tmp_path, source=f"ferplus:{tmp_path / 'plus'}"))


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"out": "photos/crops"}, UsageError, "lies inside the data set"),
        ({"out": "full"}, UsageError, "is not empty"),
        ({"out": "photos/valid/sad/broken.png"}, UsageError, "lies inside"),
        ({"source": "synthetic"}, UsageError, "crops already"),
        ({"source": "bare"}, UsageError, "edgeemo data crop folder:"),
        ({"source": "folder:nowhere"}, DataError, "does not exist"),
        ({"detector": "scrfd"}, UsageError, "unknown detector"),
        ({"threshold": 0.99}, DataError, "none of 6 photos gave a crop"),
    ],
)
def test_what_cannot_give_crops_is_refused(
    photos: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], error: type[Exception], says: str
) -> None:
    """And nothing is left behind."""
    monkeypatch.chdir(photos.parent)
    (photos.parent / "full").mkdir()
    (photos.parent / "full" / "file").touch()
    (photos.parent / "bare").mkdir()
    before = sorted(photos.parent.rglob("*"))
    with pytest.raises(error, match=says):
        run(config(photos, **settings))
    assert sorted(photos.parent.rglob("*")) == before


def test_an_empty_folder_is_filled_and_a_filled_one_is_not(photos: Path) -> None:
    """Crops of before are neither mixed with others nor replaced."""
    (photos.parent / "crops").mkdir()
    out = run(config(photos))
    before = sorted(out.rglob("*"))
    with pytest.raises(UsageError, match="is not empty"):
        run(config(photos))
    assert sorted(out.rglob("*")) == before
    with pytest.raises(UsageError, match="holds crops already"):
        run(config(photos, source=f"folder:{out}", out=photos.parent / "again"))


def test_an_interrupted_command_leaves_nothing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a folder that looks finished nor its temporary one."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(config(photos))
    assert [path.name for path in photos.parent.iterdir()] == ["photos"]


def test_one_thread_and_several_write_the_same(photos: Path) -> None:
    """Every file, to the byte."""
    first, second = (run(config(photos, threads=n, out=photos.parent / f"by-{n}")) for n in (1, 3))
    files = [path.relative_to(first) for path in sorted(first.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(second) for path in sorted(second.rglob("*")) if path.is_file()]
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


def test_the_options_are_the_defaults_of_the_card() -> None:
    """The crop of the shipped models; stages.py cannot import it."""
    defaults = stages.CropPhotos(source="folder:x", out="y")
    assert Crop(defaults.side_eye_distances, defaults.below_eyes, defaults.turn_from_degrees) == Crop()
