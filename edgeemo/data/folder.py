"""One folder per label, with or without train/valid/test folders above them."""

from __future__ import annotations

import hashlib
import logging
from functools import cache, partial
from pathlib import Path

from edgeemo import images
from edgeemo.data.sample import SPLITS, NoSuchSplit, Sample
from edgeemo.errors import DataError
from edgeemo.names import escape_name

log = logging.getLogger(__name__)
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
# Names by which operating systems, file servers and tools store data of their own, in lower case; all else that starts
# with a dot, such as macOS's ._NAME.png, is passed over as well.
SYSTEM_NAMES = {
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "system volume information",
    "lost+found",
    "thumbs.db",
    "desktop.ini",
}
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
    return [_make_sample(file, path) for file in _list_files(path / split)]


def _list_files(folder: Path) -> list[Path]:
    """Return the images of all labels, sorted by label and name."""
    passed_over: list[str] = []
    labels = _list_labels(folder, passed_over)
    found = [file for label in labels for file in _list_images(label, passed_over)]
    if passed_over:
        _log_passed_over(folder, len(passed_over), passed_over[0])
    return found


@cache  # train and valid list the same folder
def _log_passed_over(folder: Path, count: int, example: str) -> None:
    what = "hidden file, system file or folder" if count == 1 else "hidden files, system files and folders"
    log.info("%s: passed over %d %s, such as %s", folder, count, what, example)


def _is_system_name(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def _make_sample(file: Path, root: Path) -> Sample:
    name = escape_name(file.relative_to(root).as_posix())
    return Sample(name, {file.parent.name: 1.0}, partial(images.read, file, name=name))


def _list_labels(folder: Path, passed_over: list[str]) -> list[Path]:
    """Return the label folders, sorted; the names of system folders are added to `passed_over`."""
    folders = sorted(entry for entry in folder.iterdir() if entry.is_dir())
    labels = [entry for entry in folders if not _is_system_name(entry.name)]
    passed_over += [f"{entry.name}/" for entry in folders if entry not in labels]
    if not labels:
        raise DataError(f"{folder} has no folders; expected one folder per label, such as {folder}/happiness/*.png")
    return labels


def _list_images(label: Path, passed_over: list[str]) -> list[Path]:
    """Return the images of a label, sorted; names of hidden files, system files and folders go to `passed_over`."""
    entries = sorted(label.iterdir())
    system = [entry for entry in entries if _is_system_name(entry.name) or entry.is_dir()]
    passed_over += [f"{label.name}/{entry.name}" for entry in system]
    visible = set(entries).difference(system)
    files = sorted(entry for entry in visible if entry.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{label} holds no images ({', '.join(SUFFIXES)}); add faces or remove the folder")
    others = sorted(entry.name for entry in visible.difference(files))
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
    found = _list_files(root)
    valid = set()
    by_label: dict[str, set[str]] = {}
    contents = {file: _hash_content(file) for file in found}
    for file in found:
        by_label.setdefault(file.parent.name, set()).add(contents[file])
    for distinct in by_label.values():
        valid.update(sorted(distinct)[: round(VALID_SHARE * len(distinct))])
    if split == "valid" and not valid:
        raise NoSuchSplit(
            f"{root}: the valid split is empty; it gets a fifth of each label's distinct images, so a label needs "
            f"at least {FEWEST}.  Add images, or lay out {root}/train/LABEL and {root}/valid/LABEL"
        )
    return [_make_sample(file, root) for file in found if (contents[file] in valid) == (split == "valid")]
