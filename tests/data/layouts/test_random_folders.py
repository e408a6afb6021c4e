"""Random folders of faces: the audit counts what was put there, or says in one line why it cannot."""

import io
import logging
import tarfile
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeemo.data import audit
from edgeemo.data.layouts import folder
from edgeemo.errors import DataError, UsageError
from edgeemo.labels import SYNONYMS, label_set, normalize_label
from edgeemo.names import SYSTEM_NAMES, SYSTEM_PREFIXES, escape_name, is_image_name
from edgeemo.report.facts import make_header
from edgeemo.stages import Audit

EXAMPLES = 5000
RANDOM = settings(
    max_examples=EXAMPLES // 3 + 1,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
SEVEN = label_set("seven")
EMOTIONS = SEVEN.labels
FORMATS = {".png": "PNG", ".JPG": "JPEG", ".jpeg": "JPEG", ".bmp": "BMP", ".webp": "WEBP", ".Jfif": "JPEG"}


def encode(number, kind):
    """Return a 16 px image; each number is another one."""
    pixels = np.random.default_rng(number).integers(0, 256, (16, 16), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


IMAGES = {suffix: [encode(number, kind) for number in range(40)] for suffix, kind in FORMATS.items()}
BROKEN = (b"", b"\x89PNG\r\n\x1a\n broken", b"GIF89a", IMAGES[".png"][0][:60])


@dataclass
class Made:
    """What was written into a folder."""

    files: dict[str, bytes] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)
    faces: Counter = field(default_factory=Counter)  # by (split, label); the split is empty without split folders
    broken: Counter = field(default_factory=Counter)  # by split
    hidden: set[str] = field(default_factory=set)
    empty: set[str] = field(default_factory=set)  # splits that have a label folder without images


def spellings(name, others):
    """Names in random case, with or without a leading number."""
    return st.builds(
        lambda chosen, case, number: number + case(chosen),
        st.sampled_from([name, *others]),
        st.sampled_from([str, str.upper, str.title]),
        st.sampled_from(["", "", "0_", "1. ", "12-"]),
    )


def split_names(split):
    """Names in random case, with or without an ending."""
    return st.builds(
        lambda chosen, case, end: case(chosen) + end,
        st.sampled_from(folder.SPLIT_SYNONYMS[split]),
        st.sampled_from([str, str.upper, str.title]),
        st.sampled_from(["", "", "_set", "Set", "-data"]),
    )


LABEL_NAMES = {label: spellings(label, SYNONYMS[label]) for label in EMOTIONS}
SPLIT_NAMES = {split: split_names(split) for split in folder.SPLIT_SYNONYMS}
label_lists = st.lists(st.sampled_from(EMOTIONS), min_size=1, max_size=4, unique=True)
split_lists = st.lists(st.sampled_from(["train", "valid", "test"]), min_size=1, unique=True)
suffixes, belows = st.sampled_from(list(FORMATS)), st.sampled_from(["", "", "", "subject 1/"])
counts, tenths, quarters = st.sampled_from([0, *[1, 2, 3, 4] * 5]), st.integers(0, 9), st.integers(0, 3)

# Any name but those of hidden and system files, which are added on purpose.
stems = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda stem: not stem.startswith(SYSTEM_PREFIXES) and len(stem.encode()) < 200
)
numbers = st.integers(0, 39)


@st.composite
def label_folders(draw, made, prefix, split):
    """Fill a split with label folders; return the names of the folders."""
    labels = draw(label_lists)
    for label in labels:
        name = draw(LABEL_NAMES[label])
        where = f"{prefix}{name}/"
        made.folders.append(where.rstrip("/"))
        count = draw(counts)
        stem = draw(stems)
        for k in range(count):
            suffix = draw(suffixes)
            below = draw(belows)
            broken = draw(tenths) == 0
            content = draw(st.sampled_from(BROKEN)) if broken else IMAGES[suffix][draw(numbers)]
            made.files[f"{where}{below}{stem}{k}{suffix}"] = content
            made.faces[split, label] += 1
            made.broken[split] += broken
        if not count:
            made.empty.add(split)
        if draw(quarters) == 0:
            made.files[f"{where}._{stem}.png"] = b"Mac OS X"
            made.hidden.add(f"{where}._{stem}.png")
        if draw(quarters) == 0:
            made.files[f"{where}labels.txt"] = b"not a face"
        if draw(tenths) == 0:
            made.folders.append(f"{where}folder.png")
    return labels


