"""One frozen dataclass per kind of result.  `to_json()` is what a result file holds; files.py reads it back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from edgeemo.metrics import PairedComparison, Scores
from edgeemo.report.facts import (
    ColdStart,
    DetectorFacts,
    FacesBlock,
    Frames,
    Header,
    Latency,
    ModelFacts,
    PairedWith,
    Section,
    Timing,
)
from edgeemo.selective import SelectiveAccuracy

FORMAT = 2  # of every kind
ADDED = ("unreadable", "frames", "answers")  # keys that earlier files of this format do not have


@dataclass(frozen=True, kw_only=True)
class Result:
    """The measurements of a command."""

    kind: ClassVar[str]
    made_by: ClassVar[str]  # the command that makes one

    header: Header

    def to_json(self) -> dict[str, Any]:
        """Return the result with its kind and format, in JSON types: equal to its parsed file."""
        content = {"kind": self.kind, "format": FORMAT, **_to_json(asdict(self))}
        machine = content["header"]["machine"]
        if machine and machine["cpu_quota"] is None:  # as in earlier files, which do not have it
            del machine["cpu_quota"]
        return content


def _to_json(value: Any) -> Any:
    """Convert tuples to lists; leave out optional facts that are absent."""
    if isinstance(value, dict):
        return {name: _to_json(part) for name, part in value.items() if part is not None or name not in ADDED}
    return list(map(_to_json, value)) if isinstance(value, list | tuple) else value


@dataclass(frozen=True)
class WithoutCopies:
    """Accuracy without the faces that are copies of training faces; None if no face is left."""

    copies: int
    n: int
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None


@dataclass(frozen=True, kw_only=True)
class FaceScores(Scores):
    """Scores with the faces on which they were measured."""

    faces: FacesBlock


@dataclass(frozen=True)
class Answers:
    """Selective accuracy: of the predictions whose probability reaches a threshold."""

    card_threshold: float | None  # below it a prediction is unsure; None: the card has none
    points: list[SelectiveAccuracy]  # by threshold, the card's among them


@dataclass(frozen=True, kw_only=True)
class Accuracy(FaceScores):
    """Scores under the requested protocol, under the other one, and without copies of training faces."""

    other_protocol: FaceScores | None
    without_copies: WithoutCopies | None
    caveat: str = ""  # how training used these faces
    answers: Answers | None = None  # None: not recorded


@dataclass(frozen=True)
class Robustness:
    """Accuracy on the same faces, corrupted."""

    n: int
    clean: float
    mean: float  # over every corruption and strength
    strengths: list[str]
    accuracy: dict[str, list[float]]  # by corruption, one per strength


@dataclass(frozen=True)
class Against:
    """The other model of a comparison; `accuracy` compares it, first, with the benched model, second."""

    model: ModelFacts
    latency: Latency
    latency_ratio_p50: float  # of the benched model to this one, on one core
    accuracy: PairedComparison | None
    advice: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """Named limits, by gate."""

    name: str
    limits: dict[str, float]
    about: str = ""
    strict: bool = True  # a gate that is not measured fails, because it was requested


@dataclass(frozen=True)
class GateRow:
    """One gate: its limit, what was measured, the margin (positive is good) and the outcome."""

    gate: str
    what: str
    unit: str  # share, points, ms, bytes or ratio
    sign: str  # of the limit: >=, <= or <
    limit: float
    measured: float | None
    margin: float | None
    outcome: str  # pass, fail or not measured
    says: str


@dataclass(frozen=True, kw_only=True)
class BenchResult(Result):
    """Accuracy, speed, size and memory of one model, and whether it meets its target."""

    kind: ClassVar[str] = "bench"
    made_by: ClassVar[str] = "edgeemo bench --engine MODEL --out FILE.json"

    runs_asked: int
    model: ModelFacts
    latency: Latency
    cold_start: ColdStart
    accuracy: Accuracy | None = None
    robustness: Robustness | None = None
    against: Against | None = None
    frames: Frames | None = None
    target: Target
    gates: list[GateRow]
    passed: bool
    verdict: str


@dataclass(frozen=True)
class BoxesFacts:
    """Labelled boxes: the file, without its folder, and what is in it."""

    file: str
    format: str  # wider, coco or csv
    sha256: str
    images: int
    without_faces: int  # images
    ignored: int  # boxes, which count neither as missed nor, where a detection lies in one, as false


@dataclass(frozen=True, kw_only=True)
class BoxScores:
    """Labelled boxes that were found, and boxes that are on no labelled face."""

    labelled: int
    found: int
    false: int
    recall: float | None  # found / labelled; None without any
    precision: float | None  # found / (found + false); None without any


@dataclass(frozen=True, kw_only=True)
class SizeScores(BoxScores):
    """Boxes of one size: what was found is of the size of its label, what is false of its own."""

    least: int  # pixels of the longer side
    below: int | None  # None: no limit


@dataclass(frozen=True)
class WrongImage:
    """An image in which a face was missed or a false one was found."""

    image: str  # as in the file of boxes
    labelled: int
    found: int
    false: int


@dataclass(frozen=True, kw_only=True)
class DetectionResult(Result):
    """A face detector on images with labelled boxes."""

    kind: ClassVar[str] = "detection"
    made_by: ClassVar[str] = "edgeemo bench --detector DETECTOR --boxes FILE --out FILE.json"

    detector: DetectorFacts
    boxes: BoxesFacts
    min_iou: float
    total: BoxScores
    sizes: list[SizeScores]
    right_counts: int  # images with as many detections as labelled faces
    faceless_false: int  # false boxes in images without faces
    latency: Timing  # of one image in memory, with one thread
    wrong: list[WrongImage]
    gates: list[GateRow]
    passed: bool
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Differences(PairedComparison):
    """How far the outputs of a row are from those of an earlier one."""

    backend: str  # of the earlier row
    largest_difference: float  # of a probability
    largest_logit_difference: float | None = None  # None: not recorded
    moved: dict[str, int]  # faces that left or joined a label


# Of a logit on x86 processors. The last float product may be rounded once (fused) or twice: 1e-6 was measured.
# Saturation changes a logit by 0.1.
SAME_LOGIT = 1e-4


@dataclass(frozen=True, kw_only=True)
class ParityPlace:
    """A file, and where it ran: in a backend, or in ONNX Runtime as another processor."""

    file: str
    backend: str
    processor: str | None = None

    @property
    def where(self) -> str:
        """The processor, otherwise the backend: as avx2, openvino."""
        return f"as {self.processor}" if self.processor else self.backend

    @property
    def name(self) -> str:
        """File and place in a sentence: nano.onnx in openvino, nano.onnx as avx2."""
        return f"{self.file} {'' if self.processor else 'in '}{self.where}"


@dataclass(frozen=True, kw_only=True)
class ParityRow(ParityPlace):
    """What a file predicted there."""

    model: ModelFacts
    not_finite: int  # faces for which a logit is NaN or infinite
    accuracy: float
    same_file: Differences | None  # against the file's first row; None: this is it
    first_file: Differences | None  # against the first row of all
    passed: bool
    how: str | None = None  # the processor was masked or emulated


@dataclass(frozen=True, kw_only=True)
class NotRun(ParityPlace):
    """Why a file did not run there."""

    not_run: str
    passed: bool = True


@dataclass(frozen=True, kw_only=True)
class ParityResult(Result):
    """Whether each file predicts the same in every backend and on every processor."""

    kind: ClassVar[str] = "parity"
    made_by: ClassVar[str] = "edgeemo parity MODEL... --data DATA --out FILE.json"

    faces: FacesBlock
    min_agreement: float
    rows: list[ParityRow | NotRun]
    passed: bool
    verdict: str


@dataclass(frozen=True)
class LowestRecall:
    """The label with the lowest recall."""

    label: str
    recall: float


@dataclass(frozen=True, kw_only=True)
class EvaluatedRow(Scores):
    """Scores of a trained run or of an ensemble."""

    name: str
    temperature: float
    temperature_from: str  # card; valid, where it was fitted on these faces; none
    sha256: list[str]  # of the model files; none for weights out of a checkpoint
    selected_on_these_faces: bool | None = None  # the epoch; None: not recorded
    lowest: LowestRecall
    against_first: PairedWith | None = None  # None: this is the first
    answers: list[SelectiveAccuracy] | None = None  # by threshold; None: not recorded


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(Result):
    """Trained runs and their ensemble on the same faces."""

    kind: ClassVar[str] = "evaluation"
    made_by: ClassVar[str] = "edgeemo evaluate RUN... --out FILE.json"

    faces: FacesBlock
    labels: list[str]
    rows: list[EvaluatedRow]


@dataclass(frozen=True, kw_only=True)
class ComparedRow(Scores):
    """One step of a compression."""

    stage: str  # original, pruned, tuned, float, fp16, int8, int8 tensorrt
    file: str
    sha256: str
    size_bytes: int
    parameters: int
    macs: int
    precision: Section
    temperature: float
    latency_one_core: Timing | None
    against: list[PairedWith]  # every step before it, the last first


@dataclass(frozen=True, kw_only=True)
class ComparisonResult(Result):
    """Every step of a compression on the same valid faces."""

    kind: ClassVar[str] = "comparison"
    made_by: ClassVar[str] = "edgeemo compress RUN"

    faces: FacesBlock
    labels: list[str]
    rows: list[ComparedRow]
    advice: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class CandidateTiming(Timing):
    """Latency of a candidate on one core."""

    unstable: bool  # p95 is far above p50


@dataclass(frozen=True, kw_only=True)
class CandidateSettings:
    """The settings that differ between the candidates of a search."""

    prune: float  # fraction of the channels
    size: int  # pixels; 0: as trained
    precision: str

    @property
    def name(self) -> str:
        """The candidate's folder: prune-30-int8, prune-0-float32-64px."""
        size = f"-{self.size}px" if self.size else ""
        return f"prune-{100 * self.prune:.0f}-{self.precision}{size}"


