"""Parity: run each file on the same faces in every installed backend, and as other processors would run it.

A file must name the same emotions wherever it runs: that is the gate. Between x86 processors, whose integer kernels
compute the same sums unless they saturate, every logit must be the same. What a file loses against the first one, by
quantization or by another target format, is shown beside it and held by no gate here; bench tests accuracy in pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeemo import options
from edgeemo.bench.processors import PROCESSORS, BrokenChild, Processor, logits_on
from edgeemo.bench.run import about
from edgeemo.card import Card, InputContract, label_set_of, read_card
from edgeemo.data import Faces, faces
from edgeemo.errors import MachineError, UsageError, known
from edgeemo.images import to_input
from edgeemo.metrics import compare_paired, softmax
from edgeemo.progress import track
from edgeemo.report import render
from edgeemo.report.facts import FacesBlock, ModelFacts, make_header
from edgeemo.report.files import check_replaceable, page_path
from edgeemo.report.result import SAME_LOGIT, Differences, NotRun, ParityResult, ParityRow
from edgeemo.runtime import Model, open_model, shipped
from edgeemo.runtime.backends.table import FORMATS, backends_of
from edgeemo.runtime.model import SLICE
from edgeemo.stages import Parity


@dataclass(frozen=True)
class Answers:
    """What one file said in one backend."""

    model: ModelFacts
    backend: str
    source_sha256: str  # of the ONNX file that it is, or was built from
    logits: np.ndarray  # (N, K)
    probabilities: np.ndarray  # (N, K); zeros where a logit is not finite
    processor: Processor | None = None  # None: this one


def run(config: Parity) -> ParityResult:
    """Compare as configured; `passed` says whether every file agrees with itself in every backend that ran."""
    _check(config)
    models = [_known(shipped.find(name)) for name in config.models]
    cards = [read_card(path) for path in models]
    _check_labels(models, cards)
    asked = _Asked(config, cards[0])
    rows: list[ParityRow | NotRun] = []
    said: list[Answers] = []
    chosen = _processors(config)
    lacking: dict[Path, str] = {}  # of each file, what the first backend that did not run it lacked
    pairs = list(_pairs(models))
    for path, backend in track(pairs, "asking", total=len(pairs)):
        try:
            with open_model(path, threads=config.threads, backend=backend) as model:
                said.append(_answers(model, backend, asked.faces(model.card.input)))
        except MachineError as error:
            missing = NotRun(file=path.name, backend=backend, not_run=_reason(error, path))
            lacking.setdefault(path, missing.not_run)
            if missing.not_run not in {row.not_run for row in rows if isinstance(row, NotRun)}:  # once for all files
                rows.append(missing)
            continue
        rows.append(_row(said[-1], said, asked, config))
        if backend == "onnxruntime":
            rows += _on_processors(path, cards[models.index(path)], chosen, said, asked, config)
    ran = {answers.model.sha256 for answers in said}
    if idle := [path for path, card in zip(models, cards, strict=True) if card.sha256 not in ran]:
        raise MachineError(f"no backend here runs {idle[0]}: {lacking[idle[0]]}.  See:  edgeemo doctor")
    result = _result(rows, asked, config)
    if config.out:
        render.write(result, config.out)
    return result


def _processors(config: Parity) -> list[Processor]:
    """The processors to stand in for; UsageError for an unknown one."""
    names = config.processors
    for name in names:
        if name not in (*PROCESSORS, "all"):
            raise known("processor", name, (*PROCESSORS, "all"))
    return [one for one in PROCESSORS.values() if one.name in names or "all" in names]


def _on_processors(
    path: Path, card: Card, chosen: list[Processor], said: list[Answers], asked: _Asked, config: Parity
) -> list[ParityRow | NotRun]:
    """A row per processor, each against the first answers of the same file, or why it was not run."""
    rows: list[ParityRow | NotRun] = []
    batch = to_input(asked.faces(card.input).pixels, card.input)
    for processor in track(chosen, f"{path.name} on other processors", total=len(chosen)):
        try:
            logits, how = logits_on(processor, path, batch, arm64_root=config.arm64_root)
        except MachineError as error:
            wanted = isinstance(error, BrokenChild) or processor.name in config.processors
            rows.append(_not_run(path, processor, error, passed=not wanted))
            continue
        own = replace(said[-1], logits=logits, probabilities=_probabilities(logits, card), processor=processor)
        rows.append(replace(_row(own, said, asked, config), processor=processor.name, how=how))
    return rows


def _not_run(path: Path, processor: Processor, error: MachineError, *, passed: bool) -> NotRun:
    return NotRun(file=path.name, backend="onnxruntime", processor=processor.name, not_run=str(error), passed=passed)


def _check(config: Parity) -> None:
    options.check(config)
    if config.out and config.out.suffix != ".json":
        raise UsageError(f"--out {config.out}: expected a .json file; the table goes beside it as .md")
    if config.out:
        check_replaceable(config.out, ParityResult, page=page_path(config.out))


def _known(path: Path) -> Path:
    if path.suffix not in FORMATS:
        raise known("model format", path.suffix or path.name, FORMATS)
    return path


def _check_labels(models: list[Path], cards: list[Card]) -> None:
    for path, card in zip(models, cards, strict=True):
        if card.labels != cards[0].labels:
            raise UsageError(
                f"{path} tells {', '.join(card.labels)}, but {models[0]} tells {', '.join(cards[0].labels)}; expected "
                "files with the same labels in the same order"
            )


def _pairs(models: list[Path]) -> Iterator[tuple[Path, str]]:
    for path in models:
        for backend in backends_of(path.suffix):
            yield path, backend


def _reason(error: MachineError, path: Path) -> str:
    """The missing things, if the error lists some, else its first line; without the folder of the file."""
    lines = str(error).replace(str(path), path.name).splitlines()
    listed = [line.removeprefix("  - ") for line in lines if line.startswith("  - ")]
    return "; ".join(listed) or lines[0]


class _Asked:
    """The chosen faces, decoded once for each input contract that a file asks for."""

    def __init__(self, config: Parity, card: Card) -> None:
        self._config, self._labels = config, label_set_of(card)
        self._read: dict[InputContract, Faces] = {}

    def faces(self, contract: InputContract) -> Faces:
        if contract not in self._read:
            config = self._config
            whole = faces.load(config.data, config.split, self._labels, contract=contract, protocol=config.protocol)
            self._read[contract] = whole.take_evenly(config.count or len(whole))
        return self._read[contract]

    @property
    def first(self) -> Faces:
        return next(iter(self._read.values()))


def _answers(model: Model, backend: str, asked: Faces) -> Answers:
    """Past the model's own check of finite logits, because their number is a finding here."""
    starts = range(0, len(asked), SLICE)
    batches = (to_input(asked.pixels[start : start + SLICE], model.card.input) for start in starts)
    logits = np.concatenate([model.backend.logits(batch) for batch in batches])
    source = model.card.target.source_sha256 if model.card.target else model.card.sha256
    return Answers(about(model), backend, source, logits, _probabilities(logits, model.card))


