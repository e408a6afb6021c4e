"""FER+ in both layouts, and labels from votes."""

import csv
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from edgeemo.card import InputContract
from edgeemo.data import audit, faces
from edgeemo.data.layouts import ferplus
from edgeemo.data.sample import Sample
from edgeemo.errors import DataError
from edgeemo.labels import LABEL_SETS
from edgeemo.stages import Audit

EIGHT, SIX = LABEL_SETS["ferplus8"], LABEL_SETS["six"]
VOTES = [[8, 0, 0, 0, 0, 0, 0, 0, 1, 1], [0, 9, 0, 0, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 4, 4, 0, 0, 2, 0]]


@pytest.fixture
def microsoft(tmp_path):
    """A FER+ folder with three faces in train."""
    folder = tmp_path / "fer" / "FER2013Train"
    folder.mkdir(parents=True)
    for k in range(3):
        Image.fromarray(np.full((48, 48), 60 * k, np.uint8)).save(folder / f"fer{k}.png")
    rows = [[f"fer{k}.png", "(0, 0, 48, 48)", *votes] for k, votes in enumerate(VOTES)]
    write(folder / "label.csv", rows)
    return folder.parent


@pytest.fixture
def packed(microsoft):
    """The FER+ folder as a zip, its files compressed."""
    archive = microsoft.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packing:
        for file in sorted(microsoft.rglob("*.*")):
            packing.write(file, file.relative_to(microsoft))
    return archive


@pytest.fixture
def kaggle(tmp_path):
    """fer2013.csv with fer2013new.csv, three training faces."""
    head = ["Usage", "Image name", *ferplus.COLUMNS]
    write(tmp_path / "fer2013new.csv", [head, *(["Training", f"fer{k}.png", *v] for k, v in enumerate(VOTES))])
    pixels = [" ".join(["7"] * 48 * 48)] * 3
    rows = [["emotion", "pixels", "Usage"], *([code, p, "Training"] for code, p in zip([6, 3, 0], pixels, strict=True))]
    write(tmp_path / "fer2013.csv", rows)
    return tmp_path