@dataclass(frozen=True, kw_only=True)
class Candidate(CandidateSettings):
    """A compression that a search made and measured."""

    file: str
    latency: CandidateTiming
    accuracy: float
    n: int
    recall: dict[str, float | None]
    size_bytes: int
    macs: int
    parameters: int
    verdict: str = ""  # why it is not the best; empty: it is
    on_front: bool = False  # no other is at least as fast and as accurate


@dataclass(frozen=True, kw_only=True)
class RefusedCandidate(CandidateSettings):
    """A compression that could not be made, and why."""

    refused: str


@dataclass(frozen=True, kw_only=True)
class SearchResult(Result):
    """The candidates of a search, the most accurate first, and the best of those within the budget."""

    kind: ClassVar[str] = "search"
    made_by: ClassVar[str] = "edgeemo search RUN"

    search: dict[str, Any]  # what every candidate depends on
    budget_ms: float
    min_accuracy: float  # percent
    best: str | None
    candidates: list[Candidate | RefusedCandidate]
    advice: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Interpretation:
    """How the files of a data set were read; names are relative to it."""

    layout: str
    splits: dict[str, str]  # where the faces of each are
    labels: dict[str, str]  # label by the name that was found, where they differ
    unused: int  # files and folders without a face of the data set
    unused_examples: list[str]
    passed_over: int  # hidden and system files and folders
    passed_over_examples: list[str]


