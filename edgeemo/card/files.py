"""Cards on disk: written with the hash of their model and a seal, and read back with every check."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeemo.artifact import hash_file, write_text
from edgeemo.card import format1
from edgeemo.card.decode import from_json, to_json
from edgeemo.card.layout import compute_seal, to_text
from edgeemo.card.sections import FORMAT, Card, InputContract
from edgeemo.errors import IntegrityError
from edgeemo.labels import LABEL_SETS, LabelSet, label_set


def get_label_set(card: Card) -> LabelSet:
    """Return the label set of a card, own labels included; IntegrityError if its name belongs to other labels."""
    if card.label_set not in LABEL_SETS:
        return label_set(",".join(card.labels))
    named = label_set(card.label_set)
    if named.labels != card.labels:
        raise IntegrityError(
            f"the card names the label set {card.label_set!r}, {', '.join(named.labels)}, but lists "
            f"{', '.join(card.labels)}; make the model again with edgeemo compress"
        )
    return named


def card_path(model: Path) -> Path:
    """Return the path of a model file's card: `model.onnx.json` for `model.onnx`."""
    return model.with_name(model.name + ".json")


def write_card(model: Path, card: Card) -> Card:
    """Write the card of an existing model file, with the file's hash, and return it."""
    return write_sealed(card_path(model), replace(card, sha256=hash_file(model)))


def write_sealed(path: Path, card: Card) -> Card:
    """Seal and write a card, and return it."""
    sealed = replace(card, seal=compute_seal(to_json(card)))
    write_text(path, to_text(to_json(sealed)) + "\n")
    return sealed


def suggest_rebuild(model: Path) -> str:
    """Return the command that makes such a file again."""
    if model.suffix == ".trt":
        return "edgeemo build MODEL.onnx, from the file that it was built from"
    if model.suffix == ".safetensors":
        return "edgeemo train --out RUN"
    return "edgeemo compress RUN"


def read_card(model: Path) -> Card:
    """Read the card of a model file; IntegrityError if file or card is missing or foreign, or they do not match.

    A card of format 1 is converted, and keeps its seal.
    """
    path = card_path(model)
    for needed, what in ((model, "model"), (path, "card")):
        if not needed.is_file():
            raise IntegrityError(
                f"{what} {needed} does not exist; a model is a file with its card beside it "
                f"({model.name} and {path.name}).  Copy both, or make them:  {suggest_rebuild(model)}"
            )
    try:
        card, found = parse_card(path), hash_file(model)
    except OSError as error:
        raise IntegrityError(
            f"{error.filename} cannot be read ({error.strerror}); make it readable for who runs this"
        ) from error
    except IntegrityError as error:
        raise IntegrityError(
            f"{error}.  Copy both files again, or make them again:  {suggest_rebuild(model)}"
        ) from error
    if card.sha256 != found:
        raise IntegrityError(
            f"{model} is not the file that its card describes: card {card.sha256[:12]}…, file {found[:12]}….  "
            f"Copy both files again, or make them again:  {suggest_rebuild(model)}"
        )
    return card


def parse_card(path: Path) -> Card:
    """Read a card without its model; IntegrityError if it is not a card or was changed."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] == 1:
            return _read_format_1(raw, path)
        if raw["format"] != FORMAT:
            raise IntegrityError(f"{path} has card format {raw['format']}; this edgeemo reads formats 1 and {FORMAT}")
        card = _decode_card(raw)
        sealed = card.seal == compute_seal(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _make_foreign_error(path, error) from error
    if not sealed:
        raise _make_changed_error(path)
    return card


def _read_format_1(raw: dict[str, Any], path: Path) -> Card:
    if not raw.get("seal"):
        raise IntegrityError(f"{path} has no seal, so nothing shows whether it was changed")
    card = _decode_card(format1.upgrade(raw))
    if card.seal != format1.compute_seal(raw):
        raise _make_changed_error(path)
    return card


def _decode_card(raw: dict[str, Any]) -> Card:
    """Decode a card; ValueError if a value is not as declared, or keys contradict each other."""
    card = from_json(Card, raw)
    for name in ("mean", "std"):
        _check_channels(name, card.input)
    return card


def _check_channels(name: str, contract: InputContract) -> None:
    if len(getattr(contract, name)) != contract.channels:
        raise ValueError(f"input.{name}: expected a number per channel, {contract.channels} for {contract.colour}")


def _make_foreign_error(path: Path, error: Exception) -> IntegrityError:
    words = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
    return IntegrityError(f"{path} is not an edgeemo card: {words}")


def _make_changed_error(path: Path) -> IntegrityError:
    return IntegrityError(f"{path} was changed after it was written: its seal is not that of its content")
