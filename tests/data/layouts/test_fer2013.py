"""FER2013 with its own labels, as people have it."""

import tarfile
import zipfile

import pytest

from edgeemo.data import faces
from edgeemo.data.layouts.fer2013 import open_fer2013
from edgeemo.data.layouts.ferplus import COLUMNS, open_ferplus
from edgeemo.errors import DataError
from edgeemo.labels import label_set

USAGES = ["Training"] * 35 + ["PublicTest"] * 14 + ["PrivateTest"] * 7
HEAD = ("emotion", "pixels", "Usage")


def make_pixels(number):
    return " ".join([str(number)] * 48 * 48)


ROWS = [(k % 7, make_pixels(k), usage) for k, usage in enumerate(USAGES)]


@pytest.fixture
def table(root, write_table):
    return write_table(root / "fer2013.csv", [HEAD, *ROWS])


def check(opened, counts=(35, 14, 7)):
    assert [len(opened.samples(split)) for split in ("train", "valid", "test")] == list(counts)
    first = opened.samples("valid")[0]
    assert (first.id, first.votes, first.read()[0, 0]) == ("fer0000035.png", {"anger": 1.0}, 35)


def test_the_table_is_found_in_its_folder_and_by_itself(table, root):
    """--data fer2013:FOLDER and fer2013:FILE."""
    check(open_fer2013(root))
    check(open_fer2013(table))


def test_the_headers_of_icml_face_data_have_spaces(root, write_table):
    """`emotion, Usage, pixels`, in another order."""
    write_table(root / "icml_face_data.csv", [("emotion", " Usage", " pixels"), *((e, u, p) for e, p, u in ROWS)])
    check(open_fer2013(root))


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_the_archive_of_kaggle_is_read_in_place(table, tmp_path, suffix):
    """fer2013.tar.gz holds fer2013/fer2013.csv."""
    archive = tmp_path / f"fer2013.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packing:
            packing.write(table, "fer2013/fer2013.csv")
            packing.writestr("fer2013/README", "about")
    else:
        with tarfile.open(archive, "w:gz") as packing:
            packing.add(table, "fer2013/fer2013.csv")
    check(open_fer2013(archive))


def test_the_table_of_training_faces_gives_valid_a_fifth(root, write_table):
    """train.csv of the challenge has no usages; copies end up on one side."""
    write_table(root / "train.csv", [HEAD[:2], *(row[:2] for row in ROWS)])
    opened = open_fer2013(root)
    train, valid = opened.samples("train"), opened.samples("valid")
    assert len(train) + len(valid) == 56
    assert len(valid) == 14  # two of the eight of each label
    with pytest.raises(DataError, match="has no test split"):
        opened.samples("test")


def test_kaggles_folders_are_read_by_their_names(put, root):
    """train/ and test/ with seven folders each."""
    for split, count in (("train", 5), ("test", 2)):
        for label in ("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"):
            put(f"{split}/{label}", count)
    found = faces.samples(f"fer2013:{root}", "test", label_set("seven"))
    assert len(found) == 14


def test_its_labels_fit_every_label_set(table):
    """Seven of their own, eight of FER+, six with disgust as anger."""
    data = f"fer2013:{table}"
    for name, anger in (("seven", 5), ("ferplus8", 5), ("six", 10)):
        labels = label_set(name)
        labelled = faces.label(faces.samples(data, "train", labels), labels, protocol="plurality")
        assert (labelled.truth == labels.index("anger")).sum() == anger


def test_faulty_rows_are_listed(root, write_table):
    """Codes, usages and pixels."""
    write_table(root / "fer2013.csv", [HEAD, *ROWS, ("7", "0", "Training"), ("0", "0", "Train")])
    with pytest.raises(DataError, match=r"(?s)2 faulty rows.*row 58: emotion '7'.*row 59: usage 'Train'"):
        open_fer2013(root).samples("train")


def test_a_table_with_other_columns_is_refused(root, write_table):
    """The error names the missing ones."""
    write_table(root / "fer2013.csv", [("image", "label"), ("a.png", "0")])
    with pytest.raises(DataError, match=r"lacks the columns \['emotion', 'pixels'\]"):
        open_fer2013(root).samples("train")


@pytest.mark.usefixtures("table")
def test_missing_votes_point_to_fer2013(root):
    """The faces alone are FER2013, not FER+."""
    with pytest.raises(DataError, match=r"expected fer2013new\.csv beside it.*--data fer2013:"):
        open_ferplus(root)


@pytest.mark.parametrize("name", ["fer2013.csv", "icml_face_data.csv"])
def test_votes_are_found_beside_either_table_and_in_an_archive(root, write_table, tmp_path, name):
    """FER+ as a folder, a table or a tar.gz."""
    write_table(root / name, [HEAD, *ROWS])
    order = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    votes = [(u, f"fer{k:07d}.png", *(8 if c == order[e] else 0 for c in COLUMNS)) for k, (e, _, u) in enumerate(ROWS)]
    write_table(root / "fer2013new.csv", [("Usage", "Image name", *COLUMNS), *votes])
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as packing:
        packing.add(root, "data")
    for path in (root, root / name, tmp_path / "data.tar.gz"):
        opened = open_ferplus(path)
        assert opened.samples("valid")[0].votes == {"anger": 8.0}
        assert [len(opened.samples(split)) for split in opened.sources] == [35, 14, 7]


def test_usages_in_any_case_are_read_and_others_named(root, write_table):
    """A table that is full of faces is not called empty."""
    write_table(root / "fer2013.csv", [HEAD, *((e, p, u.upper()) for e, p, u in ROWS)])
    check(open_fer2013(root))
    write_table(root / "fer2013.csv", [HEAD, *((e, p, "0") for e, p, _ in ROWS)])
    with pytest.raises(DataError, match="expected the usages Training, PublicTest, PrivateTest, got '0'"):
        open_fer2013(root)
