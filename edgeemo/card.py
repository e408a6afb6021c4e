"""The card: everything that a host must know about a model, in JSON beside the file (`model.onnx.json`).

A model is never a bare file. Labels, the input contract, what precision was asked and what was got, where the
weights come from and what was measured travel with it; nothing is guessed from a file name.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgeemo.artifact import sha256_of, write_json
from edgeemo.errors import IntegrityError
from edgeemo.labels import LABEL_SETS, LabelSet, label_set

FORMAT = 1
COLOURS = {"gray": 1, "rgb": 3, "gray3": 3}  # channels of each


@dataclass(frozen=True)
class InputContract:
    """How an upright 8-bit picture of height H and width W becomes the model's input; images.py does exactly this.

    1. Crop: the central square, side = min(H, W), from row (H - side) // 2 and column (W - side) // 2.
    2. Convert: for gray and gray3, a colour picture becomes (19595 R + 38470 G + 7471 B + 32768) >> 16, which is
       Pillow's "L" (ITU-R 601); for rgb, a gray picture stands in all three channels.
    3. Resize, if side differs from size: Pillow's BILINEAR, horizontally, then vertically, each rounded to 8 bits.
       Output pixel x is the weighted mean around c = (x + 0.5) * side / size; input pixel i weighs
       max(0, 1 - |i + 0.5 - c| / reach), reach = max(1, side / size), so that shrinking does not alias.
    4. For gray3, repeat the one channel three times.
    5. Normalise per channel: (pixel / 255 - mean) / std, float32, laid out (N, channels, size, size).
    """

    size: int  # pixels, both sides
    colour: str = "gray"  # gray; rgb, red first; gray3: a net made for rgb that was trained on gray faces alone
    mean: tuple[float, ...] = (0.5,)  # per channel, of a pixel in 0..1
    std: tuple[float, ...] = (0.25,)
    # A host that finds faces itself scales the detector's box by this, about its centre, and cuts there; 1.0 is the
    # box as found. edgeemo takes ready crops and does not read it.
    crop_margin: float = 1.0

    @property
    def channels(self) -> int:
        """1 for gray, 3 for rgb and gray3."""
        return COLOURS[self.colour]

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest input: black or white in the channel that goes furthest."""
        ends = [(level - mean) / std for mean, std in zip(self.mean, self.std, strict=True) for level in (0.0, 1.0)]
        return min(ends), max(ends)

    @property
    def pixels(self) -> tuple[int, ...]:
        """Shape of one face of images.to_pixels, uint8: (size, size), and (size, size, 3) for rgb and gray3."""
        return (self.size, self.size) + ((self.channels,) if self.channels > 1 else ())


@dataclass(frozen=True)
class Card:
    """What is known about one model file. `sha256` is of the file beside the card."""

    labels: tuple[str, ...]
    label_set: str
    input: InputContract
    architecture: dict[str, Any]
    output: str = "logits"
    temperature: float = 1.0  # logits are divided by it before softmax
    precision: dict[str, Any] = field(default_factory=dict)  # asked, flavour, int8_share_of_macs, overflow, ...
    target: dict[str, Any] = field(default_factory=dict)  # of an engine: what it was built by and for
    metrics: dict[str, Any] = field(default_factory=dict)  # by split and protocol, each with n
    golden: dict[str, Any] = field(default_factory=dict)  # logits of the packaged faces (runtime/golden.py)
    data: dict[str, Any] = field(default_factory=dict)  # source, fingerprint, counts, licence
    licences: dict[str, str] = field(default_factory=dict)  # code, weights, images, labels
    history: tuple[dict[str, Any], ...] = ()  # one entry per stage: config, versions, parent, seconds
    sha256: str = ""
    seal: str = ""  # SHA-256 of all the rest of the card, as JSON with sorted keys and without spaces
    format: int = FORMAT

    @property
    def overflow_safe(self) -> bool:
        """Whether no integer kernel can saturate on the file: it has no INT8 weights, or a check found none too large.

        What a card does not say is not proven (compress/overflow.py makes the check).
        """
        overflow = self.precision.get("overflow")
        checked = isinstance(overflow, dict) and overflow.get("safe") is True
        return checked or self.precision.get("asked") in ("float32", "float16")

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
    about = replace(card, sha256=sha256_of(model))
    sealed = replace(about, seal=_seal(asdict(about)))
    write_json(card_path(model), asdict(sealed))
    return sealed


