"""JSON → frozen dataclasses, by their annotations."""

from __future__ import annotations

import json
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edgeemo.errors import DataError

T = TypeVar("T")
SHOWN = 40  # characters of an unexpected value


class _MismatchError(Exception):
    """Something else than the annotation says."""

    def __init__(self, at: str, expected: str, found: str) -> None:
        super().__init__(f"{at or 'the file'}: expected {expected}, found {found}")


def decode(kind: type[T], value: object, *, source: str, remedy: str = "") -> T:
    """A value of parsed JSON as an instance of `kind`, a dataclass; numbers stay as they are.

    Args:
        kind: a dataclass whose fields are str, int, float, bool, Any, lists, tuples, dicts by str, other dataclasses
            or unions of these. In a union of dataclasses the first whose required fields are all there is taken.
        value: what json.loads returned.
        source: the file or option that the value comes from, for the error.
        remedy: what to do about it, appended to the error.

    Raises:
        DataError: a field is missing, unknown or of another type; it says which, what was expected and what was found.
    """
    try:
        decoded: T = _decoded(kind, value, "")
    except _MismatchError as error:
        raise DataError(f"{source}: {error}{remedy}") from None
    return decoded


def _decoded(kind: Any, value: Any, at: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _member(get_args(kind), value, at)
    if isinstance(kind, type) and is_dataclass(kind):
        return _instance(kind, value, at)
    if origin in (list, tuple):
        return _sequence(origin, get_args(kind)[0], value, at)
    if origin is dict:
        return _mapping(get_args(kind)[1], value, at)
    return _plain(kind, value, at)


def _member(kinds: tuple[Any, ...], value: Any, at: str) -> Any:
    """The value as that member of a union which it fits."""
    if value is None and NoneType in kinds:
        return None
    left = [kind for kind in kinds if kind is not NoneType]
    if len(left) > 1 and isinstance(value, dict):
        left = [kind for kind in left if _fits(kind, value)] or left
    return _decoded(left[0], value, at)


def _fits(kind: Any, value: dict[str, Any]) -> bool:
    return isinstance(kind, type) and is_dataclass(kind) and _required(kind) <= set(value)


def _instance(kind: Any, value: Any, at: str) -> Any:
    if not isinstance(value, dict):
        raise _MismatchError(at, "an object", _shown(value))
    known = {field.name for field in fields(kind)}
    if missing := sorted(_required(kind) - set(value)):
        raise _MismatchError(_below(at, missing[0]), "a value", "nothing")
    if unknown := sorted(set(value) - known):
        raise _MismatchError(at, f"no other fields than {', '.join(sorted(known))}", unknown[0])
    hints = _hints(kind)
    return kind(**{name: _decoded(hints[name], part, _below(at, name)) for name, part in value.items()})


def _sequence(origin: type, kind: Any, value: Any, at: str) -> Any:
    if not isinstance(value, list):
        raise _MismatchError(at, "a list", _shown(value))
    return origin(_decoded(kind, part, f"{at}[{number}]") for number, part in enumerate(value))


def _mapping(kind: Any, value: Any, at: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _MismatchError(at, "an object", _shown(value))
    return {name: _decoded(kind, part, _below(at, name)) for name, part in value.items()}


def _plain(kind: type, value: Any, at: str) -> Any:
    """A number without a fraction stands for a float as well; a bool is no number."""
    if type(value) is kind or (kind is float and type(value) is int):
        return value
    raise _MismatchError(at, kind.__name__, _shown(value))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _required(kind: Any) -> frozenset[str]:
    return frozenset(field.name for field in fields(kind) if _is_required(field))


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _below(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
