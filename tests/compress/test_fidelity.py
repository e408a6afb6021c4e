"""Difference between INT8 and float: by method and by layer, and the choice of layers to keep in float."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import HistogramCollector, TensorsData

from edgeemo.card import read_card
from edgeemo.compress.quantize import fidelity, precision
from edgeemo.compress.quantize import ranges as ranges_module
from edgeemo.compress.quantize.fidelity import Fidelity, Reference
from edgeemo.compress.quantize.qdq import TARGET_FORMATS, quantize
from edgeemo.compress.quantize.ranges import METHODS, Ranges, observe, predict_onnx
from edgeemo.data import Faces
from edgeemo.errors import GateError, UsageError
from edgeemo.metrics import divergence


@pytest.fixture(scope="module")
def ranges(float_model: Path, calibration_faces: Faces) -> Ranges:
    return observe(float_model, calibration_faces, read_card(float_model).input, method="minmax")


@pytest.fixture(scope="module")
def reference(float_model: Path, calibration_faces: Faces) -> Reference:
    return Reference.compute(
        float_model, calibration_faces, read_card(float_model).input, target_format="cpu", threads=1
    )


def test_divergence_is_that_of_kullback_and_leibler() -> None:
    """0 for equal distributions; 0.5 log(4/3) for (0.5, 0.5) and (0.25, 0.75)."""
    logits = np.log([[0.5, 0.5]])
    assert divergence(logits, logits + 3) == pytest.approx(0, abs=1e-12)
    assert divergence(logits, np.log([[0.25, 0.75]])) == pytest.approx(0.5 * np.log(4 / 3))


def test_both_target_formats_predict_the_same(
    float_model: Path, ranges: Ranges, calibration_faces: Faces, tmp_path: Path
) -> None:
    """From the same ranges, on at least 95 % of the faces; logits differ by less than a tenth of their spread."""
    contract = read_card(float_model).input
    logits = {}
    for target_format in TARGET_FORMATS:
        path = tmp_path / f"{target_format}.onnx"
        quantize(ranges, path, target_format=target_format)
        logits[target_format] = predict_onnx(path, calibration_faces, contract, threads=1)
    assert (logits["cpu"].argmax(1) == logits["tensorrt"].argmax(1)).mean() >= 0.95
    assert (logits["cpu"] - logits["tensorrt"]).std() < 0.1 * logits["cpu"].std(axis=0).mean()


def test_layers_have_the_names_of_the_network(ranges: Ranges) -> None:
    """Eight convolutions and the classifier, from input to output."""
    names = list(ranges.layers)
    assert names[0] == "backbone.0"
    assert names[-1] == "head.1"
    assert len(names) == 9


def test_layers_are_listed_by_their_own_divergence(ranges: Ranges, reference: Reference) -> None:
    """All layers, the worst first; errors can cancel, so one alone may diverge slightly more than all together."""
    errors = fidelity.measure_layers(ranges, reference)
    costs = [error.divergence for error in errors.values()]
    assert set(errors) == set(ranges.layers)
    assert costs == sorted(costs, reverse=True)
    assert 0 < costs[0] <= 1.5 * reference.measure(ranges).divergence


def test_files_are_compared_on_every_face(
    float_model: Path, ranges: Ranges, calibration_faces: Faces, tmp_path: Path
) -> None:
    """Divergence and agreement are those of the logits of both files."""
    contract, path = read_card(float_model).input, tmp_path / "int8.onnx"
    quantize(ranges, path, target_format="cpu")
    result = fidelity.compare_files(float_model, path, calibration_faces, contract, threads=1)
    exact, rounded = (predict_onnx(file, calibration_faces, contract, threads=1) for file in (float_model, path))
    assert result.agreement == (exact.argmax(1) == rounded.argmax(1)).mean()
    assert result.divergence == divergence(exact, rounded) > 0


def test_agreement_is_measured_on_valid_faces_and_on_train_faces_if_they_are_few(calibration_faces: Faces) -> None:
    """512 of many; if there are few, all of them followed by train faces."""
    few, many = calibration_faces.take_evenly(20), calibration_faces.take(np.arange(600) % len(calibration_faces))
    assert fidelity.select_agreement_faces(many, few).ids == many.take_evenly(512).ids
    assert fidelity.select_agreement_faces(few, calibration_faces).ids == few.ids + calibration_faces.ids


def test_too_little_agreement_is_refused_with_options_to_try() -> None:
    """97.9 % is refused, 98 % is not."""
    with pytest.raises(GateError, match=r"97\.9 % of 512 faces, expected 98 %\. Keep the model in float, or accept"):
        fidelity.check_agreement(Fidelity(0.01, 0.979), 512, least=0.98)
    with pytest.raises(GateError, match=r"Try --qat, then --keep-float auto; or accept it with --min-agreement"):
        fidelity.check_agreement(Fidelity(0.01, 0.979), 512, least=0.98, untried=["--qat", "--keep-float auto"])
    fidelity.check_agreement(Fidelity(0.01, 0.98), 512, least=0.98)


def test_a_layer_kept_in_float_runs_in_float_and_the_others_do_not(ranges: Ranges, tmp_path: Path) -> None:
    """ONNX Runtime executes exactly one float convolution."""
    path = tmp_path / "kept.onnx"
    quantize(ranges, path, target_format="cpu", keep_float=["backbone.3"])
    operators = precision.count_integer_share(path, target_format="cpu").operators
    assert operators["QLinearConv"] == 7
    assert sum(count for name, count in operators.items() if "Fused" in name or name == "Conv") == 1


def test_an_unknown_layer_is_refused(ranges: Ranges, tmp_path: Path) -> None:
    """The error lists the layers of the network."""
    with pytest.raises(UsageError, match=r"unknown layer.*'backbone.99'; known: backbone.0, "):
        quantize(ranges, tmp_path / "never.onnx", target_format="cpu", keep_float=["backbone.99"])
    assert not list(tmp_path.iterdir())


def test_no_layer_is_kept_in_float_if_int8_agrees() -> None:
    """With a reference that requires no float layer."""
    errors = {f"layer{k}": Fidelity(1 / (k + 1), 0.9) for k in range(12)}
    assert fidelity.choose_float_layers(None, Wanting(0), errors) == ()  # type: ignore[arg-type]


@pytest.mark.parametrize(("target", "kept"), [(0.0, 0), (1.01, 2)])
def test_layers_are_chosen_for_a_real_network(
    target: float, kept: int, ranges: Ranges, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If any agreement is enough, none; if none is, the two worst of nine layers."""
    monkeypatch.setattr(fidelity, "TARGET_AGREEMENT", target)
    errors = fidelity.measure_layers(ranges, reference)
    assert fidelity.choose_float_layers(ranges, reference, errors) == tuple(errors)[:kept]


