"""A model repository of NVIDIA's Triton Inference Server: `edgeemo build MODEL --for triton --out DIR`.

    DIR/README.md
    DIR/models/NAME/config.pbtxt      ModelConfig in protobuf's text format
    DIR/models/NAME/labels.txt        one label a line, in the order of the outputs
    DIR/models/NAME/warmup/face       a packaged synthetic face as the model's input, float32
    DIR/models/NAME/1/model.onnx      for the ONNX Runtime backend, or model.plan for the TensorRT backend

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
describes the keys.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeemo.card import Card
from edgeemo.errors import UsageError
from edgeemo.export import read_model
from edgeemo.export.softmax import OUTPUT, write_probabilities
from edgeemo.runtime.golden import SAMPLE, golden_batch
from edgeemo.runtime.onnx_check import check_file, has_uint8_activations
from edgeemo.stages import Build

QUEUE_DELAY_US = 1000  # that a request waits at most for others to join its batch
QUEUED_BATCHES = 16  # a request beyond them is refused, instead of waiting ever longer
ENGINE_INPUT, ENGINE_OUTPUT = "images", "logits"  # of the files that `edgeemo compress` writes


@dataclass(frozen=True)
class Served:
    """How Triton opens a model: its backend, the file's name, tensor names, and where it runs."""

    backend: str
    file: str
    input: str
    output: str
    kind: str  # of its instances
    parameters: dict[str, str]


def write(config: Build, folder: Path) -> None:
    """Fill `folder`, which exists and is empty."""
    file, card = read_model(config, target_format="cpu", suffixes=(".onnx", ".trt"))
    name = _make_name(config.model)
    model = folder / "models" / name
    (model / "1").mkdir(parents=True)
    (model / "warmup").mkdir()
    if file.suffix == ".trt":
        served = _describe_engine(config, card)
        shutil.copyfile(file, model / "1" / served.file)
    else:
        served = _describe_onnx(file, card)
        write_probabilities(file, card, model / "1" / served.file)
    face: np.ndarray = golden_batch(card.input)[SAMPLE]
    (model / "warmup" / "face").write_bytes(face.astype("<f4").tobytes())
    (model / "labels.txt").write_text("".join(f"{label}\n" for label in card.labels), encoding="utf-8")
    (model / "config.pbtxt").write_text(make_config(name, served, card, config.max_batch), encoding="utf-8")
    (folder / "README.md").write_text(_make_readme(name, served, card), encoding="utf-8")


def _make_name(model: str) -> str:
    """Return a name for the model's folder, such as edgeemo_small."""
    stem = Path(model).name.removesuffix(".onnx").removesuffix(".trt")
    return "edgeemo_" + re.sub(r"[^A-Za-z0-9_-]", "_", stem)


def _describe_onnx(file: Path, card: Card) -> Served:
    graph = check_file(file)
    (given,) = (name for name in graph.inputs if name not in graph.tensors)
    on_cpu = card.precision.is_int8 or has_uint8_activations(graph)  # uint8 kernels are those of the CPU
    return Served(
        backend="onnxruntime",
        file="model.onnx",
        input=given,
        output=OUTPUT,
        kind="KIND_CPU" if on_cpu else "KIND_AUTO",
        parameters={"intra_op_thread_count": "1", "inter_op_thread_count": "1"},
    )


def _describe_engine(config: Build, card: Card) -> Served:
    target = card.target
    if target is None or target.library != "tensorrt":
        raise UsageError(
            f"{config.model} is an engine of TensorRT for RTX, which Triton does not run; build one of TensorRT:  "
            "edgeemo build MODEL --library tensorrt"
        )
    if config.max_batch > target.max_batch:
        raise UsageError(f"--max-batch {config.max_batch}: {config.model} was built for at most {target.max_batch}")
    return Served("tensorrt", "model.plan", ENGINE_INPUT, ENGINE_OUTPUT, "KIND_GPU", {})


