"""A folder per label, with or without train/valid/test folders above: the layout that most people have."""

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
VALID_SHARE = 0.2  # of the distinct images of a label, where the folder has no splits of its own
FEWEST = 3  # distinct images of a label that give one to valid: round(0.2 * 3) = 1


def samples(path: Path, split: str) -> list[Sample]:
    """The faces of one split, sorted by label and name. DataError if there are no labels or a label is empty."""
    if not path.is_dir():
        raise DataError(f"{path} is not a folder; expected {path}/LABEL/*.png or {path}/train/LABEL/*.png")
    if not any((path / name).is_dir() for name in SPLITS):
        return _of_split(path, split)
    if not (path / split).is_dir():
        raise NoSuchSplit(f"{path} has split folders but no {split}/; expected {path / split}/LABEL/*.png")
    return _faces(path / split, path)


def _faces(folder: Path, root: Path) -> list[Sample]:
    return [
        _sample(file.relative_to(root).as_posix(), label.name, root)
        for label in _labels(folder)
        for file in _files(label)
    ]


def _sample(name: str, label: str, root: Path) -> Sample:
    return Sample(name, {label: 1.0}, partial(images.read, root / name, name=name))


def _labels(folder: Path) -> list[Path]:
    labels = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not labels:
        raise DataError(f"{folder} has no folders; expected one folder per label, as in {folder}/happiness/*.png")
    return labels


def _files(label: Path) -> list[Path]:
    files = sorted(file for file in label.iterdir() if file.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{label} holds no images ({', '.join(SUFFIXES)}); add faces or remove the folder")
    others = sorted(file.name for file in label.iterdir() if file not in files and not file.name.startswith("."))
    if others:
        log.warning("%s: %d files passed over, as %s; expected %s", label, len(others), others[0], ", ".join(SUFFIXES))
    return files


def _content(file: Path) -> str:
    """What tells copies: the hash of the file, or its path where reading will fail, with the reason."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return file.as_posix()


def _of_split(root: Path, split: str) -> list[Sample]:
    """Valid gets a fifth of each label's distinct contents by hash, so copies of one image stay on one side."""
    if split == "test":
        raise NoSuchSplit(f"{root} has no train/valid/test folders, so no test split; use valid, or lay out the splits")
    found = _faces(root, root)
    chosen = set()
    by_label: dict[str, set[str]] = {}
    contents = {face.id: _content(root / face.id) for face in found}
    for face in found:
        by_label.setdefault(next(iter(face.votes)), set()).add(contents[face.id])
    for distinct in by_label.values():
        chosen.update(sorted(distinct)[: round(VALID_SHARE * len(distinct))])
    if split == "valid" and not chosen:
        raise NoSuchSplit(
            f"{root}: the valid split is empty; it gets a fifth of each label's distinct images, so that a label needs "
            f"at least {FEWEST}.  Add images, or lay out {root}/train/LABEL and {root}/valid/LABEL"
        )
    return [face for face in found if (contents[face.id] in chosen) == (split == "valid")]
