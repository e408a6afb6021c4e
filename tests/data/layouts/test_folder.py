"""Data sets with one folder per label."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from edgeemo.artifact import hash_lines, write_json
from edgeemo.card import InputContract
from edgeemo.data import faces
from edgeemo.data.layouts import folder
from edgeemo.errors import DataError, UsageError
from edgeemo.labels import label_set

SIX = label_set("six")


def test_a_folder_without_splits_gives_a_fifth_to_valid(folder_of_faces):
    """Two of ten faces of each label; every face is in exactly one split."""
    train, valid = (folder.open_folder(folder_of_faces).samples(split) for split in ("train", "valid"))
    assert (len(train), len(valid)) == (48, 12)
    assert not {s.id for s in train} & {s.id for s in valid}


def test_the_split_is_stratified(folder_of_faces, rng):
    """A fifth each of 10, 25, 40, 55, 70 and 85 faces: valid has the class frequencies of train."""
    for more, label in enumerate(sorted(folder_of_faces.iterdir())):
        for k in range(15 * more):
            Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(label / f"more{k}.png")
    counts = {}
    for split in ("train", "valid"):
        labels = [next(iter(sample.votes)) for sample in folder.open_folder(folder_of_faces).samples(split)]
        counts[split] = [labels.count(label.name) for label in sorted(folder_of_faces.iterdir())]
    assert counts == {"train": [8, 20, 32, 44, 56, 68], "valid": [2, 5, 8, 11, 14, 17]}


def test_the_split_does_not_depend_on_names(folder_of_faces):
    """Renamed files stay in their split, which depends on their content."""
    before = {
        sample.id: (folder_of_faces / sample.id).read_bytes()
        for sample in folder.open_folder(folder_of_faces).samples("valid")
    }
    for file in sorted(folder_of_faces.rglob("*.png")):
        file.rename(file.with_name(f"z{9 - int(file.stem)}.png"))
    after = {
        (folder_of_faces / sample.id).read_bytes() for sample in folder.open_folder(folder_of_faces).samples("valid")
    }
    assert after == set(before.values())


def test_copies_are_in_the_same_split(folder_of_faces):
    """A file and its copy are never in different splits."""
    for k in range(10):
        shutil.copy(folder_of_faces / "fear" / f"{k}.png", folder_of_faces / "fear" / f"copy{k}.png")
    train = {s.id for s in folder.open_folder(folder_of_faces).samples("train")}
    assert all((f"fear/{k}.png" in train) == (f"fear/copy{k}.png" in train) for k in range(10))


def test_split_folders_are_used_if_present(folder_of_faces, tmp_path):
    """root/train/LABEL and root/valid/LABEL."""
    root = tmp_path / "root"
    shutil.copytree(folder_of_faces, root / "train")
    shutil.copytree(folder_of_faces, root / "valid")
    assert len(faces.load(f"folder:{root}", "valid", SIX, contract=InputContract(48))) == 60
    with pytest.raises(DataError, match="has no test split"):
        folder.open_folder(root).samples("test")


def test_missing_folder_is_explained(tmp_path):
    """The error shows the expected layout."""
    with pytest.raises(DataError, match="LABEL"):
        folder.open_folder(tmp_path / "nowhere").samples("train")


def test_empty_class_is_refused(folder_of_faces):
    """An empty label folder is a mistake, not a class without faces."""
    shutil.rmtree(folder_of_faces / "fear")
    (folder_of_faces / "fear").mkdir()
    with pytest.raises(DataError, match="fear holds no images"):
        folder.open_folder(folder_of_faces).samples("train")


def test_missing_class_is_refused_before_training(folder_of_faces):
    """A label without faces cannot be learned; the error suggests --label-set."""
    shutil.rmtree(folder_of_faces / "fear")
    train = faces.load(f"folder:{folder_of_faces}", "train", SIX, contract=InputContract(48))
    with pytest.raises(DataError, match=r"fear \(0\).*--label-set"):
        faces.check_classes(train, SIX, data="folder:faces")


def test_an_unknown_label_is_refused(folder_of_faces):
    """A folder whose name is not a label is not skipped."""
    (folder_of_faces / "fear").rename(folder_of_faces / "boredom")
    with pytest.raises(UsageError, match="boredom"):
        faces.load(f"folder:{folder_of_faces}", "train", SIX, contract=InputContract(48))


def test_a_file_that_cannot_be_opened_is_reported(folder_of_faces):
    """A broken link does not prevent splitting; reading the face, as the audit does, reports it."""
    broken = folder_of_faces / "fear" / "3.png"
    broken.unlink()
    broken.symlink_to("nowhere.png")
    samples = [sample for split in ("train", "valid") for sample in folder.open_folder(folder_of_faces).samples(split)]
    with pytest.raises(DataError, match=r"fear/3\.png does not exist"):
        faces.decode(faces.label(samples, SIX, protocol="plurality"), InputContract(48), what="faces")


def test_unsupported_files_are_counted(folder_of_faces, caplog):
    """Otherwise a folder of TIFFs with one PNG would silently be used with the PNG alone."""
    for name in ("a.tif", "b.tif"):
        (folder_of_faces / "fear" / name).write_bytes(b"II*")
    (folder_of_faces / "fear" / ".hidden").touch()
    folder.open_folder(folder_of_faces).samples("train")
    assert "fear: 2 files ignored, such as a.tif; expected .png" in caplog.text


def test_what_no_person_meant_as_a_face_is_passed_over(folder_of_faces, caplog):
    """Companion files of macOS, hidden images, folders named like images, system folders: counted and named once."""
    expected = [
        sample.id for split in ("train", "valid") for sample in folder.open_folder(folder_of_faces).samples(split)
    ]
    fear = folder_of_faces / "fear"
    (fear / "._3.png").write_bytes(b"Mac OS X")
    shutil.copy(fear / "3.png", fear / ".trash.png")
    (fear / "x.png").mkdir()
    for name in ("@eaDir", "__MACOSX", ".ipynb_checkpoints", "System Volume Information"):
        for parent in (folder_of_faces, fear):
            shutil.copytree(folder_of_faces / "angry", parent / name)
    (fear / "Thumbs.db").touch()
    with caplog.at_level("INFO"):
        found = [
            sample.id for split in ("train", "valid") for sample in folder.open_folder(folder_of_faces).samples(split)
        ]
    assert found == expected
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder_of_faces}: passed over 11 hidden or system files and folders, such as .ipynb_checkpoints/"
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="the file system decides which names it allows")
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.png", r"caf\xe9.png"),
        (b"\xff\xfe.png", r"\xff\xfe.png"),
        (b"two\nlines.png", r"two\x0alines.png"),
        (b"tab\there\x1b[31m.png", r"tab\x09here\x1b[31m.png"),
        ("café 😀 — naïve.png".encode(), "café 😀 — naïve.png"),
        (b"-rf *.png", "-rf *.png"),
    ],
    ids=ascii,
)
def test_any_name_that_a_file_system_allows_can_be_stored(folder_of_faces, tmp_path, name, shown):
    """Read by its real name; its id is text that fits into a line, a list, JSON and a hash."""
    file = folder_of_faces / "fear" / "3.png"
    file.rename(folder_of_faces / "fear" / os.fsdecode(name))
    samples = [sample for split in ("train", "valid") for sample in folder.open_folder(folder_of_faces).samples(split)]
    (found,) = [sample for sample in samples if sample.id == f"fear/{shown}"]
    assert found.read().shape == (48, 48)
    ids = [sample.id for sample in samples]
    write_json(tmp_path / "ids.json", ids)
    assert json.loads((tmp_path / "ids.json").read_text(encoding="utf-8")) == ids
    assert len(hash_lines(ids)) == 64


def test_a_label_of_hidden_files_alone_is_empty(folder_of_faces):
    """They do not hide that the label has no faces."""
    for file in (folder_of_faces / "fear").iterdir():
        file.rename(file.with_name(f"._{file.name}"))
    with pytest.raises(DataError, match="fear holds no images"):
        folder.open_folder(folder_of_faces).samples("train")


def test_a_corrupt_png_is_reported(folder_of_faces):
    """The error has the path of the file."""
    (folder_of_faces / "fear" / "3.png").write_bytes(b"not an image")
    samples = [sample for split in ("train", "valid") for sample in folder.open_folder(folder_of_faces).samples(split)]
    with pytest.raises(DataError, match=r"fear/3\.png"):
        faces.decode(faces.label(samples, SIX, protocol="plurality"), InputContract(48), what="faces")


def test_a_face_that_is_too_small_is_reported(folder_of_faces):
    """The error has the file's name and the command that lists all such files, but no absolute path."""
    Image.new("L", (15, 48)).save(folder_of_faces / "fear" / "3.png")
    samples = [sample for split in ("train", "valid") for sample in folder.open_folder(folder_of_faces).samples(split)]
    with pytest.raises(DataError, match=r"(?s)^fear/3\.png: .*at least 16.*edgeemo data audit"):
        faces.decode(faces.label(samples, SIX, protocol="plurality"), InputContract(48), what="faces")


