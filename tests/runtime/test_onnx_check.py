"""A hostile or damaged .onnx file is refused before any engine reads it."""

from __future__ import annotations

import copy as copies
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hostile
import make_tiny
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeemo
from edgeemo.build import run as build
from edgeemo.card import Precision, write_card
from edgeemo.errors import IntegrityError, MachineError, UsageError
from edgeemo.runtime import shipped
from edgeemo.runtime.onnx_check import check, check_file, has_uint8_activations
from edgeemo.runtime.probe import PROBE
from edgeemo.sessions import import_onnxruntime
from edgeemo.stages import Build

KEY_FIRST = b"\x0a\x08location\x12\x0bweights.bin"
VALUE_FIRST = b"\x12\x0bweights.bin\x0a\x08location"


def write(path: Path, spoil: hostile.Spoil) -> Path:
    """The tiny network, spoiled, with a card that fits."""
    model = make_tiny.network()
    spoil(model)
    return write_bytes(path, model.SerializeToString())


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    write_card(path, make_tiny.card())
    return path


@pytest.mark.parametrize("file", [*sorted(shipped.FOLDER.glob("*.onnx")), PROBE], ids=lambda path: path.name)
def test_every_packaged_file_is_accepted(file: Path) -> None:
    """As its target format says, it has uint8 activations or not."""
    assert has_uint8_activations(check_file(file)) == ("tensorrt" not in file.name)


@pytest.mark.parametrize("case", hostile.OPERATORS)
def test_a_graph_that_asks_for_too_much_is_refused(case: str, tmp_path: Path) -> None:
    """In one sentence, which names the node or the tensor, and with the next command."""
    spoil, reason = hostile.OPERATORS[case]
    with pytest.raises(IntegrityError, match=reason) as caught:
        check_file(write(tmp_path / "model.onnx", spoil))
    assert "edgeemo compress" in str(caught.value)


