"""The section of a card on the faces that the network was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edgeemo.card.keys import SHA256, Key


@dataclass(frozen=True)
class FaceList:
    """A list of faces by its size and its fingerprint."""

    n: Annotated[int, Key("number of faces", least=1)]
    ids_sha256: Annotated[str, Key("SHA-256 of the faces' ids, one a line", pattern=SHA256)]


@dataclass(frozen=True)
class Recovery:
    """The faces of a later training, where they are others than the first training's."""

    kind: Annotated[str, Key("kind of data source, such as synthetic, ferplus or folder")]
    n: Annotated[int, Key("number of faces", least=1)]
    ids_sha256: Annotated[str, Key("SHA-256 of the faces' ids, one a line", pattern=SHA256)]


@dataclass(frozen=True)
class Data:
    """What the network was trained on."""

    kind: Annotated[str, Key("kind of data source, such as synthetic, ferplus or folder")]
    protocol: Annotated[str, Key("how votes became a label: plurality or majority")]
    train: Annotated[FaceList, Key("faces that the weights were trained on")]
    valid: Annotated[FaceList, Key("faces that the training was watched on")]
    recovery: Annotated[Recovery | None, Key("faces of a later training; absent where they are the same")] = None
    prior: Annotated[
        dict[str, float] | None,
        Key(
            "by label, its share among the faces of the last training, as sampling and class weights weigh them; they "
            "sum to 1; absent: not stated",
            unit="share",
            above=0,
            most=1,
        ),
    ] = None

    def get(self, split: str) -> FaceList | None:
        """Return the faces of `train` or `valid`, None for any other split."""
        return {"train": self.train, "valid": self.valid}.get(split)
