"""The card: everything that a host must know about a model, in JSON beside the file (`model.onnx.json`).

A model is never a bare file. Labels, the input contract, requested and actual precision, where the weights come from
and what was measured travel with it; nothing is guessed from a file name. docs/card.md describes the file for hosts in
other languages.

    sections   the dataclasses, which are the contract: keys, types, limits, meanings
    adaptation the section on the fit to one place
    answers    the section on unsure predictions
    data       the section on the training faces
    files      read_card and write_card
    decode     sections ↔ JSON values
    layout     the text of the file, and its seal
    format1    cards of format 1, and the words of result files
    keys       what a section declares about a key
"""

from edgeemo.card.adaptation import Adaptation, HeldOut
from edgeemo.card.answers import Answers
from edgeemo.card.data import Data, FaceList, Recovery
from edgeemo.card.decode import from_json, to_json
from edgeemo.card.files import card_path, get_label_set, read_card, suggest_rebuild, write_card
from edgeemo.card.sections import (
    Architecture,
    Calibration,
    Card,
    Crop,
    Fidelity,
    Golden,
    HistoryEntry,
    InputContract,
    Licences,
    Metrics,
    Overflow,
    Precision,
    Target,
)

__all__ = [
    "Adaptation",
    "Answers",
    "Architecture",
    "Calibration",
    "Card",
    "Crop",
    "Data",
    "FaceList",
    "Fidelity",
    "Golden",
    "HeldOut",
    "HistoryEntry",
    "InputContract",
    "Licences",
    "Metrics",
    "Overflow",
    "Precision",
    "Recovery",
    "Target",
    "card_path",
    "from_json",
    "get_label_set",
    "read_card",
    "suggest_rebuild",
    "to_json",
    "write_card",
]
