"""labels.csv: which faces edgeemo label has labelled. Its folder holds LABEL/PERSON/NAME.png beside it."""

from __future__ import annotations

from edgeemo.data.layouts.tree import Tree, reading_table
from edgeemo.errors import DataError

LABELS = "labels.csv"
COLUMNS = ("image", "box", "person", "label", "when")
HEADER = ",".join(COLUMNS)


def list_labelled(tree: Tree) -> set[str]:
    """Return the folders of a tree with a labels.csv of edgeemo label; the root is ''.

    Other data sets have tables of this name: it is known by its first line.
    """
    return {_get_parent(name) for name in tree.files if _get_name(name) == LABELS and _has_header(tree, name)}


def _has_header(tree: Tree, name: str) -> bool:
    try:
        with reading_table(tree, name) as stream:
            first = stream.readline(len(HEADER) + 8)  # with a byte order mark and line break, which editors add
    except DataError:  # then it decides nothing
        return False
    return first.decode("utf-8-sig", errors="replace").strip() == HEADER


def _get_name(path: str) -> str:
    return path.rpartition("/")[2]


def _get_parent(path: str) -> str:
    return path.rpartition("/")[0]
