"""The section of a card that fits a model to the place where it runs; edgeemo/adaptation fits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from edgeemo.card.answers import Answers
from edgeemo.card.keys import SHA256, Key

FORMS = ("bias", "diagonal", "matrix")


@dataclass(frozen=True)
class HeldOut:
    """What was measured on people, or blocks of faces, that took no part in the fit, at the card's temperature."""

    accuracy: Annotated[float, Key("part of the faces with the right label", unit="share", least=0, most=1)]
    accuracy_low: Annotated[float, Key("lower end of its 95 % Wilson interval", unit="share", least=0, most=1)]
    accuracy_high: Annotated[float, Key("upper end of its 95 % Wilson interval", unit="share", least=0, most=1)]
    ece: Annotated[float, Key("expected calibration error, 15 equal bins", unit="share", least=0, most=1)]
    recall: Annotated[
        dict[str, float | None], Key("by reported label; null for a label without faces", unit="share", least=0, most=1)
    ]


@dataclass(frozen=True)
class Adaptation:
    """A change of the logits, fitted on labelled faces from where the model runs.

    adapted = matrix @ logits + bias in float64, before the temperature: probabilities = softmax(adapted / temperature).
    The formula is the same for every form; `golden` and `metrics` are those of the model without it.
    """

    form: Annotated[
        str,
        Key(
            "what was fitted: `bias` (identity matrix), `diagonal` (a factor and a bias per label) or `matrix`",
            choices=FORMS,
        ),
    ]
    matrix: Annotated[
        tuple[tuple[float, ...], ...], Key("a row per label of the model, one factor per logit", fewest=2)
    ]
    bias: Annotated[tuple[float, ...], Key("added, one number per label of the model", fewest=2)]
    model_sha256: Annotated[
        str,
        Key(
            "SHA-256 of the model file it was fitted on; refuse any other, but for an engine built from that file",
            pattern=SHA256,
        ),
    ]
    penalty: Annotated[
        float, Key("strength of the shrinkage towards no change: half of it times the sum of squares", above=0)
    ]
    faces: Annotated[int, Key("number of faces it was fitted on", least=1)]
    labels: Annotated[dict[str, int], Key("number of these faces by reported label", least=0)]
    data: Annotated[str, Key("kind of data source, such as folder, or python")]
    content_sha256: Annotated[
        str, Key("SHA-256 of the faces' pixels, as the input has them, and labels", pattern=SHA256)
    ]
    fitted_at: Annotated[str, Key("when, in UTC, as 2026-01-31T12:00:00Z")]
    before: Annotated[HeldOut, Key("as the model was")]
    after: Annotated[HeldOut, Key("adapted without these people")]
    p_value: Annotated[
        float, Key("of the gain in log-likelihood on held-out people, one-sided sign-flip test", least=0, most=1)
    ]
    shown: Annotated[bool, Key("whether these faces show a gain; false: it was written in spite of that")]
    people: Annotated[int | None, Key("number of people on the faces; absent: not stated", least=1)] = None
    answers_before: Annotated[
        Answers | None, Key("`answers` of the model without it; that of the card is fitted on `after`, or absent")
    ] = None
