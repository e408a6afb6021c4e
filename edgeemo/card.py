"""The card: everything that a host must know about a model, in JSON beside the file (`model.onnx.json`).

A model is never a bare file. Labels, the input contract, what precision was asked and what was got, where the
weights come from and what was measured travel with it; nothing is guessed from a file name.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgeemo.artifact import sha256_of, write_json
from edgeemo.errors import IntegrityError
from edgeemo.labels import LABEL_SETS, LabelSet, label_set

FORMAT = 1


@dataclass(frozen=True)
class InputContract:
    """How an image becomes the model's input, (N, channels, size, size) float32; images.py does exactly this.

    The image is cropped to its central square, resized with Pillow's antialiased bilinear filter, converted to
    `colour`, then (pixel / 255 - mean) / std per channel.
    """

    size: int  # pixels, both sides
    colour: str = "gray"  # "gray" (1 channel) or "rgb" (3 channels, red first)
    mean: tuple[float, ...] = (0.5,)  # of a pixel in 0..1
    std: tuple[float, ...] = (0.25,)
    crop_margin: float = 1.0  # face box expansion the model was trained with; 1.0 is the box itself

    @property
    def channels(self) -> int:
        """1 for gray, 3 for rgb."""
        return 1 if self.colour == "gray" else 3


@dataclass(frozen=True)
class Card:
    """What is known about one model file. `sha256` is of the file beside the card."""

    labels: tuple[str, ...]
    label_set: str
    input: InputContract
    architecture: dict[str, Any]
    output: str = "logits"
    temperature: float = 1.0  # logits are divided by it before softmax
    precision: dict[str, Any] = field(default_factory=dict)  # asked, flavour, int8_share_of_macs, ...
    metrics: dict[str, Any] = field(default_factory=dict)  # by split and protocol, each with n
    data: dict[str, Any] = field(default_factory=dict)  # source, fingerprint, counts, licence
    licences: dict[str, str] = field(default_factory=dict)  # code, weights, images, labels
    history: tuple[dict[str, Any], ...] = ()  # one entry per stage: config, versions, parent, seconds
    sha256: str = ""
    format: int = FORMAT

    def after(self, entry: dict[str, Any], **changes: Any) -> Card:
        """This card with one more history entry and the named fields changed."""
        return replace(self, history=(*self.history, entry), **changes)


def label_set_of(card: Card) -> LabelSet:
    """The label set of a card, own labels included; IntegrityError if its name belongs to other labels."""
    if card.label_set not in LABEL_SETS:
        return label_set(",".join(card.labels))
    named = label_set(card.label_set)
    if named.labels != card.labels:
        raise IntegrityError(
            f"the card names the label set {card.label_set!r}, {', '.join(named.labels)}, but lists "
            f"{', '.join(card.labels)}; make the model anew with edgeemo compress"
        )
    return named


def card_path(model: Path) -> Path:
    """Where the card of a model file lies: `model.onnx` has `model.onnx.json`."""
    return model.with_name(model.name + ".json")


def write_card(model: Path, card: Card) -> Card:
    """Write the card of an existing model file, with the file's hash, and return it."""
    sealed = replace(card, sha256=sha256_of(model))
    write_json(card_path(model), asdict(sealed))
    return sealed


def read_card(model: Path) -> Card:
    """The card of a model file; IntegrityError if file or card is missing, foreign, or they do not belong together."""
    path = card_path(model)
    for needed, what in ((model, "model"), (path, "card")):
        if not needed.is_file():
            raise IntegrityError(
                f"{what} {needed} does not exist; a model is a file with its card beside it "
                f"({model.name} and {path.name}).  Make one:  edgeemo train, then edgeemo compress"
            )
    card = _parse(path)
    found = sha256_of(model)
    if card.sha256 != found:
        raise IntegrityError(
            f"{model} is not the file that its card describes: card {card.sha256[:12]}…, file {found[:12]}…; "
            f"copy both files again, or make the model anew with edgeemo compress"
        )
    return card


def _parse(path: Path) -> Card:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise IntegrityError(f"{path} has card format {raw['format']}; this edgeemo reads format {FORMAT}")
        contract: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in raw["input"].items()}
        names = {f.name for f in fields(Card)}
        if unknown := set(raw) - names:
            raise IntegrityError(f"{path} has fields this edgeemo does not know: {sorted(unknown)}")
        lists = {"labels": tuple(raw["labels"]), "history": tuple(raw["history"])}
        return Card(**{**raw, **lists, "input": InputContract(**contract)})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(f"{path} is not an edgeemo card: {type(error).__name__}: {error}") from error