@pytest.mark.usefixtures("orin")
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "onnxruntime-cuda", "onnxruntime-tensorrt", "build"])
def test_no_engine_reads_a_file_before_the_check(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither ONNX Runtime, nor OpenVINO, nor TensorRT's parser."""

    def fail(*_: object, **__: object) -> None:
        pytest.fail("the engine was asked to read the file")

    monkeypatch.setattr(import_onnxruntime(), "InferenceSession", fail)
    monkeypatch.setattr(sys.modules["tensorrt"].OnnxParser, "parse", fail)
    if engine == "openvino":
        monkeypatch.setattr(pytest.importorskip("openvino").Core, "read_model", fail)
    path = write(tmp_path / "model.onnx", hostile.OPERATORS["ConstantOfShape"][0])
    with pytest.raises(IntegrityError, match="ConstantOfShape"):
        build(Build(model=str(path), library="tensorrt")) if engine == "build" else edgeemo.load(path, backend=engine)


def set_location(tensor: onnx.TensorProto, location: str = "weights.bin") -> None:
    """Move a tensor's values to a second file, as onnx.save does."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)


def first_weight(model: onnx.ModelProto) -> onnx.TensorProto:
    return model.graph.initializer[0]


def in_a_constant(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["made"], value=numpy_helper.from_array(hostile.zeros(4)))
    set_location(node.attribute[0].t)
    model.graph.node.insert(0, node)


def in_a_subgraph(model: onnx.ModelProto) -> None:
    hostile.with_subgraph("If")(model)
    (node,) = (node for node in model.graph.node if node.op_type == "If")
    node.attribute[0].g.initializer.append(copies.deepcopy(first_weight(model)))
    set_location(node.attribute[0].g.initializer[0])


def in_a_sparse_tensor(model: onnx.ModelProto) -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("values", TensorProto.FLOAT, [1], [1.0]),
        helper.make_tensor("indices", TensorProto.INT64, [1], [0]),
        [4],
    )
    set_location(sparse.values)
    model.graph.sparse_initializer.append(sparse)


def in_a_function(model: onnx.ModelProto) -> None:
    hostile.define_function(model)
    node = model.functions[0].node.add(op_type="Constant", output=["made"])
    node.attribute.append(helper.make_attribute("value", numpy_helper.from_array(hostile.zeros(4))))
    set_location(node.attribute[0].t)


def in_training_info(model: onnx.ModelProto) -> None:
    model.training_info.add().initialization.initializer.append(copies.deepcopy(first_weight(model)))
    set_location(model.training_info[0].initialization.initializer[0])


def without_entries(model: onnx.ModelProto) -> None:
    first_weight(model).data_location = TensorProto.EXTERNAL


def without_the_flag(model: onnx.ModelProto) -> None:
    set_location(first_weight(model))
    first_weight(model).ClearField("data_location")


OUTSIDE: dict[str, hostile.Spoil] = {
    "as usual": lambda model: set_location(first_weight(model)),
    "above its folder": lambda model: set_location(first_weight(model), "../weights.bin"),
    "absolute": lambda model: set_location(first_weight(model), "/etc/hostname"),
    "empty": lambda model: set_location(first_weight(model), ""),
    "flag alone": without_entries,
    "entries alone": without_the_flag,
    "constant": in_a_constant,
    "subgraph": in_a_subgraph,
    "sparse": in_a_sparse_tensor,
    "function": in_a_function,
    "training": in_training_info,
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_weights_outside_the_file_are_refused_wherever_they_are_named(case: str, tmp_path: Path) -> None:
    """Also where the second file is there, and is the right one."""
    (tmp_path / "weights.bin").write_bytes(first_weight(make_tiny.network()).raw_data)
    path = write(tmp_path / "model.onnx", OUTSIDE[case])
    with pytest.raises(IntegrityError, match=r"second file|holds a graph|sparse|functions"):
        edgeemo.load(path)


@pytest.mark.parametrize("link", [False, True])
def test_the_order_of_key_and_value_hides_no_second_file(link: bool, tmp_path: Path) -> None:
    """Both orders are the same message in protobuf; neither a file nor a symbolic link to one is read."""
    weights = tmp_path / "elsewhere.bin"
    weights.write_bytes(first_weight(make_tiny.network()).raw_data)
    (os.symlink if link else os.link)(weights, tmp_path / "weights.bin")
    content = onnx.load(write(tmp_path / "model.onnx", OUTSIDE["as usual"]), load_external_data=False)
    turned = content.SerializeToString().replace(KEY_FIRST, VALUE_FIRST)
    assert onnx.ModelProto.FromString(turned) == content
    assert VALUE_FIRST in turned
    with pytest.raises(IntegrityError, match="second file"):
        edgeemo.load(write_bytes(tmp_path / "model.onnx", turned))


def change_weight(**fields: Any) -> hostile.Spoil:
    def spoil(model: onnx.ModelProto) -> None:
        tensor = first_weight(model)
        for name, value in fields.items():
            if isinstance(value, list):
                tensor.ClearField(name)
                getattr(tensor, name).extend(value)
            else:
                setattr(tensor, name, value)

    return spoil


def name_twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(copies.deepcopy(first_weight(model)))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (change_weight(dims=[16, 1, 3, 4]), "192 elements, but bytes for 144"),
        (change_weight(dims=[1 << 40, 1 << 40]), "elements, but bytes for 144"),
        (change_weight(dims=[16, -1, -3, 3]), "sides of 0 or more"),
        (change_weight(dims=[1] * 9), "at most 8 sides"),
        (change_weight(raw_data=bytes(575)), "144 elements, but bytes for 143.75"),
        (change_weight(raw_data=b""), "144 elements, but bytes for 0"),
        (change_weight(float_data=[0.0] * 144), "its values twice, as raw_data and float_data"),
        (change_weight(raw_data=b"", int64_data=[0] * 144), "of type 1 in int64_data"),
        (change_weight(data_type=TensorProto.DOUBLE), "but bytes for 72"),
        (change_weight(data_type=TensorProto.STRING), "elements of type 8"),
        (change_weight(data_type=99), "elements of type 99"),
        (change_weight(string_data=[b"text"]), "holds text"),
        (change_weight(name="x" * 5000), "has 5,000 bytes"),
        (name_twice, "two initializers have the name 'kernel'"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_a_tensor_whose_bytes_are_not_those_of_its_shape_is_refused(
    spoil: hostile.Spoil, reason: str, tmp_path: Path
) -> None:
    """A parser would allocate what the shape says."""
    with pytest.raises(IntegrityError, match=reason):
        check_file(write(tmp_path / "model.onnx", spoil))


@pytest.mark.parametrize("typed", ["float_data", "int32_data", "int64_data"])
def test_values_may_lie_in_typed_fields(typed: str, tmp_path: Path) -> None:
    """As ONNX Runtime's quantizer and torch write them."""
    kinds = {"float_data": TensorProto.FLOAT, "int32_data": TensorProto.INT8, "int64_data": TensorProto.INT64}
    tensor = helper.make_tensor("unused", kinds[typed], [3], [-1, 0, 127])
    assert len(getattr(tensor, typed)) == 3
    graph = check_file(write(tmp_path / "model.onnx", lambda model: model.graph.initializer.append(tensor)))
    assert graph.tensors["unused"].values == ((-1, 0, 127) if typed == "int64_data" else None)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    """Cut between two fields it is still protobuf, with parts missing."""
    content = (make_tiny.HERE / "tiny.onnx").read_bytes()
    path = tmp_path / "model.onnx"
    for end in {*range(0, len(content), 7), *range(len(content) - 60, len(content))}:
        path.write_bytes(content[:end])
        with pytest.raises(IntegrityError):
            check_file(path)


def field(number: int, content: bytes) -> bytes:
    """A field of protobuf, delimited, with fewer than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (b"\x08" + b"\xff" * 9 + b"\x7f", "overlong number"),
        (b"\x08" + b"\x80" * 11 + b"\x01", "overlong number"),
        (b"\x28\x81\x00", "overlong number"),
        (b"\x28\x81", "does not end in it"),
        (b"\xff", "does not end in it"),
        (field(3, b"ab")[:-1], "truncated: its field 3"),
        (b"\x32\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "truncated: its field 6"),
        (b"\x2b", "unknown wire type 3"),
        (b"\x2c", "unknown wire type 4"),
        (b"\x2f", "unknown wire type 7"),
        (field(5, b""), "has its model_version in another type"),
        (b"\x11" + bytes(8), "has its producer_name in another type"),
        (field(13, b""), "a field 13 that"),
        (b"\x00\x00", "a field 0 that"),
        (field(7, b""), "more than one graph"),
        (b"\x08\x08", "more than one ir_version"),
        (field(2, b"\xff"), "producer_name of the model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_two_parsers_could_read_differently_is_refused(more: bytes, reason: str, tmp_path: Path) -> None:
    """Fields twice, which protobuf merges, of other types or unknown, which it skips, and numbers that do not end."""
    model = make_tiny.network()
    model.ClearField("producer_name")
    with pytest.raises(IntegrityError, match=reason):
        check_file(write_bytes(tmp_path / "model.onnx", model.SerializeToString() + more))


def test_millions_of_fields_are_refused_in_bounded_time(tmp_path: Path) -> None:
    """Reading stops at the limit, whatever the size of the file."""
    content = make_tiny.network().SerializeToString() + field(14, b"") * 3_000_000
    with pytest.raises(IntegrityError, match="beyond the fields"):
        check_file(write_bytes(tmp_path / "model.onnx", content))


def test_a_list_of_millions_of_numbers_is_refused_in_bounded_time(tmp_path: Path) -> None:
    """In the attribute of a node, where a list is read."""
    path = write(tmp_path / "model.onnx", lambda model: conv_with(model, pads=[0] * 1_000_000))
    with pytest.raises(IntegrityError, match="beyond the fields"):
        check_file(path)


def test_a_count_of_multiply_adds_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that computes for hours is refused as one that takes all memory is."""
    monkeypatch.setattr(check, "MAX_MACS_PER_INPUT", 10)
    with pytest.raises(IntegrityError, match="multiply-adds; expected at most"):
        check_file(make_tiny.HERE / "tiny.onnx")


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "empty", "sparse", "loop", "missing"])
def test_what_is_no_regular_file_of_a_fair_size_is_refused(kind: str, tmp_path: Path) -> None:
    """Without waiting for the end of a pipe, and without reading a terabyte of nothing."""
    path = tmp_path / "model.onnx"
    makers: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "empty": path.touch,
        "sparse": lambda: (path.touch(), os.truncate(path, 1 << 40)),
        "loop": lambda: path.symlink_to(path),
        "missing": lambda: None,
    }
    makers[kind]()
    with pytest.raises(IntegrityError, match=r"regular file|bytes; expected|cannot be read"):
        check_file(path)