def test_the_worst_layers_are_kept_until_int8_agrees() -> None:
    """With a reference that requires two float layers: the two worst."""
    errors = {f"layer{k}": Fidelity(1 / (k + 1), 0.9) for k in range(12)}
    assert fidelity.choose_float_layers(None, Wanting(2), errors) == ("layer0", "layer1")  # type: ignore[arg-type]


def test_a_warning_is_logged_if_a_quarter_is_not_enough(caplog: pytest.LogCaptureFixture) -> None:
    """Three of twelve layers are kept in float, with a warning."""
    errors = {f"layer{k}": Fidelity(1 / (k + 1), 0.9) for k in range(12)}
    with caplog.at_level(logging.WARNING):
        assert len(fidelity.choose_float_layers(None, Wanting(99), errors)) == 3  # type: ignore[arg-type]
    assert "keeping 3 of 12 layers in float: 50.0 % agreement" in caplog.text


def test_train_faces_need_more_agreement_than_new_ones() -> None:
    """With 98.5 % on train faces, another layer is kept in float."""
    errors = {f"layer{k}": Fidelity(1 / (k + 1), 0.9) for k in range(12)}
    assert fidelity.choose_float_layers(None, Wanting(1, before=0.985), errors) == ("layer0",)  # type: ignore[arg-type]


class Wanting:
    """A reference with which INT8 agrees once `enough` layers are in float."""

    faces = range(64)

    def __init__(self, enough: int, *, before: float = 0.5) -> None:
        self.enough, self.before = enough, before

    def measure(self, _: object, *, keep_float: tuple[str, ...] = ()) -> Fidelity:
        """Return full agreement if enough layers are in float, otherwise `before`."""
        return Fidelity(0.0, 1.0 if len(keep_float) >= self.enough else self.before)


