"""Folders by split and label under the names that people give them."""

import os
import shutil
import tarfile
import unicodedata
import zipfile

import pytest

import edgeemo
from edgeemo.data import audit, faces
from edgeemo.data.layouts.folder import get_split, open_folder
from edgeemo.data.layouts.holdout import SHARE
from edgeemo.errors import DataError, UsageError
from edgeemo.labels import label_set
from edgeemo.stages import Audit, Train

SIX = label_set("six")
LABELS = ("neutral", "happiness", "surprise", "sadness", "anger", "fear")


def put_all(put, prefix, count, labels=LABELS):
    for label in labels:
        put(f"{prefix}{label}", count)


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        *((name, "train") for name in ("train", "Train", "TRAIN", "training", "train_set", "TrainSet", "train-data")),
        *(
            (name, "valid")
            for name in ("val", "valid", "validation", "Validation", "dev", "val_set", "eval", "PublicTest")
        ),
        *((name, "train") for name in ("01_train", "Train Images", "train.faces")),
        *((name, "test") for name in ("test", "Testing", "test set", "PrivateTest", "a/b/test")),
        *((name, None) for name in ("tests", "trained", "happy", "set", "data", "trainval", "value")),
    ],
)
def test_names_of_splits(folder, split):
    """Synonyms in any case, with or without `set` or `data`; other words that contain them are not splits."""
    assert get_split(folder) == split


@pytest.mark.parametrize("valid", ["val", "validation", "Valid", "dev"])
def test_a_valid_folder_is_found_under_its_usual_names(put, root, valid):
    """As torchvision's, Keras's and Ultralytics's examples name it."""
    put_all(put, "train/", 3)
    put_all(put, f"{valid}/", 2)
    opened = open_folder(root)
    assert opened.sources == {"train": "train/", "valid": f"{valid}/"}
    assert [len(opened.samples(split)) for split in opened.sources] == [18, 12]


def test_train_and_test_alone_give_valid_a_fifth_of_train(put, root):
    """Kaggle's FER2013 and RAF-DB: test stays untouched, and the share is stated."""
    put_all(put, "train/", 10)
    put_all(put, "test/", 4)
    opened = open_folder(root)
    assert opened.sources == {
        "train": "the rest of train/",
        "valid": f"{SHARE} of train/",
        "test": "test/",
    }
    assert [len(opened.samples(split)) for split in opened.sources] == [48, 12, 24]


def test_folders_around_the_splits_are_skipped(put, root):
    """As archives often have them."""
    put_all(put, "archive/images/Train/", 3)
    put_all(put, "archive/images/Valid/", 2)
    (root / "archive" / "README.md").write_text("about")
    opened = open_folder(root)
    assert opened.sources == {"train": "archive/images/Train/", "valid": "archive/images/Valid/"}
    assert opened.unused == ["archive/README.md"]


def test_a_split_may_wrap_its_labels_once_more(put, root):
    """train/train/LABEL."""
    put_all(put, "train/train/", 3)
    put_all(put, "valid/", 2)
    assert len(open_folder(root).samples("train")) == 18


def test_images_below_a_label_belong_to_it(put, root):
    """A folder per person inside each label, as CK+ has them."""
    for label in LABELS:
        put(f"{label}/S001", 3)
        put(f"{label}/S002", 2)
    opened = open_folder(root)
    assert opened.layout == "one folder per label"
    assert sum(len(opened.samples(split)) for split in ("train", "valid")) == 30


@pytest.mark.parametrize(
    ("name", "label"),
    [
        *(
            ("Angry", "anger"),
            ("HAPPY", "happiness"),
            ("Sad", "sadness"),
            ("suprise", "surprise"),
            ("0_neutral", "neutral"),
        ),
        *(
            ("3. Fear", "fear"),
            ("Afraid", "fear"),
            ("Disgusted", "anger"),
            ("contempt", "neutral"),
            ("joy", "happiness"),
        ),
    ],
)
def test_labels_are_recognised_by_their_usual_names(name, label):
    """The last ones are merged, as in every use of the label set."""
    assert SIX.labels[SIX.index(name)] == label


def test_own_labels_are_matched_by_synonyms_too():
    """FER2013's own names as a label set; a label that is named exactly wins."""
    own = label_set("angry,disgust,fear,happy,sad,surprise,neutral")
    assert own.labels[own.index("Happiness")] == "happy"
    assert own.labels[own.index("anger")] == "angry"
    both = label_set("joy,happiness")
    assert [both.index(name) for name in ("joy", "happiness")] == [0, 1]


