"""The evaluate stage: trained runs, and their ensemble, on the same faces, each tested against the first in pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table

import edgeemo
from edgeemo import options
from edgeemo.artifact import check_result, write_json
from edgeemo.card import InputContract, label_set_of
from edgeemo.data import Faces, load
from edgeemo.data.faces import kind_of
from edgeemo.errors import UsageError
from edgeemo.history import versions
from edgeemo.labels import LabelSet, label_set
from edgeemo.machine import this_machine, usable_cores
from edgeemo.metrics import Scores, fit_temperature, paired, scores, softmax
from edgeemo.stages import Evaluate
from edgeemo.train import ensemble, weights
from edgeemo.train.ensemble import Member
from edgeemo.train.place import keep_freed_memory

FORMAT = 1


@dataclass(frozen=True)
class Answer:
    """What one model said of the faces."""

    name: str
    told: np.ndarray  # (N, K) log-probabilities of the judged labels, at the temperature
    temperature: float
    temperature_from: str  # card, or valid where it was fitted on the judged faces
    files: tuple[str, ...] = ()  # sha256 of the model files that answered; none for weights out of a checkpoint
    chosen: bool = False  # on the judged faces: the epoch of one of its networks


def run(config: Evaluate) -> dict[str, Any]:
    """Evaluate as configured; returns the JSON-ready result, which is also written to config.out."""
    options.check(config)
    if config.out:
        check_result(config.out, "rows", "labels", "machine")
    runs = config.runs
    torch.set_num_threads(config.threads or len(usable_cores()))
    keep_freed_memory()
    found = ensemble.members(runs)
    labels = label_set(config.label_set) if config.label_set else label_set_of(found[0].card)
    _check_labels(found, labels)
    data = weights.trained(runs[0], found[0].card, data=config.data).data
    faces = _Decoded(data, config, labels)
    answers = list(_answers(found, runs, faces, config))
    judged = faces.of(found[0])
    rows = [_row(answer, answers[0], judged, labels.labels) for answer in answers]
    result = {
        "format": FORMAT,
        "edgeemo": edgeemo.__version__,
        "versions": versions(),
        "machine": asdict(this_machine()),
        "faces": {
            "data": kind_of(data),
            "split": config.split,
            "protocol": config.protocol,
            "n": len(judged),
            "ids_sha256": judged.fingerprint,
        },
        "labels": list(labels.labels),
        "rows": rows,
    }
    if config.out:
        write_json(config.out, result)
    return result


def _check_labels(found: list[Member], labels: LabelSet) -> None:
    """UsageError if a run does not tell the judged labels, itself or by those that they merge."""
    for member in found:
        try:
            labels.places(member.card.labels)
        except UsageError as error:
            raise UsageError(
                f"{member.name} tells {', '.join(member.card.labels)}; expected what gives {', '.join(labels.labels)}. "
                "Name labels that every run tells with --label-set"
            ) from error


class _Decoded:
    """The same faces, read once for each input contract that a member asks for."""

    def __init__(self, data: str, config: Evaluate, labels: LabelSet) -> None:
        self.data, self.config, self.labels = data, config, labels
        self.read: dict[InputContract, Faces] = {}

    def of(self, member: Member) -> Faces:
        contract = member.card.input
        if contract not in self.read:
            split, protocol = self.config.split, self.config.protocol
            self.read[contract] = load(self.data, split, self.labels, contract=contract, protocol=protocol)
        return self.read[contract]


def _answers(found: list[Member], runs: tuple[Path, ...], faces: _Decoded, config: Evaluate) -> Iterator[Answer]:
    said = []
    for member, folder, name in zip(found, runs, _names(found), strict=True):
        said.append(_said(member, faces.of(member), faces.labels, flips=config.flips))
        chosen, temperature = _chosen(member, config), member.card.temperature
        own = [
            Answer(name + kind, told, temperature, "card", (member.card.sha256,), chosen)
            for kind, told in said[-1].items()
        ]
        if config.last:
            last = ensemble.without_average(member, folder)
            told = ensemble.told(last.logits(faces.of(last)), last.card, faces.labels)
            own.insert(1, Answer(f"{name}, last weights", told, last.card.temperature, "card"))
        yield from own
    if len(found) > 1:
        for kind in said[0]:
            yield _together(found, [own[kind] for own in said], faces.of(found[0]), config, kind)


def _names(found: list[Member]) -> list[str]:
    """The run folders' names; equal ones get a number."""
    names = [member.name for member in found]
    counts = [names[: k + 1].count(name) for k, name in enumerate(names)]
    return [f"{name} ({n})" if names.count(name) > 1 else name for name, n in zip(names, counts, strict=True)]


