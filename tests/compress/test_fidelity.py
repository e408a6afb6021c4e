"""How far INT8 is from float: by method, by layer, and what is left in float."""

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
from edgeemo.compress.quantize import ranges as measured
from edgeemo.compress.quantize.fidelity import Fidelity, Judge
from edgeemo.compress.quantize.qdq import TARGET_FORMATS, quantize
from edgeemo.compress.quantize.ranges import METHODS, Ranges, file_logits, observe
from edgeemo.data import Faces
from edgeemo.errors import GateError, UsageError
from edgeemo.metrics import divergence


@pytest.fixture(scope="module")
def ranges(float_model: Path, calibration_faces: Faces) -> Ranges:
    return observe(float_model, calibration_faces, read_card(float_model).input, method="minmax")


@pytest.fixture(scope="module")
def judge(float_model: Path, calibration_faces: Faces) -> Judge:
    return Judge.of(float_model, calibration_faces, read_card(float_model).input, target_format="cpu", threads=1)


def test_divergence_is_kullback_and_leiblers() -> None:
    """0 for the same logits, and for (0.5, 0.5) against (0.25, 0.75) half a log of 4/3."""
    logits = np.log([[0.5, 0.5]])
    assert divergence(logits, logits + 3) == pytest.approx(0, abs=1e-12)
    assert divergence(logits, np.log([[0.25, 0.75]])) == pytest.approx(0.5 * np.log(4 / 3))


def test_both_target_formats_say_the_same(
    float_model: Path, ranges: Ranges, calibration_faces: Faces, tmp_path: Path
) -> None:
    """From one set of ranges, on at least 95 % of the faces; their logits differ by rounding, a tenth of the spread."""
    contract = read_card(float_model).input
    said = {}
    for target_format in TARGET_FORMATS:
        path = tmp_path / f"{target_format}.onnx"
        quantize(ranges, path, target_format=target_format)
        said[target_format] = file_logits(path, calibration_faces, contract, threads=1)
    assert (said["cpu"].argmax(1) == said["tensorrt"].argmax(1)).mean() >= 0.95
    assert (said["cpu"] - said["tensorrt"]).std() < 0.1 * said["cpu"].std(axis=0).mean()


def test_layers_have_the_names_of_the_network(ranges: Ranges) -> None:
    """Eight convolutions and the classifier, from the image up."""
    names = list(ranges.layers)
    assert names[0] == "backbone.0"
    assert names[-1] == "head.1"
    assert len(names) == 9


def test_layers_are_listed_by_what_each_costs_alone(ranges: Ranges, judge: Judge) -> None:
    """All of them, the worst first; errors may cancel, so one alone can cost a little more than the whole in INT8."""
    errors = fidelity.measure_layers(ranges, judge)
    costs = [error.divergence for error in errors.values()]
    assert set(errors) == set(ranges.layers)
    assert costs == sorted(costs, reverse=True)
    assert 0 < costs[0] <= 1.5 * judge.fidelity(ranges).divergence


def test_what_a_file_changed_is_judged_on_every_face(
    float_model: Path, ranges: Ranges, calibration_faces: Faces, tmp_path: Path
) -> None:
    """As its logits beside those of its float form tell: how often the label stays."""
    contract, path = read_card(float_model).input, tmp_path / "int8.onnx"
    quantize(ranges, path, target_format="cpu")
    found = fidelity.compare_files(float_model, path, calibration_faces, contract, threads=1)
    exact, rounded = (file_logits(file, calibration_faces, contract, threads=1) for file in (float_model, path))
    assert found.agreement == (exact.argmax(1) == rounded.argmax(1)).mean()
    assert found.divergence == divergence(exact, rounded) > 0


def test_witnesses_are_valid_faces_and_train_faces_where_those_are_few(calibration_faces: Faces) -> None:
    """512 of many; of few, all of them and then the train faces."""
    few, many = calibration_faces.take_evenly(20), calibration_faces.take(np.arange(600) % len(calibration_faces))
    assert fidelity.agreement_faces(many, few).ids == many.take_evenly(512).ids
    assert fidelity.agreement_faces(few, calibration_faces).ids == few.ids + calibration_faces.ids


def test_too_little_agreement_is_refused_with_what_to_try() -> None:
    """97.9 % is not 98 %; 98 % is."""
    with pytest.raises(GateError, match=r"97\.9 % of 512 faces, expected 98 %\. Leave it in float, or accept"):
        fidelity.check(Fidelity(0.01, 0.979), 512, least=0.98)
    with pytest.raises(GateError, match=r"Try --qat, then --keep-float auto; or accept it with --min-agreement"):
        fidelity.check(Fidelity(0.01, 0.979), 512, least=0.98, untried=["--qat", "--keep-float auto"])
    fidelity.check(Fidelity(0.01, 0.98), 512, least=0.98)