def make_config(name: str, served: Served, card: Card, max_batch: int) -> str:
    """Return config.pbtxt."""
    side = card.input.size
    dims = f"[ {card.input.channels}, {side}, {side} ]"
    preferred = ", ".join(str(size) for size in sorted({max(1, max_batch // 2), max_batch}))
    parameters = {**served.parameters, "edgeemo_source_sha256": card.sha256, "edgeemo_source_seal": card.seal}
    return f"""name: "{name}"
backend: "{served.backend}"
default_model_filename: "{served.file}"
max_batch_size: {max_batch}
input [
  {{
    name: "{served.input}"
    data_type: TYPE_FP32
    dims: {dims}
  }}
]
output [
  {{
    name: "{served.output}"
    data_type: TYPE_FP32
    dims: [ {len(card.labels)} ]
    label_filename: "labels.txt"
  }}
]
version_policy {{
  latest {{ num_versions: 1 }}
}}
instance_group [
  {{
    count: 1
    kind: {served.kind}
  }}
]
dynamic_batching {{
  preferred_batch_size: [ {preferred} ]
  max_queue_delay_microseconds: {QUEUE_DELAY_US}
  default_queue_policy {{
    timeout_action: REJECT
    max_queue_size: {QUEUED_BATCHES * max_batch}
  }}
}}
model_warmup [
{_make_warm_up("a face", 1, served.input, dims, 'input_data_file: "face"')},
{_make_warm_up("the largest batch", max_batch, served.input, dims, "zero_data: true")}
]
{"".join(_make_parameter(key, value) for key, value in parameters.items())}"""


def _make_warm_up(name: str, batch: int, given: str, dims: str, data: str) -> str:
    return f"""  {{
    name: "{name}"
    batch_size: {batch}
    inputs {{
      key: "{given}"
      value {{
        data_type: TYPE_FP32
        dims: {dims}
        {data}
      }}
    }}
  }}"""


def _make_parameter(key: str, value: str) -> str:
    return f"""parameters {{
  key: "{key}"
  value {{ string_value: "{value}" }}
}}
"""


def _make_readme(name: str, served: Served, card: Card) -> str:
    contract = card.input
    threshold = card.answers and f"A prediction below {card.answers.least_probability:g} is unsure."
    return f"""# {name} for the Triton Inference Server

```bash
tritonserver --model-repository=models
```

Written by `edgeemo build --for triton`, from a file with the SHA-256 {card.sha256}.
The configuration was parsed with tritonclient's protobuf; it has not run in a Triton server.

- **Input** `{served.input}`: (N, {contract.channels}, {contract.size}, {contract.size}) float32, of ready face crops as
  in edgeemo's docs/card.md: colour {contract.colour}, (pixel / 255 - mean) / std with mean {list(contract.mean)} and
  std {list(contract.std)}. `edgeemo.images.to_input` makes it.
- **Output** `{served.output}`: {_explain_output(served, card)}
- `labels.txt` has the labels: {", ".join(card.labels)}. {threshold or ""}
- Requests are batched for at most {QUEUE_DELAY_US} µs; one beyond the queue is refused. With more cores or GPUs, raise
  `count` in `instance_group`: an instance takes one thread.
{_explain_place(served, card)}"""


def _explain_output(served: Served, card: Card) -> str:
    labels = len(card.labels)
    if served.output == OUTPUT:
        return (
            f"(N, {labels}) float32, probabilities at the card's temperature{', adapted' if card.adaptation else ''}; "
            "rows sum to 1."
        )
    adapted = "multiply by the matrix of `adaptation` in the card and add its bias, " if card.adaptation else ""
    return (
        f"(N, {labels}) float32, logits: {adapted}divide by {card.temperature:g}, then apply a softmax over the labels."
    )


def _explain_place(served: Served, card: Card) -> str:
    if served.backend == "tensorrt" and card.target:
        return (
            f"- The engine runs with TensorRT {card.target.version} on compute capability "
            f"{', '.join(card.target.compute_capabilities)} only: use a Triton release with this TensorRT.\n"
        )
    if not card.overflow_safe:
        return (
            "- **Not for x86 processors without VNNI**: their integer kernels can saturate on this file's weights, and "
            "Triton has no\n  setting for exact arithmetic.\n"
        )
    return ""
