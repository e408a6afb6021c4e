"""Parity: run each file on the same faces in every installed backend, and as other processors would run it.

A file must name the same emotions wherever it runs: that is the gate. Between x86 processors, whose integer kernels
compute the same sums unless they saturate, every logit must be the same. What a file loses against the first one, by
quantization or by another flavour, is shown beside it and held by no gate here; bench tests accuracy in pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.text import Text

import edgeemo
from edgeemo import options
from edgeemo.artifact import check_result, write_json, write_text
from edgeemo.bench.processors import PROCESSORS, BrokenChild, Processor, logits_on
from edgeemo.bench.report import page_of
from edgeemo.bench.run import about
from edgeemo.bench.tables import Table, markdown, rich_of
from edgeemo.card import Card, InputContract, label_set_of, read_card
from edgeemo.data import Faces, faces
from edgeemo.errors import MachineError, UsageError, known
from edgeemo.history import versions
from edgeemo.images import to_input
from edgeemo.machine import this_machine
from edgeemo.metrics import paired, softmax
from edgeemo.progress import track
from edgeemo.runtime import Model, open_model, shipped
from edgeemo.runtime.model import FORMATS, SLICE
from edgeemo.stages import Parity

FORMAT = 1
SAME_LOGIT = 1e-4  # the last float product may be rounded once (fused) or twice; 1e-6 was seen, saturation makes 0.1


@dataclass(frozen=True)
class Answers:
    """What one file said in one backend."""

    model: dict[str, Any]
    backend: str
    source_sha256: str  # of the ONNX file that it is, or was built from
    logits: np.ndarray  # (N, K)
    probabilities: np.ndarray  # (N, K); zeros where a logit is not finite
    processor: Processor | None = None  # None: this one


def run(config: Parity) -> dict[str, Any]:
    """Compare as configured; `passed` says whether every file agrees with itself in every backend that ran."""
    _check(config)
    models = [_known(shipped.find(name)) for name in config.models]
    cards = [read_card(path) for path in models]
    _check_labels(models, cards)
    asked = _Asked(config, cards[0])
    rows: list[dict[str, Any]] = []
    said: list[Answers] = []
    chosen = _processors(config)
    lacking: dict[Path, str] = {}  # of each file, what the first backend that did not run it lacked
    pairs = list(_pairs(models))
    for path, backend in track(pairs, "asking", total=len(pairs)):
        try:
            with open_model(path, threads=config.threads, backend=backend) as model:
                said.append(_answers(model, backend, asked.faces(model.card.input)))
        except MachineError as error:
            missing = {"file": path.name, "backend": backend, "not_run": _reason(error, path)}
            lacking.setdefault(path, missing["not_run"])
            if missing["not_run"] not in {row.get("not_run") for row in rows}:  # once is enough for all files
                rows.append(missing)
            continue
        rows.append(_row(said[-1], said, asked, config))
        if backend == "onnxruntime":
            rows += _on_processors(path, cards[models.index(path)], chosen, said, asked, config)
    ran = {answers.model["sha256"] for answers in said}
    if idle := [path for path, card in zip(models, cards, strict=True) if card.sha256 not in ran]:
        raise MachineError(f"no backend here runs {idle[0]}: {lacking[idle[0]]}.  See:  edgeemo doctor")
    result = _result(rows, asked, config)
    if config.out:
        write_json(config.out, result)
        parts = [markdown(table(result)), *_sentences(result), result["verdict"] + "\n"]
        write_text(page_of(config.out), "\n\n".join(parts))
    return result


def show(result: dict[str, Any]) -> Group:
    """The result for a terminal, verdict last."""
    verdict = Text(result["verdict"], style="bold green" if result["passed"] else "bold red")
    return Group(rich_of(table(result)), *map(Text, _sentences(result)), verdict)


def _processors(config: Parity) -> list[Processor]:
    """The processors to stand in for; UsageError for an unknown one."""
    names = config.processors
    for name in names:
        if name not in (*PROCESSORS, "all"):
            raise known("processor", name, (*PROCESSORS, "all"))
    return [one for one in PROCESSORS.values() if one.name in names or "all" in names]


def _on_processors(
    path: Path, card: Card, chosen: list[Processor], said: list[Answers], asked: _Asked, config: Parity
) -> list[dict[str, Any]]:
    """A row per processor, each against the first answers of the same file, or why it was not run."""
    rows: list[dict[str, Any]] = []
    batch = to_input(asked.faces(card.input).pixels, card.input)
    for processor in track(chosen, f"{path.name} on other processors", total=len(chosen)):
        about_row = {"file": path.name, "backend": "onnxruntime", "processor": processor.name}
        try:
            logits, how = logits_on(processor, path, batch, arm64_root=config.arm64_root)
        except MachineError as error:
            wanted = isinstance(error, BrokenChild) or processor.name in config.processors
            rows.append({**about_row, "not_run": str(error), "passed": not wanted})
            continue
        own = replace(said[-1], logits=logits, probabilities=_probabilities(logits, card), processor=processor)
        rows.append({**_row(own, said, asked, config), **about_row, "how": how})
    return rows


def _check(config: Parity) -> None:
    options.check(config)
    if config.out and config.out.suffix != ".json":
        raise UsageError(f"--out {config.out}: expected a .json file; the table goes beside it as .md")
    if config.out:
        check_result(config.out, "min_agreement", page=page_of(config.out))


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
        for backend in FORMATS[path.suffix]:
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
            self._read[contract] = whole.spread(config.count or len(whole))
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


def _row(own: Answers, said: list[Answers], asked: _Asked, config: Parity) -> dict[str, Any]:
    """Against the first answers of the same file, and against the first file's."""
    same = next(one for one in said if one.source_sha256 == own.source_sha256)
    truth = asked.first.truth
    right = own.probabilities.argmax(1) == truth
    broken = int((~np.isfinite(own.logits)).any(1).sum())
    return {
        "file": own.model["file"],
        "backend": own.backend,
        "model": own.model,
        "not_finite": broken,
        "accuracy": float(right.mean()),
        "same_file": None if same is own else {"backend": same.backend, **_differences(same, own, asked)},
        "first_file": None if said[0] is own else {"backend": said[0].backend, **_differences(said[0], own, asked)},
        "passed": not broken and _agrees(same, own, config.min_agreement),
    }


