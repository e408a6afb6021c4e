"""The emotions: which names a label set holds, and how votes over FER+'s eight become votes over fewer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from edgeemo.errors import UsageError, known

FERPLUS8 = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")

# Folder names in the wild (FER2013, RAF-DB, AffectNet exports) that mean one of ours.
ALIASES = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "happy": "happiness",
    "sad": "sadness",
    "surprised": "surprise",
}


@dataclass(frozen=True)
class LabelSet:
    """An ordered set of labels; `merged` says where the votes of a label outside the set go."""

    name: str
    labels: tuple[str, ...]
    merged: dict[str, str] = field(default_factory=dict)

    def index(self, label: str) -> int:
        """Position of `label`, after aliases and merges; UsageError lists the known labels."""
        name = label if label in self.labels else ALIASES.get(label, label)
        name = self.merged.get(name, name)
        if name not in self.labels:
            raise known(f"label for the label set {self.name!r}:", label, self.labels)
        return self.labels.index(name)

    def find(self, label: str) -> int | None:
        """Position of `label`, after aliases and merges, or None where the set has no place for it."""
        try:
            return self.index(label)
        except UsageError:
            return None

    def places(self, labels: Sequence[str]) -> tuple[int, ...]:
        """Position in this set of each of a model's labels; UsageError if one has no place, or a place stays empty."""
        found = tuple(self.index(label) for label in labels)
        if missing := [name for k, name in enumerate(self.labels) if k not in found]:
            raise UsageError(
                f"the label set {self.name!r} also needs {', '.join(missing)}; a model of {', '.join(labels)} does not "
                "tell them"
            )
        return found


LABEL_SETS = {
    "ferplus8": LabelSet("ferplus8", FERPLUS8),
    # The origin document has six classes; disgust and contempt are 1 % of FER+ and cannot be measured there.
    "six": LabelSet(
        "six",
        ("neutral", "happiness", "surprise", "sadness", "anger", "fear"),
        {"disgust": "anger", "contempt": "neutral"},
    ),
}


def label_set(name: str) -> LabelSet:
    """The label set of that name, or one of your own written as `a,b,c`."""
    if name in LABEL_SETS:
        return LABEL_SETS[name]
    labels = tuple(part.strip() for part in name.split(","))
    if len(labels) < 2:
        raise known("label set", name, [*LABEL_SETS, "or your own labels as a,b,c"])
    if len(set(labels)) != len(labels) or "" in labels:
        raise UsageError(f"label set {name!r} has an empty or repeated label")
    return LabelSet("own", labels)


def emotion(label: str) -> str:
    """The FER+ emotion that a label names, by itself or as an alias; UsageError for any other word."""
    name = ALIASES.get(label, label)
    if name not in FERPLUS8:
        raise known("emotion", label, FERPLUS8)
    return name