@pytest.mark.parametrize("opset", [11, 13, 17])
def test_the_forms_of_other_exporters_are_accepted(opset: int, tmp_path: Path) -> None:
    """A flattening by Shape, Gather and Concat, axes as attributes or inputs, and constants as nodes."""

    def spoil(model: onnx.ModelProto) -> None:
        del model.graph.node[3]
        del model.opset_import[:]
        model.opset_import.append(helper.make_opsetid("", opset))
        axes = {"axes": [0]} if opset < 13 else {}
        zero = [] if axes else ["zeros"]
        nodes = [
            helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array(0))),
            helper.make_node("Constant", [], ["zeros"], value=numpy_helper.from_array(np.array([0]))),
            helper.make_node("Constant", [], ["rest"], value=numpy_helper.from_array(np.array([-1]))),
            helper.make_node("Shape", ["pooled"], ["sides"]),
            helper.make_node("Gather", ["sides", "zero"], ["faces"], axis=0),
            helper.make_node("Unsqueeze", ["faces", *zero], ["first"], **axes),
            helper.make_node("Concat", ["first", "rest"], ["target"], axis=0),
            helper.make_node("Reshape", ["pooled", "target"], ["features"]),
        ]
        for k, node in enumerate(nodes):
            model.graph.node.insert(3 + k, node)

    path = write(tmp_path / "model.onnx", spoil)
    with edgeemo.load(path) as model, edgeemo.load(make_tiny.HERE / "tiny.onnx") as tiny:
        face = np.zeros((48, 48), np.uint8)
        assert model.predict(face) == tiny.predict(face)


