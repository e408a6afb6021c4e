"""The evaluate stage: trained runs, and their ensemble, on the same faces, each tested against the first in pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeemo import options
from edgeemo.card import get_label_set
from edgeemo.data import Faces
from edgeemo.data.faces import DecodedFaces, kind_of
from edgeemo.data.unreadable import summarise
from edgeemo.errors import UsageError
from edgeemo.labels import LabelSet, label_set
from edgeemo.machine import usable_cores
from edgeemo.metrics import Scores, compare_paired, fit_temperature, scores, softmax
from edgeemo.report import files
from edgeemo.report.facts import FacesBlock, PairedWith, make_header
from edgeemo.report.result import EvaluatedRow, EvaluationResult, LowestRecall
from edgeemo.selective import measure_curve
from edgeemo.stages import Evaluate
from edgeemo.train import ensemble, run_folder
from edgeemo.train.device import keep_freed_memory
from edgeemo.train.ensemble import Member


@dataclass(frozen=True)
class Output:
    """What one model predicts for the faces."""

    name: str
    log_probabilities: np.ndarray  # (N, K) of the evaluated labels, at the temperature
    temperature: float
    temperature_from: str  # card, or valid where it was fitted on the evaluated faces
    sha256: tuple[str, ...] = ()  # of the model files; none for weights out of a checkpoint
    selected: bool = False  # the epoch of one of its networks was chosen on the evaluated faces


def run(config: Evaluate) -> EvaluationResult:
    """Evaluate as configured; the result is also written to config.out."""
    options.check(config)
    if config.out:
        files.check_replaceable(config.out, EvaluationResult)
    runs = config.runs
    torch.set_num_threads(config.threads or len(usable_cores()))
    keep_freed_memory()
    members = ensemble.load_members(runs)
    labels = label_set(config.label_set) if config.label_set else get_label_set(members[0].card)
    _check_labels(members, labels)
    data = run_folder.load_config(runs[0], members[0].card, data=config.data).data
    options_of_faces: dict[str, Any] = {"protocol": config.protocol, "skip_unreadable": config.skip_unreadable}
    decoded = DecodedFaces(data, config.split, labels, **options_of_faces)
    outputs = list(_predict(members, runs, decoded, config))
    faces = decoded.decode(members[0].card.input)
    rows = [_make_row(output, outputs[0], faces, labels.labels) for output in outputs]
    unreadable = summarise(data, config.split)
    about = FacesBlock(kind_of(data), config.split, config.protocol, len(faces), faces.fingerprint, unreadable)
    result = EvaluationResult(header=make_header(), faces=about, labels=list(labels.labels), rows=rows)
    if config.out:
        files.write(result, config.out)
    return result


def _check_labels(members: list[Member], labels: LabelSet) -> None:
    """Raise UsageError if a run can report the evaluated labels neither as its own nor by merging its own."""
    for member in members:
        try:
            labels.map_labels(member.card.labels)
        except UsageError as error:
            raise UsageError(
                f"{member.name} has the labels {', '.join(member.card.labels)}; expected labels that give "
                f"{', '.join(labels.labels)}.  Name labels that every run can report with --label-set"
            ) from error


def _predict(
    members: list[Member], runs: tuple[Path, ...], decoded: DecodedFaces, config: Evaluate
) -> Iterator[Output]:
    """Yield the outputs of every run, then those of the ensemble if there are several."""
    by_member = []
    for member, folder, name in zip(members, runs, _unique_names(members), strict=True):
        by_kind = _predict_member(member, decoded.decode(member.card.input), decoded.labels, flips=config.flips)
        by_member.append(by_kind)
        selected, temperature = _was_selected(member, config), member.card.temperature
        outputs = [
            Output(name + kind, log_probabilities, temperature, "card", (member.card.sha256,), selected)
            for kind, log_probabilities in by_kind.items()
        ]
        if config.last:
            last = ensemble.load_without_average(member, folder)
            logits = last.logits(decoded.decode(last.card.input))
            log_probabilities = ensemble.log_probabilities(logits, last.card, decoded.labels)
            outputs.insert(1, Output(f"{name}, last weights", log_probabilities, last.card.temperature, "card"))
        yield from outputs
    if len(members) > 1:
        faces = decoded.decode(members[0].card.input)
        for kind in by_member[0]:
            yield _average(members, [by_kind[kind] for by_kind in by_member], faces, config, kind)


def _unique_names(members: list[Member]) -> list[str]:
    """Return the names of the run folders; equal ones get a number."""
    names = [member.name for member in members]
    counts = [names[: k + 1].count(name) for k, name in enumerate(names)]
    return [f"{name} ({n})" if names.count(name) > 1 else name for name, n in zip(names, counts, strict=True)]


def _predict_member(member: Member, faces: Faces, labels: LabelSet, *, flips: bool) -> dict[str, np.ndarray]:
    """Return (N, K) log-probabilities of the faces and, with flips, averaged over the faces and their mirror images."""
    straight = member.logits(faces)
    logits = {"": straight, ", flips": member.average_flips(straight, faces)} if flips else {"": straight}
    return {kind: ensemble.log_probabilities(rows, member.card, labels) for kind, rows in logits.items()}


def _average(members: list[Member], outputs: list[np.ndarray], faces: Faces, config: Evaluate, kind: str) -> Output:
    """Return the ensemble's output; on test and train its temperature is 1, because none may be fitted there."""
    mean = ensemble.average(outputs)
    on_valid = config.split == "valid"
    temperature, origin = (fit_temperature(mean, faces.truth), "valid") if on_valid else (1.0, "none")
    return Output(
        name=f"ensemble of {len(members)}{kind}",
        log_probabilities=np.log(softmax(mean, temperature=temperature)),
        temperature=temperature,
        temperature_from=origin,
        sha256=tuple(member.card.sha256 for member in members),
        selected=any(_was_selected(member, config) for member in members),
    )


def _was_selected(member: Member, config: Evaluate) -> bool:
    """Return whether the member's epoch was chosen on the evaluated split."""
    metrics = member.card.metrics.get(config.split)
    return metrics is not None and metrics.selected_on_valid


def _make_row(output: Output, first: Output, faces: Faces, labels: tuple[str, ...]) -> EvaluatedRow:
    probabilities = np.exp(output.log_probabilities)
    result = scores(probabilities, faces.truth, labels)
    return EvaluatedRow(
        **vars(result),
        name=output.name,
        temperature=output.temperature,
        temperature_from=output.temperature_from,
        sha256=list(output.sha256),
        selected_on_these_faces=output.selected,
        lowest=_find_lowest(result),
        against_first=None if output is first else _compare(first, output, faces, labels),
        answers=measure_curve(probabilities, faces.truth),
    )


def _compare(first: Output, output: Output, faces: Faces, labels: tuple[str, ...]) -> PairedWith:
    before, after = (one.log_probabilities.argmax(1) for one in (first, output))
    return PairedWith(**vars(compare_paired(before, after, faces.truth, labels)), name=first.name)


def _find_lowest(result: Scores) -> LowestRecall:
    """Return the label with the lowest recall."""
    recall, label = min((share, label) for label, share in result.recall.items() if share is not None)
    return LowestRecall(label, recall)
