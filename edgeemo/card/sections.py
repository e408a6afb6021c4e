"""The sections of a card: frozen dataclasses whose fields, in order, are the keys of the JSON file.

docs/card.md and card.schema.json are generated from them (benchmarks/card_page.py). A key whose value is None does not
apply or is not known, and is left out of the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

from edgeemo.card.adaptation import Adaptation
from edgeemo.card.answers import Answers
from edgeemo.card.data import Data
from edgeemo.card.keys import SHA256, Key

FORMAT = 2
COLOURS = {"gray": 1, "rgb": 3, "gray3": 3}  # channels of each
EXACT = ("float32", "float16")  # requested precisions without integer arithmetic


@dataclass(frozen=True)
class Crop:
    """The square around a face whose eyes are known, as faces/crop.py takes it; by default that of FER+ faces."""

    side_eye_distances: Annotated[
        float, Key("side of the square", unit="distances between the eyes", least=1, most=10)
    ] = 2.8
    below_eyes: Annotated[
        float,
        Key(
            "its centre lies this far below the midpoint of the eyes, at a right angle to the line between them",
            unit="distances between the eyes",
            least=-2,
            most=2,
        ),
    ] = 0.3
    turn_from_degrees: Annotated[
        float,
        Key("it is turned upright if the line between the eyes is tilted by more", unit="degrees", least=0, most=180),
    ] = 10.0


@dataclass(frozen=True)
class InputContract:
    """How an upright 8-bit image of height H and width W becomes the model's input; images.py does exactly this.

    1. Crop a square, without resampling. A ready crop, which the face fills: the central square, side = min(H, W), from
       column (W - side) // 2 and row (H - side) // 2. A detector's box (x, y, width, height), x and y its top left
       corner: side = floor(max(width, height) * crop_margin + 0.5), from column floor(x + width / 2 - side / 2 + 0.5)
       and row floor(y + height / 2 - side / 2 + 0.5); outside the image, the nearest pixel of its edge is repeated.
       A face whose eyes are known: faces/crop.py, with the numbers of `crop`.
    2. Convert the colour: for gray and gray3, a colour image becomes (19595 R + 38470 G + 7471 B + 32768) >> 16, which
       is Pillow's "L" (ITU-R 601); for rgb, a gray image stands in all three channels.
    3. Resize, if side differs from size: Pillow's BILINEAR, horizontally, then vertically, each rounded to 8 bits.
       Output pixel x is the weighted mean around c = (x + 0.5) * side / size; input pixel i weighs
       w_i = max(0, 1 - |i + 0.5 - c| / reach), reach = max(1, side / size), so that shrinking does not alias.
       Exactly, with k_i = floor(w_i / sum(w) * 2**22 + 0.5): clip((sum(k_i * pixel_i) + 2**21) >> 22, 0, 255).
    4. Repeat the one channel three times, for gray3 only.
    5. Normalise per channel: (pixel / 255 - mean) / std, float32, laid out (N, channels, size, size).
    """

    size: Annotated[int, Key("side of the square input", unit="pixels", least=1, most=1024)]
    colour: Annotated[
        str,
        Key(
            "`gray`: one channel; `rgb`: three, red first; `gray3`: the gray channel three times, for a network of rgb "
            "that was trained on gray faces alone",
            choices=tuple(COLOURS),
        ),
    ] = "gray"
    mean: Annotated[tuple[float, ...], Key("per channel, of a pixel in 0..1")] = (0.5,)
    std: Annotated[tuple[float, ...], Key("per channel, of a pixel in 0..1", above=0)] = (0.25,)
    crop_margin: Annotated[
        float,
        Key(
            "a detector's box is scaled by this about its centre before it is cut out; 1: the box as found. Not read "
            "for ready crops",
            unit="factor",
            above=0,
        ),
    ] = 1.0
    crop: Annotated[
        Crop | None,
        Key("the square around a face whose eyes are known; absent: 2.8, 0.3 and 10. Not read for ready crops"),
    ] = None

    @property
    def face_crop(self) -> Crop:
        """The card's crop, or that of cards that do not state it."""
        return self.crop or Crop()

    @property
    def channels(self) -> int:
        """1 for gray, 3 for rgb and gray3."""
        return COLOURS[self.colour]

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest input: black or white in the channel that goes furthest."""
        ends = [(level - mean) / std for mean, std in zip(self.mean, self.std, strict=True) for level in (0.0, 1.0)]
        return min(ends), max(ends)

    @property
    def pixels(self) -> tuple[int, ...]:
        """Shape of one face of images.to_pixels, uint8: (size, size), and (size, size, 3) for rgb and gray3."""
        return (self.size, self.size) + ((self.channels,) if self.channels > 1 else ())


@dataclass(frozen=True)
class Fidelity:
    """How close the file's answers are to those of another form of the same network, on the same faces."""

    agreement: Annotated[float, Key("part of the faces that get the same label", unit="share", least=0, most=1)]
    divergence: Annotated[
        float, Key("mean Kullback-Leibler divergence of the probabilities from the other form's", unit="nats")
    ]
    faces: Annotated[int | None, Key("number of faces compared", least=1)] = None