def _said(member: Member, faces: Faces, labels: LabelSet, *, flips: bool) -> dict[str, np.ndarray]:
    """(N, K) log-probabilities of the faces and, with flips, of faces and mirror images together."""
    straight = member.logits(faces)
    logits = {"": straight, ", flips": member.with_flips(straight, faces)} if flips else {"": straight}
    return {kind: ensemble.told(rows, member.card, labels) for kind, rows in logits.items()}


def _together(found: list[Member], said: list[np.ndarray], faces: Faces, config: Evaluate, kind: str) -> Answer:
    """The ensemble's answer; on test and train it has the temperature 1, because none may be fitted there."""
    mixed = ensemble.combined(said)
    on_valid = config.split == "valid"
    temperature, origin = (fit_temperature(mixed, faces.truth), "valid") if on_valid else (1.0, "none")
    files = tuple(member.card.sha256 for member in found)
    told, chosen = np.log(softmax(mixed, temperature=temperature)), any(_chosen(member, config) for member in found)
    return Answer(f"ensemble of {len(found)}{kind}", told, temperature, origin, files, chosen)


def _chosen(member: Member, config: Evaluate) -> bool:
    """Whether the member's epoch was chosen on the split that judges."""
    found = member.card.metrics.get(config.split)
    return found is not None and found.selected_on_valid


def _row(answer: Answer, first: Answer, faces: Faces, labels: tuple[str, ...]) -> dict[str, Any]:
    result = scores(np.exp(answer.told), faces.truth, labels)
    row = {
        "name": answer.name,
        "temperature": answer.temperature,
        "temperature_from": answer.temperature_from,
        "sha256": list(answer.files),
        "selected_on_these_faces": answer.chosen,
        "lowest": _lowest(result),
        **result.to_dict(),
    }
    if answer is not first:
        pair = paired(first.told.argmax(1), answer.told.argmax(1), faces.truth, labels)
        row["against_first"] = {"name": first.name, **asdict(pair)}
    return row


def _lowest(result: Scores) -> dict[str, Any]:
    """The label that is told worst."""
    recall, label = min((share, label) for label, share in result.recall.items() if share is not None)
    return {"label": label, "recall": recall}


def show(result: dict[str, Any]) -> Group:
    """The result for a terminal of 80 columns: a line per model, then a line per paired test."""
    faces = result["faces"]
    drawn = Table(
        title=f"{faces['data']} {faces['split']}, {faces['protocol']}, n = {faces['n']:,}; all in percent",
        box=SIMPLE,
        padding=0,
        pad_edge=False,
    )
    drawn.add_column("model", overflow="fold")  # the only one that may wrap
    for name in ("acc.", "interval", "F1", *(label[:4] for label in result["labels"]), "ECE"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in result["rows"]:
        drawn.add_row(*_cells(row, result["labels"]))
    tests = [_sentence(row) for row in result["rows"] if "against_first" in row]
    return Group(drawn, *tests, *_caveats(result))


def _caveats(result: dict[str, Any]) -> list[str]:
    """What flatters the rows."""
    rows, split = result["rows"], result["faces"]["split"]
    chosen = [row["name"] for row in rows if row["selected_on_these_faces"]]
    fitted = [row["name"] for row in rows if row["temperature_from"] == split]
    told = ["Every run was trained on these faces: new ones will be harder."] if split == "train" else []
    if chosen:
        told.append(f"The epoch was chosen on these faces, which flatters a little: {', '.join(chosen)}.")
    if fitted:
        told.append(f"The temperature was fitted on these faces, which flatters ECE: {', '.join(fitted)}.")
    return told


def _cells(row: dict[str, Any], labels: list[str]) -> list[str]:
    interval = f"{100 * row['accuracy_low']:.1f}-{100 * row['accuracy_high']:.1f}"
    shares = [row["macro_f1"], *(row["recall"][label] for label in labels), row["ece"]]
    return [row["name"], f"{100 * row['accuracy']:.2f}", interval, *map(_percent, shares)]


def _percent(share: float | None) -> str:
    """At most four characters."""
    return "-" if share is None else f"{100 * share:.1f}".replace("100.0", "100")


def _sentence(row: dict[str, Any]) -> str:
    pair = row["against_first"]
    moved = f"{pair['only_second']} faces won, {pair['only_first']} lost"
    change = f"{100 * pair['difference']:+.2f} points (p = {pair['p_value']:.2g}; {moved})"
    return f"{row['name']} against {pair['name']}: {change}"