def test_two_folders_of_one_label_are_merged(put, root):
    """And the audit shows both names."""
    put_all(put, "", 5)
    put("Happy", 5)
    report = audit.run(Audit(data=f"folder:{root}", near=0))
    assert report.interpretation.labels == {"Happy": "happiness"}
    assert sum(split.labels[0].faces["happiness"] for split in report.splits) == 10


def test_every_unknown_label_is_named_at_once(put, root):
    """Not only the first."""
    put_all(put, "", 2)
    put("boredom", 2)
    put("hunger", 2)
    with pytest.raises(UsageError, match=r"the train split has the labels boredom, hunger; expected neutral"):
        faces.samples(f"folder:{root}", "train", SIX)


def test_an_empty_label_of_valid_costs_no_training(put, root, caplog):
    """Its recall cannot be measured, which the log says."""
    put_all(put, "train/", 3)
    put_all(put, "valid/", 2)
    shutil.rmtree(root / "valid" / "fear")
    (root / "valid" / "fear").mkdir()
    assert len(open_folder(root).samples("valid")) == 10
    assert "valid/fear holds no images, so valid has no faces of this label" in caplog.text


@pytest.mark.parametrize(
    ("made", "advice"),
    [
        ([("1", 2), ("2", 2)], r"numbers \(1, 2\).*rafdb:\S+ \(1 surprise … 7 neutral\)$"),
        ([("0", 2), ("6", 2)], r"numbers \(0, 6\).*fer2013:.*affectnet:"),
        ([("0", 2), ("9", 2)], r"numbers \(0, 9\).*rename them to labels$"),
        ([("val/happy", 2), ("valid/happy", 2)], r"both val/ and valid/ stand for the valid split; rename"),
        ([("happy/train", 2), ("sad/train", 2)], r"splits below the labels.*expected train/happy"),
        ([("a/happy", 2), ("b/happy", 2)], r"several folders hold images: a, b; name the one"),
        ([("train", 2)], r"expected a folder of images per label, such as .*train/happiness; got 2 images"),
        ([("train/happy", 2), ("valid", 0)], r"valid holds no images"),
        ([(".", 3)], r"3 images without labels; .*edgeemo predict \S+  or .*edgeemo predict --crop "),
        ([("happy", 0)], r"holds no images"),
    ],
)
def test_what_cannot_be_meant_says_what_to_rename(put, root, made, advice):
    """In one line."""
    for folder, count in made:
        put(folder, count)
    with pytest.raises(DataError, match=advice) as raised:
        open_folder(root)
    assert "\n" not in str(raised.value)


def test_other_formats_are_named(put, root):
    """A folder of TIFFs or raw tables."""
    put("happy", 2, suffix=".tif")
    with pytest.raises(DataError, match=r"only files of the types \.tif; expected"):
        open_folder(root)


def test_a_link_to_a_folder_above_is_passed_over(put, root):
    """Otherwise listing would never end."""
    put_all(put, "", 3)
    (root / "happiness" / "loop").symlink_to(root)
    opened = open_folder(root)
    assert sum(len(opened.samples(split)) for split in opened.sources) == 18
    assert opened.passed_over == ["happiness/loop/"]


@pytest.mark.parametrize("kind", ["zip", "windows zip", "tar", "tgz"])
def test_archives_are_read_in_place(put, root, tmp_path, kind):
    """The same faces, ids and splits as the folder."""
    put_all(put, "faces/", 5)
    put("faces/__MACOSX", 2)
    archive = pack(root, tmp_path / f"data.{kind[-3:]}", windows=kind.startswith("windows"))
    folder, packed = open_folder(root), open_folder(archive)
    for split in ("train", "valid"):
        left, right = folder.samples(split), packed.samples(split)
        assert [sample.id for sample in left] == [sample.id for sample in right]
        assert all((one.read() == other.read()).all() for one, other in zip(left, right, strict=True))
    assert packed.passed_over == folder.passed_over == ["faces/__MACOSX/"]


def pack(root, archive, *, windows=False):
    files = sorted(file for file in root.rglob("*") if file.is_file())
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packing:
            for file in files:
                name = str(file.relative_to(root))
                packing.writestr(name.replace("/", "\\") if windows else name, file.read_bytes())
    else:
        with tarfile.open(archive, "w:gz" if archive.suffix == ".tgz" else "w") as packing:
            for file in files:
                packing.add(file, f"./{file.relative_to(root)}")
    return archive


