"""A secondary classifier of DeepStream's nvinfer: `edgeemo build MODEL --for deepstream --out DIR`.

    DIR/README.md
    DIR/config_infer_secondary_emotion.txt   of nvinfer, with paths relative to it
    DIR/labels.txt                           the labels, separated by semicolons
    DIR/model.onnx                           the model, ending in probabilities

The keys and the preprocessing, y = net-scale-factor * (x - offset), are those of
https://docs.nvidia.com/metropolis/deepstream/dev-guide/text/DS_plugin_gst-nvinfer.html and of the parser,
https://docs.nvidia.com/metropolis/deepstream/dev-guide/sdk-api/gstnvinfer__property__parser_8h.html, for which
is-classifier is a legacy key; network-type=1 stands for it.
"""

from __future__ import annotations

from pathlib import Path

from edgeemo.card import Card, InputContract
from edgeemo.errors import UsageError
from edgeemo.export import read_model
from edgeemo.export.softmax import OUTPUT, write_probabilities
from edgeemo.runtime.onnx_check import check_file, has_uint8_activations
from edgeemo.stages import Build

CONFIG = "config_infer_secondary_emotion.txt"
ENGINE = "model.engine"
DETECTOR_ID, OWN_ID = 1, 2  # gie-unique-id of the face detector, and of this classifier
FP32, INT8, FP16 = 0, 1, 2  # network-mode
FORMATS = {"rgb": 0, "gray": 2}  # model-color-format by the card's colour
SMALLEST_FACE = 16  # pixels, as Model.faces


def write(config: Build, folder: Path) -> None:
    """Fill `folder`, which exists and is empty."""
    file, card = read_model(config, target_format="tensorrt")
    graph = check_file(file)
    if has_uint8_activations(graph):
        raise UsageError(
            f"{config.model} has uint8 activations, which TensorRT does not accept.  Make the other format:  "
            "edgeemo compress RUN --int8 --target-format tensorrt"
        )
    if wrong := [label for label in card.labels if ";" in label or "\n" in label]:
        raise UsageError(f"the label {wrong[0]!r} has a semicolon or a line break, which separate DeepStream's labels")
    (given,) = (name for name in graph.inputs if name not in graph.tensors)
    text = make_config(card, config.max_batch)
    write_probabilities(file, card, folder / "model.onnx")
    (folder / "labels.txt").write_text(";".join(card.labels) + "\n", encoding="utf-8")
    (folder / CONFIG).write_text(text, encoding="utf-8")
    (folder / "README.md").write_text(_make_readme(card, given, config.max_batch), encoding="utf-8")


def compute_scaling(contract: InputContract) -> tuple[float, tuple[float, ...]]:
    """Return net-scale-factor and the offset of each channel, of pixels from 0 to 255.

    (pixel / 255 - mean) / std = (pixel - 255 mean) / (255 std). Raises UsageError where nvinfer, which has one factor
    for all channels, cannot do this: for several values of std, and for gray3.
    """
    if contract.colour not in FORMATS:
        raise UsageError(
            f"the model's colour is {contract.colour}, gray in three channels, which nvinfer cannot make; expected a "
            "model of gray or rgb"
        )
    if len(set(contract.std)) != 1:
        raise UsageError(f"the model's std is {list(contract.std)}; nvinfer has one net-scale-factor for all channels")
    return 1 / (255 * contract.std[0]), tuple(255 * mean for mean in contract.mean)