@st.composite
def data_sets(draw):
    made = Made()
    wrapper = draw(st.sampled_from(["", "", "images/", "archive/faces/"]))
    if draw(st.booleans()):
        draw(label_folders(made, wrapper, ""))
    else:
        for split in draw(split_lists):
            name = draw(SPLIT_NAMES[split])
            made.folders.append(f"{wrapper}{name}")
            draw(label_folders(made, f"{wrapper}{name}/", split))
    for name in draw(st.lists(st.sampled_from(sorted(SYSTEM_NAMES)), max_size=2, unique=True)):
        made.files[f"{wrapper}{name}/thing.png"] = IMAGES[".png"][0]
        made.hidden.add(f"{wrapper}{name}/")
    if draw(st.booleans()):
        made.files[f"{wrapper}README.md"] = b"about"
    made.folders += ["/".join(wrapper.split("/")[:depth]) for depth in range(1, wrapper.count("/") + 1)]
    return made


def write_folder(made, root):
    for name in made.folders:
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, content in made.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(made, root):
    with zipfile.ZipFile(root / "data.zip", "w") as archive:
        for name in made.folders:
            archive.writestr(f"{name}/", b"")
        for name, content in made.files.items():
            archive.writestr(name, content)
    return root / "data.zip"


def write_tar(made, root):
    with tarfile.open(root / "data.tgz", "w:gz", compresslevel=1) as archive:
        for name, content in [*((name, None) for name in made.folders), *made.files.items()]:
            info = tarfile.TarInfo(f"./{name}")
            info.type, info.size = (tarfile.DIRTYPE, 0) if content is None else (tarfile.REGTYPE, len(content))
            archive.addfile(info, io.BytesIO(content or b""))
    return root / "data.tgz"


def count_faces(report):
    """Return the faces that the audit found, by split and label."""
    return Counter(
        {
            (split.split, label): count
            for split in report.splits
            for counts in split.labels
            if counts.protocol == "plurality"
            for label, count in counts.faces.items()
            if count
        }
    )


def merge_splits(counts):
    """Return counts with train and valid added up, which are one split where valid is taken from train."""
    merged = Counter()
    for (split, label), count in counts.items():
        merged["test" if split == "test" else "train", label] += count
    return merged


def check(made, path):
    """Compare the audit with what was made."""
    try:
        report = audit.run(Audit(data=f"folder:{path}", label_set="seven", near=0))
    except (DataError, UsageError) as error:
        # Refused only for a label folder of the training faces without images, or where there are no images at all.
        assert "Traceback" not in str(error)  # noqa: PT017
        assert made.empty & {"", "train"} or not made.faces or has_empty_split(made), str(error)  # noqa: PT017
        return
    assert not made.empty & {"", "train"}
    splits = {split for split, _ in made.faces}
    found = count_faces(report)
    if "valid" in splits:
        assert found == +made.faces
    else:
        expected = Counter({("train" if split == "" else split, label): n for (split, label), n in made.faces.items()})
        assert merge_splits(found) == +expected
    assert sum(len(split.unreadable) for split in report.splits) == sum(made.broken.values())
    interpretation = report.interpretation
    assert interpretation.passed_over == len(made.hidden)
    assert set(interpretation.passed_over_examples) <= set(map(escape_name, made.hidden))
    for name, label in interpretation.labels.items():
        assert normalize_label(name) == label


def has_empty_split(made):
    """Return whether a split folder holds no image at all."""
    images = [file for file in made.files if is_image_name(file) and file not in made.hidden]
    splits = [name for name in made.folders if folder.get_split(name)]
    return any(not any(file.startswith(f"{name}/") for file in images) for name in splits)


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """Without warnings, which would fill the report of a failure, and looking up versions of packages each time."""
    header = make_header()
    monkeypatch.setattr(audit, "make_header", lambda: header)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("write", [write_folder, write_zip, write_tar])
@RANDOM
@given(made=data_sets())
def test_the_audit_counts_what_is_there(write, made):
    """Random layouts, names, cases, broken files, hidden files and archives."""
    with TemporaryDirectory() as root:
        check(made, write(made, Path(root)))
