"""Files in an older ONNX opset compute what those in the default one do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from edgeemo import options
from edgeemo.card import read_card
from edgeemo.cli import main
from edgeemo.compress import opset, run, write
from edgeemo.errors import GateError
from edgeemo.runtime import load
from edgeemo.stages import Compress

EVERY_FILE = Compress(
    run="to be replaced",
    opset=opset.OLDEST,
    int8=True,
    target_format="both",
    fp16=True,
    calibration_count=64,
    rounding="nearest",
    min_agreement=0,
    min_int8_share=0,
    threads=1,
    time=False,
)


def read_opset(file: Path) -> tuple[int, int]:
    """Return the opset and IR version of a file."""
    model = onnx.load(file)
    return {imported.domain: imported.version for imported in model.opset_import}[""], model.ir_version


@pytest.fixture(scope="module")
def lowered(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a compression in the oldest opset."""
    out = tmp_path_factory.mktemp("lowered")
    run.run(replace(EVERY_FILE, run=trained, out=out))
    return out


def test_every_file_is_written_in_the_requested_opset(lowered: Path) -> None:
    """Float, FP16, INT8 for the CPU and for TensorRT; the cards record it."""
    files = sorted(lowered.glob("*.onnx"))
    assert [file.name for file in files] == [
        *("model.float.onnx", "model.fp16.onnx", "model.int8.onnx", "model.int8.tensorrt.onnx"),
    ]
    for file in files:
        assert read_opset(file) == (opset.OLDEST, 7), file.name
        assert read_card(file).history[-1].config["opset"] == opset.OLDEST
    assert not list(lowered.glob("*default*"))


def test_the_older_file_predicts_the_same(lowered: Path, float_model: Path) -> None:
    """To the bit, because the operators are the same."""
    batch = np.random.default_rng(1).standard_normal((8, 1, 48, 48)).astype(np.float32)
    with load(lowered / write.FLOAT) as older, load(float_model) as default:
        np.testing.assert_array_equal(older.logits(batch), default.logits(batch))


@pytest.mark.parametrize("version", [13, 14, 15, 17, 18])
def test_operators_that_changed_are_rewritten(version: int, backbone_as_onnx: Any) -> None:
    """MobileNetV3 has all of them: reductions with axes, HardSwish, Shape of a part, Reshape."""
    exported = backbone_as_onnx("mobilenet_v3_large")
    model = opset.lower(onnx.load(exported.path), version)
    older = exported.path.with_name(f"opset-{version}.onnx")
    onnx.save(model, older)
    assert read_opset(older)[0] == version
    np.testing.assert_allclose(opset._run(older, exported.faces), exported.logits, atol=1e-3)
    opset.check_logits(older, onnx.load(exported.path), exported.faces)


def make_model(operator: str, version: int, **attributes: Any) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("images", "logits")]
    nodes = [helper.make_node(operator, ["images"], ["logits"], name="only", **attributes)]
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)


def test_an_operator_that_the_opset_lacks_is_refused() -> None:
    """Mish came with opset 18."""
    assert opset.lower(make_model("Mish", 20), 18)
    with pytest.raises(GateError, match=r"cannot be written with --opset 17 .*choose a later one"):
        opset.lower(make_model("Mish", 20), 17)


def test_other_logits_are_refused(tmp_path: Path) -> None:
    """The file is compared by running it, not by its structure; nothing remains beside it."""
    onnx.save(make_model("LeakyRelu", 13, alpha=0.2), tmp_path / "older.onnx")
    batch = np.full((2, 4), -1.0, np.float32)
    opset.check_logits(tmp_path / "older.onnx", make_model("LeakyRelu", 20, alpha=0.2), batch)
    with pytest.raises(GateError, match=r"changes logits by 0\.1"):
        opset.check_logits(tmp_path / "older.onnx", make_model("LeakyRelu", 20, alpha=0.3), batch)
    assert [file.name for file in tmp_path.iterdir()] == ["older.onnx"]


@pytest.mark.parametrize("version", [opset.OLDEST - 1, opset.DEFAULT + 1])
def test_an_opset_out_of_range_is_refused_before_any_work(version: int, tmp_path: Path) -> None:
    """In one line, with the range: per-channel INT8 needs 13, and the exporter writes up to 20."""
    done = CliRunner().invoke(main, ["compress", str(tmp_path), "--int8", "--opset", str(version)])
    assert done.exit_code == 2
    assert f"{version} is not in the range {opset.OLDEST}<=x<={opset.DEFAULT}" in done.output
    (about,) = [one for one in options.options(Compress) if one.name == "opset"]
    assert (about.default, about.about.least, about.about.most) == (opset.DEFAULT, opset.OLDEST, opset.DEFAULT)
