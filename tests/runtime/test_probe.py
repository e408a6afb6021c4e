"""What the processor's kernels do is measured, and a file that could saturate runs in exact arithmetic."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import make_probe
import make_tiny
import onnx
import pytest

import edgeemo
from edgeemo.card import Overflow, Precision, read_card, write_card
from edgeemo.runtime import advice, probe
from edgeemo.runtime.backends.ort import OnnxBackend

EXACT = "session.x64quantprecision"
UNCHECKED = Precision("int8", target_format="cpu")
SAFE = replace(UNCHECKED, overflow=Overflow(safe=True))
UNSAFE = replace(UNCHECKED, overflow=Overflow(safe=False))


def with_precision(path: Path, precision: Precision) -> Path:
    make_tiny.write(path)
    write_card(path, replace(read_card(path), precision=precision))
    return path


def option_of(backend: OnnxBackend, name: str) -> str:
    """The value of a session option; empty if it was not set."""
    try:
        return backend._session.get_session_options().get_session_config_entry(name)
    except RuntimeError:
        return ""


def test_the_packaged_probe_is_what_its_script_makes() -> None:
    """Nobody changed the file by hand."""
    assert onnx.load(probe.PROBE) == make_probe.network()


def test_exact_arithmetic_never_saturates() -> None:
    """On whatever processor this runs."""
    assert probe.run_probe(exact=True) == probe.EXACT
    assert probe.run_probe(exact=False) in (probe.EXACT, 129)


@pytest.mark.parametrize("saturates", [True, False])
@pytest.mark.parametrize(
    ("precision", "exact"),
    [
        (SAFE, ""),
        (Precision("float32", actual="float32"), ""),
        (UNSAFE, "1"),
        (UNCHECKED, "1"),  # of an edgeemo without the check
        (Precision(), "1"),  # somebody else's
    ],
)
def test_a_file_that_is_not_proven_safe_asks_for_exact_arithmetic_where_kernels_saturate(
    precision: Precision, exact: str, saturates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only there, and only such a file: with VNNI the exact kernels would take twice the time for nothing."""
    monkeypatch.setattr(advice, "kernels_saturate", lambda: saturates)
    exact = exact if saturates else ""
    with edgeemo.load(with_precision(tmp_path / "m.onnx", precision)) as model:
        assert option_of(model.backend, EXACT) == exact


@pytest.mark.parametrize(("precision", "saturates", "lines"), [(UNSAFE, True, 1), (UNSAFE, False, 0), (SAFE, True, 0)])
def test_load_names_the_cost_where_kernels_saturate(
    precision: Precision, saturates: bool, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """One warning with the cure, on processors that need the exact arithmetic and for files that need it."""
    monkeypatch.setattr(advice, "kernels_saturate", lambda: saturates)
    with caplog.at_level(logging.WARNING), edgeemo.load(with_precision(tmp_path / "m.onnx", precision)):
        pass
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == lines
    assert all("exact arithmetic" in line and "edgeemo compress RUN --int8" in line for line in found)


@pytest.mark.parametrize(("precision", "lines"), [(UNSAFE, 1), (SAFE, 0)])
def test_openvino_which_has_no_exact_arithmetic_is_advised_against(
    precision: Precision, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a file that is not proven safe, on a processor without VNNI."""
    monkeypatch.setattr(advice, "kernels_saturate", lambda: True)
    found = advice.advise(replace(make_tiny.card(), precision=precision), "openvino", "m.onnx")
    assert len(found) == lines
    assert all("run it in ONNX Runtime" in line for line in found)


@pytest.mark.parametrize(("machine", "lines"), [("x86_64", 1), ("AMD64", 1), ("aarch64", 0)])
def test_load_names_the_better_format_for_this_backend(
    machine: str, lines: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """int8 activations in ONNX Runtime are slow on x86; on ARM they are not."""
    monkeypatch.setattr(advice.platform, "machine", lambda: machine)
    path = with_precision(tmp_path / "m.onnx", replace(SAFE, target_format="tensorrt"))
    with caplog.at_level(logging.WARNING), edgeemo.load(path) as model:
        assert len(model.advice) == lines
    assert sum("--target-format cpu" in record.getMessage() for record in caplog.records) == lines


def test_the_sessions_options_let_integer_kernels_run(tiny: Path) -> None:
    """Full optimisation, one thread unless more are requested, no spinning, and never S8 activations forced on x86."""
    with edgeemo.load(tiny) as model:
        options = model.backend._session.get_session_options()
        assert options.graph_optimization_level.name == "ORT_ENABLE_ALL"
        assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
        assert option_of(model.backend, "session.intra_op.allow_spinning") == "0"
        assert option_of(model.backend, "session.qdqisint8allowed") == ""
    with edgeemo.load(tiny, threads=2) as model:
        assert model.backend._session.get_session_options().intra_op_num_threads == 2


@pytest.mark.parametrize("name", ["nano", "small", "base"])
def test_a_shipped_model_runs_in_integer_kernels_as_it_is_opened(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph of the runtime's own session has no convolution or matrix product left in float."""
    made = edgeemo.runtime.backends.ort.make_options

    def saving(*arguments):
        options = made(*arguments)
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        return options

    monkeypatch.setattr("edgeemo.runtime.backends.ort.make_options", saving)
    with edgeemo.load(name):
        kinds = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert {"QLinearConv", "QGemm"} <= kinds
    assert not {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul"} & kinds
