"""The detectors stage: the known face detectors, their terms, how to get them, and what they were measured to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgeemo import options
from edgeemo.card import to_json
from edgeemo.faces import DetectorCard, list_detectors
from edgeemo.faces.cards import Measured, Search
from edgeemo.faces.load import DEFAULT
from edgeemo.report.amounts import format_amount
from edgeemo.stages import Detectors

PACKAGED, INSTALLED, MISSING, BY_PATH = "packaged", "installed", "not installed", "by path"


@dataclass(frozen=True)
class DetectorList:
    """The known detectors, the packaged ones first."""

    cards: tuple[DetectorCard, ...]

    def __str__(self) -> str:
        """Return a block per detector, and what was measured."""
        blocks = ["\n".join((f"{card.name}: {describe_access(card)}", *_list_lines(card))) for card in self.cards]
        return "\n\n".join([*blocks, *_list_notes(self.cards)])

    def to_json(self) -> dict[str, Any]:
        """Return the cards with the status of each: packaged, installed, not installed or by path."""
        return {"detectors": [{"status": find_status(card), **to_json(card)} for card in self.cards]}


def run(config: Detectors) -> DetectorList:
    """List the known detectors."""
    options.check(config)
    return DetectorList(list_detectors())


def find_status(card: DetectorCard) -> str:
    """Return how a detector can be had on this machine."""
    if not card.named:
        return BY_PATH
    if card.find() is None:
        return MISSING
    return PACKAGED if card.packaged else INSTALLED


def describe_access(card: DetectorCard) -> str:
    """Return how a detector can be had, and what to do for it."""
    status = find_status(card)
    if status == PACKAGED and card.name == DEFAULT:
        return "packaged, the default"
    if status == MISSING and card.source.install:
        return f"not installed:  {card.source.install}"
    if status == BY_PATH:
        return "by the path of its file"
    return status


def _list_lines(card: DetectorCard) -> list[str]:
    source = card.source
    facts = {
        "file": f"{format_amount(card.size_bytes, 'bytes')}, SHA-256 {card.sha256}",
        "from": "; ".join(filter(None, (source.project, source.package))),
        "licence": source.licence,
        "trained on": source.training_data,
        "faces from": f"{100 * card.smallest_face:g} % of the longer side of what is searched",
        "landmarks": ", ".join(name.replace("_", " ") for name in card.landmarks),
    }
    if card.measured:
        facts["few"] = describe_search(card.measured.few, card.measured)
        facts["many"] = describe_search(card.measured.many, card.measured)
    return [f"  {name:<11} {text}" for name, text in facts.items()]


def describe_search(search: Search, measured: Measured) -> str:
    """Return time and quality of a search in words."""
    return (
        f"{search.ms:.0f} ms for an image of 640x480 px, as long as nano takes for {search.nanos:.0f} faces; finds "
        f"{search.found} of {measured.faces} hard faces; false boxes in {measured.images} images: {search.false_boxes}"
    )


def _list_notes(cards: tuple[DetectorCard, ...]) -> list[str]:
    """Return what few, many and hard faces mean, and where the figures are from, once for each source."""
    about = [card.measured for card in cards if card.measured]
    if not about:
        return []
    hard = dict.fromkeys(f"hard faces: {_cite(one.quality)}" for one in about)
    times = dict.fromkeys(f"times: one thread, {_cite(one.speed)}" for one in about)
    return ["\n".join(["few: the image is searched as a whole; many: tiles of it, too", *hard, *times])]


def _cite(source: str) -> str:
    """Return what a result is about, before its file, which no installed edgeemo has."""
    file, _, what = source.partition(": ")
    return f"{what} ({file} in edgeemo's repository)"