def test_auto_chooses_the_method_with_the_least_divergence(
    float_model: Path, calibration_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three are measured on held-out faces; the ranges are those of the best one on all faces."""
    contract = read_card(float_model).input
    observed: list[set[str]] = []
    held_out: list[set[str]] = []
    observe_original, compute_original = fidelity.observe, Reference.compute

    def record_observed(source: Path, faces: Faces, *args: Any, **kwargs: Any) -> Ranges:
        observed.append(set(faces.ids))
        return observe_original(source, faces, *args, **kwargs)

    def record_held_out(source: Path, faces: Faces, *args: Any, **kwargs: Any) -> Reference:
        held_out.append(set(faces.ids))
        return compute_original(source, faces, *args, **kwargs)

    monkeypatch.setattr(fidelity, "observe", record_observed)
    monkeypatch.setattr(Reference, "compute", record_held_out)
    chosen, tried = fidelity.choose_ranges(
        float_model, calibration_faces, contract, method="auto", target_format="cpu", threads=1
    )
    assert set(tried) == set(METHODS)
    assert chosen.method == min(tried, key=lambda name: tried[name].divergence)
    assert len(observed) == len(METHODS) + 1
    assert len(held_out) == 1
    assert all(faces | held_out[0] == observed[-1] == set(calibration_faces.ids) for faces in observed[:-1])
    assert not any(faces & held_out[0] for faces in observed[:-1])
    again = observe(float_model, calibration_faces, contract, method=chosen.method)
    assert chosen.get("relu") == again.get("relu")


def test_entropy_gives_other_ranges_than_minmax(float_model: Path, calibration_faces: Faces, ranges: Ranges) -> None:
    """With ONNX Runtime's default number of bins they would be the same."""
    clipped = observe(float_model, calibration_faces, read_card(float_model).input, method="entropy")
    assert clipped.get("relu") != ranges.get("relu")


def test_merged_bins_count_the_same_values() -> None:
    """From 49,346 bins, as in EfficientNet-B4: the counts are those of a histogram with the merged edges."""
    values = np.random.default_rng(0).normal(0, 10, 5000).astype(np.float32)
    limit = np.float32(150)
    fine = (*np.histogram(values, 49_346, range=(-limit, limit)), values.min(), values.max(), limit)
    counts, edges, *rest = ranges_module.merge_bins(fine)
    assert len(counts) <= ranges_module.MAX_BINS
    assert len(edges) == len(counts) + 1
    assert rest == list(fine[2:])
    assert np.array_equal(counts, np.histogram(values, edges)[0])
    assert edges[len(counts) // 2] == pytest.approx(0, abs=1e-4)
    assert ranges_module.merge_bins((counts, edges, *rest))[0] is counts


def test_entropy_is_fast_if_later_faces_have_more_contrast(
    float_model: Path, calibration_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a nearly uniform first batch, no histogram exceeds the maximum number of bins."""
    grey = replace(calibration_faces, pixels=calibration_faces.pixels.copy())
    grey.pixels[:16] = 128 + grey.pixels[:16] // 128
    searched: list[int] = []

    def search(_: object, histogram: tuple[np.ndarray, ...], __: int) -> tuple[np.ndarray, np.ndarray]:
        searched.append(len(histogram[0]))
        return histogram[2], histogram[3]

    monkeypatch.setattr(HistogramCollector, "get_entropy_threshold", search)
    observe(float_model, grey, read_card(float_model).input, method="entropy")
    assert len(searched) > 5
    assert max(searched) <= ranges_module.MAX_BINS


def test_branches_with_mismatched_ranges_are_reported() -> None:
    """The sum of a wide and a narrow branch is reported, of two similar ones not."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "b", "c")]
    nodes = [helper.make_node("Add", ["a", "b"], ["c"], name="sum")]
    model = helper.make_model(helper.make_graph(nodes, "g", value[:2], value[2:]))

    def find(wide: float) -> list[str]:
        data = {"a": (np.float32(-wide), np.float32(wide)), "b": (np.float32(-1), np.float32(1))}
        return fidelity.find_mismatched_branches(Ranges(model, TensorsData(CalibrationMethod.MinMax, data), "minmax"))

    assert find(3.0) == []
    assert find(32.0) == ["Add sum: a has 32 times the range of b"]
    onnx.checker.check_model(model)


def test_a_method_that_fails_is_skipped_by_auto(
    float_model: Path, calibration_faces: Faces, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A histogram that would need millions of bins is an error if requested by name, and no candidate for `auto`."""
    make = ranges_module.create_calibrator

    def broken(*arguments: object, calibrate_method: CalibrationMethod, **options: object) -> object:
        calibrator = make(*arguments, calibrate_method=calibrate_method, **options)
        if calibrate_method == CalibrationMethod.Entropy:
            monkeypatch.setattr(calibrator, "collect_data", lambda _: np.histogram([0.0, 1.0], 10, range=(0, np.inf)))
        return calibrator

    monkeypatch.setattr(ranges_module, "create_calibrator", broken)
    contract = read_card(float_model).input
    with pytest.raises(UsageError, match="--method entropy cannot build"):
        observe(float_model, calibration_faces, contract, method="entropy")
    settings = {"target_format": "cpu", "threads": 1}
    _, tried = fidelity.choose_ranges(float_model, calibration_faces, contract, method="auto", **settings)
    assert set(tried) == {"minmax", "percentile"}
    assert "skipped: --method entropy" in caplog.text
