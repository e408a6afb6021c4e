"""One folder per label, with or without folders for the splits above them.

Names of splits and labels may be synonyms in any case, the label folders may lie below other folders, and all of it may
be packed in an archive. What was recognised as what is in the DataSet that `open_folder` returns.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edgeemo.data.crop_record import RECORD, TABLE, read_crop
from edgeemo.data.label_record import LABELS, list_labelled
from edgeemo.data.layouts import hints, holdout
from edgeemo.data.layouts.tree import DAMAGE, Tree, open_tree
from edgeemo.data.sample import SPLITS, DataSet, Sample, log_once
from edgeemo.errors import DataError
from edgeemo.labels import FERPLUS8, normalize_label
from edgeemo.names import IMAGE_SUFFIXES, escape_name, is_image_name

log = logging.getLogger(__name__)
# Names of split folders, in lower case, without a number in front and the words of GENERIC.
SPLIT_SYNONYMS = {
    "train": ("train", "training"),
    "valid": ("valid", "val", "validation", "dev", "eval", "publictest"),
    "test": ("test", "testing", "privatetest"),
}
GENERIC = ("set", "data", "images", "faces")  # in the names of split folders, as in train_set
SPLIT_OF = {name: split for split, names in SPLIT_SYNONYMS.items() for name in names}
EXPECTED = "LABEL/*.png or train/LABEL/*.png"
SHOWN = 5  # names in an error
MOST_NUMBERS = 8  # the most codes of a data set


def open_folder(path: Path, *, codes: Mapping[str, str] | None = None) -> DataSet:
    """Recognise the splits and labels of a folder or archive.

    codes: labels by the number that names a folder; None: such folders are refused, because data sets differ in them.

    Raises DataError if no label folder with images is found, or more than one place could be meant.
    """
    tree = open_tree(path, expected=EXPECTED)
    return interpret(tree, codes=codes)


def interpret(tree: Tree, *, codes: Mapping[str, str] | None = None) -> DataSet:
    """Recognise the splits and labels among the files of a tree, as `open_folder` does."""
    try:
        return _interpret(tree, codes)
    except DataError as error:
        raise DataError(f"{error}{hints.suggest(tree)}") from error


def _interpret(tree: Tree, codes: Mapping[str, str] | None) -> DataSet:
    index = _Index(tree)
    root = _find_root(index)
    folders = _find_splits(index, root)
    labels = _find_all_labels(index, folders)
    numbers = _check_numbers(tree.path, labels, codes)
    reader = _Reader(index, labels, codes or {})
    layout = "folders by split and label" if set(folders.values()) != {root} else "one folder per label"
    sources = {split: f"{escape_name(folders[split])}/" if folders[split] else "the folder" for split in labels}
    data = DataSet(
        str(tree.path),
        layout,
        {split: sources[split] for split in SPLITS if split in sources},
        reader.read,
        _list_unused(index, labels),
        tree.passed_over,
        {number: codes[number] for number in numbers} if codes else {},
        read_crop(tree),
        hints.suggest(tree),
    )
    return holdout.add_valid(data, reader.hash)


@dataclass
class _Index:
    """The images, other files and folders directly inside each folder of a tree; the root is ''."""

    tree: Tree
    images: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    others: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    folders: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    filled: set[str] = field(default_factory=set)  # folders with an image somewhere below them
    labelled: set[str] = field(default_factory=set)  # folders that edgeemo label wrote: labels below them, then people

    def __post_init__(self) -> None:
        for name in self.tree.files:
            (self.images if is_image_name(name) else self.others)[_get_parent(name)].append(name)
        for name in self.tree.folders:
            self.folders[_get_parent(name)].append(name)
        for folder in self.images:
            self.filled.update([folder, *_list_parents(folder)])
        self.labelled = list_labelled(self.tree)

    def list_below(self, folders: list[str]) -> dict[str, list[str]]:
        """Return all files below each of some sibling folders, in order."""
        below: dict[str, list[str]] = {folder: [] for folder in folders}
        depth = folders[0].count("/") + 1 if folders else 0
        for name in self.tree.files:
            folder = "/".join(name.split("/", depth)[:depth])
            if folder in below:
                below[folder].append(name)
        return below


def _get_parent(name: str) -> str:
    return name.rpartition("/")[0]


def _list_parents(name: str) -> list[str]:
    """Return all folders above a file or folder, up to the root."""
    parents = []
    while name:
        name = _get_parent(name)
        parents.append(name)
    return parents


def get_split(folder: str) -> str | None:
    """Return the split that a folder's name stands for, or None."""
    words = re.split(r"[\s._-]+", _get_name(folder).casefold())
    rest = [word for word in words if word not in GENERIC and not word.isdecimal()]
    if len(rest) != 1:
        return None
    endings = [rest[0].removesuffix(ending) for ending in GENERIC]
    return next((SPLIT_OF[name] for name in (*rest, *endings) if name in SPLIT_OF), None)