@dataclass(frozen=True)
class Overflow:
    """Whether x86 kernels without VNNI, which add pairs of products in 16 bits, can saturate on the INT8 weights."""

    safe: Annotated[bool, Key("no kernel can saturate: every int8 weight is within -64..64")]
    largest_weight: Annotated[
        int | None, Key("largest magnitude of an int8 weight; absent without int8 weights", least=0, most=128)
    ] = None
    unsafe: Annotated[tuple[str, ...], Key("names of the first weights that can saturate; empty if safe")] = ()


@dataclass(frozen=True)
class Calibration:
    """The train faces that gave the activations their ranges. Drawn again with these settings, they are the same."""

    data: Annotated[str, Key("kind of data source, such as synthetic, ferplus or folder")]
    split: Annotated[str, Key("the split that the faces are from")]
    label_set: Annotated[str, Key("name of the label set that the faces were balanced over, or labels as a,b,c")]
    protocol: Annotated[str, Key("how votes became a label: plurality or majority")]
    count: Annotated[int, Key("number of faces", least=1)]
    seed: Annotated[int, Key("random seed of the draw")]
    ids_sha256: Annotated[str, Key("SHA-256 of the faces' ids, one a line, in alphabetical order", pattern=SHA256)]
    format: Annotated[int, Key("format of the calibration list", least=1)]


@dataclass(frozen=True)
class Precision:
    """The arithmetic that was requested, and what the file and the kernels made of it. Default: nothing is stated."""

    requested: Annotated[
        str | None,
        Key("precision that the file was made for; absent: not stated", choices=("float32", "float16", "int8")),
    ] = None
    actual: Annotated[
        str | None,
        Key("precision that was reached; `… in the file` where only the engine of a target decides what runs"),
    ] = None
    weights: Annotated[str | None, Key("where the weights come from, if they are not as trained")] = None
    target_format: Annotated[
        str | None,
        Key(
            "of INT8: `cpu` has uint8 activations, for ONNX Runtime and OpenVINO; `tensorrt` has int8 activations and "
            "float biases, for TensorRT",
            choices=("cpu", "tensorrt"),
        ),
    ] = None
    int8_share_of_macs: Annotated[
        float | None, Key("part of the multiply-adds in integers", unit="share", least=0, most=1)
    ] = None
    macs: Annotated[int | None, Key("multiply-adds for one face", least=0)] = None
    operators: Annotated[dict[str, int] | None, Key("operators with weights, and how many of each", least=0)] = None
    counted_by: Annotated[str | None, Key("who counted the multiply-adds, by running the file or by reading it")] = None
    keep_float: Annotated[tuple[str, ...] | None, Key("layers that were left in float")] = None
    reduce_range: Annotated[bool | None, Key("whether finished INT8 weights were limited to -64..64 afterwards")] = None
    overflow: Annotated[Overflow | None, Key("static check of the INT8 weights for saturation")] = None
    fidelity: Annotated[
        Fidelity | None, Key("against the float file that it was made from, before any later change of its weights")
    ] = None
    against_full_range: Annotated[
        Fidelity | None, Key("against the same file before its weights were limited to -64..64")
    ] = None
    calibration: Annotated[Calibration | None, Key("faces that gave the activations their ranges")] = None
    calibration_method: Annotated[
        str | None, Key("how a range was chosen from the activations: minmax, percentile or entropy")
    ] = None
    calibration_methods: Annotated[
        dict[str, Fidelity] | None, Key("what each method reached where the best was searched for; else absent")
    ] = None
    rounding: Annotated[str | None, Key("how weights became integers", choices=("nearest", "gptq"))] = None
    gptq_layers: Annotated[int | None, Key("number of layers that GPTQ rounded", least=0)] = None
    largest_activation: Annotated[
        float | None, Key("of float16: largest activation on train faces; float16 ends at 65,504", least=0)
    ] = None
    checked_in: Annotated[str | None, Key("of float16: the arithmetic of the check")] = None
    weight_types: Annotated[
        dict[str, int] | None, Key("of float16: number of weight tensors of each type", least=0)
    ] = None
    executed: Annotated[str | None, Key("of an engine: what is known of the precision that it runs in")] = None

    @property
    def is_int8(self) -> bool:
        """Whether INT8 was requested."""
        return self.requested == "int8"