def test_too_few_images_for_a_valid_split_are_explained(folder_of_faces):
    """A fifth of two images is none: the error says how many a label needs."""
    for file in folder_of_faces.rglob("[2-9].png"):
        file.unlink()
    with pytest.raises(DataError, match=r"valid split is empty.*at least 3"):
        faces.load(f"folder:{folder_of_faces}", "valid", SIX, contract=InputContract(48))
    shutil.copy(folder_of_faces / "fear" / "0.png", folder_of_faces / "fear" / "copy.png")
    with pytest.raises(DataError, match="distinct"):
        folder.open_folder(folder_of_faces).samples("valid")
    Image.new("L", (48, 48)).save(folder_of_faces / "fear" / "third.png")
    assert len(folder.open_folder(folder_of_faces).samples("valid")) >= 1


def test_an_empty_split_is_reported_as_empty():
    """The error does not blame the protocol."""
    with pytest.raises(DataError, match="split is empty"):
        faces.label([], SIX, protocol="plurality")


@pytest.mark.parametrize(("data", "gray"), [("synthetic:60", True), ("ferplus:x", True), ("folder:x", False)])
def test_only_folders_may_have_colour(data, gray):
    """Synthetic and FER+ faces are gray; those of a folder may have colour."""
    assert faces.is_grayscale(data) is gray


