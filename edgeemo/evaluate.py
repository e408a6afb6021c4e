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
from edgeemo.artifact import write_json
from edgeemo.card import InputContract, label_set_of
from edgeemo.data import Faces, load
from edgeemo.data.faces import kind_of
from edgeemo.history import versions
from edgeemo.machine import this_machine, usable_cores
from edgeemo.metrics import fit_temperature, paired, scores, softmax
from edgeemo.stages import Evaluate
from edgeemo.train import ensemble, weights
from edgeemo.train.ensemble import Member

FORMAT = 1


@dataclass(frozen=True)
class Answer:
    """What one model said of the faces."""

    name: str
    logits: np.ndarray  # (N, K)
    temperature: float
    temperature_from: str  # card, or valid where it was fitted on the judged faces


def run(runs: list[Path], config: Evaluate) -> dict[str, Any]:
    """Judge as configured; returns the JSON-ready result, which is also written to config.out."""
    torch.set_num_threads(config.threads or len(usable_cores()))
    found = ensemble.members(runs)
    data = weights.trained(runs[0], found[0].card, data=config.data).data
    faces = _Decoded(data, config, found[0])
    answers = list(_answers(found, runs, faces, config))
    judged = faces.of(found[0])
    rows = [_row(answer, answers[0], judged, found[0].card.labels) for answer in answers]
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
        "labels": list(found[0].card.labels),
        "rows": rows,
    }
    if config.out:
        write_json(Path(config.out), result)
    return result


class _Decoded:
    """The same faces, read once for each input contract that a member asks for."""

    def __init__(self, data: str, config: Evaluate, first: Member) -> None:
        self.data, self.config, self.labels = data, config, label_set_of(first.card)
        self.read: dict[InputContract, Faces] = {}

    def of(self, member: Member) -> Faces:
        contract = member.card.input
        if contract not in self.read:
            split, protocol = self.config.split, self.config.protocol
            self.read[contract] = load(self.data, split, self.labels, contract=contract, protocol=protocol)
        return self.read[contract]


def _answers(found: list[Member], runs: list[Path], faces: _Decoded, config: Evaluate) -> Iterator[Answer]:
    for member, folder in zip(found, runs, strict=True):
        variants = [member]
        if config.last:
            variants.append(ensemble.without_average(member, folder))
        for variant in variants:
            logits = variant.logits(faces.of(variant))
            yield Answer(variant.name, logits, variant.card.temperature, "card")
        if config.flips:
            yield Answer(f"{member.name}, flips", member.logits(faces.of(member), flips=True), *_of_card(member))
    if len(found) > 1:
        said = [member.logits(faces.of(member), flips=config.flips) for member in found]
        mixed = ensemble.combined(said, [member.card.temperature for member in found])
        name = f"ensemble of {len(found)}" + (", flips" if config.flips else "")
        if config.split == "valid":
            yield Answer(name, mixed, fit_temperature(mixed, faces.of(found[0]).truth), "valid")
        else:
            yield Answer(name, mixed, 1.0, "none")


def _of_card(member: Member) -> tuple[float, str]:
    return member.card.temperature, "card"


def _row(answer: Answer, first: Answer, faces: Faces, labels: tuple[str, ...]) -> dict[str, Any]:
    result = scores(softmax(answer.logits, temperature=answer.temperature), faces.truth, labels)
    row = {
        "name": answer.name,
        "temperature": answer.temperature,
        "temperature_from": answer.temperature_from,
        **result.to_dict(),
    }
    if answer is not first:
        pair = paired(first.logits.argmax(1), answer.logits.argmax(1), faces.truth, labels)
        row["against_first"] = {"name": first.name, **asdict(pair)}
    return row


def table(result: dict[str, Any]) -> Group:
    """The result for a terminal: a line per model with recalls in percent, then a line per paired test."""
    faces = result["faces"]
    drawn = Table(
        title=f"{faces['data']} {faces['split']}, {faces['protocol']}, n = {faces['n']:,}",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    drawn.add_column("model", overflow="fold")
    widths = {"acc. %": 6, "95 %": 9, **{label[:4]: 5 for label in result["labels"]}, "ECE %": 5}
    for name, width in widths.items():
        drawn.add_column(name, justify="right", no_wrap=True, min_width=width)
    for row in result["rows"]:
        drawn.add_row(*_cells(row, result["labels"]))
    return Group(drawn, *(_sentence(row) for row in result["rows"] if "against_first" in row))


def _cells(row: dict[str, Any], labels: list[str]) -> list[str]:
    interval = f"{100 * row['accuracy_low']:.1f}-{100 * row['accuracy_high']:.1f}"
    recall = ["-" if row["recall"][label] is None else f"{100 * row['recall'][label]:.1f}" for label in labels]
    return [row["name"], f"{100 * row['accuracy']:.2f}", interval, *recall, f"{100 * row['ece']:.1f}"]


def _sentence(row: dict[str, Any]) -> str:
    pair = row["against_first"]
    moved = f"{pair['only_second']} faces won, {pair['only_first']} lost"
    change = f"{100 * pair['difference']:+.2f} points (p = {pair['p_value']:.2g}; {moved})"
    return f"{row['name']} against {pair['name']}: {change}"
