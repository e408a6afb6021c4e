"""What the evidence on an adaptation means, in sentences."""

from __future__ import annotations

from edgeemo.adaptation.choose import FEWEST_FOLDS, LEAST_GAIN, SIGNIFICANT, Evidence, Fitted
from edgeemo.adaptation.folds import FEWEST_PEOPLE, FEWEST_UNITS
from edgeemo.names import count

FEW_FACES = 30  # with fewer, a gain is rarely shown, whatever its size


def explain_refusal(fitted: Fitted) -> str:
    """Return why the faces do not show a gain, and how many more would be needed."""
    evidence = fitted.evidence
    faces, labels = evidence.before.n, sum(map(bool, evidence.before.support.values()))
    if labels < 2:
        return f"all {count(faces, 'face')} have one label; expected two labels or more"
    if evidence.folds.count < FEWEST_FOLDS:
        return f"{count(faces, 'face')}, expected {FEWEST_FOLDS} or more that differ"
    who = "people" if evidence.folds.by_people else "faces"
    change = (
        f"(held-out {who}: {100 * evidence.before.accuracy:.1f} % before, {100 * evidence.after.accuracy:.1f} % after)"
    )
    if fitted.candidate is None or evidence.gain <= 0:
        return f"no adaptation improves on the model as it is {change}; {_advise(evidence, faces)}"
    if evidence.p_value >= SIGNIFICANT:
        return f"the gain may be due to chance, p = {evidence.p_value:.2f} {change}; {_advise(evidence, faces)}"
    if evidence.paired.difference <= 0:
        return f"probabilities improve, but not the predicted labels {change}; {_advise(evidence, faces)}"
    gain = f"{evidence.gain:.3f} nats per face, expected {LEAST_GAIN} or more"
    return f"the gain is too small, {gain} {change}; the model suits these faces as it is"


def count_more_faces(evidence: Evidence) -> int | None:
    """Return how many more faces would show the gain, or FEW_FACES in all where there are fewer; None if none would."""
    faces = evidence.before.n
    if evidence.needed and evidence.needed > faces and evidence.gain >= LEAST_GAIN:
        return evidence.needed - faces
    return FEW_FACES - faces if faces < FEW_FACES else None


def _advise(evidence: Evidence, faces: int) -> str:
    """Return what to do about a gain that is not shown."""
    more = count_more_faces(evidence)
    if more and faces + more == evidence.needed:
        return f"about {more} more faces would show such a gain, if it is real"
    if more:
        return f"{count(faces, 'face')} are too few to show a gain: label {more} more, of more people"
    return "the model may suit these faces as it is; more faces may still show a small gain"


def list_warnings(evidence: Evidence) -> list[str]:
    """Return what limits the evidence: unknown people, or few."""
    people = evidence.folds.people
    if people is None:
        note = "the same person may be fitted on and tested on, so new people may gain less"
        return [f"{note}; name who is on each face with --people"]
    known = "one person" if people == 1 else f"{people} people"
    if people < FEWEST_PEOPLE:
        return [f"only {known}: the gain on other people is not measured; label faces of {FEWEST_PEOPLE} or more"]
    if people < FEWEST_UNITS:
        return [f"only {known}: the test is over their faces, and says little about other people"]
    return []


def list_left_alone(fitted: Fitted, *, closed: bool) -> list[str]:
    """Return the reported labels without a face, which keep their logits; none if they are taken not to occur."""
    return [] if closed else [label for label, faces in fitted.evidence.before.support.items() if not faces]
