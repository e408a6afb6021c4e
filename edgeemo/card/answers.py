"""The section of a card that says which predictions are unsure; edgeemo/selective.py fits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edgeemo.card.keys import Key


@dataclass(frozen=True)
class Answers:
    """From which probability on an answer counts, instead of being flagged as unsure (selective classification).

    Fitted on the faces of `metrics.valid`, at the card's temperature, for the model's own labels; in an adapted model
    on the held-out faces of `adaptation`, for its labels.
    """

    least_probability: Annotated[
        float,
        Key("predictions whose most probable label has a lower probability are unsure", unit="share", least=0, most=1),
    ]
    least_accuracy: Annotated[
        float,
        Key("accuracy that the other predictions were to reach: the aim of the fit", unit="share", least=0, most=1),
    ]
    accuracy: Annotated[float, Key("their accuracy on these faces", unit="share", least=0, most=1)]
    accuracy_low: Annotated[
        float, Key("lower end of its 95 % Wilson interval, at least the aim", unit="share", least=0, most=1)
    ]
    accuracy_high: Annotated[float, Key("upper end of its 95 % Wilson interval", unit="share", least=0, most=1)]
    coverage: Annotated[float, Key("part of the faces that is not unsure", unit="share", least=0, most=1)]
    n: Annotated[int, Key("number of faces, unsure ones included", least=1)]