def _agrees(one: Answers, other: Answers, min_agreement: float) -> bool:
    """On enough faces; in INT8 on another processor on all of them, and between x86 processors logit by logit."""
    if other.processor and other.processor.family == "x86":
        return _agreement(one, other) == 1 and bool(np.abs(one.logits - other.logits).max() <= SAME_LOGIT)
    if other.processor and other.model["precision"].get("asked") == "int8":  # measured: no ARM core differs on any face
        return _agreement(one, other) == 1
    return _agreement(one, other) >= min_agreement / 100


def _agreement(one: Answers, other: Answers) -> float:
    return float((one.probabilities.argmax(1) == other.probabilities.argmax(1)).mean())


def _differences(one: Answers, other: Answers, asked: _Asked) -> dict[str, Any]:
    """How far apart, and which labels were won or lost."""
    first, second = one.probabilities.argmax(1), other.probabilities.argmax(1)
    labels = tuple(other.model["labels"])
    compared = paired(first, second, asked.first.truth, labels)
    moved = {label: int(((first == k) != (second == k)).sum()) for k, label in enumerate(labels)}
    return {
        **asdict(compared),
        "largest_difference": float(np.abs(one.probabilities - other.probabilities).max()),
        "largest_logit_difference": float(np.abs(one.logits - other.logits).max()),
        "moved": {label: count for label, count in moved.items() if count},
    }


def _result(rows: list[dict[str, Any]], asked: _Asked, config: Parity) -> dict[str, Any]:
    ran = [row for row in rows if "not_run" not in row]
    failed = [_named(row) for row in rows if not row.get("passed", True)]
    passed = not failed
    twice = sum(row["same_file"] is not None for row in ran)
    others = "backend's or processor's" if config.processors else "backend's"
    proven = f"{twice} answers agree with another {others} on {config.min_agreement:g} % of the faces or more"
    verdict = f"PASS ({proven})" if passed else f"FAIL ({', '.join(failed)})"
    if passed and not twice:
        verdict = "PASS (every answer is finite; no file ran in a second backend)"
    return {
        "format": FORMAT,
        "edgeemo": edgeemo.__version__,
        "versions": versions(),
        "machine": asdict(this_machine()),
        "faces": {
            "data": faces.kind_of(config.data),
            "split": config.split,
            "protocol": config.protocol,
            "n": len(asked.first),
            "ids_sha256": asked.first.fingerprint,
        },
        "min_agreement": config.min_agreement / 100,
        "rows": rows,
        "passed": passed,
        "verdict": verdict,
    }


def table(result: dict[str, Any]) -> Table:
    """A row per file and backend."""
    head = ("file", "backend", "acc. %", "same %", "dp", "first %", "dp")
    about_faces = result["faces"]
    note = (
        f"{about_faces['n']} faces of {about_faces['data']} {about_faces['split']}. same: faces with the same label as "
        "in the file's first row; first: as in the first row of all; dp: largest difference of a probability."
    )
    return Table("Parity", head, [_cells(row) for row in result["rows"]], note)


def _place(row: dict[str, Any]) -> str:
    """The backend, or the processor where ONNX Runtime ran as on another one."""
    return f"as {row['processor']}" if "processor" in row else str(row["backend"])


def _named(row: dict[str, Any]) -> str:
    return f"{row['file']} {'' if 'processor' in row else 'in '}{_place(row)}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "not_run" in row:
        return (row["file"], _place(row), "not run", "", "", "", "")
    pairs = (row["same_file"], row["first_file"])
    cells = (pair and (f"{100 * pair['agreement']:.2f}", f"{pair['largest_difference']:.4f}") for pair in pairs)
    return (row["file"], _place(row), f"{100 * row['accuracy']:.2f}", *(c for two in cells for c in two or ("", "")))


def _sentences(result: dict[str, Any]) -> list[str]:
    """What moved where, and what was not run, a line each."""
    told = []
    for row in result["rows"]:
        name = _named(row)
        if "not_run" in row:
            told.append(f"{name} was not run: {row['not_run']}")
            continue
        if row["not_finite"]:
            told.append(f"{name}: NaN or infinity for {row['not_finite']} faces")
        against = row["same_file"] or row["first_file"]
        if against and against["moved"]:
            moved = ", ".join(f"{label} {count}" for label, count in against["moved"].items())
            told.append(f"{name}: faces that left or joined a label: {moved}")
        if "processor" in row and not row["passed"] and row["same_file"]:
            largest = row["same_file"]["largest_logit_difference"]
            told.append(f"{name}: logits differ by up to {largest:.3g}; x86 processors may differ by {SAME_LOGIT:g}")
    return told
