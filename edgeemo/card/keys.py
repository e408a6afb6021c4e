"""Properties of a card's keys besides their types, for the decoder, the schema and docs/card.md."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

SHA256 = "[0-9a-f]{64}"


@dataclass(frozen=True)
class Key:
    """The meaning of a key, its unit and the values it may take. Limits hold for each element of a list or mapping."""

    meaning: str
    unit: str = ""
    least: float | None = None
    above: float | None = None  # an exclusive lower limit
    most: float | None = None
    choices: tuple[str | int, ...] = ()
    pattern: str = ""  # a regular expression that the whole text matches
    fewest: int = 0  # elements of a list
    distinct: bool = False  # whether no two elements of a list are equal


@dataclass(frozen=True)
class Field:
    """One key of a section: `type` is without the annotation that holds `key`."""

    name: str
    type: Any
    key: Key

    @property
    def required(self) -> bool:
        """Whether the key is in every file: those that may be None are not, whatever their default in Python."""
        return type(None) not in get_args(self.type)


@cache
def list_keys(section: Any) -> tuple[Field, ...]:
    """Return the keys of a section, a dataclass whose fields are all Annotated[type, Key], in the order of the file."""
    hints = get_type_hints(section, include_extras=True)
    found = []
    for one in dataclasses.fields(section):
        if get_origin(hints[one.name]) is not Annotated:
            raise TypeError(f"{section.__name__}.{one.name} has no Key")
        kind, key = get_args(hints[one.name])
        found.append(Field(one.name, kind, key))
    return tuple(found)
