"""COCO's JSON: `images` with file_name, width and height, `annotations` with bbox and iscrowd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgeemo.data.boxes.labelled import Collector, LabelledImage, show
from edgeemo.errors import DataError

FACE = "face"  # name of the category, if there are several


def read(path: Path, text: str) -> list[LabelledImage]:
    """Return the images; boxes with `iscrowd` are ignored. Of several categories, `face` is read.

    Raises DataError, with the place in the file, for what is not of the format.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected an object with images and annotations, found {show(text)}")
    collector = Collector()
    by_id = {}
    for number, one in enumerate(_get_list(path, content, "images")):
        where = f"{path}, images[{number}]"
        key = _get(one, "id", (int, str), where)
        if key in by_id:
            raise DataError(f"{where}: the id {show(key)} is there twice")
        by_id[key] = collector.add_image(_get(one, "file_name", str, where), where, _get_size(one, where))
    category = _find_category(path, content)
    for number, one in enumerate(_get_list(path, content, "annotations")):
        _add(collector, by_id, one, category, f"{path}, annotations[{number}]")
    return collector.finish(path)


def _add(collector: Collector, by_id: dict[Any, LabelledImage], one: Any, category: Any, where: str) -> None:
    if category is not None and _get(one, "category_id", (int, str), where) != category:
        return
    key = _get(one, "image_id", (int, str), where)
    if key not in by_id:
        raise DataError(f"{where}: no image has the id {show(key)}")
    box = _get(one, "bbox", list, where)
    if len(box) != 4 or not all(_is_number(value) for value in box):
        raise DataError(f"{where}: expected bbox as [x, y, width, height], found {show(box)}")
    ignored = bool(one.get("iscrowd", 0))
    collector.add_box(by_id[key], [float(value) for value in box], where, ignored=ignored)


def _find_category(path: Path, content: dict[str, Any]) -> Any:
    """Return the id of the category of faces; None if there is no choice."""
    categories = _get_list(path, content, "categories") if content.get("categories") else []
    if len(categories) < 2:
        return None
    named = [
        (str(_get(one, "name", str, where)), _get(one, "id", (int, str), where))
        for where, one in ((f"{path}, categories[{k}]", one) for k, one in enumerate(categories))
    ]
    found = [key for name, key in named if name.strip().casefold() == FACE]
    if len(found) != 1:
        raise DataError(f"{path}: expected one category {FACE!r}, found {show(', '.join(name for name, _ in named))}")
    return found[0]


def _get_list(path: Path, content: dict[str, Any], name: str) -> list[Any]:
    found = content.get(name)
    if not isinstance(found, list):
        raise DataError(f"{path}: expected a list of {name}, as in COCO's files, found {show(found)}")
    return found


def _get_size(one: Any, where: str) -> tuple[int, int] | None:
    if "width" not in one and "height" not in one:
        return None
    return _get(one, "width", int, where), _get(one, "height", int, where)


def _get(one: Any, name: str, kind: Any, where: str) -> Any:
    found = one.get(name) if isinstance(one, dict) else one
    if not isinstance(one, dict) or not isinstance(found, kind) or isinstance(found, bool):
        raise DataError(f"{where}: expected an object with {name}, found {show(found)}")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