def _probabilities(logits: np.ndarray, card: Card) -> np.ndarray:
    """Zeros where a logit is not finite."""
    finite = np.isfinite(logits).all(1, keepdims=True)
    found: np.ndarray = softmax(np.where(finite, logits, 0.0), temperature=card.temperature) * finite
    return found


def _row(own: Answers, said: list[Answers], asked: _Asked, config: Parity) -> ParityRow:
    """Against the first answers of the same file, and against the first file's."""
    same = next(one for one in said if one.source_sha256 == own.source_sha256)
    truth = asked.first.truth
    right = own.probabilities.argmax(1) == truth
    broken = int((~np.isfinite(own.logits)).any(1).sum())
    return ParityRow(
        file=own.model.file,
        backend=own.backend,
        model=own.model,
        not_finite=broken,
        accuracy=float(right.mean()),
        same_file=None if same is own else _differences(same, own, asked),
        first_file=None if said[0] is own else _differences(said[0], own, asked),
        passed=not broken and _agrees(same, own, config.min_agreement),
    )


def _agrees(one: Answers, other: Answers, min_agreement: float) -> bool:
    """On enough faces; in INT8 on another processor on all of them, and between x86 processors logit by logit."""
    if other.processor and other.processor.family == "x86":
        return _agreement(one, other) == 1 and bool(np.abs(one.logits - other.logits).max() <= SAME_LOGIT)
    if other.processor and other.model.precision.get("asked") == "int8":  # measured: no ARM core differs on any face
        return _agreement(one, other) == 1
    return _agreement(one, other) >= min_agreement / 100


def _agreement(one: Answers, other: Answers) -> float:
    return float((one.probabilities.argmax(1) == other.probabilities.argmax(1)).mean())


def _differences(one: Answers, other: Answers, asked: _Asked) -> Differences:
    """How far apart, and which labels were won or lost."""
    first, second = one.probabilities.argmax(1), other.probabilities.argmax(1)
    labels = tuple(other.model.labels)
    compared = compare_paired(first, second, asked.first.truth, labels)
    moved = {label: int(((first == k) != (second == k)).sum()) for k, label in enumerate(labels)}
    return Differences(
        **vars(compared),
        backend=one.backend,
        largest_difference=float(np.abs(one.probabilities - other.probabilities).max()),
        largest_logit_difference=float(np.abs(one.logits - other.logits).max()),
        moved={label: count for label, count in moved.items() if count},
    )


def _result(rows: list[ParityRow | NotRun], asked: _Asked, config: Parity) -> ParityResult:
    about_faces = FacesBlock(
        faces.kind_of(config.data), config.split, config.protocol, len(asked.first), asked.first.fingerprint
    )
    return ParityResult(
        header=make_header(),
        faces=about_faces,
        min_agreement=config.min_agreement / 100,
        rows=rows,
        passed=all(row.passed for row in rows),
        verdict=_verdict(rows, config),
    )


def _verdict(rows: list[ParityRow | NotRun], config: Parity) -> str:
    if failed := [row.name for row in rows if not row.passed]:
        return f"FAIL ({', '.join(failed)})"
    twice = sum(isinstance(row, ParityRow) and row.same_file is not None for row in rows)
    if not twice:
        return "PASS (every answer is finite; no file ran in a second backend)"
    others = "backend's or processor's" if config.processors else "backend's"
    return f"PASS ({twice} answers agree with another {others} on {config.min_agreement:g} % of the faces or more)"
