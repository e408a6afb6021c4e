"""The files that a face depends on, by which faces kept on disk notice that a data set has changed."""

import shutil

import numpy as np
import pytest

from edgeemo.data import synthetic
from edgeemo.data.layouts.affectnet import open_affectnet
from edgeemo.data.layouts.fer2013 import open_fer2013
from edgeemo.data.layouts.ferplus import COLUMNS, open_ferplus
from edgeemo.data.layouts.folder import open_folder
from edgeemo.data.layouts.rafdb import open_rafdb
from edgeemo.labels import label_set

VOTES = ["10", *"0" * 9]
PIXELS = " ".join(["7"] * 48 * 48)


def make_folder(put, root, write_table):  # noqa: ARG001  as the others
    put("train/fear", 2)
    put("valid/fear", 2)
    return open_folder, {f"train/fear/{k}.png": f"train/fear/{k}.png" for k in range(2)}


def make_ferplus(put, root, write_table):
    put("FER2013Train", 1, stem="fer")
    write_table(root / "FER2013Train" / "label.csv", [["fer0.png", "box", *VOTES]])
    return open_ferplus, {"fer0.png": "FER2013Train/fer0.png"}


def make_tables(put, root, write_table):  # noqa: ARG001
    write_table(root / "fer2013.csv", [["emotion", "pixels", "Usage"], ["6", PIXELS, "Training"]])
    write_table(root / "fer2013new.csv", [["Usage", "Image name", *COLUMNS], ["Training", "fer0.png", *VOTES]])
    return open_ferplus, {"fer0.png": "fer2013.csv"}


def make_fer2013(put, root, write_table):  # noqa: ARG001
    rows = [["6", PIXELS, usage] for usage in ("Training", "PublicTest")]
    write_table(root / "fer2013.csv", [["emotion", "pixels", "Usage"], *rows])
    return open_fer2013, {"fer0000000.png": "fer2013.csv"}


def make_rafdb(put, root, write_table):  # noqa: ARG001
    for path in put("Image/aligned", 9, suffix=".jpg", stem="train_"):
        path.rename(path.with_name(f"{path.stem}_aligned.jpg"))
    rows = "".join(f"train_{k}.jpg 1\n" for k in range(9))
    (root / "list_patition_label.txt").write_text(rows)
    return open_rafdb, {f"train_{k}.jpg": f"Image/aligned/train_{k}_aligned.jpg" for k in range(9)}


def make_affectnet(put, root, write_table):  # noqa: ARG001
    for split in ("train_set", "val_set"):
        (image,) = put(f"{split}/images", 1, suffix=".jpg")
        (image.parent.parent / "annotations").mkdir()
        np.save(image.parent.parent / "annotations" / "0_exp.npy", np.array("1"))
    return open_affectnet, {"train_set/images/0.jpg": "train_set/images/0.jpg"}


LAYOUTS = [make_folder, make_ferplus, make_tables, make_fer2013, make_rafdb, make_affectnet]


@pytest.mark.parametrize("make", LAYOUTS)
@pytest.mark.parametrize("suffix", ["", ".zip", ".tar"])
def test_a_face_depends_on_the_file_that_holds_it(put, root, write_table, make, suffix):
    """Its own image, the table of all pixels, or the archive."""
    open_data, expected = make(put, root, write_table)
    path = root
    if suffix:
        path = root.with_suffix(suffix)
        shutil.make_archive(str(root), suffix.removeprefix("."), root)
    found = open_data(path).samples("train")
    assert found
    for sample in found:
        assert sample.sources == (str(path if suffix else root / expected[sample.id]),)


def test_a_face_that_a_table_cuts_out_depends_on_both(put, root, write_table):
    """AffectNet's boxes: another box gives other pixels of the same image."""
    put("Manually_Annotated_Images/1", 9, suffix=".jpg")
    head = ["subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "facial_landmarks", "expression"]
    rows = [[f"1/{k}.jpg", 0, 0, 40, 40, "", 1] for k in range(9)]
    table = write_table(root / "training.csv", [head, *rows])
    for sample in open_affectnet(root).samples("train"):
        assert set(sample.sources) == {str(table), str(root / "Manually_Annotated_Images" / sample.id)}


def test_drawn_faces_depend_on_no_file():
    """On the code alone."""
    assert {sample.sources for sample in synthetic.samples("60", "train", label_set("six"))} == {()}
