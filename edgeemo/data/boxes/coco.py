"""COCO's JSON: `images` with file_name, width and height, `annotations` with bbox and iscrowd."""

from __future__ import annotations

from pathlib import Path
from sys import float_info
from typing import Any

from edgeemo.data.boxes.labelled import Collector, LabelledImage, show
from edgeemo.errors import DataError
from edgeemo.reading import parse_json

FACE = "face"  # name of the category, if there are several


def read(path: Path, text: str) -> list[LabelledImage]:
    """Return the images; boxes with `iscrowd` are ignored. Of several categories, `face` is read; a single one always.

    Raises DataError, with the place in the file, for what is not of the format.
    """
    try:
        content = parse_json(text.encode())
    except ValueError as error:
        raise DataError(f"{path} is not COCO's JSON: {error}") from error
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
    categories = _list_categories(path, content)
    face = _find_face(path, categories)
    for number, one in enumerate(_get_list(path, content, "annotations")):
        where = f"{path}, annotations[{number}]"
        if _get_category(one, categories, where) == face:
            _add(collector, by_id, one, where)
    return collector.finish(path)


def _add(collector: Collector, by_id: dict[Any, LabelledImage], one: Any, where: str) -> None:
    key = _get(one, "image_id", (int, str), where)
    if key not in by_id:
        raise DataError(f"{where}: no image has the id {show(key)}")
    box = _get(one, "bbox", list, where)
    if len(box) != 4 or not all(_is_number(value) for value in box):
        raise DataError(f"{where}: expected bbox as [x, y, width, height], found {show(box)}")
    crowd = one.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise DataError(f"{where}: expected iscrowd as 0 or 1, found {show(crowd)}")
    collector.add_box(by_id[key], [float(value) for value in box], where, ignored=bool(crowd))


def _list_categories(path: Path, content: dict[str, Any]) -> dict[Any, str]:
    """Return the names of the categories by their ids; none where the file does not state them."""
    names: dict[Any, str] = {}
    for number, one in enumerate(_get_list(path, content, "categories") if content.get("categories") else []):
        where = f"{path}, categories[{number}]"
        name, key = _get(one, "name", str, where), _get(one, "id", (int, str), where)
        if key in names:
            raise DataError(f"{where}: the id {show(key)} is there twice")
        names[key] = name
    return names


def _find_face(path: Path, categories: dict[Any, str]) -> Any:
    """Return the id of the only category, or of the one with the name of FACE; None if there are no categories."""
    if len(categories) < 2:
        return next(iter(categories), None)
    found = [key for key, name in categories.items() if name.strip().casefold() == FACE]
    if len(found) != 1:
        raise DataError(f"{path}: expected one category {FACE!r}, found {show(', '.join(categories.values()))}")
    return found[0]


def _get_category(one: Any, categories: dict[Any, str], where: str) -> Any:
    """Return the id of an annotation's category, which may be absent if there is one; None if there are none."""
    if not categories:
        return None
    if len(categories) == 1 and isinstance(one, dict) and "category_id" not in one:
        return next(iter(categories))
    key = _get(one, "category_id", (int, str), where)
    if key not in categories:
        raise DataError(f"{where}: no category has the id {show(key)}")
    return key


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
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= float_info.max
