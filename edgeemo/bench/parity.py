"""Parity: run each file on the same faces in every installed backend, and as other processors would run it.

A file must predict the same labels wherever it runs: that is the gate. Between x86 processors, whose integer kernels
compute the same sums unless they saturate, every logit must be the same. What a file loses against the first one, by
quantization or by another target format, is reported without a gate; bench compares accuracy in pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgeemo import options
from edgeemo.adaptation import adapt_logits
from edgeemo.bench.processors import PROCESSORS, BrokenChild, Processor, run_on_processor
from edgeemo.bench.run import describe_model
from edgeemo.card import Card, get_label_set, read_card
from edgeemo.data import Faces
from edgeemo.data.faces import DecodedFaces, kind_of
from edgeemo.errors import EdgeemoError, MachineError, UsageError, known
from edgeemo.images import to_input
from edgeemo.metrics import compare_paired, softmax
from edgeemo.progress import track
from edgeemo.report import render
from edgeemo.report.facts import FacesBlock, ModelFacts, make_header
from edgeemo.report.files import check_replaceable, page_path
from edgeemo.report.result import SAME_LOGIT, Differences, NotRun, ParityResult, ParityRow
from edgeemo.runtime import Model, open_model, shipped
from edgeemo.runtime.backends.table import FORMATS, backends_of
from edgeemo.runtime.model import BATCH_SIZE
from edgeemo.stages import Parity


@dataclass(frozen=True)
class Output:
    """What one file predicts in one backend."""

    model: ModelFacts
    backend: str
    source_sha256: str  # of the ONNX file that it is, or was built from
    logits: np.ndarray  # (N, K)
    probabilities: np.ndarray  # (N, K); zeros where a logit is not finite
    processor: Processor | None = None  # None: this machine's


def run(config: Parity) -> ParityResult:
    """Compare as configured; `passed`: every file agrees with itself in every backend that ran."""
    _check(config)
    models = [_check_format(shipped.find(name)) for name in config.models]
    cards = [read_card(path) for path in models]
    _check_labels(models, cards)
    decoded = DecodedFaces(
        config.data, config.split, get_label_set(cards[0]), protocol=config.protocol, count=config.count
    )
    rows: list[ParityRow | NotRun] = []
    outputs: list[Output] = []
    processors = _select_processors(config)
    reasons: dict[Path, str] = {}  # by file, why the first backend that failed did not run it
    pairs = [(path, backend) for path in models for backend in backends_of(path.suffix)]
    for path, backend in track(pairs, "running backends", total=len(pairs)):
        try:
            with open_model(path, threads=config.threads, backend=backend) as model:
                outputs.append(_run_model(model, backend, decoded.decode(model.card.input)))
        except (MachineError, UsageError) as error:  # UsageError: a backend that does not run files of this format
            missing = NotRun(file=path.name, backend=backend, not_run=_give_reason(error, path))
            reasons.setdefault(path, missing.not_run)
            if missing.not_run not in {row.not_run for row in rows if isinstance(row, NotRun)}:  # once for all files
                rows.append(missing)
            continue
        rows.append(_make_row(outputs[-1], outputs, decoded, config))
        if backend == "onnxruntime":
            rows += _run_on_processors(path, cards[models.index(path)], processors, outputs, decoded, config)
    ran = {output.model.sha256 for output in outputs}
    if idle := [path for path, card in zip(models, cards, strict=True) if card.sha256 not in ran]:
        raise MachineError(f"no installed backend runs {idle[0]}: {reasons[idle[0]]}.  See:  edgeemo doctor")
    result = _make_result(rows, decoded, config)
    if config.out:
        render.write(result, config.out)
    return result


def _select_processors(config: Parity) -> list[Processor]:
    """Return the processors to mask or emulate; raise UsageError for an unknown one."""
    names = config.processors
    for name in names:
        if name not in (*PROCESSORS, "all"):
            raise known("processor", name, (*PROCESSORS, "all"))
    return [one for one in PROCESSORS.values() if one.name in names or "all" in names]


def _run_on_processors(
    path: Path, card: Card, processors: list[Processor], outputs: list[Output], decoded: DecodedFaces, config: Parity
) -> list[ParityRow | NotRun]:
    """Return a row per processor, each compared with the first output of the same file, or why it was not run."""
    rows: list[ParityRow | NotRun] = []
    batch = to_input(decoded.decode(card.input).pixels[:], card.input)
    for processor in track(processors, f"{path.name} on other processors", total=len(processors)):
        try:
            logits, how = run_on_processor(processor, path, batch, arm64_root=config.arm64_root)
        except MachineError as error:
            required = isinstance(error, BrokenChild) or processor.name in config.processors
            about = {"file": path.name, "backend": "onnxruntime", "processor": processor.name}
            rows.append(NotRun(**about, not_run=str(error), passed=not required))
            continue
        output = replace(outputs[-1], logits=logits, probabilities=_to_probabilities(logits, card), processor=processor)
        rows.append(replace(_make_row(output, outputs, decoded, config), processor=processor.name, how=how))
    return rows


def _check(config: Parity) -> None:
    options.check(config)
    if config.out and config.out.suffix != ".json":
        raise UsageError(f"--out {config.out}: expected a .json file; the table is written next to it as .md")
    if config.out:
        check_replaceable(config.out, ParityResult, page=page_path(config.out))


def _check_format(path: Path) -> Path:
    if path.suffix not in FORMATS:
        raise known("model format", path.suffix or path.name, FORMATS)
    return path


def _check_labels(models: list[Path], cards: list[Card]) -> None:
    for path, card in zip(models, cards, strict=True):
        if card.labels != cards[0].labels:
            raise UsageError(
                f"{path} has the labels {', '.join(card.labels)}, but {models[0]} has {', '.join(cards[0].labels)}; "
                "expected files with the same labels in the same order"
            )


def _give_reason(error: EdgeemoError, path: Path) -> str:
    """Return the missing parts, if the error lists any, else its first line; without the folder of the file."""
    lines = str(error).replace(str(path), path.name).splitlines()
    listed = [line.removeprefix("  - ") for line in lines if line.startswith("  - ")]
    return "; ".join(listed) or lines[0]


def _run_model(model: Model, backend: str, faces: Faces) -> Output:
    """Run the backend itself: `Model.logits` raises for logits that are not finite, which are counted here."""
    starts = range(0, len(faces), BATCH_SIZE)
    batches = (to_input(faces.pixels[start : start + BATCH_SIZE], model.card.input) for start in starts)
    logits = np.concatenate([model.backend.logits(batch) for batch in batches])
    source = model.card.target.source_sha256 if model.card.target else model.card.sha256
    return Output(describe_model(model), backend, source, logits, _to_probabilities(logits, model.card))


def _to_probabilities(logits: np.ndarray, card: Card) -> np.ndarray:
    """Return (N, K) probabilities; zeros where a logit is not finite."""
    finite = np.isfinite(logits).all(1, keepdims=True)
    adapted = adapt_logits(np.where(finite, logits, 0.0), card.adaptation)
    probabilities: np.ndarray = softmax(adapted, temperature=card.temperature) * finite
    return probabilities


def _make_row(output: Output, outputs: list[Output], decoded: DecodedFaces, config: Parity) -> ParityRow:
    """Compare with the first output of the same file, and with that of the first file."""
    same = next(one for one in outputs if one.source_sha256 == output.source_sha256)
    truth = decoded.first.truth
    correct = output.probabilities.argmax(1) == truth
    not_finite = int((~np.isfinite(output.logits)).any(1).sum())
    return ParityRow(
        file=output.model.file,
        backend=output.backend,
        model=output.model,
        not_finite=not_finite,
        accuracy=float(correct.mean()),
        same_file=None if same is output else _compare(same, output, truth),
        first_file=None if outputs[0] is output else _compare(outputs[0], output, truth),
        passed=not not_finite and _passes(same, output, config.min_agreement),
    )


def _passes(one: Output, other: Output, min_agreement: float) -> bool:
    """Check the agreement in percent; INT8 on another processor needs 100, x86 processors also equal logits."""
    if other.processor and other.processor.family == "x86":
        return _compute_agreement(one, other) == 1 and bool(np.abs(one.logits - other.logits).max() <= SAME_LOGIT)
    if other.processor and other.model.precision.get("asked") == "int8":  # measured: no ARM core differs on any face
        return _compute_agreement(one, other) == 1
    return _compute_agreement(one, other) >= min_agreement / 100


def _compute_agreement(one: Output, other: Output) -> float:
    return float((one.probabilities.argmax(1) == other.probabilities.argmax(1)).mean())


def _compare(one: Output, other: Output, truth: np.ndarray) -> Differences:
    """Measure how far two outputs are apart, and which labels gained or lost faces."""
    first, second = one.probabilities.argmax(1), other.probabilities.argmax(1)
    labels = tuple(other.model.labels)
    moved = {label: int(((first == k) != (second == k)).sum()) for k, label in enumerate(labels)}
    return Differences(
        **vars(compare_paired(first, second, truth, labels)),
        backend=one.backend,
        largest_difference=float(np.abs(one.probabilities - other.probabilities).max()),
        largest_logit_difference=float(np.abs(one.logits - other.logits).max()),
        moved={label: count for label, count in moved.items() if count},
    )


def _make_result(rows: list[ParityRow | NotRun], decoded: DecodedFaces, config: Parity) -> ParityResult:
    faces = decoded.first
    return ParityResult(
        header=make_header(),
        faces=FacesBlock(kind_of(config.data), config.split, config.protocol, len(faces), faces.fingerprint),
        min_agreement=config.min_agreement / 100,
        rows=rows,
        passed=all(row.passed for row in rows),
        verdict=_make_verdict(rows, config),
    )


def _make_verdict(rows: list[ParityRow | NotRun], config: Parity) -> str:
    if failed := [row.name for row in rows if not row.passed]:
        return f"FAIL ({', '.join(failed)})"
    compared = sum(isinstance(row, ParityRow) and row.same_file is not None for row in rows)
    if not compared:
        return "PASS (every output is finite; no file ran in a second backend)"
    others = "backend's or processor's" if config.processors else "backend's"
    return f"PASS ({compared} outputs agree with another {others} on {config.min_agreement:g} % of the faces or more)"