@dataclass(frozen=True)
class LabelCounts:
    """Faces by label under one protocol, and those that it drops."""

    protocol: str
    faces: dict[str, int]
    dropped: int


@dataclass(frozen=True)
class LabelError:
    """A face whose label is probably wrong, and the label that the model finds more probable."""

    id: str
    label: str
    label_probability: float
    suggested: str
    suggested_probability: float


@dataclass(frozen=True)
class SplitAudit:
    """Counts and faults of one split; faces by their ids, repeats as pairs of ids."""

    split: str
    faces: int
    unreadable: dict[str, str]  # reason by id
    exact_repeats: list[list[str]]
    near_repeats: list[list[str]]
    ties: list[str]
    labels: list[LabelCounts]
    conflicts: list[list[str]] = field(default_factory=list)  # exact repeats with another label
    label_errors: list[LabelError] | None = None  # probable ones, the most certain first; None: no model was given


@dataclass(frozen=True)
class CopiesAcross:
    """Faces of one split that are also in another split, as pairs of ids."""

    split: str
    other: str
    n: int  # readable faces of the first
    exact: list[list[str]]
    near: list[list[str]]
    conflicts: list[list[str]] = field(default_factory=list)  # exact copies with another label


@dataclass(frozen=True, kw_only=True)
class AuditResult(Result):
    """The faults of a data set."""

    kind: ClassVar[str] = "audit"
    made_by: ClassVar[str] = "edgeemo data audit --data DATA --out FILE.json"

    data: str
    label_set: str
    labels: list[str]
    near_bits: int
    splits: list[SplitAudit]
    copies_across: list[CopiesAcross]
    interpretation: Interpretation | None = None  # None: the data set has no files
    model: str = ""  # the file that found the label errors
    caveat: str = ""  # about the label errors


