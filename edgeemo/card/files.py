"""Cards on disk: written with the hash of their model and a seal, and read back with every check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeemo.artifact import hash_file, write_text
from edgeemo.card import format1
from edgeemo.card.adaptation import Adaptation
from edgeemo.card.decode import from_json, to_json
from edgeemo.card.layout import compute_seal, to_text
from edgeemo.card.sections import FORMAT, Card, InputContract
from edgeemo.errors import IntegrityError
from edgeemo.labels import LABEL_SETS, LabelSet, label_set
from edgeemo.limits import check_shortage
from edgeemo.reading import check_regular, read_json

MAX_CARD_BYTES = 4 * 2**20  # the largest card of a packaged model has 14 kB
PRIOR_TOLERANCE = 1e-3  # of the sum of shares, which are rounded
MAX_MODEL_BYTES = 2 * 2**30  # protobuf's own limit for a message


class _CardError(IntegrityError):
    """A card that cannot be used, whatever its model."""


def get_label_set(card: Card) -> LabelSet:
    """Return the label set of a card, own labels included; IntegrityError if its name belongs to other labels."""
    if card.label_set not in LABEL_SETS:
        return LabelSet("own", card.labels)  # a label may have commas and spaces
    named = label_set(card.label_set)
    if named.labels != card.labels:
        raise IntegrityError(
            f"the card names the label set {card.label_set!r}, {', '.join(named.labels)}, but lists "
            f"{', '.join(card.labels)}"
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
    try:
        for needed, what in ((model, "model"), (path, "card")):
            _check_exists(needed, what, model)
        check_regular(model, max_bytes=MAX_MODEL_BYTES)
        card, found = parse_card(path), hash_file(model)
    except OSError as error:
        check_shortage(error)
        raise IntegrityError(
            f"{error.filename} cannot be read ({error.strerror}); make it readable for who runs this"
        ) from error
    except ValueError as error:
        raise IntegrityError(f"{model} is not a model: {error}") from error
    except _CardError as error:
        raise IntegrityError(
            f"{error}.  Copy both files again, or make them again:  {suggest_rebuild(model)}"
        ) from error
    if card.sha256 != found:
        raise IntegrityError(
            f"{model} is not the file that its card describes: card {card.sha256[:12]}…, file {found[:12]}….  "
            f"Copy both files again, or make them again:  {suggest_rebuild(model)}"
        )
    return card


def _check_exists(path: Path, what: str, model: Path) -> None:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise IntegrityError(
            f"{what} {path} does not exist; a model is a file with its card beside it ({model.name} and "
            f"{card_path(model).name}).  Copy both, or make them:  {suggest_rebuild(model)}"
        ) from error


def parse_card(path: Path) -> Card:
    """Read a card without its model; IntegrityError if it is not a card, has no seal or was changed.

    Raises OSError if the file cannot be read.
    """
    try:
        raw = read_json(path, max_bytes=MAX_CARD_BYTES)
        number = raw["format"]
        if type(number) is not int or number not in (1, FORMAT):
            raise _CardError(f"{path} has card format {number!s:.60}; this edgeemo reads formats 1 and {FORMAT}")
        if not raw.get("seal"):
            raise _CardError(f"{path} has no seal, so nothing shows whether it was changed")
        if number == 1:
            return _read_format_1(raw, path)
        card = _decode_card(raw)
        sealed = card.seal == compute_seal(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _make_foreign_error(path, error) from error
    if not sealed:
        raise _make_changed_error(path)
    return _check_label_set(path, card)


def _check_label_set(path: Path, card: Card) -> Card:
    try:
        get_label_set(card)
    except IntegrityError as error:
        raise _CardError(f"{path}: {error}") from error
    return card


def _read_format_1(raw: dict[str, Any], path: Path) -> Card:
    card = _decode_card(format1.upgrade(raw))
    if card.seal != format1.compute_seal(raw):
        raise _make_changed_error(path)
    return _check_label_set(path, card)


def _decode_card(raw: dict[str, Any]) -> Card:
    """Decode a card; ValueError if a value is not as declared, or keys contradict each other."""
    card = from_json(Card, raw)
    for name in ("mean", "std"):
        _check_channels(name, card.input)
    _check_prior(card)
    if card.adaptation:
        _check_adaptation(card, card.adaptation)
    return card


def _check_channels(name: str, contract: InputContract) -> None:
    if len(getattr(contract, name)) != contract.channels:
        raise ValueError(f"input.{name}: expected a number per channel, {contract.channels} for {contract.colour}")


def _check_prior(card: Card) -> None:
    if card.data is None or card.data.prior is None:
        return
    if set(card.data.prior) != set(card.labels):
        raise ValueError(f"data.prior: expected a share of each label, {', '.join(card.labels)}")
    total = sum(card.data.prior.values())
    if abs(total - 1) > PRIOR_TOLERANCE:
        raise ValueError(f"data.prior: expected shares that sum to 1, got {total:.6g}")


def _check_adaptation(card: Card, adaptation: Adaptation) -> None:
    labels = len(card.labels)
    if {len(adaptation.bias), len(adaptation.matrix), *map(len, adaptation.matrix)} != {labels}:
        raise ValueError(f"adaptation: expected {labels} x {labels} factors and {labels} numbers, one per label")
    fits = [card.sha256, card.target.source_sha256 if card.target else ""]
    if adaptation.model_sha256 not in fits:
        raise ValueError(
            f"adaptation.model_sha256: fitted on another model, {adaptation.model_sha256[:12]}…, expected "
            f"{card.sha256[:12]}…; adapt this model on the same faces with  edgeemo adapt"
        )


def _make_foreign_error(path: Path, error: Exception) -> _CardError:
    words = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
    return _CardError(f"{path} is not an edgeemo card: {words}")


def _make_changed_error(path: Path) -> _CardError:
    return _CardError(f"{path} was changed after it was written: its seal is not that of its content")