def remake(model: Path) -> str:
    """The command that makes such a file anew."""
    if model.suffix == ".trt":
        return "edgeemo build MODEL.onnx, from the file that it was built from"
    if model.suffix == ".safetensors":
        return "edgeemo train --out RUN"
    return "edgeemo compress RUN"


def read_card(model: Path) -> Card:
    """The card of a model file; IntegrityError if file or card is missing, foreign, or they do not belong together."""
    path = card_path(model)
    for needed, what in ((model, "model"), (path, "card")):
        if not needed.is_file():
            raise IntegrityError(
                f"{what} {needed} does not exist; a model is a file with its card beside it "
                f"({model.name} and {path.name}).  Copy both, or make them:  {remake(model)}"
            )
    try:
        card, found = _parse(path), sha256_of(model)
    except OSError as error:
        raise IntegrityError(
            f"{error.filename} cannot be read ({error.strerror}); make it readable for who runs this"
        ) from error
    except IntegrityError as error:
        raise IntegrityError(f"{error}.  Copy both files again, or make them anew:  {remake(model)}") from error
    if card.sha256 != found:
        raise IntegrityError(
            f"{model} is not the file that its card describes: card {card.sha256[:12]}…, file {found[:12]}….  "
            f"Copy both files again, or make them anew:  {remake(model)}"
        )
    return card


def _seal(raw: dict[str, Any]) -> str:
    """Hex SHA-256 of a card's content but for the seal itself."""
    content = {name: value for name, value in raw.items() if name != "seal"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _parse(path: Path) -> Card:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise IntegrityError(f"{path} has card format {raw['format']}; this edgeemo reads format {FORMAT}")
        contract: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in raw["input"].items()}
        names = {f.name for f in fields(Card)}
        if unknown := set(raw) - names:
            raise IntegrityError(f"{path} has fields this edgeemo does not know: {sorted(unknown)}")
        lists = {key: tuple(raw[key]) if isinstance(raw[key], list) else raw[key] for key in ("labels", "history")}
        card = Card(**{**raw, **lists, "input": InputContract(**contract)})
        if failed := [expected for expected, holds in _checks(card).items() if not holds]:
            raise IntegrityError(f"{path} is not an edgeemo card: expected {'; '.join(failed)}")
        # Cards from before there were seals have none; engines are younger.
        if card.seal != _seal(raw) and (card.seal or card.target):
            raise IntegrityError(f"{path} was changed after it was written: its seal is not that of its content")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{path} is not an edgeemo card: {type(error).__name__}: {error}") from error
    return card


def _checks(card: Card) -> dict[str, bool]:
    """What must hold of the types and values of a card that was read, in words."""
    names, contract = card.labels, card.input
    channels = COLOURS.get(contract.colour, 0)
    sections = ("architecture", "precision", "target", "metrics", "golden", "data", "licences")
    return {
        "labels to be two or more distinct names": isinstance(names, tuple)
        and all(isinstance(name, str) and name for name in names)
        and len(set(names)) == len(names) >= 2,
        "label_set, output, sha256 and seal to be text": all(
            isinstance(text, str) for text in (card.label_set, card.output, card.sha256, card.seal)
        ),
        "temperature to be a number above 0": _is_number(card.temperature) and card.temperature > 0,
        f"input.colour to be one of {', '.join(COLOURS)}": channels > 0,
        "input.size to be a whole number of pixels above 0": type(contract.size) is int and contract.size > 0,
        "input.mean to be numbers, one per channel": _are_numbers(contract.mean, channels),
        "input.std to be numbers above 0, one per channel": _are_numbers(contract.std, channels)
        and min(contract.std) > 0,
        "input.crop_margin to be a number above 0": _is_number(contract.crop_margin) and contract.crop_margin > 0,
        f"{', '.join(sections)} to be objects": all(isinstance(getattr(card, name), dict) for name in sections),
        "history to be a list of objects": isinstance(card.history, tuple)
        and all(isinstance(line, dict) for line in card.history),
    }


def _are_numbers(values: Any, count: int) -> bool:
    return isinstance(values, tuple) and len(values) == count > 0 and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    """Finite, and no bool; JSON lets NaN, Infinity and integers of any length through."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
