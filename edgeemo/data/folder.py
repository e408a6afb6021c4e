"""One folder per label, with or without train/valid/test folders above them."""

from __future__ import annotations

import hashlib
import logging
from functools import partial
from pathlib import Path

from edgeemo import images
from edgeemo.data.sample import SPLITS, NoSuchSplit, Sample
from edgeemo.errors import DataError

log = logging.getLogger(__name__)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
VALID_SHARE = 0.2  # of the distinct images of each label, if there are no split folders
FEWEST = 3  # distinct images of a label from which valid gets one: round(0.2 * 3) = 1


def samples(path: Path, split: str) -> list[Sample]:
    """Return the faces of one split, sorted by label and name; raise DataError without labels or for an empty one."""
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; expected {path}/LABEL/*.png or {path}/train/LABEL/*.png")
    if not any((path / name).is_dir() for name in SPLITS):
        return _split_samples(path, split)
    if not (path / split).is_dir():
        raise NoSuchSplit(f"{path} has split folders but no {split}/; expected {path / split}/LABEL/*.png")
    return _list_samples(path / split, path)


def _list_samples(folder: Path, root: Path) -> list[Sample]:
    return [
        _make_sample(file.relative_to(root).as_posix(), label.name, root)
        for label in _list_labels(folder)
        for file in _list_images(label)
    ]


def _make_sample(name: str, label: str, root: Path) -> Sample:
    return Sample(name, {label: 1.0}, partial(images.read, root / name, name=name))


def _list_labels(folder: Path) -> list[Path]:
    labels = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not labels:
        raise DataError(f"{folder} has no folders; expected one folder per label, such as {folder}/happiness/*.png")
    return labels


def _list_images(label: Path) -> list[Path]:
    files = sorted(file for file in label.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{label} holds no images ({', '.join(SUFFIXES)}); add faces or remove the folder")
    others = sorted(file.name for file in label.iterdir() if file not in files and not file.name.startswith("."))
    if others:
        log.warning("%s: %d files ignored, such as %s; expected %s", label, len(others), others[0], ", ".join(SUFFIXES))
    return files


def _hash_content(file: Path) -> str:
    """Return the hash of the file, equal for copies; its path if the file cannot be read, which fails later."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return file.as_posix()


def _split_samples(root: Path, split: str) -> list[Sample]:
    """Give a fifth of each label's distinct images to valid, by hash, so that copies end up in the same split."""
    if split == "test":
        raise NoSuchSplit(f"{root} has no train/valid/test folders, so no test split; use valid, or lay out the splits")
    faces = _list_samples(root, root)
    valid = set()
    by_label: dict[str, set[str]] = {}
    contents = {face.id: _hash_content(root / face.id) for face in faces}
    for face in faces:
        by_label.setdefault(next(iter(face.votes)), set()).add(contents[face.id])
    for distinct in by_label.values():
        valid.update(sorted(distinct)[: round(VALID_SHARE * len(distinct))])
    if split == "valid" and not valid:
        raise NoSuchSplit(
            f"{root}: the valid split is empty; it gets a fifth of each label's distinct images, so a label needs "
            f"at least {FEWEST}.  Add images, or lay out {root}/train/LABEL and {root}/valid/LABEL"
        )
    return [face for face in faces if (contents[face.id] in valid) == (split == "valid")]