@dataclass(frozen=True)
class GoldenDifference:
    """How far a model's golden logits are from its card's."""

    largest: float  # of a logit
    changed: int  # faces with another label
    faces: int


@dataclass(frozen=True)
class CheckedModel:
    """One model of a check."""

    file: str
    sha256: str
    overflow_safe: bool
    golden: GoldenDifference | None  # None: the card has none for these faces
    ms_p50: float
    ms_p95: float
    failures: list[str]


@dataclass(frozen=True, kw_only=True)
class CheckResult(Result):
    """Whether models still give the expected outputs on this machine, fast enough."""

    kind: ClassVar[str] = "check"
    made_by: ClassVar[str] = "edgeemo doctor --check --json > FILE.json"

    kernels_saturate: bool
    models: list[CheckedModel]
    passed: bool


@dataclass(frozen=True)
class GpuFacts:
    """The GPU of a machine."""

    name: str
    capability: str
    driver: str


@dataclass(frozen=True)
class Part:
    """One engine on a machine."""

    name: str
    runs: bool
    builds: bool
    version: str  # empty if it is not installed
    advice: str  # what to install if something is missing; empty otherwise


@dataclass(frozen=True, kw_only=True)
class DoctorResult(Result):
    """Which engines a machine can build and run."""

    kind: ClassVar[str] = "doctor"
    made_by: ClassVar[str] = "edgeemo doctor --json > FILE.json"

    int8: str  # speed of INT8 on the CPU
    gpu: GpuFacts | None
    parts: list[Part]


@dataclass(frozen=True, kw_only=True)
class Measurement(Result):
    """The measurements of a script in benchmarks/: rows of any shape."""

    kind: ClassVar[str] = "measurement"
    made_by: ClassVar[str] = "python benchmarks/SCRIPT.py"

    script: str
    settings: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]]
    facts: dict[str, Any] = field(default_factory=dict)  # beside the rows
    faces: FacesBlock | None = None


KINDS: dict[str, type[Result]] = {
    one.kind: one
    for one in (
        BenchResult,
        ParityResult,
        EvaluationResult,
        ComparisonResult,
        SearchResult,
        AuditResult,
        CheckResult,
        DetectionResult,
        DoctorResult,
        Measurement,
    )
}