def make_config(card: Card, max_batch: int) -> str:
    """Return the configuration file of nvinfer."""
    factor, offsets = compute_scaling(card.input)
    side = card.input.size
    engine_only = card.precision.is_int8
    keys = {
        "gie-unique-id": OWN_ID,
        "process-mode": 2,
        "operate-on-gie-id": DETECTOR_ID,
        "network-type": 1,
        "model-engine-file": ENGINE if engine_only else f"model.onnx_b{max_batch}_gpu0_{_name_mode(card)}.engine",
        **({} if engine_only else {"onnx-file": "model.onnx"}),
        "network-mode": {"int8": INT8, "float16": FP16}.get(card.precision.requested or "", FP32),
        "batch-size": max_batch,
        "infer-dims": f"{card.input.channels};{side};{side}",
        "model-color-format": FORMATS[card.input.colour],
        "net-scale-factor": repr(factor),
        "offsets": ";".join(repr(offset) for offset in offsets),
        "maintain-aspect-ratio": 0,
        "scaling-compute-hw": 1,
        "scaling-filter": 1,
        "output-blob-names": OUTPUT,
        "labelfile-path": "labels.txt",
        "classifier-type": "emotion",
        "classifier-threshold": card.answers.least_probability if card.answers else 0.0,
        "classifier-async-mode": 0,
        "secondary-reinfer-interval": 1,
        "input-object-min-width": SMALLEST_FACE,
        "input-object-min-height": SMALLEST_FACE,
    }
    lines = "".join(f"{key}={value}\n" for key, value in keys.items())
    return f"# From a file with the SHA-256 {card.sha256}.\n[property]\n{lines}"


def _name_mode(card: Card) -> str:
    """Return the precision in the name under which nvinfer keeps the engine that it has built."""
    return "fp16" if card.precision.requested == "float16" else "fp32"


def _make_readme(card: Card, given: str, max_batch: int) -> str:
    threshold = (
        f"A face whose best label has a probability of at most {card.answers.least_probability:g} gets no label: its "
        "prediction is unsure."
        if card.answers
        else "The card has no threshold for unsure predictions: every face gets a label."
    )
    return f"""# Emotions in DeepStream

Written by `edgeemo build --for deepstream`. **Not run on a Jetson or any other GPU**: the keys are those of NVIDIA's
documentation, and the model's probabilities were compared with edgeemo's in ONNX Runtime.

{_explain_engine(card, given, max_batch)}
## Pipeline

A face detector comes first, as the primary GIE with `gie-unique-id={DETECTOR_ID}`; for another id, change
`operate-on-gie-id`. NVIDIA's FaceDetect and FaceDetectIR (TAO) find faces; of a detector of several classes, name the
face's with `operate-on-class-ids`.

```
... ! nvstreammux ! nvinfer config-file-path=FACE_DETECTOR.txt ! nvtracker ... ! nvinfer config-file-path={CONFIG} ! ...
```

The label is in `NvDsClassifierMeta` of each object, with `result_label` and `result_prob`. {threshold}
With a tracker, `secondary-reinfer-interval` is the number of frames after which a face is classified again.

## What differs from edgeemo's own crops

edgeemo cuts a square by the distance of the eyes, turns tilted faces upright, and averages three crops. nvinfer cuts
the detector's box as it is, stretches it to {card.input.size} x {card.input.size}, and does not turn it. So

- use a detector whose boxes are about square and {card.input.face_crop.side_eye_distances:g} distances between the eyes
  wide, or correct them in a probe before this element;
- expect a lower accuracy: edgeemo's docs/results.md, Faces in photos, shows the cost of a single crop (`contract`), of
  one that is never turned, and of one whose side or place is a tenth off;
- bilinear scaling on the GPU has no filter against aliasing, as edgeemo's has: of large faces, it skips pixels.
"""


def _explain_engine(card: Card, given: str, max_batch: int) -> str:
    face = f"{card.input.channels}x{card.input.size}x{card.input.size}"
    if not card.precision.is_int8:
        return "nvinfer builds the engine from `model.onnx` at the first start.\n"
    return f"""## Engine

The model is INT8 in Q/DQ nodes. nvinfer builds INT8 engines only with a calibration file, which this model does not
need, so build the engine on the device first. Where trtexec has no `--int8`, leave it out: the file has the precision.

```bash
trtexec --onnx=model.onnx --int8 --minShapes={given}:1x{face} --optShapes={given}:{max_batch}x{face} \\
        --maxShapes={given}:{max_batch}x{face} --saveEngine={ENGINE}
```
"""