@dataclass(frozen=True)
class Golden:
    """Expected answers: logits of the model for the eight synthetic faces in edgeemo/models/faces.png."""

    faces_sha256: Annotated[str, Key("SHA-256 of faces.png: eight 64 x 64 gray faces, side by side", pattern=SHA256)]
    logits: Annotated[
        tuple[tuple[float, ...], ...],
        Key("one row per face, one logit per label, rounded to 5 decimals; kernels may differ by 0.001"),
    ]


@dataclass(frozen=True)
class Metrics:
    """What was measured on one split, at the card's temperature."""

    data: Annotated[str, Key("kind of data source, such as synthetic, ferplus or folder")]
    protocol: Annotated[str, Key("how votes became a label: plurality or majority")]
    ids_sha256: Annotated[str, Key("SHA-256 of the faces' ids, one a line", pattern=SHA256)]
    selected_on_valid: Annotated[bool, Key("whether the epoch or the model was chosen on the valid split")]
    temperature_fitted_on: Annotated[str, Key("the split that the temperature was fitted on")]
    n: Annotated[int, Key("number of faces", least=1)]
    accuracy: Annotated[float, Key("part of the faces with the right label", unit="share", least=0, most=1)]
    accuracy_low: Annotated[float, Key("lower end of its 95 % Wilson interval", unit="share", least=0, most=1)]
    accuracy_high: Annotated[float, Key("upper end of its 95 % Wilson interval", unit="share", least=0, most=1)]
    macro_f1: Annotated[float, Key("mean F1 of the labels that occur", unit="share", least=0, most=1)]
    ece: Annotated[float, Key("expected calibration error, 15 equal bins", unit="share", least=0, most=1)]
    recall: Annotated[
        dict[str, float | None], Key("by label; null for a label without faces", unit="share", least=0, most=1)
    ]
    support: Annotated[dict[str, int], Key("number of faces by label", least=0)]
    confusion: Annotated[
        tuple[tuple[int, ...], ...], Key("faces by true label (rows) and predicted label (columns)", least=0)
    ]
    measured_on: Annotated[
        str | None, Key("of an engine: name of the ONNX file that was measured; the engine itself was not")
    ] = None


@dataclass(frozen=True)
class Licences:
    """The terms of everything that went into the model."""

    code: Annotated[str | None, Key("of edgeemo's code")] = None
    faces: Annotated[str | None, Key("of the training faces and their labels")] = None
    initial_weights: Annotated[str | None, Key("of the weights that training started from")] = None
    teacher: Annotated[str | None, Key("inherited from the teachers of a distillation")] = None
    recovery_faces: Annotated[str | None, Key("of the faces of a later training, where they are others")] = None

    def list_terms(self) -> dict[str, str]:
        """Return the stated licence terms by what they cover, in words; without those of the code."""
        stated = ((one.name, getattr(self, one.name)) for one in fields(self) if one.name != "code")
        return {name.replace("_", " "): text for name, text in stated if text is not None}