def read_all(archive):
    opened = open_folder(archive)
    return [sample.read() for split in ("train", "valid") for sample in opened.samples(split)]


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("suffix", [".zip", ".tgz", ".tar"])
def test_a_truncated_archive_is_refused(put, root, tmp_path, suffix, keep):
    """In one line, without a traceback, or else the audit lists the faces that are cut."""
    put_all(put, "", 5)
    archive = pack(root, tmp_path / f"data{suffix}")
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    with pytest.raises(DataError) as raised:
        read_all(archive)
    assert "\n" not in str(raised.value)


def test_a_tar_that_was_cut_between_two_files_is_refused(put, root, tmp_path):
    """Every file in it is intact, but some are missing."""
    put_all(put, "", 5)
    archive = pack(root, tmp_path / "data.tar")
    with tarfile.open(archive) as packed:
        middle = packed.getmembers()[15].offset
    archive.write_bytes(archive.read_bytes()[:middle])
    with pytest.raises(DataError, match="its end is missing"):
        open_folder(archive)


def test_a_tar_larger_than_memory_allows_is_refused(put, root, tmp_path, monkeypatch):
    """It would be held in memory; the advice is to unpack it."""
    put_all(put, "", 2)
    monkeypatch.setattr("edgeemo.data.layouts.tree.MAX_TAR_BYTES", 1000)
    with pytest.raises(DataError, match="unpack it and name the folder"):
        open_folder(pack(root, tmp_path / "data.tar"))