@pytest.mark.parametrize("data", ["ck:x", "folder", "ferplus:", ""])
def test_an_unknown_or_incomplete_data_name_is_refused(data):
    """The error lists the kinds of data sets, or asks for the path."""
    with pytest.raises(UsageError, match=r"ferplus:PATH|needs a path"):
        faces.samples(data, "train", SIX)


@pytest.mark.parametrize("content", [b"image,label\r\na.png,1\r\n", b"\xff\xfe", b""], ids=["other", "binary", "empty"])
def test_a_table_of_labels_of_another_program_changes_nothing(put, root, content):
    """Only the first line of edgeemo label's marks the folders beside it as labels."""
    put("set/train/happy", 2)
    put("set/valid/happy", 2)
    (root / "labels.csv").write_bytes(content)
    found = folder.open_folder(root)
    assert found.layout == "folders by split and label"
    assert found.unused == ["labels.csv"]


def test_a_labelled_folder_may_be_packed_or_lie_in_another(put, root):
    """People below the labels may be called test, and editors may add a byte order mark."""
    put("mine/bored/test", 2)
    put("mine/calm/anna", 2)
    (root / "mine" / "labels.csv").write_bytes("\ufeffimage,box,person,label,when\r\n".encode())
    shutil.make_archive(str(root.parent / "mine"), "zip", root)
    for path in (root, root / "mine", root.parent / "mine.zip"):
        found = folder.open_folder(path)
        assert found.unused == []
        assert {label for sample in found.samples("train") for label in sample.votes} == {"bored", "calm"}
