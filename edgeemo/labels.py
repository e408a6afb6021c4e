"""Label sets: their labels, synonyms, and how FER+'s eight labels merge into fewer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

from edgeemo.errors import UsageError, known
from edgeemo.names import escape_name

FERPLUS8 = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

# Other names of the emotions in public data sets (FER2013, RAF-DB, AffectNet, CK+, KDEF), in lower case.
SYNONYMS = {
    "neutral": ("neutrality", "natural"),
    "happiness": ("happy", "joy", "joyful"),
    "surprise": ("surprised", "suprise"),
    "sadness": ("sad",),
    "anger": ("angry",),
    "disgust": ("disgusted",),
    "fear": ("fearful", "afraid"),
    "contempt": ("contemptuous",),
}
EMOTIONS = {other: name for name, others in SYNONYMS.items() for other in (name, *others)}
OWN = "own"  # name of a label set written as a,b,c
NUMBERED = re.compile(r"\d+[\s._-]+(?=\D)")  # 0_angry, 1. Fear


@dataclass(frozen=True)
class LabelSet:
    """An ordered set of labels; `merged` maps labels outside the set to those that receive their votes."""

    name: str
    labels: tuple[str, ...]
    merged: dict[str, str] = field(default_factory=dict)

    def index(self, label: str) -> int:
        """Return the position of `label`, after synonyms and merges; raise UsageError with the known labels."""
        if (position := self.find(label)) is None:
            raise known(f"label for the label set {self.name!r}:", label, self.labels)
        return position

    def find(self, label: str) -> int | None:
        """Return the position of `label`, after synonyms and merges, or None if the set does not cover it.

        A label of the set itself is taken as it is; for others, case, a leading number and synonyms do not matter.
        """
        if label in self.labels:
            return self.labels.index(label)
        name = normalize_label(label)
        name = self.merged.get(name, name)
        return next((k for k, own in enumerate(self.labels) if normalize_label(own) == name), None)

    def map_labels(self, labels: Sequence[str]) -> tuple[int, ...]:
        """Return the position in this set of each label of a model.

        Raises UsageError if the set does not cover one, or the model lacks a label of the set.
        """
        if unknown := [label for label in labels if self.find(label) is None]:
            raise UsageError(
                f"the model predicts {', '.join(unknown)}, which the label set {self._describe()} lacks; choose "
                "another label set"
            )
        positions = tuple(self.index(label) for label in labels)
        if missing := [name for k, name in enumerate(self.labels) if k not in positions]:
            raise UsageError(
                f"the label set {self._describe()} also needs {', '.join(missing)}, which a model of "
                f"{', '.join(labels)} does not predict; choose another label set"
            )
        return positions

    def _describe(self) -> str:
        return ",".join(self.labels) if self.name == OWN else self.name


LABEL_SETS = {
    "ferplus8": LabelSet("ferplus8", FERPLUS8),
    # The labels of FER2013 and RAF-DB.
    "seven": LabelSet("seven", FERPLUS8[:7], {"contempt": "neutral"}),
    # As in the origin document; disgust and contempt are 1 % of FER+, too few to be measured.
    "six": LabelSet(
        "six",
        ("neutral", "happiness", "surprise", "sadness", "anger", "fear"),
        {"disgust": "anger", "contempt": "neutral"},
    ),
}


def label_set(name: str) -> LabelSet:
    """Return the label set of that name, or one of your own, written as `a,b,c`."""
    if name in LABEL_SETS:
        return LABEL_SETS[name]
    labels = tuple(escape_name(part.strip()) for part in name.split(","))
    if len(labels) < 2:
        raise known("label set", name, [*LABEL_SETS, "or your own labels as a,b,c"])
    if len(set(labels)) != len(labels) or "" in labels:
        raise UsageError(f"label set {name!r} has an empty or repeated label; expected different labels as a,b,c")
    return LabelSet(OWN, labels)


@cache
def normalize_label(label: str) -> str:
    """Return the emotion that a label names, regardless of case, a leading number and synonyms.

    Any other label is returned in lower case.
    """
    name = NUMBERED.sub("", unicodedata.normalize("NFC", label.strip()), count=1).casefold()
    return EMOTIONS.get(name, name)


def emotion(label: str) -> str:
    """Return the FER+ emotion of a label or synonym; raise UsageError for any other word."""
    name = normalize_label(label)
    if name not in FERPLUS8:
        raise known("emotion", label, FERPLUS8)
    return name
