"""The evaluate stage: trained runs, and their ensemble, on the same faces, each tested against the first in pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from edgeemo import options
from edgeemo.card import InputContract, label_set_of
from edgeemo.data import Faces, load
from edgeemo.data.faces import kind_of
from edgeemo.errors import UsageError
from edgeemo.labels import LabelSet, label_set
from edgeemo.machine import usable_cores
from edgeemo.metrics import Scores, compare_paired, fit_temperature, scores, softmax
from edgeemo.report import files
from edgeemo.report.facts import FacesBlock, PairedWith, make_header
from edgeemo.report.result import EvaluatedRow, EvaluationResult, LowestRecall
from edgeemo.stages import Evaluate
from edgeemo.train import ensemble, run_folder
from edgeemo.train.device import keep_freed_memory
from edgeemo.train.ensemble import Member


@dataclass(frozen=True)
class Answer:
    """What one model said of the faces."""

    name: str
    told: np.ndarray  # (N, K) log-probabilities of the judged labels, at the temperature
    temperature: float
    temperature_from: str  # card, or valid where it was fitted on the judged faces
    files: tuple[str, ...] = ()  # sha256 of the model files that answered; none for weights out of a checkpoint
    chosen: bool = False  # on the judged faces: the epoch of one of its networks


def run(config: Evaluate) -> EvaluationResult:
    """Evaluate as configured; the result is also written to config.out."""
    options.check(config)
    if config.out:
        files.check_replaceable(config.out, EvaluationResult)
    runs = config.runs
    torch.set_num_threads(config.threads or len(usable_cores()))
    keep_freed_memory()
    found = ensemble.load_members(runs)
    labels = label_set(config.label_set) if config.label_set else label_set_of(found[0].card)
    _check_labels(found, labels)
    data = run_folder.load_config(runs[0], found[0].card, data=config.data).data
    faces = _Decoded(data, config, labels)
    answers = list(_answers(found, runs, faces, config))
    judged = faces.of(found[0])
    rows = [_row(answer, answers[0], judged, labels.labels) for answer in answers]
    about = FacesBlock(kind_of(data), config.split, config.protocol, len(judged), judged.fingerprint)
    result = EvaluationResult(header=make_header(), faces=about, labels=list(labels.labels), rows=rows)
    if config.out:
        files.write(result, config.out)
    return result


def _check_labels(found: list[Member], labels: LabelSet) -> None:
    """UsageError if a run does not tell the judged labels, itself or by those that they merge."""
    for member in found:
        try:
            labels.map_labels(member.card.labels)
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
            last = ensemble.load_without_average(member, folder)
            told = ensemble.log_probabilities(last.logits(faces.of(last)), last.card, faces.labels)
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
    logits = {"": straight, ", flips": member.average_flips(straight, faces)} if flips else {"": straight}
    return {kind: ensemble.log_probabilities(rows, member.card, labels) for kind, rows in logits.items()}


def _together(found: list[Member], said: list[np.ndarray], faces: Faces, config: Evaluate, kind: str) -> Answer:
    """The ensemble's answer; on test and train it has the temperature 1, because none may be fitted there."""
    mixed = ensemble.average(said)
    on_valid = config.split == "valid"
    temperature, origin = (fit_temperature(mixed, faces.truth), "valid") if on_valid else (1.0, "none")
    files = tuple(member.card.sha256 for member in found)
    told, chosen = np.log(softmax(mixed, temperature=temperature)), any(_chosen(member, config) for member in found)
    return Answer(f"ensemble of {len(found)}{kind}", told, temperature, origin, files, chosen)


def _chosen(member: Member, config: Evaluate) -> bool:
    """Whether the member's epoch was chosen on the split that judges."""
    found = member.card.metrics.get(config.split)
    return found is not None and found.selected_on_valid


def _row(answer: Answer, first: Answer, faces: Faces, labels: tuple[str, ...]) -> EvaluatedRow:
    result = scores(np.exp(answer.told), faces.truth, labels)
    return EvaluatedRow(
        **vars(result),
        name=answer.name,
        temperature=answer.temperature,
        temperature_from=answer.temperature_from,
        sha256=list(answer.files),
        selected_on_these_faces=answer.chosen,
        lowest=_lowest(result),
        against_first=None if answer is first else _against(first, answer, faces, labels),
    )


def _against(first: Answer, answer: Answer, faces: Faces, labels: tuple[str, ...]) -> PairedWith:
    pair = compare_paired(first.told.argmax(1), answer.told.argmax(1), faces.truth, labels)
    return PairedWith(**vars(pair), name=first.name)


def _lowest(result: Scores) -> LowestRecall:
    recall, label = min((share, label) for label, share in result.recall.items() if share is not None)
    return LowestRecall(label, recall)
