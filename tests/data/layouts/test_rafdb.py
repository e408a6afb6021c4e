"""RAF-DB's basic emotions on made-up files."""

import shutil

import pytest

from edgeemo.data import faces
from edgeemo.data.layouts.codes import RAFDB as LABELS
from edgeemo.data.layouts.rafdb import open_rafdb
from edgeemo.errors import DataError
from edgeemo.labels import label_set

SEVEN = label_set("seven")


@pytest.fixture
def authors(put, root):
    """EmoLabel and Image/aligned, five training and two test faces of each label."""
    rows = []
    for code in LABELS:
        for split, count in (("train", 5), ("test", 2)):
            for k, path in enumerate(put("basic/Image/aligned", count, suffix=".jpg", stem=f"{split}_{code}000")):
                path.rename(path.with_name(f"{path.stem}_aligned.jpg"))
                rows.append(f"{split}_{code}000{k}.jpg {code}")
    (root / "basic" / "EmoLabel").mkdir()
    (root / "basic" / "EmoLabel" / "list_patition_label.txt").write_text("\n".join(rows) + "\n")
    return root


def test_the_authors_layout_is_read(authors):
    """Codes from 1, surprise, to 7, neutral; a fifth of train is valid."""
    opened = open_rafdb(authors)
    assert opened.layout == "RAF-DB's basic emotions"
    assert {split: len(opened.samples(split)) for split in opened.sources} == {"train": 28, "valid": 7, "test": 14}
    by_id = {sample.id: sample for sample in opened.samples("test")}
    assert by_id["test_40000.jpg"].votes == {"happiness": 1.0}
    assert by_id["test_40000.jpg"].read().shape == (48, 48)


def test_the_folders_of_kaggle_are_read_by_their_numbers(put, root, labels_of):
    """DATASET/train/1 to 7, with two tables beside them that are not needed."""
    for split, count in (("train", 5), ("test", 2)):
        for code in LABELS:
            put(f"DATASET/{split}/{code}", count, suffix=".jpg")
        (root / f"{split}_labels.csv").write_text("image,label")
    opened = open_rafdb(root)
    assert labels_of(opened.samples("test")) == dict.fromkeys(LABELS.values(), 2)
    assert opened.unused == ["test_labels.csv", "train_labels.csv"]


def test_folders_by_name_are_read_as_well(put, root):
    """Train and test with the names of the labels."""
    for split in ("train", "test"):
        for label in LABELS.values():
            put(f"{split}/{label}", 5)
    assert len(faces.samples(f"rafdb:{root}", "test", SEVEN)) == 35


def test_faces_that_are_not_aligned_are_refused(authors):
    """Image/original holds whole pictures."""
    shutil.move(authors / "basic" / "Image" / "aligned", authors / "hidden")
    for path in sorted((authors / "hidden").iterdir()):
        path.rename(path.with_name(path.name.replace("_aligned", "")))
    with pytest.raises(DataError, match=r"no \*_aligned\.jpg; unpack Image/aligned\.zip"):
        open_rafdb(authors)


def test_faulty_rows_and_missing_images_are_reported(authors):
    """A code that does not exist, and a name without an image."""
    table = authors / "basic" / "EmoLabel" / "list_patition_label.txt"
    rows = table.read_text()
    table.write_text(rows + "train_9.jpg 8\nhello\n")
    with pytest.raises(DataError, match=r"(?s)2 faulty rows.*row 50: 'train_9.jpg 8'.*row 51: 'hello'"):
        open_rafdb(authors).samples("test")
    table.write_text(rows + "test_99999.jpg 1\n")
    with pytest.raises(DataError, match=r"test_99999\.jpg is listed but has no aligned image"):
        open_rafdb(authors).samples("test")[-1].read()


def test_other_numbers_are_refused_with_the_known_ones(put, root):
    """0 is AffectNet's neutral, not a label of RAF-DB."""
    for code in ("0", "1", "2"):
        put(f"train/{code}", 3)
    with pytest.raises(DataError, match=r"unknown label folders 0; known: 1 surprise, 2 fear"):
        open_rafdb(root)