@dataclass(frozen=True)
class Architecture:
    """What it takes to build the network again in PyTorch. A host that runs the file needs none of it."""

    backbone: Annotated[str, Key("name of the backbone")]
    labels: Annotated[int, Key("number of outputs of the head", least=2)]
    head: Annotated[str, Key("name of the classifier head")]
    attention: Annotated[bool, Key("whether a spatial attention stands before the head")]
    dropout: Annotated[float, Key("dropout before the head while training", unit="share", least=0, most=1)]
    widths: Annotated[
        dict[str, tuple[int, ...]],
        Key("weight shapes by layer of a pruned network; empty: as the backbone defines them", least=0),
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """What an engine was built by and for; it runs nowhere else."""

    library: Annotated[str, Key("`tensorrt`: TensorRT; `rtx`: TensorRT for RTX", choices=("tensorrt", "rtx"))]
    version: Annotated[str, Key("of the library")]
    compute_capabilities: Annotated[tuple[str, ...], Key("GPUs that the engine is for, as 8.7")]
    gpu: Annotated[str, Key("name of the GPU that it was built on; empty if built for others")]
    driver: Annotated[str, Key("version of the driver that it was built with; empty if built for other GPUs")]
    platform: Annotated[str, Key("operating system that it was built on")]
    max_batch: Annotated[int, Key("most faces in one run", unit="faces", least=1)]
    version_compatible: Annotated[bool, Key("whether later versions of the library may run it")]
    hardware_compatible: Annotated[bool, Key("whether later GPUs may run it")]
    dla_core: Annotated[int, Key("number of the DLA core; -1: the GPU", least=-1)]
    workspace_mib: Annotated[int, Key("limit of the builder's workspace; 0: the library's own", unit="MiB", least=0)]
    source: Annotated[str, Key("ONNX file, or name of a model, that it was built from")]
    source_sha256: Annotated[str, Key("SHA-256 of that file", pattern=SHA256)]
    source_seal: Annotated[str, Key("seal of that file's card; empty if it had none", pattern=f"({SHA256})?")]


@dataclass(frozen=True)
class HistoryEntry:
    """One stage that the model went through."""

    stage: Annotated[str, Key("name of the stage: train, prune, resize, tune, export, halve, quantize, build, …")]
    config: Annotated[dict[str, Any], Key("settings of the stage; of paths the last part alone")]
    edgeemo: Annotated[str, Key("version of edgeemo")]
    versions: Annotated[dict[str, str], Key("versions of the installed packages that decide results")]
    parent_sha256: Annotated[
        str, Key("SHA-256 of the file that the stage read; empty for the first", pattern=f"({SHA256})?")
    ]
    seconds: Annotated[float, Key("duration", unit="s", least=0)]
    measured: Annotated[dict[str, Any], Key("what the stage measured; the keys are its own")]


@dataclass(frozen=True)
class Card:
    """What is known about one model file, in the order of the JSON file: what a host needs first."""

    format: Annotated[int, Key("format of the card; refuse others than those you know", choices=(FORMAT,))] = field(
        default=FORMAT, kw_only=True
    )
    sha256: Annotated[str, Key("SHA-256 of the model file beside the card; refuse another file", pattern=SHA256)] = (
        field(default="", kw_only=True)
    )
    seal: Annotated[str, Key("SHA-256 of the rest of the card, see below", pattern=SHA256)] = field(
        default="", kw_only=True
    )
    labels: Annotated[tuple[str, ...], Key("names, in the order of the outputs", pattern=".+", fewest=2, distinct=True)]
    label_set: Annotated[str, Key("name of the label set: six, seven, ferplus8, or own")]
    input: Annotated[InputContract, Key("how an image becomes the model's input")]
    output: Annotated[str, Key("what the model returns: (N, K) float32 logits, K labels", choices=("logits",))] = field(
        default="logits", kw_only=True
    )
    temperature: Annotated[float, Key("logits are divided by it before the softmax", least=0.01, most=100)] = field(
        default=1.0, kw_only=True
    )
    adaptation: Annotated[
        Adaptation | None, Key("change of the logits before the temperature, fitted to one place; absent: none")
    ] = field(default=None, kw_only=True)
    precision: Annotated[Precision, Key("requested and actual arithmetic")] = field(
        default_factory=Precision, kw_only=True
    )
    answers: Annotated[
        Answers | None, Key("from which probability on an answer counts; absent: no threshold is known")
    ] = field(default=None, kw_only=True)
    golden: Annotated[Golden | None, Key("expected logits for the packaged faces, to check a port with")] = field(
        default=None, kw_only=True
    )
    metrics: Annotated[dict[str, Metrics], Key("what was measured, by split")] = field(
        default_factory=dict, kw_only=True
    )
    licences: Annotated[Licences, Key("terms of code, weights, faces and labels")] = field(
        default_factory=Licences, kw_only=True
    )
    data: Annotated[Data | None, Key("what the network was trained on; absent: not stated")] = field(
        default=None, kw_only=True
    )
    architecture: Annotated[Architecture, Key("the network, for PyTorch")]
    target: Annotated[Target | None, Key("of an engine: what it was built by and for; absent for other files")] = field(
        default=None, kw_only=True
    )
    history: Annotated[tuple[HistoryEntry, ...], Key("one entry per stage, the first one first")] = field(
        default=(), kw_only=True
    )

    @property
    def overflow_safe(self) -> bool:
        """Whether no integer kernel can saturate on the file: it has no INT8 weights, or a check found none too large.

        What a card does not say is not proven (compress/overflow.py makes the check).
        """
        overflow = self.precision.overflow
        return (overflow is not None and overflow.safe) or self.precision.requested in EXACT

    def with_entry(self, entry: HistoryEntry, **changes: Any) -> Card:
        """Return this card with one more history entry and the named fields changed."""
        return replace(self, history=(*self.history, entry), **changes)
