"""The pipeline in order: one frozen config per stage, and the table of stages.

A config is at once the arguments of a stage, the options and help of its command (options.py), and the line that it
leaves in a card's history. A stage either makes something, `run(config) -> Path`, or measures something,
`run(config) -> result`.

Units: a threshold on a measured rate (accuracy, agreement) is in percent; a fraction that is set (dropout, pruning,
mixing) is 0 to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from types import ModuleType
from typing import Any

from edgeemo import options
from edgeemo.errors import UsageError
from edgeemo.machine import MAX_THREADS
from edgeemo.options import Config, argument, like, option
from edgeemo.packages import require

PERCENT: dict[str, Any] = {"least": 0, "most": 100, "unit": options.PERCENT}
FRACTION: dict[str, Any] = {"least": 0, "most": 1}
RATE: dict[str, Any] = {"above": 0}  # of learning
COUNT: dict[str, Any] = {"least": 1, "unit": "N"}
SMOOTHING: dict[str, Any] = {"group": "Smoothing", "rare": True}
SIDE: dict[str, Any] = {"least": 32, "most": 512, "unit": "PIXELS"}
FACES: dict[str, Any] = {"unit": "FACES", "may_be_path": True, "any_name": True}
DATA = "synthetic[:COUNT], or ferplus, fer2013, rafdb, affectnet or folder, as KIND:PATH (folder, archive or table)"
MODEL = "nano, small or base (shipped with edgeemo), or a file, .onnx or .trt"
DETECTOR = (
    "face detector: blazeface-full (default), centerface where it is installed, or the path of the file of one that "
    "edgeemo detectors lists"
)
LABELS = (
    "ferplus8; seven, in which contempt counts as neutral; six, in which disgust also counts as anger; or your own "
    "labels as a,b,c"
)
REPORTED_LABELS = "report in this label set; a ferplus8 model can report six, whose merged probabilities are summed"
PROTOCOL = "how votes become a label: plurality (most votes), or majority (more than half, else the face is dropped)"
PROTOCOLS = ("plurality", "majority")
SKIP_UNREADABLE = "pass over faces that cannot be read, and list them, instead of stopping"
FACE_COUNTS = ("few", "many")
EVENTS = ("frames", "changes")
SPLIT_NAMES = ("train", "valid", "test")
BACKENDS = (
    *("onnxruntime", "openvino", "onnxruntime-cuda", "onnxruntime-tensorrt"),  # of .onnx files
    *("tensorrt", "tensorrt-graph"),  # of .trt files
)


def _rare(group: str) -> Callable[..., Any]:
    """Options of a group that --help-all shows."""
    return partial(option, group=group, rare=True)


of_network, of_optimization, of_loss = _rare("Network"), _rare("Optimization"), _rare("Loss")
of_distillation, of_data, of_run = _rare("Distillation"), _rare("Data"), _rare("Run")
of_pruning, of_fine_tuning = _rare("Pruning"), _rare("Fine-tuning")
of_detector = partial(option, group="Face detector")
of_int8, of_gates = _rare("INT8"), _rare("Gates")
of_crop = _rare("Crop (other models than the shipped ones)")


def threads_option(default: int | None = None) -> Any:
    """CPU threads of a stage."""
    text = "CPU threads" if default else "CPU threads; default: all cores"
    return option(default, text, most=MAX_THREADS, **COUNT)


@dataclass(frozen=True)
class Audit(Config):
    """Report label counts, unreadable files, duplicates and probable label errors.

    Ties between labels, duplicates within and across the splits, and, with --model, faces whose labels are probably
    wrong (confident learning) are counted; --out lists them all by face id. Nothing is removed.
    """

    data: str = option("synthetic", DATA, **FACES)
    label_set: str = option("six", LABELS, unit="LABELS")
    near: int = option(
        5,
        "largest Hamming distance of 64-bit perceptual hashes that makes a near duplicate; 0: exact duplicates only",
        least=0,
        most=64,
        unit="BITS",
    )
    model: str | None = option(
        None, MODEL + "; lists the faces whose labels it finds improbable", unit="MODEL", may_be_path=True
    )
    out: Path | None = option(None, "also write the report as JSON", unit="FILE")


@dataclass(frozen=True)
class CropPhotos(Config):
    """Crop the faces out of labelled photos, for training.

    Each photo with one face gives a PNG in FOLDER/SPLIT/LABEL, cut out as faces are when a model runs on photos.
    FOLDER/crops.csv lists every photo with its face, or why there is no crop of it; FOLDER/crop.json states the crop,
    which training copies to the model's card.
    """

    source: str = argument("labelled photos, as folder:PATH, rafdb:PATH or affectnet:PATH", **FACES)
    out: Path = option(MISSING, "folder of the crops; it must be empty, or not exist", unit="FOLDER")
    several: str = option(
        "skip",
        "photos with several faces: skip, because the label may be of any of them, or take the largest face",
        choices=("skip", "largest"),
    )
    size: int = option(
        48,
        "input size of the models to train: turned faces are sampled for it; the others are the photo's own pixels, "
        "which suit every size",
        **SIDE,
    )
    resize: bool = option(
        False,
        "resize the crops to --size: smaller files, exact for rgb models of this size; gray ones differ by rounding",
    )
    detector: str | None = option(None, DETECTOR, unit="DETECTOR", may_be_path=True)
    faces: str | None = option(
        None,
        "few: search each photo as a whole; many: also tiles of it, for small faces; default: few where it finds faces "
        "of 48 pixels, many above",
        choices=FACE_COUNTS,
    )
    threshold: float | None = option(None, "lowest score of a face; default: the detector's", above=0, below=1)
    skip_unreadable: bool = option(False, "exit with 0 if photos cannot be read; they are listed either way")
    threads: int | None = threads_option()

    side_eye_distances: float = of_crop(2.8, "side of the square, in distances between the eyes", least=1, most=10)
    below_eyes: float = of_crop(0.3, "its centre lies so many distances between the eyes below them", least=-2, most=2)
    turn_from_degrees: float = of_crop(
        10.0, "a face is turned upright if its eyes are tilted by more", least=0, most=180, unit="DEGREES"
    )


@dataclass(frozen=True)
class Train(Config):
    """Train an emotion classifier.

    The run folder receives the model, its card, learning curves, a confusion matrix and a log.
    """

    data: str = option("synthetic", DATA, **FACES)
    out: Path = option(Path("runs/train"), "run folder", unit="FOLDER")
    label_set: str = option("six", LABELS, unit="LABELS")
    protocol: str = option("plurality", PROTOCOL, choices=PROTOCOLS, rare=True)
    backbone: str = option("resnet50", "feature extractor; an unknown name lists the known ones", unit="NAME")
    weights: str = option(
        "imagenet", "initial weights: imagenet (downloaded), none, or a .pth or .safetensors file", may_be_path=True
    )
    size: int | None = option(None, "side of the input; default: the backbone's own", **SIDE)
    epochs: int = option(25, "passes over the training faces", **COUNT)
    batch_size: int = option(32, "batch size", least=2, unit="N")
    target_accuracy: float = option(80.0, "validation accuracy that the log reports as reached or missed", **PERCENT)
    teacher: tuple[Path, ...] = option((), "distil from these run folders, an ensemble if several", unit="RUN,...")
    augment: str = option("enhanced", "augmentation", choices=("enhanced", "edge", "none"))
    precision: str = option("auto", "arithmetic of training", choices=("auto", "fp32", "bf16", "fp16"))
    threads: int | None = threads_option()
    seed: int = option(0, "random seed", least=0, most=2**32 - 1, unit="N")
    resume: bool = option(
        False, "continue from the last checkpoint in the run folder, with its settings unless options are given"
    )

    head: str = of_network("enhanced", "classifier: enhanced (three layers) or linear", choices=("enhanced", "linear"))
    attention: bool = of_network(True, "spatial attention before pooling")
    mirror: bool = of_network(False, "tie filters in mirrored pairs during training; for the edge_vgg networks")
    dropout: float = of_network(
        0.5, "dropout before the first layer of the head; later layers get half of it", least=0, below=1
    )
    mode: str = of_optimization(
        "finetune",
        "layers to train: finetune (all), features (new layers only) or gradual (unfreezing from the top)",
        choices=("finetune", "features", "gradual"),
    )
    unfreeze_epochs: float = of_optimization(
        2.0, "epochs until the next stage is unfrozen", above=0, needs="mode=gradual"
    )
    accumulate: int = of_optimization(1, "batches per optimizer step (gradient accumulation)", **COUNT)
    optimizer: str = of_optimization("adamw", "adamw, or sgd (Nesterov, momentum 0.9)", choices=("adamw", "sgd"))
    backbone_lr: float = of_optimization(
        5e-6, "peak learning rate of pre-trained layers; with --weights none, --classifier-lr applies instead", **RATE
    )
    classifier_lr: float = of_optimization(1e-3, "peak learning rate of new layers", **RATE)
    weight_decay: float = of_optimization(1e-4, "weight decay, except for biases and BatchNorm", least=0)
    schedule: str = of_optimization(
        "cosine",
        "learning rate after the warm-up: one cosine, or cosine with warm restarts",
        choices=("cosine", "restarts"),
    )
    restart_epochs: float = of_optimization(
        8.0, "epochs of the first cosine; each later one is twice as long", above=0, needs="schedule=restarts"
    )
    warmup_epochs: float = of_optimization(1.0, "epochs of linear warm-up", least=0)
    clip: float = of_optimization(1.0, "maximum norm of the gradient", above=0)
    ema: float = of_optimization(
        0.0,
        "decay of an exponential moving average of the weights, which is evaluated and kept; 0: off",
        least=0,
        below=1,
    )
    patience: int = of_optimization(
        7,
        "epochs without a better validation accuracy before training stops and keeps the best; 0: keep the last",
        least=0,
        unit="N",
    )
    loss: str = of_loss("cross-entropy", "loss function", choices=("cross-entropy", "focal"))
    focal_gamma: float = of_loss(2.0, "down-weights well-classified faces", least=0, needs="loss=focal")
    smoothing: float = of_loss(0.1, "label smoothing", least=0, below=1)
    vote_share: float = of_loss(0.0, "weight of the distribution of votes in the target", **FRACTION)
    class_weights: str = of_loss(
        "none",
        "loss weight per class: inverse frequency (full), its square root (sqrt) or fourth root (mild)",
        choices=("none", "mild", "sqrt", "full"),
    )
    teacher_share: float = of_distillation(
        0.7, "weight of the divergence from the teacher in the loss", above=0, most=1, needs="teacher"
    )
    teacher_temperature: float = of_distillation(
        4.0, "softens the outputs of teacher and student", above=0, needs="teacher"
    )
    views: int = of_distillation(
        8, "augmented views per face on which the teacher is evaluated", **COUNT, needs="teacher"
    )
    sampler: str = of_data(
        "shuffle",
        "faces of an epoch: each once (shuffle), or drawn by inverse class frequency (weighted) or its root (sqrt)",
        choices=("shuffle", "sqrt", "weighted"),
    )
    corrupt_share: float = of_data(
        0.0, "fraction of training faces to corrupt: noise, blur, downscaling, JPEG or exposure", **FRACTION
    )
    vertical_flips: bool = of_data(False, "flip half of the faces upside down")
    skip_unreadable: bool = of_data(False, SKIP_UNREADABLE)
    workers: int = of_run(0, "processes that prepare batches; 0: the training process", least=0, unit="N")
    checkpoint_steps: int = of_run(200, "steps between checkpoints; there is one after every epoch as well", **COUNT)
    tensorboard: bool = of_run(False, "write TensorBoard logs to RUN/tensorboard")
    cache: Path | None = of_run(
        None,
        "keep decoded faces on disk in this folder, for other runs too; default: only if they need more than half of "
        "the memory, in the output folder until the command has finished",
        unit="FOLDER",
    )


@dataclass(frozen=True)
class Evaluate(Config):
    """Compare trained runs, and their ensemble, on the same faces.

    Each is tested against the first run in pairs (McNemar).
    """

    runs: tuple[Path, ...] = argument("run folders of edgeemo train")
    data: str | None = option(None, DATA + "; default: as the first run was trained", **FACES)
    label_set: str | None = option(None, REPORTED_LABELS, unit="LABELS")
    split: str = option("valid", "split to use", choices=SPLIT_NAMES)
    protocol: str = option("plurality", PROTOCOL, choices=PROTOCOLS)
    skip_unreadable: bool = option(False, SKIP_UNREADABLE)
    flips: bool = option(
        False, "also evaluate each run with flip averaging: predictions for a face and its mirror image are averaged"
    )
    last: bool = option(False, "also evaluate each run's last weights, without their moving average")
    out: Path | None = option(None, "also write the result as JSON", unit="FILE")
    threads: int | None = threads_option()


@dataclass(frozen=True)
class Explain(Config):
    """Show what a trained model looks at.

    Plots of Grad-CAM, of its attention map, and of its most confident mistakes.
    """

    run: Path = argument("run folder of edgeemo train")
    images: tuple[Path, ...] = argument("face crops; default: faces of --data", default=(), any_name=True)
    data: str | None = option(None, DATA + "; default: as trained", **FACES, needs="!images")
    split: str = option("valid", "split to use", choices=SPLIT_NAMES, needs="!images")
    label: str | None = option(None, "Grad-CAM of this label; default: the predicted one", unit="LABEL")
    count: int = option(24, "mistakes in the grid", **COUNT, needs="!images")
    out: Path | None = option(None, "folder of the plots; default: RUN/explained", unit="FOLDER")
    threads: int | None = threads_option()


INT8, CUTS, TUNING = "int8", "prune|sensitivity", "prune|size|qat"


@dataclass(frozen=True)
class Compress(Config):
    """Prune, fine-tune, quantize and export a trained run.

    Every step is optional; each result is compared with the original on the same faces.
    """

    run: Path = argument("run folder of edgeemo train")
    data: str | None = option(None, DATA + "; default: as trained", **FACES)
    out: Path | None = option(None, "folder of the results; default: RUN/compressed", unit="FOLDER")
    size: int | None = option(None, "fine-tune at another input size; default: as trained", **SIDE)
    prune: float = option(0.0, "fraction of channels to remove", least=0, most=0.9)
    int8: bool = option(False, "quantize weights and activations to INT8")
    target_format: str = option(
        "cpu",
        "cpu (uint8 activations), tensorrt (int8 activations), or both",
        choices=("cpu", "tensorrt", "both"),
        needs=INT8,
    )
    qat: bool = option(False, "fine-tune with simulated INT8 first (quantization-aware training)", needs=INT8)
    fp16: bool = option(False, "also write an FP16 model, for GPUs, checked for overflow")
    epochs: int = option(
        3, "epochs of fine-tuning after --prune or --size, and again for --qat", least=0, unit="N", needs=TUNING
    )
    teacher: tuple[Path, ...] = option((), "distil from these run folders during fine-tuning", unit="RUN,...")
    threads: int | None = threads_option()
    seed: int = option(0, "random seed", least=0, most=2**32 - 1, unit="N")
    resume: bool = option(
        False, "continue from the last checkpoint of fine-tuning, with its settings unless options are given"
    )

    importance: str = of_pruning(
        "group-norm",
        "importance of a channel: norm of its own weights, norm of its whole group, or first-order Taylor",
        choices=("magnitude", "group-norm", "taylor"),
        needs=CUTS,
    )
    ranking: str = of_pruning(
        "layer",
        "remove the same fraction in every layer, or the least important channels of the whole network",
        choices=("layer", "global"),
        needs="prune",
    )
    round_to: int = of_pruning(
        8, "keep channel counts a multiple of this, for the kernels of the target", **COUNT, needs=CUTS
    )
    prune_steps: int = of_pruning(1, "prune in steps, each followed by its part of the epochs", **COUNT, needs="prune")
    sensitivity: bool = of_pruning(
        False, "first prune one layer at a time, and write a table and a plot of the accuracy loss"
    )
    lr: float = of_fine_tuning(3e-4, "peak learning rate after --prune or --size", **RATE, needs="prune|size & epochs")
    qat_lr: float = of_fine_tuning(1e-4, "peak learning rate of quantization-aware training", **RATE, needs="qat")
    corrupt_share: float | None = of_fine_tuning(
        None, "fraction of training faces to corrupt; default: as trained", **FRACTION, needs=TUNING
    )
    teacher_share: float = like(Train, "teacher_share", group="Fine-tuning")
    teacher_temperature: float = like(Train, "teacher_temperature", group="Fine-tuning")
    views: int = like(Train, "views", group="Fine-tuning")
    calibration: Path | None = of_int8(
        None, "calibration list of training faces; default: sample one", unit="FILE", needs=INT8
    )
    calibration_count: int = of_int8(
        512, "number of faces to sample for the calibration set", **COUNT, needs="int8 & !calibration"
    )
    method: str = of_int8(
        "minmax",
        "calibration of activation ranges; auto: the method that diverges least from float",
        choices=("minmax", "percentile", "entropy", "auto"),
        needs=INT8,
    )
    reduce_range: bool = of_int8(
        True,
        "limit INT8 weights to +-64, so that no x86 kernel can saturate; --no-reduce-range: +-127, which without "
        "VNNI needs exact arithmetic, about 1.5 times the time",
        needs=INT8,
    )
    rounding: str = of_int8(
        "auto",
        "rounding of weights: nearest; gptq, which compensates each error in the weights after it, in layers of "
        "at most 2,304 inputs, seconds to minutes longer; auto: gptq, or nearest after --qat, which simulates it",
        choices=("auto", "nearest", "gptq"),
        needs=INT8,
    )
    layers: bool = of_int8(False, "quantize one layer at a time, and write a table and a plot of the loss", needs=INT8)
    keep_float: tuple[str, ...] = of_int8(
        (),
        "layers to keep in float; auto: the fewest layers that restore most of the agreement with float",
        unit="LAYER,...",
        needs=INT8,
    )
    min_int8_share: float = of_gates(
        90.0,
        "gate: share of the multiply-adds that runs in integer kernels here (of the tensorrt format: that the "
        "file requests)",
        **PERCENT,
        needs=INT8,
    )
    min_agreement: float = of_gates(
        98.0, "gate: share of faces for which INT8 and float predict the same label", **PERCENT, needs=INT8
    )
    opset: int = of_run(
        20,
        "ONNX opset of the files, for engines that do not read the default; INT8 per channel needs 13",
        least=13,
        most=20,
        unit="N",
    )
    answer_accuracy: float = of_run(
        90.0,
        "accuracy on valid that predictions not flagged as unsure shall have: the card's threshold is the lowest "
        "probability for which the lower end of its 95 % interval reaches it",
        **PERCENT,
    )
    time: bool = of_run(True, "time the models side by side on one core")
    cache: Path | None = like(Train, "cache")
    skip_unreadable: bool = of_run(False, SKIP_UNREADABLE)


@dataclass(frozen=True)
class Search(Config):
    """Search for the most accurate model within a budget.

    Candidates that differ in pruning, input size and precision are built and measured on this machine.
    """

    run: Path = argument("run folder of edgeemo train")
    budget_ms: float = option(5.0, "gate: p95 latency on one core", above=0, unit="MS")
    min_accuracy: float = option(80.0, "gate: validation accuracy", **PERCENT)
    trials: int = option(12, "candidates to measure, including those of an earlier search in the folder", **COUNT)
    max_prune: float = option(0.7, "largest fraction of channels to remove, in steps of 0.1", least=0, most=0.9)
    sizes: tuple[int, ...] = option((), "input sizes to try; default: as trained", **{**SIDE, "unit": "PIXELS,..."})
    precisions: tuple[str, ...] = option(("float32", "int8"), "precisions to try", choices=("float32", "int8"))
    data: str | None = like(Compress, "data")
    out: Path | None = option(None, "folder of candidates and results; default: RUN/search", unit="FOLDER")
    teacher: tuple[Path, ...] = like(Compress, "teacher")
    threads: int | None = threads_option()
    seed: int = option(0, "random seed", least=0, most=2**32 - 1, unit="N")

    importance: str = like(Compress, "importance", needs="")
    ranking: str = like(Compress, "ranking", needs="")
    round_to: int = like(Compress, "round_to", needs="")
    epochs: int = like(
        Compress, "epochs", needs="", group="Fine-tuning", rare=True, help="epochs of fine-tuning of each candidate"
    )
    lr: float = like(Compress, "lr", needs="", help="peak learning rate of fine-tuning")
    qat: bool = like(Compress, "qat", needs="", group="Fine-tuning", rare=True)
    qat_lr: float = like(Compress, "qat_lr")
    views: int = like(Compress, "views")
    calibration: Path | None = like(Compress, "calibration", needs="")
    calibration_count: int = like(Compress, "calibration_count", needs="!calibration")
    method: str = like(Compress, "method", needs="")
    reduce_range: bool = like(Compress, "reduce_range", needs="")
    rounding: str = like(Compress, "rounding", needs="")
    keep_float: tuple[str, ...] = like(Compress, "keep_float", needs="")
    min_int8_share: float = like(Compress, "min_int8_share", needs="")
    min_agreement: float = like(Compress, "min_agreement", needs="")
    cache: Path | None = like(Compress, "cache")
    skip_unreadable: bool = like(Compress, "skip_unreadable")


# Hosts of `build --for`, each with the module whose `write(config, folder)` fills a new folder; they need no extra.
EXPORTS = {
    "web": "edgeemo.web.export",
    "triton": "edgeemo.export.triton",
    "deepstream": "edgeemo.export.deepstream",
}
OF_ENGINE = "!for_"  # options that have no effect where no engine is built


@dataclass(frozen=True)
class Build(Config):
    """Build a TensorRT engine from an ONNX file, or write the files with which another program serves the model.

    With TensorRT for the GPU of this machine, or with TensorRT for RTX for any RTX GPU. With --for, for a browser, the
    Triton Inference Server, or DeepStream; this needs no GPU.
    """

    model: str = argument(
        "nano, small or base, or an ONNX file: float, FP16, or INT8 of the tensorrt format; with --for web or triton "
        "INT8 of the cpu format, with --for web also several, as nano,small, and with --for triton also an engine",
        may_be_path=True,
    )
    out: Path | None = option(
        None,
        "engine file, .trt; default: beside the model, or here for a shipped one. With --for: a new folder",
        unit="PATH",
    )
    for_: str | None = option(
        None,
        "write a folder for this host instead of an engine: web (a static page), triton (a model repository) or "
        "deepstream (a secondary classifier of nvinfer)",
        choices=tuple(EXPORTS),
    )
    onnxruntime_web: Path | None = option(
        None,
        "web: npm package onnxruntime-web, as a tarball or folder; default: the one fetched before, or from the npm "
        "registry",
        unit="PATH",
        needs="for_=web",
    )
    library: str = option(
        "auto", "auto: the first one that is installed", choices=("auto", "tensorrt", "rtx"), needs=OF_ENGINE
    )
    compute_capability: tuple[str, ...] = option(
        (),
        "rtx: GPUs to build for, 7.5 (FP16 only) to 12.1; default: this machine's",
        unit="8.6,8.9,...",
        needs=OF_ENGINE,
    )
    max_batch: int = option(
        8, "largest batch size; an engine is tuned for 1", least=1, most=1024, unit="N", needs="!for_=web"
    )
    workspace_mib: int | None = option(
        None, "GPU memory for building; default: the library's choice", least=1, unit="MIB", needs=OF_ENGINE
    )
    timing_cache: Path | None = option(
        None, "tensorrt: file of kernel timings, read and written", unit="FILE", needs=OF_ENGINE
    )
    force: bool = option(False, "build even if the same engine exists", needs=OF_ENGINE)
    version_compatible: bool = option(
        False,
        "tensorrt: also run on later versions of the same major version; makes the engine larger",
        group="Experimental (not tested on hardware)",
        needs=OF_ENGINE,
    )
    hardware_compatible: bool = option(
        False,
        "tensorrt: also for other GPUs, Ampere (8.0) or later; slower",
        group="Experimental (not tested on hardware)",
        needs=OF_ENGINE,
    )
    dla_core: int | None = option(
        None,
        "tensorrt: build for this DLA core, with GPU fallback",
        least=0,
        unit="N",
        group="Experimental (not tested on hardware)",
        needs=OF_ENGINE,
    )


OF_MODEL = "!boxes"  # options that have no effect while a detector is measured


@dataclass(frozen=True)
class Bench(Config):
    """Measure a model, or a face detector, and check it against gates.

    Of a model: accuracy, latency, cold start and memory. Of a detector, with --boxes: faces found and missed, false
    boxes and latency. Exit code 1 if a gate fails.
    """

    engine: str | None = option(None, MODEL + "; default: small", unit="MODEL", may_be_path=True, needs=OF_MODEL)
    data: str | None = option(None, DATA + "; default: latency and size only", **FACES, needs=OF_MODEL)
    label_set: str | None = option(None, REPORTED_LABELS, unit="LABELS", needs=OF_MODEL)
    split: str = option("valid", "split to use", choices=SPLIT_NAMES, needs="data")
    protocol: str = option("plurality", PROTOCOL, choices=PROTOCOLS, needs="data")
    skip_unreadable: bool = option(False, SKIP_UNREADABLE, needs="data")
    robustness: bool = option(
        False, "also measure accuracy under noise, blur, exposure, misaligned crops, ...", needs="data"
    )
    frames: bool = option(
        False,
        "also time whole frames on one core: find, crop and classify 1, 4 and 16 faces in 640x480 and 1920x1080",
        needs=OF_MODEL,
    )
    against: str | None = option(
        None,
        "a second model: paired test on the same faces, latency side by side",
        unit="MODEL",
        may_be_path=True,
        needs=OF_MODEL,
    )
    backend: str | None = option(
        None, "default: onnxruntime, or tensorrt for a .trt file", choices=BACKENDS, needs=OF_MODEL
    )
    against_backend: str | None = option(None, "backend of the second model", choices=BACKENDS, needs="against")
    target: str | None = option(
        None,
        "gates: origin, small-edge, int8-pays, or a TOML file; default: accuracy >= 80 %, p95 < 50 ms on one core, "
        "also of a frame with --frames",
        unit="TARGET",
        may_be_path=True,
        needs=OF_MODEL,
    )
    runs: int = option(
        200,
        "least number of timed runs after the warm-up; timing goes on for a second per model, setting and frame, or to "
        "5000 runs",
        least=1,
        most=5000,
        unit="N",
        needs=OF_MODEL,
    )
    out: Path | None = option(None, "also write JSON here, and a Markdown report with plots beside it", unit="FILE")

    detector: str | None = of_detector(None, DETECTOR, unit="DETECTOR", may_be_path=True, needs="frames|boxes")
    boxes: Path | None = of_detector(
        None, "measure the detector on these labelled boxes: WIDER FACE's .txt, COCO's .json, or .csv", unit="FILE"
    )
    images: Path | None = of_detector(
        None, "folder that the image names start from; default: that of --boxes", unit="FOLDER", needs="boxes"
    )
    faces: str | None = of_detector(
        None,
        "few: search each image as a whole; many: also tiles of it; default: few where it finds faces of 48 pixels, "
        "many above",
        choices=FACE_COUNTS,
        needs="frames|boxes",
    )
    threshold: float | None = of_detector(
        None, "lowest score of a face; default: the detector's", above=0, below=1, needs="frames|boxes"
    )
    min_recall: float | None = of_detector(
        None, "gate: share of the labelled faces that is found", **PERCENT, needs="boxes"
    )
    min_precision: float | None = of_detector(
        None, "gate: share of the detections that is on a face", **PERCENT, needs="boxes"
    )


@dataclass(frozen=True)
class Parity(Config):
    """Compare predictions across backends and processors.

    Each model runs on every installed backend. Exit code 1 if predictions differ on too many faces.
    """

    models: tuple[str, ...] = argument(MODEL, may_be_path=True)
    data: str = option(MISSING, DATA, **FACES)
    split: str = option("valid", "split to use", choices=SPLIT_NAMES)
    protocol: str = option("plurality", PROTOCOL, choices=PROTOCOLS)
    count: int = option(512, "faces, spread evenly over the split; 0: all", least=0, unit="N")
    min_agreement: float = option(99.0, "gate: share of faces with the same label in every backend", **PERCENT)
    processors: tuple[str, ...] = option(
        (),
        "also run .onnx files as these processors (sse4.1, avx2, avx512, cortex-a53, cortex-a72, cortex-a76, or all); "
        "logits must be the same on all x86 processors",
        unit="NAME,...",
    )
    arm64_root: Path | None = option(
        None, "folder with Python for ARM64, for the Cortex processors", unit="FOLDER", needs="processors"
    )
    threads: int = threads_option(1)
    out: Path | None = option(None, "also write JSON here, and the table as Markdown beside it", unit="FILE")


@dataclass(frozen=True)
class Predict(Config):
    """Find the faces in images and predict their emotions.

    An image without a face is no error: the exit code is 0, or 3 if an image cannot be read.
    """

    images: tuple[Path, ...] = argument(
        "photos: PNG, JPEG, WebP or BMP, folders of them, or patterns such as 'photos/**/*.jpg'",
        default=(),
        any_name=True,
    )
    crop: bool = option(
        False,
        "the images are ready crops of one face each: search no faces, classify the central square",
        needs="!sample",
    )
    faces: str | None = option(
        None,
        "few: search each image as a whole; many: also overlapping tiles of it, for small faces and crowds, in 2 to 5 "
        "times the time; default: few where it finds faces of 48 pixels (images up to 716 pixels), many above",
        choices=FACE_COUNTS,
        needs="!crop & !sample",
    )
    augment: bool = option(
        True,
        "test-time augmentation: average three crops of each face; --no-augment: one, in a third of the time for "
        "classifying",
        needs="!crop & !sample",
    )
    detector: str | None = option(
        None,
        DETECTOR,
        unit="DETECTOR",
        may_be_path=True,
        needs="!crop & !sample",
    )
    threshold: float | None = option(
        None,
        "lowest score of a face; a higher one than the default, the detector's own, gives fewer false boxes and misses "
        "more faces",
        above=0,
        below=1,
        needs="!crop & !sample",
    )
    model: str | None = option(None, MODEL + "; default: small", unit="MODEL", may_be_path=True)
    label_set: str | None = option(None, REPORTED_LABELS, unit="LABELS")
    prior: str | None = option(
        None,
        "correct the predictions for the mix of emotions where the images are from: uniform; shares of the reported "
        "labels, as neutral=0.6,happiness=0.2, the others share what is left as in training; or auto, estimated from "
        "the faces so far, so that a prediction depends on those before it; default: no correction",
        unit="PRIOR",
    )
    prior_strength: float = option(
        1.0, "0: no correction, 1: in full; the exponent of the ratio of shares", needs="prior", **FRACTION
    )
    draw: Path | None = option(
        None,
        "also draw boxes, labels and probabilities: a file, .png, .jpg, .webp or .bmp, or for several images a folder "
        "of PNGs",
        unit="PATH",
        any_name=True,
    )
    csv: Path | None = option(None, "also write a table with a row per face", unit="FILE", any_name=True)
    sample: bool = option(False, "predict a packaged synthetic face instead, a ready crop", needs="!images")


@dataclass(frozen=True)
class Adapt(Config):
    """Adapt a model to the place where it runs.

    Fits a small change of the model's logits to labelled face crops from there, of people other than those it will
    meet, and measures the gain on people who took no part in the fit. Writes the same model file with a new card. Exit
    code 1, and no file, if the faces show no gain.
    """

    model: str = argument(MODEL, may_be_path=True)
    data: str | None = option(None, DATA, **FACES, needs="!undo")
    people: str | None = option(
        None,
        "who is on each face, so that whole people are held out: folder (LABEL/PERSON/FACE.png), name:PATTERN (a "
        "regular expression on the file name; its first group) or csv:FILE[:COLUMN] (columns image and person)",
        unit="PEOPLE",
        may_be_path=True,
        any_name=True,
        needs="data",
    )
    out: Path | None = option(
        None, "the adapted model; default: MODEL-adapted.onnx in this folder", unit="FILE", needs="data"
    )
    label_set: str | None = option(None, REPORTED_LABELS, unit="LABELS", needs="data")
    closed: bool = option(
        False,
        "no other emotions occur in this place than those of the faces; else an emotion without a face is left alone",
        needs="data",
    )
    check: str | None = option(
        None, "also measure what the change does to faces of another place", **FACES, needs="data"
    )
    plot: Path | None = option(
        None, "draw the learning curve, accuracy by number of faces, as PNG", unit="FILE", needs="data"
    )
    unproven: bool = option(False, "write the adapted model even if no gain is shown; its card says so", needs="data")
    undo: bool = option(False, "remove the adaptation from MODEL's card")
    split: str | None = option(None, "split to use; default: all that the data have", choices=SPLIT_NAMES, needs="data")
    protocol: str = option("plurality", PROTOCOL, choices=PROTOCOLS, needs="data")
    skip_unreadable: bool = option(False, SKIP_UNREADABLE, needs="data")


@dataclass(frozen=True)
class Detectors(Config):
    """List the known face detectors.

    Licence, training data, how to get each, speed, and how many hard faces it finds.
    """


@dataclass(frozen=True)
class Label(Config):
    """Label the faces of your own photos, one key for each, to adapt a model with.

    Faces are shown one by one, in a page of this machine or in the terminal; nothing leaves the machine. The crop of
    each goes to OUT/LABEL/PERSON, and OUT/labels.csv lists what was labelled or skipped, so that the same command goes
    on where it was stopped. The person is the first folder below PHOTOS; photos directly in it count as one person.
    """

    photos: tuple[Path, ...] = argument(
        "photos: PNG, JPEG, WebP or BMP, folders of them, or patterns such as 'photos/**/*.jpg'", any_name=True
    )
    out: Path = option(
        MISSING, "folder of the labelled crops, outside PHOTOS: new, or of an earlier call", unit="FOLDER"
    )
    model: str | None = option(
        None,
        MODEL + ", which orders the faces and gives crop and labels; default: small",
        unit="MODEL",
        may_be_path=True,
    )
    labels: tuple[str, ...] = option(
        (), "offer only these of the model's labels, as a,b,c or a label set such as six", unit="LABELS"
    )
    order: str = option(
        "mixed",
        "of each person in turn; margin: first the faces whose two most probable labels are closest; random: any face, "
        "for an unbiased estimate of accuracy; mixed: both alternately, which adapts best",
        choices=("mixed", "margin", "random"),
    )
    terminal: bool = option(False, "show and label the faces in the terminal instead of a page")
    port: int = option(
        0, "port of the page, on this machine only; 0: any free one", least=0, most=65535, unit="N", needs="!terminal"
    )
    browser: bool = option(True, "open the page; --no-browser: only print its address", needs="!terminal")
    crop: bool = option(False, "the photos are ready crops of one face each: search no faces, take the central square")
    faces: str | None = like(Predict, "faces", needs="!crop")
    detector: str | None = like(Predict, "detector", needs="!crop")
    threshold: float | None = like(Predict, "threshold", needs="!crop")


@dataclass(frozen=True)
class Watch(Config):
    """Watch a camera, a stream or a video: track faces and predict a steady emotion for each.

    Prints a line when a face appears, when its emotion changes and when it leaves. No image is stored or sent unless
    an option says so. Ctrl-C or SIGTERM ends it with complete files; SIGHUP reloads the model file.
    """

    source: str | None = argument(
        "a camera (0, /dev/video0, picamera2), a video file, a stream (rtsp://, http://), a folder of frames, or "
        "synthetic[:PEOPLE], a rendered scene",
        default=None,
        may_be_path=True,
        any_name=True,
    )
    model: str | None = like(Predict, "model")
    label_set: str | None = like(Predict, "label_set")
    prior: str | None = option(
        None,
        "correct the predictions for the mix of emotions where the images are from: uniform, or shares of the "
        "reported labels, as neutral=0.6,happiness=0.2; the other labels divide the rest as in training; default: no "
        "correction",
        unit="PRIOR",
    )
    prior_strength: float = like(Predict, "prior_strength")
    detect_every: int = option(5, "run the face detector on every Nth frame, and track faces in between", **COUNT)
    detector: str | None = like(Predict, "detector", needs="")
    faces: str = option(
        "few",
        "few: search each frame as a whole, which finds faces at least 1/15 as wide as its longer side; many: also "
        "search overlapping tiles, which takes 2 to 5 times as long",
        choices=FACE_COUNTS,
    )
    threshold: float | None = like(Predict, "threshold", needs="")
    augment: bool = option(
        False, "average the predictions for three crops of each face, which takes three times as long"
    )
    threads: int = option(1, "CPU threads of model and detector", most=MAX_THREADS, **COUNT)
    seconds: float | None = option(None, "stop after this time", above=0, unit="SECONDS")

    jsonl: str | None = option(
        None,
        "append records as JSON objects, one per line, to a file; -: standard output",
        unit="FILE",
        may_be_path=True,
        group="Output",
    )
    csv: Path | None = option(None, "append records as rows to a CSV file", unit="FILE", group="Output")
    mqtt: str | None = option(
        None,
        "publish events to a broker, mqtt://[USER@]HOST[:PORT]/TOPIC or mqtts://; password: the environment variable "
        "EDGEEMO_MQTT_PASSWORD",
        unit="URL",
        group="Output",
    )
    webhook: str | None = option(None, "post events as JSON to a URL", unit="URL", group="Output")
    events: str | None = option(
        None,
        "what is written to files: frames, every face of every frame; changes: a face appears, its emotion changes, "
        "it leaves; default: frames",
        choices=EVENTS,
        needs="jsonl|csv & !aggregate",
        group="Output",
    )
    publish: str | None = option(
        None,
        "what is sent to broker and webhook; default: changes",
        choices=EVENTS,
        needs="mqtt|webhook & !aggregate",
        group="Output",
    )
    save: Path | None = option(
        None,
        "save a video with boxes and labels: .mp4, .mkv or .avi; an existing file is replaced, but not by a live "
        "source, whose video gets a new name",
        unit="FILE",
        needs="!aggregate",
        group="Output",
    )
    show: bool = option(False, "show boxes and labels in a window; q ends", needs="!aggregate", group="Output")

    aggregate: float | None = option(
        None,
        "write only counts per period of this length, instead of events about single faces",
        least=1,
        unit="SECONDS",
        group="Privacy",
    )
    least_people: int = option(
        5,
        "withhold the counts of a period in which fewer people were seen",
        needs="aggregate",
        group="Privacy",
        **COUNT,
    )
    blur: bool = option(
        False,
        "make faces unrecognisable in the video and the window; the detector then runs on every frame",
        needs="save|show",
        group="Privacy",
    )

    time_constant: float = option(
        100.0,
        "time constant of the filter of a face's probabilities; 0: no filter",
        least=0,
        most=10_000,
        unit="MS",
        **SMOOTHING,
    )
    hysteresis: float = option(
        0.2,
        "by how much another emotion must be more probable than the one shown to replace it",
        least=0,
        below=1,
        **SMOOTHING,
    )
    dwell: float = option(
        200.0, "shortest time for which an emotion is shown", least=0, most=60_000, unit="MS", **SMOOTHING
    )

    size: str | None = option(
        None,
        "frame size to ask a camera for, as 640x480; default: the camera's own",
        unit="WIDTHxHEIGHT",
        group="Source",
        rare=True,
    )
    fps: float | None = option(
        None,
        "frame rate to ask a camera for, or to play a folder of images at (default: 25)",
        above=0,
        most=1000,
        unit="N",
        group="Source",
        rare=True,
    )
    realtime: bool = option(
        False, "play a file at its own speed, and drop frames as with a camera", group="Source", rare=True
    )
    wait: bool = option(False, "keep trying if the source cannot be opened at the start", group="Source", rare=True)
    timeout: float = option(
        10.0,
        "a source without a frame for this long counts as lost, and one that repeats the same image as frozen",
        above=0,
        most=3600,
        unit="SECONDS",
        group="Source",
        rare=True,
    )

    config: Path | None = option(
        None, "read options from a TOML file; the command line wins", unit="FILE", group="Operation"
    )
    print_config: bool = option(False, "print all options as a TOML file and stop", group="Operation")
    print_unit: bool = option(False, "print a systemd unit of this command and stop", group="Operation")
    health: int | None = option(
        None,
        "serve /health and /metrics (Prometheus) on this port, to this machine only; 0: any free port",
        least=0,
        most=65535,
        unit="PORT",
        group="Operation",
    )
    health_address: str = option(
        "127.0.0.1",
        "address to serve health and metrics on",
        unit="ADDRESS",
        needs="health",
        group="Operation",
        rare=True,
    )


@dataclass(frozen=True)
class Serve(Config):
    """Serve a model over HTTP: images in, faces and their emotions out.

    POST /v1/predict takes an image, /v1/crop a ready crop, the WebSocket /v1/stream frames; /openapi.json lists all. It
    listens on this machine alone unless --host says otherwise, and stores nothing. SIGTERM or Ctrl-C ends it after
    every request that was taken is answered; SIGHUP loads the model file again.
    """

    model: str | None = argument(MODEL + "; default: small", default=None, may_be_path=True)
    host: str = option("127.0.0.1", "address to listen on; 0.0.0.0: all of this machine", unit="ADDRESS")
    port: int = option(8000, "0: any free one", least=0, most=65535, unit="PORT")
    workers: int | None = option(
        None,
        "threads that decode, search and classify images, each one at a time; default: one per core",
        most=MAX_THREADS,
        **COUNT,
    )
    threads: int = option(1, "CPU threads of model and detector in each call", most=MAX_THREADS, **COUNT)
    label_set: str | None = like(Predict, "label_set")
    prior: str | None = like(Watch, "prior")
    prior_strength: float = like(Predict, "prior_strength")
    detector: str | None = like(Predict, "detector", needs="")
    faces: str | None = like(Predict, "faces", needs="")
    threshold: float | None = like(Predict, "threshold", needs="")
    page: bool = option(True, "serve a page for the browser at /; --no-page: the API alone")

    queue: int = option(64, "images in work or waiting, at most; more are refused with 429", group="Limits", **COUNT)
    client_queue: int | None = option(
        None, "of one client (its key, or its address), at most; default: as many", group="Limits", **COUNT
    )
    streams: int = option(8, "open WebSockets, at most", group="Limits", **COUNT)
    connections: int = option(512, "open connections, at most", group="Limits", rare=True, **COUNT)
    max_bytes: int = option(16 * 2**20, "of a body or frame", least=1024, unit="BYTES", group="Limits")
    max_pixels: int = option(
        25_000_000, "of an image, which is read off its header", least=256, unit="PIXELS", group="Limits"
    )
    timeout: float = option(
        10.0,
        "for a header, a body, or the next frame to arrive; slower clients are cut",
        above=0,
        most=3600,
        unit="SECONDS",
        group="Limits",
    )
    grace: int = option(
        20, "to answer what was taken, after SIGTERM", least=1, most=3600, unit="SECONDS", group="Limits"
    )
    batch_delay: float = option(
        0.0,
        "let faces wait so long, at most, for those of other requests, to classify them in one call; 0: none waits",
        least=0,
        most=1000,
        unit="MS",
        group="Limits",
    )

    api_keys: Path | None = option(
        None, "take requests only with a key whose hash is in this file", unit="FILE", group="Access"
    )
    make_key: str | None = option(
        None, "print a new key, and its line for --api-keys, and stop", unit="NAME", group="Access"
    )
    tls_certificate: Path | None = option(
        None, "serve HTTPS with this certificate, PEM", unit="FILE", needs="tls_key", group="Access"
    )
    tls_key: Path | None = option(None, "its private key, PEM", unit="FILE", needs="tls_certificate", group="Access")
    host_names: tuple[str, ...] = option(
        (),
        "further names by which clients may call this server, as faces.example.org; others with a dot are refused, "
        "because a foreign page could cause them",
        unit="NAME,...",
        group="Access",
    )
    origins: tuple[str, ...] = option(
        (), "pages that may use this server, as https://example.org (CORS)", unit="ORIGIN,...", group="Access"
    )
    log_clients: bool = option(False, "log the addresses of clients", group="Operation")
    config: Path | None = option(
        None, "read options from a TOML file; the command line wins", unit="FILE", group="Operation"
    )
    print_config: bool = option(False, "print all options as a TOML file and stop", group="Operation")


@dataclass(frozen=True)
class Report(Config):
    """Render result files as Markdown.

    Several results of edgeemo bench are combined into one table.
    """

    results: tuple[Path, ...] = argument("JSON files that a command wrote with --out")
    out: Path | None = option(None, "write here instead of printing", unit="FILE")


@dataclass(frozen=True)
class Doctor(Config):
    """Show what this machine can run, or check models on it.

    With --check, models run on packaged faces: exit code 1 if a prediction or the speed has changed.
    """

    models: tuple[str, ...] = argument(
        "with --check: models to run; default: all shipped ones", default=(), needs="check", may_be_path=True
    )
    check: bool = option(
        False, "run models on packaged faces and compare predictions and speed; exit 1 if a check fails"
    )
    baseline: Path | None = option(
        None, "JSON of an earlier check: fail if a model became 1.5 times slower", unit="FILE", needs="check"
    )


@dataclass(frozen=True)
class Stage:
    """A command: its config, and the module whose `run` takes it."""

    command: str  # its words
    config: type[Config]
    module: str
    extra: str = ""  # of edgeemo, which installs what it needs beyond the base
    purpose: str = ""  # for the error where that is not installed
    makes: bool = False  # run returns the path of what it made; else a result
    streams: bool = False  # run(config, show=) hands over the parts of its result one by one
    json: str = "print the result as JSON"  # help of --json; empty: without it
    shows: Callable[[Path], Path] | None = None  # the result file about what was made, by its path
    following: Callable[[Any, Path], str] | None = None  # the command to go on with; empty: none


def _after_compress(config: Compress, path: Path) -> str:
    engine_first = config.int8 and config.target_format != "cpu"  # the last file is for TensorRT, slow in ONNX Runtime
    return f"build {quote(str(path))}" if engine_first else f"bench --engine {quote(str(path))} --data DATA"


def _bench(_: Config, path: Path) -> str:
    return f"bench --engine {quote(str(path))} --data DATA"


def _after_build(config: Build, path: Path) -> str:
    return "" if config.for_ else _bench(config, path)


def after_crop(_: Config, path: Path) -> str:
    """Return the command that trains on a folder of crops."""
    return f"train --data folder:{quote(str(path))}"


def after_label(config: Label, path: Path) -> str:
    """Return the command that adapts the model to a folder of labelled crops."""
    return f"adapt {quote(config.model or 'small')} --data folder:{quote(str(path))} --people folder"


def _made(command: str, config: type[Config], module: str, purpose: str, **about: Any) -> Stage:
    return Stage(command, config, module, purpose=purpose, makes=True, json="", **{"extra": "train", **about})


STAGES = (
    Stage("data audit", Audit, "edgeemo.data.audit", "train", "the audit"),
    _made("data crop", CropPhotos, "edgeemo.data.crop", "cropping photos", extra="", following=after_crop),
    _made(
        "train",
        Train,
        "edgeemo.train.run",
        "training",
        following=lambda _, path: f"compress {quote(str(path.parent))} --int8",
    ),
    Stage("evaluate", Evaluate, "edgeemo.train.evaluate", "train", "the evaluation of runs"),
    _made("explain", Explain, "edgeemo.train.explain", "explanations"),
    _made(
        "compress",
        Compress,
        "edgeemo.compress.run",
        "compression",
        shows=lambda path: path.parent / "comparison.json",
        following=_after_compress,
    ),
    _made(
        "search",
        Search,
        "edgeemo.compress.search",
        "the search",
        shows=lambda path: path.parents[1] / "search.json",
        following=_bench,
    ),
    _made("build", Build, "edgeemo.build", "building engines", extra="tensorrt", following=_after_build),
    Stage("bench", Bench, "edgeemo.bench.run", "bench", "the benchmark"),
    Stage("parity", Parity, "edgeemo.bench.parity", "bench", "parity"),
    Stage(
        "predict",
        Predict,
        "edgeemo.predict.run",
        streams=True,
        json="print one JSON object per line, one for each image, with its faces",
    ),
    Stage("adapt", Adapt, "edgeemo.adapt.run"),
    Stage("detectors", Detectors, "edgeemo.detectors"),
    _made("label", Label, "edgeemo.label.run", "labelling", extra="", following=after_label),
    Stage("watch", Watch, "edgeemo.watch.run", streams=True, json=""),
    Stage("serve", Serve, "edgeemo.serve.run", "serve", "serving", streams=True, json=""),
    Stage("report", Report, "edgeemo.report.run", json=""),
    Stage("doctor", Doctor, "edgeemo.doctor"),
)


def stage_of(config: Config) -> Stage:
    """The row of STAGES that takes this config."""
    for stage in STAGES:
        if type(config) is stage.config:
            return stage
    names = ", ".join(stage.config.__name__ for stage in STAGES)
    raise UsageError(f"{type(config).__name__} is no config of a stage; known: {names}")


def import_stage(stage: Stage) -> ModuleType:
    """The module of a stage; MachineError with what to install where packages are missing."""
    return require(stage.module, extra=stage.extra, purpose=stage.purpose)


def run(config: Config) -> Any:
    """Run the stage of a config, as its command does: the path of what it made, or its result."""
    return import_stage(stage_of(config)).run(config)


# The origin document's configuration. Where its text and its example differ (restarts or cosine), the text's; where
# it names no figure (accumulation, clipping, warm-up, patience), ours. 25 epochs: one of warm-up, cosines of 8 and 16.
ENHANCED = Train(accumulate=2, schedule="restarts", sampler="weighted", vertical_flips=True)

# Small dense nets at 48 px, trained from scratch on labels and votes: cheap to train, and lossless in INT8.
EDGE = Train(
    backbone="edge_vgg",
    weights="none",
    head="linear",
    attention=False,
    dropout=0.2,
    epochs=40,
    batch_size=128,
    classifier_lr=2e-3,
    weight_decay=0.05,
    smoothing=0.05,
    vote_share=0.5,
    augment="edge",
    warmup_epochs=3.0,
    clip=5.0,
    ema=0.999,
    patience=0,
)

RECIPES = {
    "enhanced": ENHANCED,
    "edge": EDGE,
    "demo": replace(EDGE, backbone="edge_vgg_slim", epochs=10, ema=0.99, warmup_epochs=0.5, vote_share=0.0),
}