def test_an_entry_that_unpacks_to_more_than_an_image_is_refused(tmp_path, monkeypatch):
    """A zip bomb: the size is in the directory of the archive, and reading stops there."""
    monkeypatch.setattr("edgeemo.data.layouts.tree.MAX_IMAGE_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as packing:
        packing.writestr("train/happy/0.png", bytes(100_000))
    (sample, *_) = open_folder(tmp_path / "data.zip").read("train")
    with pytest.raises(DataError, match="100,000 bytes; expected an image of at most 1,000"):
        sample.read()


def test_the_audit_says_what_it_took_for_what(put, root):
    """Layout, splits, labels, and what is not used, in the result and in its tables."""
    put_all(put, "Train/", 5, ("Angry", "happy", "neutral", "sad", "surprise", "fear"))
    put_all(put, "val/", 2)
    (root / "notes").mkdir()
    (root / "Train" / "labels.csv").write_text("a,b")
    (root / "Train" / "happy" / "._0.png").write_bytes(b"Mac OS X")
    report = audit.run(Audit(data=f"folder:{root}", near=0))
    found = report.interpretation
    assert (found.layout, found.splits) == ("folders by split and label", {"train": "Train/", "valid": "val/"})
    assert found.labels == {"Angry": "anger", "happy": "happiness", "sad": "sadness"}
    assert found.unused_examples == ["Train/labels.csv", "notes/"]
    assert found.passed_over_examples == ["Train/happy/._0.png"]
    page = str(audit_page(report))
    for words in ("folders by split and label", "val/", "Angry", "Train/labels.csv", "._0.png"):
        assert words in page


def audit_page(report):
    from edgeemo.report.render import make_page

    return make_page(report).to_markdown()


def test_copies_with_another_label_are_counted(put, root):
    """One of the two labels is wrong."""
    (first, *_) = put("train/happy", 3)
    put("train/sad", 3)
    put("valid/sad", 2)
    shutil.copy(first, root / "train" / "sad" / "copy.png")
    shutil.copy(first, root / "valid" / "sad" / "copy.png")
    report = audit.run(Audit(data=f"folder:{root}", near=0))
    assert report.splits[0].conflicts == [["train/sad/copy.png", "train/happy/0.png"]]
    assert report.copies_across[0].conflicts == [["valid/sad/copy.png", "train/happy/0.png"]]


@pytest.mark.parametrize(
    ("files", "advice"),
    [
        (["train_set/images/0.png", "train_set/annotations/0_exp.npy"], r"--data affectnet:\S+$"),
        (["images/0.png", "annotations/0_exp.npy"], r"--data affectnet:\S+$"),
        (["EmoLabel/list_patition_label.txt", "Image/aligned/0_aligned.jpg"], r"--data rafdb:\S+$"),
        (["fer2013.csv"], r"--data fer2013:\S+$"),
        (["fer2013.csv", "fer2013new.csv"], r"--data ferplus:\S+$"),
        (["FER2013Train/label.csv", "FER2013Train/fer0.png"], r"--data ferplus:\S+$"),
        (["archive.zip"], r"--data KIND:\S+/archive\.zip$"),
        (["train.zip", "test.zip"], "Unpack the archives in it, such as test.zip"),
        (["faces.rar"], r"Unpack the archives in it, such as faces\.rar"),
        (["images/0.png", "labels.csv"], r"Labels in files such as labels\.csv are not read: move the images"),
        (
            ["train/images/0.png", "train/labels/0.txt", "valid/images/0.png"],
            r"Labels in files such as .*0\.txt are not",
        ),
        (["happy/0", "sad/0"], "Files without a suffix, such as happy/0, are not read"),
    ],
)
def test_files_of_another_layout_are_recognised(root, files, advice):
    """Where a folder of labels was expected, the error names the kind of data set or what is not read."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    with pytest.raises((DataError, UsageError), match=advice):
        faces.samples(f"folder:{root}", "train", SIX)


@pytest.mark.parametrize(("kind", "codes"), [("affectnet", "1234567"), ("rafdb", "234"), ("fer2013", "123456")])
def test_numbers_that_start_elsewhere_are_refused(put, root, kind, codes):
    """RAF-DB's folders read as AffectNet's would give every face another label."""
    for code in codes:
        put(f"train/{code}", 3)
    with pytest.raises(DataError, match="so they may be numbered otherwise"):
        faces.open_data(f"{kind}:{root}")


def test_the_labels_of_numbers_are_logged_and_audited(put, root, caplog):
    """Nobody should have to know the codes of a data set."""
    for code in "0123456":
        put(f"train/{code}", 5)
    with caplog.at_level("INFO"):
        faces.samples(f"fer2013:{root}", "train", label_set("seven"))
    assert "numbers: 0 → anger, 1 → disgust, 2 → fear" in caplog.text
    report = audit.run(Audit(data=f"fer2013:{root}", label_set="seven", near=0))
    assert report.interpretation.labels["0"] == "anger"


def test_images_that_are_not_used_are_counted(put, root, caplog):
    """Folders beside the splits may hold faces."""
    put_all(put, "train/", 3)
    put_all(put, "valid/", 2)
    put_all(put, "more/", 4)
    with caplog.at_level("INFO"):
        opened = open_folder(root)
    assert opened.unused == ["more/ (24 images)"]
    assert "not used: more/ (24 images); splits are train, valid and test" in caplog.text


def test_a_test_folder_without_labels_costs_no_training(put, root, caplog):
    """As Kaggle's competitions have it."""
    put_all(put, "train/", 5)
    put("test", 8)
    with caplog.at_level("INFO"):
        opened = open_folder(root)
    assert list(opened.sources) == ["train", "valid"]
    assert "test is not used: " in caplog.text
    assert "got 8 images without labels" in caplog.text


def test_faces_that_are_no_emotion_are_counted(put, root, caplog):
    """A folder named unknown is dropped, which the log says."""
    put_all(put, "train/", 3)
    put("train/unknown", 4)
    put_all(put, "valid/", 2)
    with caplog.at_level("INFO"):
        faces.samples(f"folder:{root}", "train", SIX)
    assert "4 faces of train are labelled unknown or NF" in caplog.text


def test_a_label_of_valid_alone_is_named_with_its_split(put, root):
    """Otherwise the advice would go in a circle."""
    put_all(put, "train/", 3)
    put_all(put, "valid/", 2)
    put("valid/boredom", 2)
    with pytest.raises(UsageError, match=r"the valid split has the label boredom; expected .* move them away"):
        faces.samples(f"folder:{root}", "valid", SIX)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("faces.rar", "unpack it, or pack it as one of these"),
        ("labels.csv", "tables of faces are read with --data fer2013:FILE.csv"),
        ("faces.zip", "download it again"),
    ],
)
def test_files_that_are_no_archive_get_advice_that_helps(root, name, advice):
    """Downloading a RAR again changes nothing."""
    (root / name).write_bytes(b"Rar!" + bytes(50))
    with pytest.raises(DataError, match=advice):
        open_folder(root / name)


