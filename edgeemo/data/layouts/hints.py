"""What a folder that is no folder of labels probably is, for the advice in errors."""

from __future__ import annotations

from pathlib import Path

from edgeemo.data.crop_record import RECORD, TABLE
from edgeemo.data.label_record import LABELS, list_labelled
from edgeemo.data.layouts.codes import BY_KIND
from edgeemo.data.layouts.tree import ARCHIVES, Tree
from edgeemo.names import escape_name

# Kinds of data sets by a file that only they have, in lower case.
MARKS = {
    "list_patition_label.txt": "rafdb",
    "list_partition_label.txt": "rafdb",
    "fer2013new.csv": "ferplus",
    "fer2013.csv": "fer2013",
    "icml_face_data.csv": "fer2013",
    "training.csv": "affectnet",
    "validation.csv": "affectnet",
}
UNREADABLE = (".rar", ".7z", ".gz")  # archives and compressed files
TABLES = (".csv", ".tsv", ".txt", ".json", ".xlsx", ".parquet", ".npy", ".mat")
WRAPPERS = ("annotations", "images")  # folders of AffectNet inside a split


def suggest(tree: Tree) -> str:
    """Return a sentence that starts with two spaces, on how to read these files; empty if nothing is recognised."""
    names = [name.rpartition("/")[2].lower() for name in tree.files]
    kind = next((kind for mark, kind in MARKS.items() if mark in names), None)
    if any(name.endswith("label.csv") and "FER2013" in name for name in tree.files):
        kind = "ferplus"
    path = tree.path
    if any(name.endswith("_exp.npy") for name in names):
        kind = "affectnet"
        path = path.parent if any(name.partition("/")[0] in WRAPPERS for name in tree.folders) else path
    if kind:
        return f"  To read it as {kind}:  --data {kind}:{path}"
    return _suggest_archive(tree) or _suggest_table(tree) or _suggest_suffix(tree)


def suggest_numbered(path: Path, numbers: list[str]) -> str:
    """Return the options for label folders that are numbers: the kinds of data sets whose codes include them all."""
    fitting = {kind: codes for kind, codes in BY_KIND.items() if set(numbers) <= set(codes) and min(codes) in numbers}
    return "".join(f"  --data {kind}:{path} ({_describe(codes)})" for kind, codes in fitting.items())


def _describe(codes: dict[str, str]) -> str:
    first, last = min(codes), max(codes)
    return f"{first} {codes[first]} … {last} {codes[last]}"


def _suggest_archive(tree: Tree) -> str:
    archives = [name for name in tree.files if name.lower().endswith((*ARCHIVES, *UNREADABLE))]
    if not archives:
        return ""
    if len(archives) == 1 and tree.path.is_dir() and archives[0].lower().endswith(ARCHIVES):
        return f"  To read the archive in it:  --data KIND:{tree.path}/{escape_name(archives[0])}"
    return f"  Unpack the archives in it, such as {escape_name(archives[0])}"


def _suggest_table(tree: Tree) -> str:
    tables = [name for name in tree.files if name.lower().endswith(TABLES)]
    tables = [name for name in tables if name.rpartition("/")[2] not in (RECORD, TABLE)]  # of edgeemo data crop
    own = {f"{folder}/{LABELS}".lstrip("/") for folder in list_labelled(tree)}  # of edgeemo label
    tables = [name for name in tables if name not in own]
    if not tables:
        return ""
    return f"  Labels in files such as {escape_name(tables[0])} are not read: move the images to a folder per label"


def _suggest_suffix(tree: Tree) -> str:
    bare = [name for name in tree.files if "." not in name.rpartition("/")[2]]
    if not bare:
        return ""
    return f"  Files without a suffix, such as {escape_name(bare[0])}, are not read: rename them"