def quantized(data_type: int | None) -> hostile.Spoil:
    """A pair of QuantizeLinear and DequantizeLinear with this zero point; None: without one."""

    def spoil(model: onnx.ModelProto) -> None:
        names = [hostile.add_constant(model, "scale", np.float32(0.1))]
        if data_type is not None:
            model.graph.initializer.append(helper.make_tensor("zero", data_type, [], [0]))
            names.append("zero")
        pair = [
            helper.make_node("QuantizeLinear", ["input", *names], ["whole"]),
            helper.make_node("DequantizeLinear", ["whole", *names], ["faces"]),
        ]
        for node in reversed(pair):
            model.graph.node.insert(0, node)
        model.graph.node[2].input[0] = "faces"

    return spoil


@pytest.mark.parametrize("zero_point", [TensorProto.UINT8, None])
@pytest.mark.parametrize("stated", [None, "cpu", "tensorrt"])
@pytest.mark.usefixtures("orin")
def test_tensorrt_gets_no_uint8_activations_whatever_the_card_says(
    zero_point: int | None, stated: str | None, tmp_path: Path
) -> None:
    """Where all zero points are 0 its parser takes them, and clips at half of the range."""
    path = write(tmp_path / "model.onnx", quantized(zero_point))
    precision = Precision("int8", target_format=stated)
    write_card(path, replace(make_tiny.card(), precision=precision))
    with pytest.raises(UsageError, match="--target-format tensorrt"):
        edgeemo.load(path, backend="onnxruntime-tensorrt")
    with pytest.raises(UsageError, match="--target-format tensorrt"):
        build(Build(model=str(path), library="tensorrt"))
    with edgeemo.load(path) as model:
        assert model.predict(np.zeros((48, 48), np.uint8)).label in model.labels


@pytest.mark.parametrize(
    "precision", [Precision(), Precision("int8"), Precision("float32", actual="float32")], ids=["no", "int8", "float"]
)
@pytest.mark.usefixtures("orin")
def test_int8_is_not_built_where_the_card_states_no_target_format(precision: Precision, tmp_path: Path) -> None:
    """That a file is INT8 is read off the file."""
    path = write(tmp_path / "model.onnx", quantized(TensorProto.INT8))
    write_card(path, replace(make_tiny.card(), precision=precision))
    with pytest.raises(UsageError, match=r"states no target format.*edgeemo compress"):
        build(Build(model=str(path), library="tensorrt"))
    write_card(path, replace(make_tiny.card(), precision=Precision("int8", target_format="tensorrt")))
    assert build(Build(model=str(path), library="tensorrt")).is_file()


