"""Sections ↔ JSON values, checked against the types and limits that the sections declare."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from edgeemo.card.keys import Key, list_keys

T = TypeVar("T")
SHOWN = 60  # characters of a wrong value in a message


def from_json(section: type[T], value: Any, *, where: str = "") -> T:
    """Decode a section; ValueError names the first key, below `where`, whose value is not as declared."""
    if not isinstance(value, dict):
        raise _make_error(where or section.__name__, "an object", value)
    declared = list_keys(section)  # type: ignore[arg-type]  # a class is hashable
    if unknown := sorted(map(str, set(value) - {one.name for one in declared})):
        raise ValueError(f"{_join(where, ascii(unknown[0])[1:-1][:SHOWN])} is not a key of a card")
    if missing := [one.name for one in declared if one.required and one.name not in value]:
        raise ValueError(f"{_join(where, missing[0])} is missing")
    found = {}
    for one in declared:
        if one.name in value:
            found[one.name] = _decode(one.type, value[one.name], _join(where, one.name), one.key)
    return section(**found)


def to_json(value: Any) -> Any:
    """Return the JSON form of a section or of a value in one: keys in their order, without those that are None."""
    if is_dataclass(value):
        declared = list_keys(type(value))  # type: ignore[arg-type]  # a class is hashable
        found = ((one.name, getattr(value, one.name)) for one in declared)
        return {name: to_json(part) for name, part in found if part is not None}
    if isinstance(value, dict):
        return {name: to_json(part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(part) for part in value]
    return value


def is_finite(value: Any) -> bool:
    """Return whether a value is a finite number, not a bool; JSON allows NaN, Infinity and integers of any length."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _decode(kind: Any, value: Any, where: str, key: Key) -> Any:
    if is_dataclass(kind):
        return from_json(kind, value, where=where)  # type: ignore[arg-type]  # a class, no instance
    return CONTAINERS.get(get_origin(kind), _decode_scalar)(kind, value, where, key)


def _decode_optional(kind: Any, value: Any, where: str, key: Key) -> Any:
    (inner,) = (one for one in get_args(kind) if one is not type(None))
    return None if value is None else _decode(inner, value, where, key)


def _decode_list(kind: Any, value: Any, where: str, key: Key) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _make_error(where, "a list", value)
    inner = get_args(kind)[0]
    found = tuple(_decode(inner, one, f"{where}[{k}]", key) for k, one in enumerate(value))
    if len(found) < key.fewest or (key.distinct and len(set(found)) < len(found)):
        raise _make_error(where, f"a list of {key.fewest} or more{' different' * key.distinct} values", value)
    return found


def _decode_mapping(kind: Any, value: Any, where: str, key: Key) -> Any:
    if not isinstance(value, dict):
        raise _make_error(where, "an object", value)
    inner = get_args(kind)[1]
    return {name: _decode(inner, one, _join(where, name), key) for name, one in value.items()}


CONTAINERS: dict[Any, Callable[[Any, Any, str, Key], Any]] = {
    Union: _decode_optional,
    UnionType: _decode_optional,
    tuple: _decode_list,
    dict: _decode_mapping,
}
WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def _decode_scalar(kind: Any, value: Any, where: str, key: Key) -> Any:
    if kind is Any:
        return value
    fits = is_finite(value) if kind is float else type(value) is kind
    if not fits or not _is_within(value, key):
        raise _make_error(where, WORDS[kind] + _describe_limits(key), value)
    return float(value) if kind is float else value


def _is_within(value: Any, key: Key) -> bool:
    if key.choices and value not in key.choices:
        return False
    if key.pattern and not re.fullmatch(key.pattern, value):
        return False
    if type(value) not in (int, float):
        return True
    high_enough = (key.least is None or value >= key.least) and (key.above is None or value > key.above)
    return high_enough and (key.most is None or value <= key.most)


def _describe_limits(key: Key) -> str:
    """Return the limits of a value in words."""
    limits = {
        f", {key.least:g} or more" if key.least is not None else "": key.least is not None,
        f" above {key.above:g}" if key.above is not None else "": key.above is not None,
        f", at most {key.most:g}" if key.most is not None else "": key.most is not None,
        f", one of {', '.join(map(str, key.choices))}": bool(key.choices),
        f" that matches {key.pattern}": bool(key.pattern),
    }
    return "".join(words for words, given in limits.items() if given)


def _make_error(where: str, expected: str, value: Any) -> ValueError:
    shown = repr(value)
    return ValueError(f"{where}: expected {expected}, got {shown if len(shown) <= SHOWN else shown[:SHOWN] + '…'}")


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
