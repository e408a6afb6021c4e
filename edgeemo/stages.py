"""The pipeline in order: one frozen config per stage.

A config is at once the stage's arguments, the options and help of its command, and the line it leaves in a card's
history. A field's metadata holds the help text and, where only some values are allowed, the choices.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from edgeemo.errors import UsageError


def option(default: Any, text: str, *, choices: tuple[str, ...] = ()) -> Any:
    """A config field that is also a command line option."""
    return field(default=default, metadata={"help": text, "choices": choices})


def check_ranges(config: Any, ranges: dict[str, tuple[bool, str]]) -> None:
    """UsageError for the first field whose value does not hold; `ranges` says of each what was expected."""
    for name, (holds, expected) in ranges.items():
        if not holds:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(config, name)}: expected {expected}")


def check_idle(config: Any, needs: dict[str, tuple[bool, tuple[str, ...]]]) -> None:
    """UsageError for an option that was set and would do nothing.

    needs: by what must be given, whether it is, and the options that decide nothing without it.
    """
    for needed, (given, dependants) in needs.items():
        for name in dependants:
            if not given and getattr(config, name) != getattr(type(config), name):
                flag = f"--{'no-' if getattr(config, name) is False else ''}{name.replace('_', '-')}"
                raise UsageError(f"{flag} would do nothing here: add {needed}, or leave it out")


OF_A_TEACHER = ("teacher_share", "teacher_temperature", "views")  # options that decide nothing without one
MODEL_HELP = "nano, small or base, which edgeemo ships, or a file, .onnx or .trt; empty: small"
DATA_HELP = "faces: synthetic[:COUNT], ferplus:PATH (folder or zip) or folder:PATH"
VIEW_HELP = "answer in these labels, as six of a model of ferplus8, whose probabilities are added up; empty: its own"
PROTOCOL_HELP = "how votes become a label: plurality (most votes) or majority (more than half, else dropped)"


@dataclass(frozen=True)
class Audit:
    """Count the labels of a data set and find ties, unreadable files and copies inside and across its splits."""

    data: str = option("synthetic", DATA_HELP)
    label_set: str = option("six", "six, ferplus8, or your own labels as a,b,c")
    near: int = option(
        5, "largest distance in bits (of 64) between the hashes of near copies; 0: look for exact ones alone"
    )
    out: str = option("", "write the report as JSON to this file")


@dataclass(frozen=True)
class Train:
    """Train an emotion classifier; the run folder gets the model, its card, curves, confusion matrix and log."""

    data: str = option("synthetic", DATA_HELP)
    out: str = option("runs/train", "run folder")
    label_set: str = option("six", "six, ferplus8, or your own labels as a,b,c")
    protocol: str = option("plurality", PROTOCOL_HELP, choices=("plurality", "majority"))
    backbone: str = option("resnet50", "feature extractor; an unknown name lists the known ones")
    weights: str = option("imagenet", "start from: imagenet (downloads), none, or a .pth/.safetensors file")
    size: int = option(0, "input side in pixels; 0: the backbone's own")
    head: str = option("enhanced", "classifier: enhanced (three layers) or linear", choices=("enhanced", "linear"))
    attention: bool = option(True, "weigh positions by spatial attention before pooling")
    mirror: bool = option(False, "tie filters in mirrored pairs while training; for the edge_vgg networks")
    dropout: float = option(0.5, "dropout in front of the first layer of the head; later layers get half of it")
    mode: str = option(
        "finetune",
        "trained layers: finetune (all), features (the new ones alone), gradual (stage after stage from the top)",
        choices=("finetune", "features", "gradual"),
    )
    unfreeze_epochs: float = option(2.0, "gradual: epochs until the next stage is trained as well")
    epochs: int = option(25, "passes over the train faces")
    batch_size: int = option(32, "faces a step")
    accumulate: int = option(1, "steps whose gradients are added up before the weights move")
    target_accuracy: float = option(80.0, "percent on valid that the log reports as reached or missed")
    optimizer: str = option("adamw", "adamw, or sgd (Nesterov, momentum 0.9)", choices=("adamw", "sgd"))
    backbone_lr: float = option(5e-6, "peak learning rate of pre-trained layers; without weights classifier_lr counts")
    classifier_lr: float = option(1e-3, "peak learning rate of new layers")
    weight_decay: float = option(1e-4, "weight decay, not of biases and BatchNorm")
    schedule: str = option(
        "cosine", "after the warm-up: cosine, or restarts (a cosine each)", choices=("cosine", "restarts")
    )
    restart_epochs: float = option(8.0, "restarts: epochs of the first cosine; each later one is twice as long")
    warmup_epochs: float = option(1.0, "epochs of linear warm-up")
    clip: float = option(1.0, "largest gradient norm")
    loss: str = option("cross-entropy", "cross-entropy or focal", choices=("cross-entropy", "focal"))
    focal_gamma: float = option(2.0, "focal: how much less a face counts that is already told well")
    smoothing: float = option(0.1, "label smoothing")
    vote_share: float = option(0.0, "part of the target taken from the shares of votes, 0..1")
    class_weights: str = option(
        "none",
        "loss weight per class: its inverse frequency (full), the square root (sqrt) or fourth root (mild) of it",
        choices=("none", "mild", "sqrt", "full"),
    )
    teacher: str = option("", "run folders, separated by commas, whose ensemble teaches this network; empty: none")
    teacher_share: float = option(0.7, "part of the loss that is the divergence from the teacher, 0..1")
    teacher_temperature: float = option(4.0, "softens teacher and student before they are compared")
    views: int = option(8, "fixed augmented views of each face that the teacher answers for")
    sampler: str = option(
        "shuffle",
        "which faces an epoch shows: shuffle (each once), or drawn by inverse class frequency: sqrt, weighted (full)",
        choices=("shuffle", "sqrt", "weighted"),
    )
    augment: str = option("enhanced", "augmentation: enhanced, edge or none", choices=("enhanced", "edge", "none"))
    corrupt_share: float = option(
        0.0, "part of the faces shown as a poor camera sees them, 0..1: noise, blur, few pixels, JPEG or bad light"
    )
    vertical_flips: bool = option(False, "turn every second face upside down, as the origin document does")
    ema: float = option(0.0, "decay of the moving average of weights that is evaluated and kept; 0: off")
    patience: int = option(
        7, "stop after so many epochs without a better valid accuracy, keep the best; 0: keep the last"
    )
    precision: str = option("auto", "training arithmetic", choices=("auto", "fp32", "bf16", "fp16"))
    threads: int = option(0, "CPU threads; 0: all cores")
    workers: int = option(0, "processes that prepare batches; 0: the training process itself")
    checkpoint_steps: int = option(200, "write a checkpoint every so many steps, and after every epoch")
    tensorboard: bool = option(False, "write curves for TensorBoard into RUN/tensorboard")
    seed: int = option(0, "of weights, order, augmentation and dropout")
    resume: bool = option(False, "go on from the run folder's last checkpoint")


@dataclass(frozen=True)
class Evaluate:
    """Compare trained runs, and their ensemble, on the same faces, each paired with the first."""

    data: str = option("", DATA_HELP + "; empty: as the first run was trained")
    label_set: str = option("", VIEW_HELP)
    split: str = option("valid", "which faces", choices=("train", "valid", "test"))
    protocol: str = option("plurality", PROTOCOL_HELP, choices=("plurality", "majority"))
    flips: bool = option(False, "judge each run with flip averaging as well")
    last: bool = option(False, "judge each run's last weights, without their moving average, as well")
    out: str = option("", "write the result as JSON to this file")
    threads: int = option(0, "CPU threads; 0: all cores")


@dataclass(frozen=True)
class Explain:
    """Show where a trained run looks: Grad-CAM, its attention map, and the mistakes it was surest of."""

    run: str = option("", "run folder of edgeemo train")
    data: str = option("", DATA_HELP + "; empty: as trained. Used without IMAGE arguments")
    split: str = option("valid", "which faces", choices=("train", "valid", "test"))
    label: str = option("", "Grad-CAM for this label; empty: the predicted one")
    count: int = option(24, "mistakes in the grid")
    out: str = option("", "folder of the pictures; empty: RUN/explained")
    threads: int = option(0, "CPU threads; 0: all cores")


@dataclass(frozen=True)
class Compress:
    """Make a trained run small and fast: prune, recover, quantize to INT8, export to ONNX, and compare at each step."""

    run: str = option("", "run folder of edgeemo train")
    data: str = option("", DATA_HELP + "; empty: as trained")
    out: str = option("", "folder of the results; empty: RUN/compressed")
    size: int = option(0, "side of the input in pixels, another than trained on; 0: as trained")
    prune: float = option(0.0, "share of channels to remove, 0..0.9")
    importance: str = option(
        "group-norm",
        "which channels go: by the norm of their own weights or of all that go with them, or by the loss (taylor)",
        choices=("magnitude", "group-norm", "taylor"),
    )
    ranking: str = option(
        "layer",
        "every layer loses the same share, or the least important go wherever they are",
        choices=("layer", "global"),
    )
    round_to: int = option(8, "keep channel counts a multiple of this: 8, 16 or 32, as the target's kernels like")
    prune_steps: int = option(1, "prune in so many steps, each followed by its part of the epochs")
    sensitivity: bool = option(False, "cut each layer alone first, and leave a table and a picture of what it bears")
    epochs: int = option(3, "epochs of recovery after pruning or --size, and again of tuning with --qat")
    lr: float = option(3e-4, "peak learning rate of the recovery")
    corrupt_share: float = option(
        -1.0, "recovery and tuning: part of the faces shown as a poor camera sees them, 0..1; -1: as trained"
    )
    int8: bool = option(False, "quantize weights and activations to 8 bits")
    qat: bool = option(False, "tune the weights with simulated INT8 for --epochs before they are quantized")
    qat_lr: float = option(1e-4, "peak learning rate of that tuning")
    teacher: str = option(
        "", "run folders, separated by commas, whose ensemble teaches recovery and tuning; empty: none"
    )
    teacher_share: float = option(0.7, "part of the loss that is the divergence from the teacher, 0..1")
    teacher_temperature: float = option(4.0, "softens teacher and student before they are compared")
    views: int = option(8, "fixed augmented views of each face that the teacher answers for")
    flavour: str = option(
        "cpu", "INT8 form: cpu (uint8 activations), tensorrt (int8), or both", choices=("cpu", "tensorrt", "both")
    )
    fp16: bool = option(False, "write a float16 form as well, for GPUs, checked for overflow")
    calibration: str = option("", "list of train ids to calibrate on; empty: draw one")
    calibration_count: int = option(512, "train faces in a drawn calibration list")
    method: str = option(
        "minmax",
        "range of an activation; auto: the method that diverges least from float",
        choices=("minmax", "percentile", "entropy", "auto"),
    )
    reduce_range: bool = option(
        True,
        "limit INT8 weights to +-64, so that no x86 kernel can saturate; --no-reduce-range: +-127, which "
        "without VNNI needs exact arithmetic, about 1.5 times the time",
    )
    rounding: str = option(
        "auto",
        "how weights become integers: nearest; gptq, which compensates each error in the weights after it, in layers "
        "of at most 2,304 inputs, seconds to minutes longer; auto: gptq, or nearest after --qat, which simulates it",
        choices=("auto", "nearest", "gptq"),
    )
    layers: bool = option(False, "quantize each layer alone, and leave a table and a picture of what it costs")
    keep_float: str = option("", "layers that stay in float, separated by commas; auto: the fewest that hurt most")
    min_int8_share: float = option(
        0.9,
        "fail if a smaller share of the multiply-adds runs in integer kernels here; of the flavour tensorrt, which "
        "only its engine runs: as the file asks",
    )
    min_agreement: float = option(0.98, "fail if INT8 names the emotion of its float form on a smaller share of faces")
    time: bool = option(True, "time the models side by side on one core")
    threads: int = option(0, "CPU threads; 0: all cores")
    seed: int = option(0, "of the calibration draw and the recovery")
    resume: bool = option(False, "go on with a recovery or tuning that was stopped, from its last checkpoint")


@dataclass(frozen=True)
class Search:
    """Try pruning, input size and precision on this machine, and keep the most accurate model within a budget."""

    run: str = option("", "run folder of edgeemo train")
    budget_ms: float = option(5.0, "p95 latency on one core that a model may take, milliseconds")
    min_accuracy: float = option(80.0, "valid accuracy that it must reach, percent")
    trials: int = option(12, "candidates to measure, those of an earlier search in the folder included")
    max_prune: float = option(0.7, "largest share of channels to remove, in steps of a tenth")
    sizes: str = option("", "sides of the input in pixels, separated by commas; empty: as trained")
    precisions: str = option("float32,int8", "separated by commas: float32, int8")
    data: str = option("", DATA_HELP + "; empty: as trained")
    out: str = option("", "folder of candidates and results; empty: RUN/search")
    importance: str = option(
        "group-norm", "which channels go, as in compress", choices=("magnitude", "group-norm", "taylor")
    )
    ranking: str = option("layer", "as in compress", choices=("layer", "global"))
    round_to: int = option(8, "keep channel counts a multiple of this")
    epochs: int = option(3, "recovery epochs of a candidate that was pruned or resized, and of tuning with --qat")
    lr: float = option(3e-4, "peak learning rate of the recovery")
    method: str = option(
        "minmax", "range of an activation, as in compress", choices=("minmax", "percentile", "entropy", "auto")
    )
    qat: bool = option(False, "tune INT8 candidates with simulated INT8 before they are quantized")
    qat_lr: float = option(1e-4, "peak learning rate of that tuning")
    reduce_range: bool = option(True, "limit INT8 weights to +-64, as in compress")
    rounding: str = option("auto", "how weights become integers, as in compress", choices=("auto", "nearest", "gptq"))
    keep_float: str = option("", "layers that stay in float, as in compress")
    min_int8_share: float = option(0.9, "refuse INT8 with a smaller share of multiply-adds in integers")
    min_agreement: float = option(0.98, "refuse INT8 that agrees with its float form on a smaller share of faces")
    teacher: str = option("", "run folders, separated by commas, whose ensemble teaches the recovery; empty: none")
    views: int = option(8, "fixed augmented views of each face that the teacher answers for")
    calibration: str = option("", "list of train ids to calibrate on; empty: draw one")
    calibration_count: int = option(512, "train faces in a drawn calibration list")
    threads: int = option(0, "CPU threads; 0: all cores")
    seed: int = option(0, "of the search, the calibration draw and the recovery")


@dataclass(frozen=True)
class Build:
    """Make an engine of an ONNX file: with TensorRT for the GPU of this machine, or with TensorRT for RTX for any."""

    model: str = option("", "nano, small or base, or an ONNX file: float, float16 or INT8 of the flavour tensorrt")
    out: str = option("", "engine, a .trt file; empty: beside the model, and of a shipped one, here")
    library: str = option(
        "auto", "tensorrt, rtx, or auto: the first that is installed", choices=("auto", "tensorrt", "rtx")
    )
    compute_capability: str = option(
        "",
        "rtx: GPUs to build for, as 8.6,8.9 (7.5, which takes float16 alone, to 12.1); empty: the one of this machine",
    )
    max_batch: int = option(8, "most faces that the engine takes at once; it is tuned for one")
    workspace_mib: int = option(0, "memory that building may use on the GPU, MiB; 0: as the library chooses")
    timing_cache: str = option("", "tensorrt: file with the timings of earlier builds, read and written")
    version_compatible: bool = option(False, "tensorrt: also for later versions of the same major one; larger")
    hardware_compatible: bool = option(False, "tensorrt: also for other GPUs from Ampere (8.0) on; slower")
    dla_core: int = option(-1, "tensorrt: build for this DLA core, with the rest on the GPU; -1: GPU alone")
    force: bool = option(False, "build even if the same engine stands there")


@dataclass(frozen=True)
class Bench:
    """Measure an engine and hold it against the gates of a target; exit 0 if all pass, 1 if one fails."""

    engine: str = option("", MODEL_HELP)
    backend: str = option(
        "",
        "what runs it: onnxruntime, openvino, onnxruntime-cuda, onnxruntime-tensorrt; for .trt tensorrt or "
        "tensorrt-graph (CUDA graphs); empty: the first of these",
    )
    data: str = option("", DATA_HELP + "; empty: speed and size only")
    label_set: str = option("", VIEW_HELP)
    split: str = option("valid", "which faces", choices=("train", "valid", "test"))
    protocol: str = option("plurality", PROTOCOL_HELP, choices=("plurality", "majority"))
    robustness: bool = option(False, "accuracy under noise, blur, poor light, bad crops and more as well")
    against: str = option("", "a second model on the same faces: paired test, and latency side by side")
    against_backend: str = option("", "what runs that one, as in --backend")
    target: str = option("", "TOML file with the gates; empty: accuracy >= 80 %, p95 < 50 ms on one core")
    runs: int = option(200, "timed runs, after warm-up")
    out: str = option("", "write JSON here, and a Markdown report with plots beside it")


@dataclass(frozen=True)
class Parity:
    """Run every model on the same faces in every installed backend; exit 1 if one file gives different answers."""

    data: str = option("", DATA_HELP)
    split: str = option("valid", "which faces", choices=("train", "valid", "test"))
    protocol: str = option("plurality", PROTOCOL_HELP, choices=("plurality", "majority"))
    count: int = option(512, "faces, evenly spread over the split; 0: all of it")
    min_agreement: float = option(99.0, "percent of the faces to which a file must give one label in every backend")
    processors: str = option(
        "",
        "run .onnx files as these processors would too, separated by commas: sse4.1, avx2, avx512, cortex-a53, "
        "cortex-a72, cortex-a76, or all; between x86 processors every logit must be the same",
    )
    arm64_root: str = option("", "folder with Python for ARM64, which the Cortex processors need")
    threads: int = option(1, "CPU threads")
    out: str = option("", "write the result as JSON to this file, and the table as Markdown beside it")


@dataclass(frozen=True)
class Predict:
    """Name the emotion in images of faces."""

    model: str = option("", MODEL_HELP)
    label_set: str = option("", VIEW_HELP)
    json: bool = option(False, "one JSON object per image and line")


@dataclass(frozen=True)
class Report:
    """Render result files of bench as one Markdown table."""

    out: str = option("", "write here instead of printing")


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