def test_a_kept_layer_runs_in_float_and_the_rest_does_not(ranges: Ranges, tmp_path: Path) -> None:
    """By its name; ONNX Runtime then runs one float convolution."""
    path = tmp_path / "kept.onnx"
    quantize(ranges, path, target_format="cpu", keep_float=["backbone.3"])
    operators = precision.count_integer_share(path, target_format="cpu").operators
    assert operators["QLinearConv"] == 7
    assert sum(count for name, count in operators.items() if "Fused" in name or name == "Conv") == 1


def test_an_unknown_layer_is_refused(ranges: Ranges, tmp_path: Path) -> None:
    """The error lists the layers that there are."""
    with pytest.raises(UsageError, match=r"unknown layer.*'backbone.99'; known: backbone.0, "):
        quantize(ranges, tmp_path / "never.onnx", target_format="cpu", keep_float=["backbone.99"])
    assert not list(tmp_path.iterdir())


def test_nothing_is_kept_where_int8_agrees() -> None:
    """With a judge that wants no layer out: none stays in float."""
    errors = {f"layer{k}": Fidelity(1 / (k + 1), 0.9) for k in range(12)}
    assert fidelity.choose_float_layers(None, Wanting(0), errors) == ()  # type: ignore[arg-type]


@pytest.mark.parametrize(("aim", "kept"), [(0.0, 0), (1.01, 2)])
def test_a_judge_keeps_what_a_network_needs(
    aim: float, kept: int, ranges: Ranges, judge: Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a real one, where any agreement is enough, none; where none can be, the two worst of nine layers."""
    monkeypatch.setattr(fidelity, "AIM", aim)
    errors = fidelity.measure_layers(ranges, judge)
    assert fidelity.choose_float_layers(ranges, judge, errors) == tuple(errors)[:kept]


def test_the_worst_layers_are_kept_until_int8_agrees() -> None:
    """With a judge that wants two layers out, the two worst are; never more than a quarter."""
    errors = {f"layer{k}": Fidelity(1 / (k + 1), 0.9) for k in range(12)}
    assert fidelity.choose_float_layers(None, Wanting(2), errors) == ("layer0", "layer1")  # type: ignore[arg-type]


def test_when_a_quarter_is_not_enough_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Three of twelve layers are kept, with a warning."""
    errors = {f"layer{k}": Fidelity(1 / (k + 1), 0.9) for k in range(12)}
    with caplog.at_level(logging.WARNING):
        assert len(fidelity.choose_float_layers(None, Wanting(99), errors)) == 3  # type: ignore[arg-type]
    assert "keeping 3 of 12 layers in float: 50.0 % agreement" in caplog.text


def test_the_share_that_is_asked_of_new_faces_is_not_enough_on_known_ones() -> None:
    """98.5 % on train faces: another layer is kept."""
    errors = {f"layer{k}": Fidelity(1 / (k + 1), 0.9) for k in range(12)}
    assert fidelity.choose_float_layers(None, Wanting(1, before=0.985), errors) == ("layer0",)  # type: ignore[arg-type]


class Wanting:
    """A judge that is content when so many layers are in float."""

    faces = range(64)

    def __init__(self, enough: int, *, before: float = 0.5) -> None:
        self.enough, self.before = enough, before

    def fidelity(self, _: object, *, keep_float: tuple[str, ...] = ()) -> Fidelity:
        """Too few of the faces, until enough is in float."""
        return Fidelity(0.0, 1.0 if len(keep_float) >= self.enough else self.before)


def test_auto_takes_the_method_that_diverges_least(
    float_model: Path, calibration_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All three are measured on faces that gave no range; the ranges are those of the winner on all faces."""
    contract = read_card(float_model).input
    gave: list[set[str]] = []
    judged: list[set[str]] = []
    observed, judge = fidelity.observe, Judge.of

    def observes(source: Path, faces: Faces, *how: Any, **more: Any) -> Ranges:
        gave.append(set(faces.ids))
        return observed(source, faces, *how, **more)

    def judges(source: Path, faces: Faces, *how: Any, **more: Any) -> Judge:
        judged.append(set(faces.ids))
        return judge(source, faces, *how, **more)

    monkeypatch.setattr(fidelity, "observe", observes)
    monkeypatch.setattr(Judge, "of", judges)
    found, tried = fidelity.choose_ranges(
        float_model, calibration_faces, contract, method="auto", target_format="cpu", threads=1
    )
    assert set(tried) == set(METHODS)
    assert found.method == min(tried, key=lambda name: tried[name].divergence)
    assert len(gave) == len(METHODS) + 1
    assert len(judged) == 1
    assert all(faces | judged[0] == gave[-1] == set(calibration_faces.ids) for faces in gave[:-1])
    assert not any(faces & judged[0] for faces in gave[:-1])
    again = observe(float_model, calibration_faces, contract, method=found.method)
    assert found.of("relu") == again.of("relu")


def test_entropy_finds_other_ranges_than_minmax(float_model: Path, calibration_faces: Faces, ranges: Ranges) -> None:
    """With as few bins as ONNX Runtime's default they would be the same."""
    cut = observe(float_model, calibration_faces, read_card(float_model).input, method="entropy")
    assert cut.of("relu") != ranges.of("relu")


def test_a_coarser_histogram_counts_the_same_values() -> None:
    """Of 49,346 bins, as an EfficientNet-B4 had: none lost, and each where a histogram of those edges has it."""
    values = np.random.default_rng(0).normal(0, 10, 5000).astype(np.float32)
    limit = np.float32(150)
    fine = (*np.histogram(values, 49_346, range=(-limit, limit)), values.min(), values.max(), limit)
    counts, edges, *rest = measured.coarser(fine)
    assert len(counts) <= measured.MOST_BINS
    assert len(edges) == len(counts) + 1
    assert rest == list(fine[2:])
    assert np.array_equal(counts, np.histogram(values, edges)[0])
    assert edges[len(counts) // 2] == pytest.approx(0, abs=1e-4)
    assert measured.coarser((counts, edges, *rest))[0] is counts


def test_faces_that_grow_bright_do_not_make_entropy_endless(
    float_model: Path, calibration_faces: Faces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first batch all but grey, the others as they are: each histogram that is searched is short."""
    grey = replace(calibration_faces, pixels=calibration_faces.pixels.copy())
    grey.pixels[:16] = 128 + grey.pixels[:16] // 128
    searched: list[int] = []

    def search(_: object, histogram: tuple[np.ndarray, ...], __: int) -> tuple[np.ndarray, np.ndarray]:
        searched.append(len(histogram[0]))
        return histogram[2], histogram[3]

    monkeypatch.setattr(HistogramCollector, "get_entropy_threshold", search)
    observe(float_model, grey, read_card(float_model).input, method="entropy")
    assert len(searched) > 5
    assert max(searched) <= measured.MOST_BINS


def test_branches_of_unlike_range_are_named() -> None:
    """A sum of a wide and a narrow branch is told; of two alike it is not."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("a", "b", "c")]
    nodes = [helper.make_node("Add", ["a", "b"], ["c"], name="sum")]
    model = helper.make_model(helper.make_graph(nodes, "g", value[:2], value[2:]))

    def told(wide: float) -> list[str]:
        data = {"a": (np.float32(-wide), np.float32(wide)), "b": (np.float32(-1), np.float32(1))}
        return fidelity.find_mismatched_branches(Ranges(model, TensorsData(CalibrationMethod.MinMax, data), "minmax"))

    assert told(3.0) == []
    assert told(32.0) == ["Add sum: a has 32 times the range of b"]
    onnx.checker.check_model(model)


def test_a_method_that_cannot_measure_a_network_is_passed_over(
    float_model: Path, calibration_faces: Faces, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A histogram that would need millions of bins: an error for who asked for it, and no candidate for `auto`."""
    make = measured.create_calibrator

    def broken(*arguments: object, calibrate_method: CalibrationMethod, **options: object) -> object:
        calibrator = make(*arguments, calibrate_method=calibrate_method, **options)
        if calibrate_method == CalibrationMethod.Entropy:
            monkeypatch.setattr(calibrator, "collect_data", lambda _: np.histogram([0.0, 1.0], 10, range=(0, np.inf)))
        return calibrator

    monkeypatch.setattr(measured, "create_calibrator", broken)
    contract = read_card(float_model).input
    with pytest.raises(UsageError, match="--method entropy cannot draw"):
        observe(float_model, calibration_faces, contract, method="entropy")
    how = {"target_format": "cpu", "threads": 1}
    _, tried = fidelity.choose_ranges(float_model, calibration_faces, contract, method="auto", **how)
    assert set(tried) == {"minmax", "percentile"}
    assert "passed over: --method entropy" in caplog.text
