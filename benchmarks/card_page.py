"""Write edgeemo/card.schema.json and the tables of docs/card.md from the dataclasses of edgeemo/card: `make card`.

A table is in docs/card.md between `<!-- keys: SECTION -->`, the name of a dataclass, and `<!-- end -->`.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from edgeemo import card as card_package
from edgeemo.card import sections
from edgeemo.card.keys import Field, Key, list_keys

ROOT = Path(__file__).parents[1]
SCHEMA, PAGE = ROOT / "edgeemo" / "card.schema.json", ROOT / "docs" / "card.md"
BLOCK = re.compile(r"(<!-- keys: (?P<section>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
HEAD = ("key", "type", "unit", "range", "meaning")
JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number"}
WORDS = {str: "text", bool: "true or false", int: "whole number", float: "number", Any: "any"}


def schema() -> dict[str, Any]:
    """The JSON schema of a card."""
    known: dict[str, Any] = {}
    card = _object(sections.Card, known)
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:edgeemo:card:{sections.FORMAT}",
        "title": f"Card of an edgeemo model, format {sections.FORMAT}",
    }
    return {**about, **card, "$defs": dict(sorted(known.items()))}


def schema_text() -> str:
    """The schema as it is committed."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def rendered(text: str) -> str:
    """Return the page with every table written again."""
    return BLOCK.sub(lambda block: block[1] + table(getattr(card_package, block["section"])) + "\n" + block[3], text)


def table(section: type) -> str:
    """The first paragraph of a section's docstring, and a row per key."""
    rows = [_row(one) for one in list_keys(section)]
    lines = [HEAD, ("---",) * len(HEAD), *rows]
    return "\n\n".join([_first_paragraph(section), "\n".join(f"| {' | '.join(row)} |" for row in lines)])


def _object(section: Any, known: dict[str, Any]) -> dict[str, Any]:
    keys = list_keys(section)
    return {
        "type": "object",
        "description": _first_paragraph(section),
        "properties": {one.name: _property(one, known) for one in keys},
        "required": [one.name for one in keys if one.required],
        "additionalProperties": False,
    }


def _property(one: Field, known: dict[str, Any]) -> dict[str, Any]:
    """A key that does not apply is left out of the file, so that none needs null."""
    unit = f" ({one.key.unit})" if one.key.unit else ""
    return {"description": one.key.meaning + unit, **_value(_stated(one.type), one.key, known)}


def _value(kind: Any, key: Key, known: dict[str, Any]) -> dict[str, Any]:
    if kind is Any:
        return {}
    if is_dataclass(kind):
        if kind.__name__ not in known:
            known[kind.__name__] = _object(kind, known)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if get_origin(kind) is tuple:
        limits = {"minItems": key.fewest} if key.fewest else {}
        limits |= {"uniqueItems": True} if key.distinct else {}
        return {"type": "array", "items": _value(get_args(kind)[0], key, known), **limits}
    if get_origin(kind) is dict:
        return {"type": "object", "additionalProperties": _value(get_args(kind)[1], key, known)}
    if get_origin(kind) is UnionType:
        return {"anyOf": [_value(_stated(kind), key, known), {"type": "null"}]}
    return {"type": JSON_TYPES[kind], **_limits(key)}


def _limits(key: Key) -> dict[str, Any]:
    found = {
        "enum": list(key.choices) or None,
        "pattern": f"^{key.pattern}$" if key.pattern else None,
        "minimum": key.least,
        "exclusiveMinimum": key.above,
        "maximum": key.most,
    }
    return {name: value for name, value in found.items() if value is not None}


def _stated(kind: Any) -> Any:
    """The type without None."""
    return next((one for one in get_args(kind) if one is not type(None)), kind) if _is_optional(kind) else kind


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) is UnionType


def _row(one: Field) -> tuple[str, ...]:
    optional = "" if one.required else ", optional"
    return f"`{one.name}`", _in_words(_stated(one.type)) + optional, one.key.unit, _range(one.key), one.key.meaning


def _in_words(kind: Any) -> str:
    if is_dataclass(kind):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    if get_origin(kind) is tuple:
        return f"list of {_many(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"object of {_many(get_args(kind)[1])}"
    return f"{WORDS[_stated(kind)]} or null" if _is_optional(kind) else WORDS[kind]


def _many(kind: Any) -> str:
    return re.sub(r"^list|number\b", r"\g<0>s", _in_words(kind))


def _range(key: Key) -> str:
    parts = {
        ", ".join(f"`{choice}`" for choice in key.choices): bool(key.choices),
        "64 hex digits": sections.SHA256 in key.pattern,
        f"{key.least:g} to {key.most:g}" if key.least is not None and key.most is not None else "": True,
        f"from {key.least:g}" if key.least is not None and key.most is None else "": True,
        f"above {key.above:g}" if key.above is not None else "": True,
        f"{key.fewest} or more{', all different' * key.distinct}": bool(key.fewest),
    }
    return "; ".join(words for words, holds in parts.items() if words and holds)


def _first_paragraph(section: type) -> str:
    return " ".join((inspect.getdoc(section) or "").split("\n\n")[0].split())


if __name__ == "__main__":
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    PAGE.write_text(rendered(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
