"""Text of a card: laid out for people, and in the canonical form that its seal is computed from."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edgeemo.card.decode import is_finite

WIDTH = 120  # characters of a line


def compute_seal(raw: dict[str, Any]) -> str:
    """Return the hex SHA-256 of a card's JSON object without its `seal`, in the canonical form of RFC 8785."""
    content = {name: value for name, value in raw.items() if name != "seal"}
    return hashlib.sha256(to_canonical(content).encode()).hexdigest()


def to_canonical(value: Any) -> str:
    """Return the canonical form of RFC 8785 (JCS): sorted keys, no spaces, numbers as JavaScript writes them.

    ValueError for a number that is not finite.
    """
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: pair[0].encode("utf-16-be"))
        return "{" + ",".join(f"{_write_text(name)}:{to_canonical(part)}" for name, part in pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(to_canonical, value)) + "]"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _write_number(value)
    return _write_text(value)


def to_text(value: Any, *, indent: int = 0, taken: int = 0) -> str:
    """Return JSON, indented by two spaces per level; whatever fits into 120 characters is on one line.

    taken: characters of the first line that stand before the value.
    """
    short = _write_text(value)
    if not value or not isinstance(value, (dict, list)) or indent + taken + len(short) < WIDTH:
        return short
    inner = indent + 2
    if isinstance(value, dict):
        heads = {f"{_write_text(name)}: ": one for name, one in value.items()}
        parts = [head + to_text(one, indent=inner, taken=len(head)) for head, one in heads.items()]
    else:
        parts = [to_text(one, indent=inner) for one in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = ",\n".join(" " * inner + part for part in parts)
    return f"{opening}\n{lines}\n{' ' * indent}{closing}"


def _write_text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _write_number(value: float) -> str:
    """Number::toString of ECMAScript: the fewest digits that give the same double."""
    if not is_finite(value):
        raise ValueError(f"{value} is not a number of JSON")
    mantissa, _, exponent = repr(abs(float(value))).partition("e")
    whole, _, fraction = mantissa.partition(".")
    figures = (whole + fraction).lstrip("0")
    digits = figures.rstrip("0")
    if not digits:
        return "0"
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(figures))  # digits before the point
    return ("-" if value < 0 else "") + _place_point(digits, point)


def _place_point(digits: str, point: int) -> str:
    if len(digits) <= point <= 21:
        return digits.ljust(point, "0")
    if 0 < point <= 21:
        return f"{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if digits[1:] else ""
    return f"{digits[0]}{tail}e{point - 1:+d}"