def write(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def label_of(votes, labels, protocol):
    sample = Sample("x", votes, lambda: None, sources=())
    return labels.labels[faces.label([sample], labels, protocol=protocol).truth[0]]


def test_folder_and_zip_read_the_same(microsoft, packed):
    """Faces and votes are equal."""
    left, right = (
        faces.load(f"ferplus:{path}", "train", EIGHT, contract=InputContract(48)) for path in (microsoft, packed)
    )
    assert np.array_equal(left.pixels, right.pixels)
    assert left.ids == right.ids == ["fer0.png", "fer1.png", "fer2.png"]


def test_kaggle_files_join_row_by_row(kaggle):
    """Pixels come from fer2013.csv, votes from fer2013new.csv."""
    train = faces.load(f"ferplus:{kaggle}", "train", EIGHT, contract=InputContract(48))
    assert train.truth.tolist() == [0, 1, 4]
    assert set(train.pixels.ravel()) == {7}


def test_shifted_kaggle_rows_are_refused(kaggle):
    """Votes of other faces disagree with FER2013's labels."""
    rows = list(csv.reader((kaggle / "fer2013new.csv").open()))
    write(kaggle / "fer2013new.csv", [rows[0], rows[2], rows[3], rows[1]])
    with pytest.raises(DataError, match="do not match"):
        ferplus.open_ferplus(kaggle).samples("train")


def test_kaggle_without_the_votes_is_refused(kaggle):
    """The message names the missing file."""
    (kaggle / "fer2013new.csv").unlink()
    with pytest.raises(DataError, match=r"fer2013new\.csv"):
        ferplus.open_ferplus(kaggle).samples("train")


def test_faulty_rows_are_listed_with_their_numbers(microsoft):
    """One error for all of them."""
    table = microsoft / "FER2013Train" / "label.csv"
    write(table, [["a.png", "box", *VOTES[0]], ["b.png"], ["../c.png", "box", *VOTES[0]], ["d.png", "box", *"x" * 10]])
    with pytest.raises(DataError, match=r"(?s)3 faulty rows.*row 2.*row 3.*outside its folder.*row 4"):
        ferplus.open_ferplus(microsoft).samples("train")


def test_two_rows_for_one_image_are_refused(microsoft):
    """Nobody can say whose votes they are."""
    rows = [["fer0.png", "box", *VOTES[0]], ["fer1.png", "box", *VOTES[1]], ["fer0.png", "box", *VOTES[2]]]
    write(microsoft / "FER2013Train" / "label.csv", rows)
    with pytest.raises(DataError, match=r"row 3: fer0\.png has votes in an earlier row"):
        ferplus.open_ferplus(microsoft).samples("train")


def test_votes_that_do_not_add_up_are_reported(microsoft, caplog):
    """More than ten annotators are a fault; fewer, as for one face of FER+, are counted in the log."""
    table = microsoft / "FER2013Train" / "label.csv"
    write(table, [["fer0.png", "box", 9, *VOTES[0][1:]], ["fer1.png", "box", *VOTES[1][:8], 0, 0]])
    with pytest.raises(DataError, match="row 1: 11 votes, but a face has 10 annotators"):
        ferplus.open_ferplus(microsoft).samples("train")
    write(table, [["fer0.png", "box", *VOTES[0]], ["fer1.png", "box", *VOTES[1][:8], 0, 0]])
    with caplog.at_level("INFO"):
        assert len(ferplus.open_ferplus(microsoft).samples("train")) == 2
    assert "1 of 2 faces have fewer than 10 votes, such as fer1.png" in caplog.text


def test_votes_in_another_faces_place_are_conflicts_of_the_audit(microsoft):
    """As far as they can be seen: identical images whose labels differ."""
    folder = microsoft / "FER2013Train"
    shutil.copy(folder / "fer0.png", folder / "fer1.png")
    report = audit.run(Audit(data=f"ferplus:{microsoft}", near=0))
    assert report.splits[0].conflicts == [["fer1.png", "fer0.png"]]


@pytest.mark.parametrize("name", ["fer1.png", "label.csv"])
@pytest.mark.parametrize("at", ["signature", "stream", "end", "flags", "method", "checksum"])
def test_a_flipped_byte_in_the_zip_is_reported_with_the_file(packed, name, at):
    """A damaged download gives no traceback, whatever field is damaged; each raises its own error."""
    with zipfile.ZipFile(packed) as archive:
        entry = archive.getinfo(f"FER2013Train/{name}")
    content = bytearray(packed.read_bytes())
    start = entry.header_offset + 30 + len(entry.filename)
    listed = content.rindex(entry.filename.encode()) - 46  # the entry in the central directory
    offsets = {"signature": entry.header_offset, "stream": start, "end": start + entry.compress_size - 1}
    content[(offsets | {"flags": listed + 8, "method": listed + 10, "checksum": listed + 16})[at]] ^= 0xFF
    packed.write_bytes(content)
    with pytest.raises(DataError, match=name):
        faces.load(f"ferplus:{packed}", "train", EIGHT, contract=InputContract(48))


def test_a_truncated_zip_is_refused(packed):
    """Its central directory is at the end."""
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(DataError, match="neither a folder nor an intact archive"):
        ferplus.open_ferplus(packed).samples("train")


def test_a_listed_but_missing_face_is_reported(microsoft, packed):
    """In a folder and in a zip."""
    table = microsoft / "FER2013Train" / "label.csv"
    write(table, [["gone.png", "box", *VOTES[0]]])
    with zipfile.ZipFile(packed, "w") as packing:
        packing.write(table, "FER2013Train/label.csv")
    for path in (microsoft, packed):
        with pytest.raises(DataError, match=r"gone\.png is listed in label\.csv but missing"):
            faces.load(f"ferplus:{path}", "train", EIGHT, contract=InputContract(48))


@pytest.mark.parametrize("layout", ["microsoft", "kaggle"])
def test_a_table_in_another_encoding_is_reported(request, layout):
    """As a spreadsheet program may have saved it."""
    folder = request.getfixturevalue(layout)
    table = folder / ("FER2013Train/label.csv" if layout == "microsoft" else "fer2013new.csv")
    table.write_bytes(table.read_bytes().replace(b"fer0", "f\u00e9r0".encode("latin-1")))
    with pytest.raises(DataError, match=rf"{table.name} is not a CSV file in UTF-8"):
        ferplus.open_ferplus(folder).samples("train")


@pytest.mark.parametrize("pixels", ["x", "1 2 3", "9" * 30, ""])
def test_invalid_kaggle_pixels_are_reported(kaggle, pixels):
    """The error starts with the name of the image."""
    rows = list(csv.reader((kaggle / "fer2013.csv").open()))
    rows[2][1] = pixels
    write(kaggle / "fer2013.csv", rows)
    with pytest.raises(DataError, match=r"^fer1\.png: "):
        faces.load(f"ferplus:{kaggle}", "train", EIGHT, contract=InputContract(48))


def test_invalid_kaggle_rows_are_listed_with_their_numbers(kaggle):
    """Emotion codes that are out of range or not numbers, and short rows."""
    rows = list(csv.reader((kaggle / "fer2013.csv").open()))
    rows[1][0], rows[2][0], rows[3] = "7", "glad", ["0"]
    write(kaggle / "fer2013.csv", rows)
    with pytest.raises(DataError, match=r"(?s)3 faulty rows.*row 2: emotion '7'.*row 3: emotion 'glad'.*row 4: usage"):
        ferplus.open_ferplus(kaggle).samples("train")


def test_a_corrupt_png_is_reported(microsoft):
    """The error has the file and the command that lists all such files."""
    (microsoft / "FER2013Train" / "fer1.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DataError, match=r"(?s)fer1\.png.*edgeemo data audit"):
        faces.load(f"ferplus:{microsoft}", "train", EIGHT, contract=InputContract(48))


@pytest.mark.parametrize("where", ["nowhere", "."])
def test_missing_layout_is_explained(tmp_path, where):
    """Neither a missing nor an empty folder is a FER+ layout."""
    with pytest.raises(DataError, match="FER2013Train"):
        ferplus.open_ferplus(tmp_path / where).samples("train")


def test_majority_needs_more_than_half_of_the_remaining_votes():
    """4 of 8: plurality labels the face, majority drops it; a single vote counts for neither."""
    votes = {"neutral": 4.0, "sadness": 3.0, "fear": 1.0, "anger": 2.0}
    assert label_of(votes, EIGHT, "plurality") == "neutral"
    with pytest.raises(DataError, match="no face has a label"):
        label_of(votes, EIGHT, "majority")
    assert label_of({"neutral": 5.0, "sadness": 3.0, "fear": 1.0, "anger": 1.0}, EIGHT, "majority") == "neutral"


def test_votes_are_merged_before_they_are_counted():
    """In `six`, disgust is merged into anger, and together they win."""
    votes = {"sadness": 4.0, "anger": 3.0, "disgust": 3.0}
    assert label_of(votes, EIGHT, "plurality") == "sadness"
    assert label_of(votes, SIX, "plurality") == "anger"


@pytest.mark.parametrize("name", ["unknown", "NF"])
def test_faces_won_by_no_emotion_are_dropped(name):
    """Unknown and NF are not emotions."""
    with pytest.raises(DataError, match="no face has a label"):
        label_of({name: 6.0, "neutral": 4.0}, EIGHT, "plurality")


@pytest.mark.ferplus
@pytest.mark.parametrize(
    ("labels", "protocol", "n"),
    [
        ("ferplus8", "plurality", 3555),
        ("ferplus8", "majority", 3191),
        ("six", "plurality", 3557),
        ("six", "majority", 3246),
    ],
)
def test_protocols_keep_the_known_number_of_real_faces(ferplus, labels, protocol, n):
    """The n of every accuracy in the README."""
    samples = faces.samples(ferplus, "valid", LABEL_SETS[labels])
    assert len(faces.label(samples, LABEL_SETS[labels], protocol=protocol).truth) == n


def test_empty_lines_and_a_header_of_a_table_are_no_faults(microsoft):
    """Spreadsheet programs add both; without a valid folder, a fifth of train is valid."""
    head = ["Image name", "box", *ferplus.COLUMNS]
    rows = [[f"fer{k % 3}-{k}.png", "box", *VOTES[k % 3]] for k in range(30)]
    folder = microsoft / "FER2013Train"
    for row in rows:
        shutil.copy(folder / f"{row[0][:4]}.png", folder / row[0])
        Image.fromarray(np.full((48, 48), 8 * rows.index(row), np.uint8)).save(folder / row[0])
    write(folder / "label.csv", [head, *rows, [], []])
    opened = ferplus.open_ferplus(microsoft)
    assert [len(opened.samples(split)) for split in ("train", "valid")] == [24, 6]