@pytest.mark.parametrize(
    ("data", "likely"),
    [("Folder:x", "folder:x"), ("fer:x", r"fer\w+:x"), ("affect:x", "affectnet:x"), (".", r"folder:\.")],
)
def test_a_misspelt_kind_gets_the_likely_one(data, likely):
    """And a path without a kind is a folder."""
    with pytest.raises(UsageError, match=f"Did you mean  --data {likely}"):
        faces.kind_of(data)


def test_links_in_a_tar_are_followed(put, root, tmp_path):
    """GNU tar stores the second name of a file as a link; a link that leads outside is counted."""
    (first, *_) = put("happy", 3)
    put("sad", 3)
    os.link(first, root / "happy" / "hard.png")
    (root / "happy" / "soft.png").symlink_to("0.png")
    (root / "joy").symlink_to("happy")
    (root / "sad" / "gone.png").symlink_to("/nowhere.png")
    with tarfile.open(tmp_path / "data.tar", "w") as packing:
        packing.add(root, "data")
    opened = open_folder(tmp_path / "data.tar")
    found = [sample for split in opened.sources for sample in opened.samples(split)]
    assert len(found) == 5 + 5 + 3
    assert opened.passed_over == ["data/sad/gone.png"]


@pytest.mark.parametrize("kind", ["folder", "ferplus", "fer2013", "rafdb", "affectnet"])
@pytest.mark.parametrize("place", ["device", "pipe", "table"])
def test_what_is_no_file_is_refused_at_once(root, tmp_path, kind, place):
    """Reading a device never ends, and opening a pipe waits for a writer."""
    path = tmp_path / "thing"
    if place == "pipe":
        os.mkfifo(path)
    elif place == "device":
        path.symlink_to("/dev/zero")
    else:
        path = root
        (root / "fer2013.csv").symlink_to("/dev/zero")
    with pytest.raises((DataError, UsageError)):
        faces.samples(f"{kind}:{path}", "train", SIX)


def test_a_table_without_line_ends_is_refused_before_it_fills_the_memory(root, monkeypatch):
    """A megabyte of a line is enough."""
    monkeypatch.setattr("edgeemo.data.layouts.tables.MAX_CELL", 1000)
    (root / "fer2013.csv").write_bytes(b"x" * 5000)
    with pytest.raises(DataError, match="a line has more than 1,000 characters"):
        faces.samples(f"fer2013:{root}", "train", SIX)


def test_too_many_synthetic_faces_are_refused():
    """Before they are listed."""
    with pytest.raises(UsageError, match="60 to 1,000,000"):
        faces.samples("synthetic:99999999999", "train", SIX)


def test_an_output_inside_the_data_set_is_refused(put, root):
    """Its plots would be faces of the next training."""
    put_all(put, "", 5)
    before = sorted(root.rglob("*"))
    for out in ("run", "anger/run"):
        with pytest.raises(UsageError, match=r"lies inside the data set .* give a folder outside it with --out"):
            edgeemo.run(Train(data=f"folder:{root}", out=root / out, backbone="edge_vgg_nano", weights="none"))
    assert sorted(root.rglob("*")) == before


def test_a_label_is_the_same_however_its_accents_are_encoded():
    """MacOS decomposes the letters of file names."""
    own = label_set("joie,colère")
    assert own.find(unicodedata.normalize("NFD", "colère")) == 1


def test_names_in_utf8_without_the_flag_of_the_zip_are_read(put, root, tmp_path):
    """As some programs write them."""
    put("colère", 3)
    put("joie", 3)
    archive = pack(root, tmp_path / "data.zip")
    content = archive.read_bytes()
    plain = bytearray(content)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = plain.find(signature)
        while start >= 0:
            plain[start + offset + 1] &= 0xF7  # the flag of UTF-8
            start = plain.find(signature, start + 4)
    archive.write_bytes(plain)
    opened = open_folder(archive)
    names = {name for split in opened.sources for one in opened.samples(split) for name in one.votes}
    assert names == {"colère", "joie"}


@pytest.mark.parametrize("name", ["#snapshot", "@tmp", "@Recycle", "__pycache__", "RECYCLER", "Network Trash Folder"])
def test_folders_of_servers_and_tools_are_passed_over(put, root, name):
    """Empty or not."""
    put_all(put, "train/", 3)
    put(f"train/{name}", 2)
    put_all(put, "valid/", 2)
    opened = open_folder(root)
    assert opened.passed_over == [f"train/{name}/"]
    assert len(opened.samples("train")) == 18