def test_a_kernel_that_refuses_the_file_is_no_traceback(tmp_path: Path) -> None:
    """An index that is out of range is found only when the model runs."""

    def spoil(model: onnx.ModelProto) -> None:
        table, index = (hostile.add_constant(model, *one) for one in (("t", hostile.zeros(3)), ("i", hostile.ints(-9))))
        shifted = helper.make_node("Add", [index, hostile.add_constant(model, "more", hostile.ints(99))], ["at"])
        faces = helper.make_node("Shape", ["input"], ["sides"])
        added = helper.make_node("Add", ["at", "sides"], ["places"])
        hostile.add_to_logits(model, shifted, faces, added, helper.make_node("Gather", [table, "places"], ["made"]))

    path = write(tmp_path / "model.onnx", spoil)
    with edgeemo.load(path) as model, pytest.raises(IntegrityError, match="is refused by ONNX Runtime") as caught:
        model.predict(np.zeros((48, 48), np.uint8))
    assert str(path) in str(caught.value)


class Refusing:
    """A session or an infer request whose kernel fails."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def run(self, *_: object) -> None:
        """Fail."""
        raise RuntimeError(self._reason)

    infer = run


@pytest.mark.parametrize(
    ("backend", "reason", "error"),
    [
        ("onnxruntime", "Failed to allocate memory for requested buffer of size 9", MachineError),
        ("onnxruntime", "std::bad_alloc", MachineError),
        ("onnxruntime", "axis 255 is not in valid range", IntegrityError),
        ("openvino", "Check 'axis' failed", IntegrityError),
    ],
)
def test_a_run_that_fails_names_the_file_and_the_reason(
    backend: str, reason: str, error: type[Exception], tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory is the machine's, all else the file's."""
    if backend == "openvino":
        pytest.importorskip("openvino", reason="pip install 'edgeemo[openvino]'")
    with edgeemo.load(tiny, backend=backend) as model:
        monkeypatch.setattr(model.backend, "_session" if backend == "onnxruntime" else "_request", Refusing(reason))
        with pytest.raises(error, match=reason) as caught:
            model.predict(np.zeros((48, 48), np.uint8))
    assert str(tiny) in str(caught.value)


def conv_with(model: onnx.ModelProto, **changes: Any) -> None:
    node = model.graph.node[0]
    for name, value in changes.items():
        kept = [one for one in node.attribute if one.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda model: conv_with(model, kernel_shape=[3, 1]), "its kernel is"),
        (lambda model: model.graph.node[0].input.append("bias"), "its bias has the shape"),
        (lambda model: conv_with(model, group=2), "do not fit an input"),
        (lambda model: conv_with(model, group=0), "do not fit an input"),
        (lambda model: conv_with(model, strides=[0, 1]), "moves backwards"),
        (lambda model: conv_with(model, pads=[-1, 0, 0, 0]), "moves backwards"),
        (lambda model: conv_with(model, pads=[1]), "its window has"),
        (lambda model: conv_with(model, strides=2), "its strides is not a list"),
        (lambda model: conv_with(model, group=[1]), "its group is not a whole number"),
        (lambda model: conv_with(model, dilations=[99, 1]), "does not fit an input"),
        (lambda model: conv_with(model, extra=["a"]), "list of texts"),
        (lambda model: setattr(model.graph.node[1], "op_type", "Transpose") or None, "do not|does not fit|expected"),
        (lambda model: model.graph.node[4].input.__setitem__(0, "active"), "expected two sides each"),
        (lambda model: model.graph.node[1].input.__setitem__(0, "logits"), "which nothing before it makes"),
        (lambda model: model.graph.node[1].output.__setitem__(0, "edges"), "which is already there"),
        (lambda model: model.graph.node[1].output.append("second"), "has 2 outputs"),
        (lambda model: model.graph.node[1].ClearField("output"), "has 0 outputs"),
        (lambda model: model.graph.node[1].ClearField("input"), "it has no input 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_node_that_does_not_fit_is_refused_by_name(spoil: hostile.Spoil, reason: str, tmp_path: Path) -> None:
    """Engines find some of it only when they run, each in its own words."""
    with pytest.raises(IntegrityError, match=reason):
        check_file(write(tmp_path / "model.onnx", spoil))
