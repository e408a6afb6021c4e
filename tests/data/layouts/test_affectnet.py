"""AffectNet on made-up files."""

import numpy as np
import pytest
from PIL import Image

from edgeemo.data import faces
from edgeemo.data.layouts.affectnet import open_affectnet
from edgeemo.data.layouts.codes import AFFECTNET as LABELS
from edgeemo.errors import DataError
from edgeemo.labels import label_set

EIGHT = label_set("ferplus8")
HEAD = ("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression")


def annotate(put, split, code, stem, count):
    """Write images with annotations as NumPy arrays of one string, as the authors do."""
    for path in put(f"{split}/images", count, suffix=".jpg", stem=stem):
        annotations = path.parent.parent / "annotations"
        annotations.mkdir(exist_ok=True)
        np.save(annotations / f"{path.stem}_exp.npy", np.array(str(code)))
        np.save(annotations / f"{path.stem}_val.npy", np.array("0.5"))


@pytest.fixture
def annotated(put, root):
    for code in LABELS:
        annotate(put, "train_set", code, f"{code}00", 3)
        annotate(put, "val_set", code, f"{code}00", 2)
    return root


def test_images_with_annotations_are_read(annotated, labels_of):
    """train_set and val_set; other annotations than the expression are not needed."""
    opened = open_affectnet(annotated)
    assert opened.sources == {"train": "train_set/", "valid": "val_set/"}
    assert labels_of(opened.samples("valid")) == dict.fromkeys(LABELS.values(), 2)
    assert opened.samples("valid")[0].read().shape == (48, 48)
    assert opened.unused == []


def test_annotations_that_are_no_code_are_reported(annotated):
    """A pickle is not loaded."""
    annotation = annotated / "val_set" / "annotations" / "0000_exp.npy"
    np.save(annotation, np.array({"a": 1}, dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"0000_exp\.npy does not hold a code"):
        open_affectnet(annotated).samples("valid")
    np.save(annotation, np.array("11"))
    with pytest.raises(DataError, match="'11' is not a code from 0 to 10"):
        open_affectnet(annotated).samples("valid")


def test_an_image_that_is_missing_is_reported(annotated):
    """When it is read, so that the audit can list it."""
    (annotated / "val_set" / "images" / "0000.jpg").unlink()
    with pytest.raises(DataError, match=r"0000\.jpg has an annotation but is missing"):
        open_affectnet(annotated).samples("valid")[0].read()


@pytest.fixture
def tables(root, write_table, rng):
    """training.csv and validation.csv; the face is the bright part of each image."""
    for split, count in (("training", 16), ("validation", 11)):
        rows = []
        for k in range(count):
            image = rng.integers(0, 50, (90, 120), dtype=np.uint8)
            image[10:60, 20:70] = 200
            path = root / "Manually_Annotated_Images" / str(k) / f"{split}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
            rows.append((f"{k}/{split}.png", 20, 10, 50, 50, "1;2", k % 11 if split == "validation" else k % 8))
        write_table(root / f"{split}.csv", [HEAD, *rows])
    return root


def test_tables_are_read_with_the_boxes_of_the_faces(tables):
    """Paths in two parts below any folder; none, uncertain and no face are no labels."""
    labelled = faces.label(faces.samples(f"affectnet:{tables}", "valid", EIGHT), EIGHT, protocol="plurality")
    assert len(labelled.samples) == 8
    face = labelled.samples[0].read()
    assert face.shape == (50, 50)
    assert (face == 200).all()


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (("0/validation.png", 20, 10, 50, 50, "", 11), "expression '11' is not a code"),
        (("0/validation.png", "x", 10, 50, 50, "", 1), "the box of the face is not four integers"),
        (("0/validation.png", "inf", 10, 50, 50, "", 1), "the box of the face is not four integers"),
        (("9/none.png", 0, 0, 9, 9, "", 1), r"9/none\.png is listed but missing"),
        (("0/validation.png", 500, 10, 50, 50, "", 1), "lies outside the image of 120x90 px"),
    ],
)
def test_faulty_rows_are_reported(tables, write_table, row, fault):
    """When the table is read, or the face."""
    write_table(tables / "validation.csv", [HEAD, row])
    with pytest.raises(DataError, match=fault):
        open_affectnet(tables).samples("valid")[0].read()


def test_folders_by_number_are_read(put, root, labels_of):
    """train, val and test with 0, neutral, to 7, contempt."""
    for split in ("train", "val", "test"):
        for code in LABELS:
            put(f"{split}/{code}", 2)
    assert labels_of(open_affectnet(root).samples("valid")) == dict.fromkeys(LABELS.values(), 2)


def test_folders_by_name_are_read(put, root):
    """As smaller exports have them."""
    for label in LABELS.values():
        put(label.title(), 5)
    assert sum(len(faces.samples(f"affectnet:{root}", split, EIGHT)) for split in ("train", "valid")) == 40
