"""Format 1 of the card, whose sections were free-form: read here, and still the names in result files."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from edgeemo.card.decode import to_json
from edgeemo.card.sections import Precision

# Keys of `precision` by their names in format 1.
RENAMED = {
    "asked": "requested",
    "got": "actual",
    "flavour": "target_format",
    "method": "calibration_method",
    "methods": "calibration_methods",
    "counted": "counted_by",
    "types": "weight_types",
}
FIDELITY = ("agreement", "divergence", "faces")  # stood in `precision` itself
OPTIONAL = ("target", "golden", "data")  # were empty objects where they did not apply


def upgrade(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a card of format 1 in format 2, its seal kept; KeyError, TypeError or AttributeError if it is none."""
    precision = {RENAMED.get(name, name): value for name, value in raw["precision"].items() if name not in FIDELITY}
    fidelity = {name: raw["precision"][name] for name in FIDELITY if name in raw["precision"]}
    if fidelity:
        precision["fidelity"] = fidelity
    licences = {name.replace(" ", "_"): text for name, text in raw["licences"].items()}
    found = {**raw, "format": 2, "precision": precision, "licences": licences}
    return {name: value for name, value in found.items() if name not in OPTIONAL or value}


def compute_seal(raw: dict[str, Any]) -> str:
    """Return the seal of a card of format 1: SHA-256 of its content as Python's json, sorted, without spaces.

    ValueError for a number that is not finite.
    """
    content = {name: value for name, value in raw.items() if name != "seal"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_format_1(precision: Precision) -> dict[str, Any]:
    """Return the section under the names of format 1, which result files use."""
    names = {new: old for old, new in RENAMED.items()}
    found = {names.get(name, name): value for name, value in to_json(precision).items()}
    fidelity = found.pop("fidelity", {})
    return {**found, **fidelity}