def _find_root(index: _Index) -> str:
    """Return the folder that holds the split or label folders; folders that only wrap another one are skipped."""
    root = ""
    while True:
        below = index.folders[root]
        if any(get_split(folder) for folder in below) or _are_labels(index, below):
            return root
        candidates = [folder for folder in below if folder in index.filled]
        if len(candidates) != 1:
            raise _make_root_error(index, root, candidates)
        root = candidates[0]


def _are_labels(index: _Index, folders: list[str]) -> bool:
    """Return whether folders are those of labels: one has images, or is named by an emotion and has some below it.

    Below a folder that edgeemo label wrote, all are.
    """
    if any(_get_parent(one) in index.labelled for one in folders):
        return True
    return any(index.images[one] for one in folders) or any(_is_emotion(index, one) for one in folders)


def _is_emotion(index: _Index, folder: str) -> bool:
    wraps_splits = any(get_split(one) for one in index.folders[folder])
    return folder in index.filled and not wraps_splits and normalize_label(_get_name(folder)) in FERPLUS8


def _get_name(path: str) -> str:
    return path.rpartition("/")[2]


def _make_root_error(index: _Index, root: str, candidates: list[str]) -> DataError:
    where = f"{index.tree.path}/{root}".rstrip("/") if root else str(index.tree.path)
    if candidates and all(get_split(folder) for one in candidates for folder in index.folders[one]):
        first = _get_name(candidates[0])
        return DataError(
            f"{where} has its splits below the labels, such as {first}/train; expected train/{first}: move them"
        )
    if candidates:
        shown = ", ".join(escape_name(one) for one in candidates[:SHOWN])
        return DataError(f"{where}: several folders hold images: {shown}; name the one to use")
    if count := len(index.images[root]):
        return DataError(
            f"{where} holds {_count_images(count)} without labels; expected {EXPECTED}.  Predict whole photos with:  "
            f"edgeemo predict {where}  or ready crops of faces with:  edgeemo predict --crop {where}"
        )
    suffixes = {Path(name).suffix.lower() for names in index.others.values() for name in names} - {""}
    found = f", only files of the types {', '.join(sorted(suffixes)[:SHOWN])}" if suffixes else ""
    return DataError(f"{where} holds no images{found}; expected {EXPECTED} ({', '.join(IMAGE_SUFFIXES)})")


def _find_splits(index: _Index, root: str) -> dict[str, str]:
    """Return the folder of each split; label folders alone are `train`."""
    folders: dict[str, str] = {}
    for folder in () if root in index.labelled else index.folders[root]:
        if split := get_split(folder):
            if split in folders and {folder, folders[split]} <= index.filled:
                raise DataError(
                    f"{index.tree.path}: both {folders[split]}/ and {folder}/ stand for the {split} split; "
                    "rename or move one of them"
                )
            if split not in folders or folder in index.filled:
                folders[split] = folder
    return folders or {"train": root}


def _find_all_labels(index: _Index, folders: dict[str, str]) -> dict[str, list[str]]:
    """Return the label folders of each split; a test folder without labels is not used."""
    labels = {}
    for split, folder in folders.items():
        try:
            labels[split] = _find_labels(index, folder)
        except DataError as error:
            if split != "test" or len(folders) == 1:
                raise
            log_once(f"test is not used: {error}")
    return labels


def _find_labels(index: _Index, folder: str) -> list[str]:
    """Return the label folders of a split, also the empty ones; folders that only wrap another one are skipped."""
    while not _are_labels(index, index.folders[folder]):
        filled = [one for one in index.folders[folder] if one in index.filled]
        if len(filled) != 1:
            raise _make_split_error(index, f"{index.tree.path}/{folder}", folder)
        folder = filled[0]
    return index.folders[folder]


