"""Decode JSON to frozen dataclasses, by their annotations."""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edgeemo.errors import DataError

T = TypeVar("T")
SHOWN = 40  # characters of an unexpected value in the error


class _MismatchError(Exception):
    """A value does not match the annotation."""

    def __init__(self, at: str, expected: str, found: str) -> None:
        super().__init__(f"{at or 'the file'}: expected {expected}, found {found}")


def decode(kind: type[T], value: object, *, source: str, remedy: str = "") -> T:
    """Decode a value of parsed JSON to an instance of `kind`, a dataclass; numbers are not converted.

    Args:
        kind: a dataclass whose fields are str, int, float, bool, Any, lists, tuples, dicts by str, other dataclasses
            or unions of these. Of a union of dataclasses, the first whose required fields are all present is used.
        value: returned by json.loads.
        source: the file or option of the value, for the error.
        remedy: appended to the error.

    Raises:
        DataError: a field is missing, unknown or of another type; the error has its path, expected and actual value.
    """
    try:
        decoded: T = _decode(kind, value, "")
    except _MismatchError as error:
        raise DataError(f"{source}: {error}{remedy}") from None
    return decoded


def _decode(kind: Any, value: Any, at: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _decode_union(get_args(kind), value, at)
    if isinstance(kind, type) and is_dataclass(kind):
        return _decode_instance(kind, value, at)
    if origin in (list, tuple):
        return _decode_sequence(origin, get_args(kind)[0], value, at)
    if origin is dict:
        return _decode_mapping(get_args(kind)[1], value, at)
    return _decode_plain(kind, value, at)


def _decode_union(kinds: tuple[Any, ...], value: Any, at: str) -> Any:
    """Decode a value as the member of a union that it matches."""
    if value is None and NoneType in kinds:
        return None
    members = [kind for kind in kinds if kind is not NoneType]
    if len(members) > 1 and isinstance(value, dict):
        members = [kind for kind in members if _fits(kind, value)] or members
    return _decode(members[0], value, at)


def _fits(kind: Any, value: dict[str, Any]) -> bool:
    return isinstance(kind, type) and is_dataclass(kind) and _list_required(kind) <= set(value)


def _decode_instance(kind: Any, value: Any, at: str) -> Any:
    if not isinstance(value, dict):
        raise _MismatchError(at, "an object", _shorten(value))
    known = {field.name for field in fields(kind)}
    if missing := sorted(_list_required(kind) - set(value)):
        raise _MismatchError(_join(at, missing[0]), "a value", "nothing")
    if unknown := sorted(set(value) - known):
        raise _MismatchError(at, f"no other fields than {', '.join(sorted(known))}", ascii(unknown[0])[1:-1][:SHOWN])
    hints = _list_hints(kind)
    return kind(**{name: _decode(hints[name], part, _join(at, name)) for name, part in value.items()})


def _decode_sequence(origin: type, kind: Any, value: Any, at: str) -> Any:
    if not isinstance(value, list):
        raise _MismatchError(at, "a list", _shorten(value))
    return origin(_decode(kind, part, f"{at}[{number}]") for number, part in enumerate(value))


def _decode_mapping(kind: Any, value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _MismatchError(at, "an object", _shorten(value))
    return {name: _decode(kind, part, _join(at, name)) for name, part in value.items()}


def _decode_plain(kind: type, value: Any, at: str) -> Any:
    """Return a value of exactly this type; an int is accepted as a float, a bool is not a number."""
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise _MismatchError(at, kind.__name__, _shorten(value))


@cache
def _list_hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _list_required(kind: Any) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind) if _is_required(field))


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _shorten(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
