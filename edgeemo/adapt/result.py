"""What an adaptation gains on held-out people, as text and as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from shlex import quote
from typing import Any

from edgeemo.adaptation import Fitted, count_more_faces, explain_refusal, list_left_alone, list_warnings
from edgeemo.metrics import PairedComparison, Scores
from edgeemo.names import count
from edgeemo.report.table import Table

DIGITS = 4  # of shares in JSON
LOSS = -0.1  # of recall, from which on a label is named


@dataclass(frozen=True)
class Check:
    """The model before and after on faces of another place."""

    data: str
    before: Scores
    after: Scores
    paired: PairedComparison


@dataclass(frozen=True)
class Adapted:
    """What was fitted, and what it does; path: of the adapted model, None if none was written."""

    model: str
    fitted: Fitted
    path: Path | None
    closed: bool
    check: Check | None

    @property
    def passed(self) -> bool:
        """Whether an adapted model was written."""
        return self.path is not None

    def __str__(self) -> str:
        """Return the verdict, before and after, and the next command."""
        evidence = self.fitted.evidence
        who = f" of {evidence.folds.people} people" if evidence.folds.people else ""
        lines = [f"{self.model}, {count(evidence.before.n, 'labelled face')}{who}: {self._describe()}", ""]
        lines += [_compare("held-out people" if evidence.folds.by_people else "held-out faces", evidence), ""]
        lines += [f"learning curve: {self._describe_curve()}", ""] if evidence.curve else []
        if self.check:
            lines += [_compare(f"other place, {self.check.data}", self.check), ""]
        lines += [f"note: {one}" for one in self.list_notes()]
        lines += [f"{self.path}", f"next:  edgeemo predict --model {quote(str(self.path))} PHOTO"] if self.path else []
        return "\n".join(lines)

    def _describe(self) -> str:
        if not self.fitted.shown and not self.path:
            return f"not adapted: {explain_refusal(self.fitted)}"
        candidate, evidence = self.fitted.candidate, self.fitted.evidence
        form = f"{candidate.form}, penalty {candidate.penalty:g}" if candidate else ""
        doubt = "" if self.fitted.shown else f"; written without a shown gain: {explain_refusal(self.fitted)}"
        return f"adapted ({form}; p = {evidence.p_value:.4f}){doubt}"

    def _describe_curve(self) -> str:
        points = self.fitted.evidence.curve
        return ", ".join(f"{one.faces} faces {100 * one.accuracy:.1f} %" for one in points)

    def list_notes(self) -> list[str]:
        """Return what limits the result."""
        notes = list_warnings(self.fitted.evidence)
        if left := list_left_alone(self.fitted, closed=self.closed):
            notes.append(f"no face of {', '.join(left)}: left alone; if none occurs in this place, add --closed")
        fallen = self.fitted.evidence.paired.recall_difference.items()
        return notes + [
            f"recall of {label} falls by {-100 * points:.1f} points"
            for label, points in fallen
            if points and points <= LOSS
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the JSON-ready form."""
        evidence, candidate = self.fitted.evidence, self.fitted.candidate
        return {
            "model": self.model,
            "adapted": None if self.path is None else str(self.path),
            "shown": self.fitted.shown,
            "reason": None if self.fitted.shown else explain_refusal(self.fitted),
            "form": candidate.form if candidate else None,
            "penalty": candidate.penalty if candidate else None,
            "faces": evidence.before.n,
            "people": evidence.folds.people,
            "held_out_people": evidence.folds.by_people,
            "gain_nats": round(evidence.gain, DIGITS),
            "p_value": evidence.p_value,
            "more_faces_needed": None if self.fitted.shown else count_more_faces(evidence),
            "before": evidence.before.to_dict(),
            "after": evidence.after.to_dict(),
            "paired": asdict(evidence.paired),
            "curve": [asdict(one) for one in evidence.curve],
            "check": asdict(self.check) if self.check else None,
            "notes": self.list_notes(),
        }


def _compare(where: str, found: Any) -> str:
    """Return a table of the metrics before and after."""
    before, after, paired = found.before, found.after, found.paired
    rows = [("accuracy, %", *map(_format_accuracy, (before, after)), f"{100 * paired.difference:+.1f}")]
    rows.append(("macro F1, %", *(f"{100 * one.macro_f1:.1f}" for one in (before, after)), ""))
    rows.append(("calibration error (ECE), %", *(f"{100 * one.ece:.1f}" for one in (before, after)), ""))
    for label, faces in before.support.items():
        if faces:
            shares = [100 * (one.recall[label] or 0) for one in (before, after)]
            rows.append(
                (f"recall {label} ({faces})", *(f"{one:.1f}" for one in shares), f"{shares[1] - shares[0]:+.1f}")
            )
    heads = (f"{where} ({before.n} faces)", "before", "after", "difference")
    return str(Table("", heads, rows, style="wide").to_terminal())


def _format_accuracy(one: Scores) -> str:
    return f"{100 * one.accuracy:.1f} ({100 * one.accuracy_low:.1f} to {100 * one.accuracy_high:.1f})"


@dataclass(frozen=True)
class Undone:
    """A model without its adaptation."""

    path: Path

    def __str__(self) -> str:
        """Return the path."""
        return f"{self.path}: the adaptation is removed"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON-ready form."""
        return {"undone": str(self.path)}