def _make_split_error(index: _Index, where: str, folder: str) -> DataError:
    if folder not in index.filled:
        return DataError(f"{where} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    count = len(index.images[folder])
    found = f"{_count_images(count)} without labels" if count else "images further down"
    return DataError(f"{where}: expected a folder of images per label, such as {where}/happiness; got {found}")


def _check_numbers(path: Path, labels: dict[str, list[str]], codes: Mapping[str, str] | None) -> list[str]:
    """Return the label folders that are numbers; raise DataError unless `codes` has them and its first is there."""
    names = sorted({_get_name(folder) for folders in labels.values() for folder in folders})
    numbers = [name for name in names if name.isdecimal()]
    shown = ", ".join(numbers[:MOST_NUMBERS]) + (", …" if len(numbers) > MOST_NUMBERS else "")
    if codes is None and numbers:
        options = hints.suggest_numbered(path, numbers)
        raise DataError(
            f"{path}: the label folders are numbers ({shown}), whose meaning differs between data sets; rename them to "
            f"labels{', or choose the data set:' if options else ''}{options}"
        )
    known = ", ".join(f"{code} {label}" for code, label in (codes or {}).items())
    if codes is not None and (unknown := [name for name in numbers if name not in codes]):
        raise DataError(f"{path}: unknown label folders {', '.join(unknown)}; known: {known}")
    if codes is not None and numbers and min(codes) not in numbers:
        raise DataError(
            f"{path}: the label folders are {shown}, without {min(codes)}, so they may be numbered otherwise; "
            f"expected {known}: rename them to labels, or choose another kind of data set"
        )
    return numbers


@dataclass
class _Reader:
    """Lists the faces of a split."""

    index: _Index
    labels: dict[str, list[str]]  # the label folders of each split
    codes: Mapping[str, str]

    def read(self, split: str) -> list[Sample]:
        """Return the faces of a split, sorted by label and name."""
        samples = []
        for folder, files in self.index.list_below(self.labels[split]).items():
            name = _get_name(folder)
            label = self.codes.get(name, name)
            found = [file for file in files if is_image_name(file)]
            self._check_files(folder, found, [file for file in files if not is_image_name(file)], split)
            samples += [self._make_sample(file, label) for file in found]
        return samples

    def hash(self, sample: Sample) -> str:
        """Return the hash of a sample's file; its id if the file cannot be read, which fails later."""
        file = sample.read.args[0]  # type: ignore[attr-defined]
        try:
            with self.index.tree.open(file) as stream:
                return hashlib.sha256(stream.read()).hexdigest()
        except (DataError, *DAMAGE):
            return sample.id

    def _check_files(self, folder: str, found: list[str], others: list[str], split: str) -> None:
        where = f"{self.index.tree.path}/{escape_name(folder)}"
        expected = ", ".join(IMAGE_SUFFIXES)
        if not found and split == "train":
            hint = hints.suggest(self.index.tree) if others else ""
            advice = "" if hint else "; add faces or remove the folder"
            raise DataError(f"{where} holds no images ({expected}){advice}{hint}")
        if not found:
            log.warning("%s holds no images, so %s has no faces of this label", where, split)
        if others:
            example = escape_name(_get_name(others[0]))
            log.warning("%s: %d files ignored, such as %s; expected %s", where, len(others), example, expected)

    def _make_sample(self, file: str, label: str) -> Sample:
        name, tree = escape_name(file), self.index.tree
        return Sample(name, {escape_name(label): 1.0}, partial(tree.read_image, file, name), (tree.get_source(file),))


def _list_unused(index: _Index, labels: dict[str, list[str]]) -> list[str]:
    """Return the files that are no face, and the topmost folders without one, those with images first."""
    used = {folder for folders in labels.values() for folder in folders}
    above = {parent for folder in used for parent in _list_parents(folder)}
    taken = used | above
    folders = [one for one in index.tree.folders if one not in taken and _get_parent(one) in above]
    lost = [one for one in folders if one in index.filled]
    empty = [one for one in index.tree.folders if one not in index.filled and one not in taken]
    rest = [one for one in folders if one not in index.filled]
    rest += [one for one in empty if _get_parent(one) not in empty and not used.isdisjoint(_list_parents(one))]
    below = [name for folders in labels.values() for files in index.list_below(folders).values() for name in files]
    loose = [name for parent in above for name in index.images[parent] + index.others[parent]]
    loose = [name for name in loose if _get_name(name) not in (RECORD, TABLE) and not _is_label_table(index, name)]
    _log_loose(index, [name for name in loose if is_image_name(name)])
    loose += [name for name in below if not is_image_name(name)]
    return [*_describe_lost(index, lost), *sorted(map(escape_name, [*(f"{one}/" for one in rest), *loose]))]


def _is_label_table(index: _Index, name: str) -> bool:
    return _get_name(name) == LABELS and _get_parent(name) in index.labelled


def _log_loose(index: _Index, names: list[str]) -> None:
    """Log images beside the folders of labels, because they may be faces."""
    if names:
        shown = ", ".join(escape_name(name) for name in names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
        log_once(f"{index.tree.path}: not used: {_count_images(len(names))} outside of the label folders: {shown}")


def _count_images(number: int) -> str:
    return f"{number} image{'s'[: number != 1]}"


def _describe_lost(index: _Index, folders: list[str]) -> list[str]:
    """Return each folder with the number of its images; warn of them, because they may be faces."""
    if not folders:
        return []
    counts = {
        folder: sum(map(is_image_name, files)) for one in folders for folder, files in index.list_below([one]).items()
    }
    described = [f"{escape_name(folder)}/ ({_count_images(count)})" for folder, count in counts.items()]
    log_once(f"{index.tree.path}: not used: {', '.join(described[:SHOWN])}; splits are train, valid and test")
    return described
