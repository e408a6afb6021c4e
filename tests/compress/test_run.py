"""The compress stage from a run folder to proven files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from edgeemo.card import Precision, read_card
from edgeemo.cli import main
from edgeemo.compress.quantize.fidelity import Fidelity
from edgeemo.compress.run import run
from edgeemo.data import Faces
from edgeemo.errors import DataError, GateError, IntegrityError, UsageError
from edgeemo.labels import LABEL_SETS
from edgeemo.report.files import read
from edgeemo.report.render import show
from edgeemo.runtime import load
from edgeemo.stages import Compress
from edgeemo.train import fit, run_folder

PLAIN = Compress(run="to be replaced", threads=1, time=False)
INT8 = replace(PLAIN, int8=True, calibration_count=64, min_agreement=90, rounding="nearest")  # gptq takes seconds


@pytest.fixture(scope="session")
def compressed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pruned by half, recovered for an epoch, quantized for this CPU."""
    out = tmp_path_factory.mktemp("compressed")
    run(replace(INT8, run=str(trained), out=str(out), prune=0.5, epochs=1, rounding="auto"))
    return out


def comparison(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "comparison.json").read_text())


def shown(folder: Path) -> str:
    """What the terminal shows of the comparison, in lines of any length."""
    console = Console(width=40, file=(screen := StringIO()))
    show(read(folder / "comparison.json"), console)
    return screen.getvalue()


def test_every_step_leaves_its_file_with_its_card(compressed: Path) -> None:
    """Original, pruned and INT8 model, pruned weights, list and comparison; no checkpoint, nothing half-written."""
    models = ["model.float.onnx", "model.int8.onnx", "model.safetensors", "original.float.onnx"]
    cards = [f"{name}.json" for name in models]
    assert sorted(file.name for file in compressed.iterdir()) == sorted(
        [*models, *cards, "calibration.json", "comparison.json"]
    )
    for name in models:
        assert read_card(compressed / name).labels[0] == "neutral"


def test_the_card_tells_the_whole_way(compressed: Path, trained: Path) -> None:
    """Train, prune, export, quantize; each line names the file it started from."""
    history = read_card(compressed / "model.int8.onnx").history
    assert [line.stage for line in history] == ["train", "prune", "export", "quantize"]
    parents = [trained / "model.safetensors", compressed / "model.safetensors", compressed / "model.float.onnx"]
    assert [line.parent_sha256 for line in history[1:]] == [read_card(path).sha256 for path in parents]


def test_the_card_says_what_precision_was_got(compressed: Path) -> None:
    """Asked for INT8, got so much of it, on ranges from this list."""
    precision = read_card(compressed / "model.int8.onnx").precision
    listed = json.loads((compressed / "calibration.json").read_text())
    assert precision.requested == "int8"
    assert precision.int8_share_of_macs >= 0.9
    assert precision.calibration.ids_sha256 == listed["ids_sha256"]
    assert read_card(compressed / "model.float.onnx").precision == Precision("float32", actual="float32")


def test_the_comparison_has_a_row_per_stage_and_tests_each_against_those_before(compressed: Path) -> None:
    """Costs fall from row to row, and INT8 is tested against its float form and against the original."""
    found = comparison(compressed)
    rows = {row["stage"]: row for row in found["rows"]}
    assert list(rows) == ["original", "pruned", "int8"]
    assert rows["original"]["macs"] > rows["pruned"]["macs"] == rows["int8"]["macs"]
    assert rows["original"]["size_bytes"] > rows["pruned"]["size_bytes"] > rows["int8"]["size_bytes"]
    assert [pair["name"] for pair in rows["int8"]["against"]] == ["pruned", "original"]
    assert all(0 <= pair["p_value"] <= 1 for pair in rows["int8"]["against"])
    recalls = [rows[name]["recall"]["fear"] for name in ("pruned", "int8")]
    assert rows["int8"]["against"][0]["recall_difference"]["fear"] == pytest.approx(recalls[1] - recalls[0])
    assert found["faces"]["n"] == rows["int8"]["n"] == 24


def test_numbers_of_card_and_comparison_are_the_same(compressed: Path) -> None:
    """One measurement, written twice."""
    for row in comparison(compressed)["rows"]:
        card = read_card(compressed / row["file"])
        assert card.metrics["valid"].accuracy == row["accuracy"]
        assert card.temperature == row["temperature"]
        assert card.sha256 == row["sha256"]


def test_pruned_weights_load_as_a_run(compressed: Path) -> None:
    """The output folder holds a model that can be loaded, with its own numbers in its card (one face may be a tie)."""
    network, card = run_folder.load(compressed)
    assert network.backbone[0].weight.shape[0] == 8
    assert card.metrics["valid"].accuracy == pytest.approx(comparison(compressed)["rows"][1]["accuracy"], abs=1 / 24)
    assert card.architecture.widths["backbone.0"] == (8, 1, 3, 3)


def test_the_int8_model_runs_on_the_device_side(compressed: Path) -> None:
    """The runtime opens it by its card and gives every face shares of the labels that sum to one."""
    faces = np.random.default_rng(0).integers(0, 256, (3, 60, 50), dtype=np.uint8)
    with load(compressed / "model.int8.onnx") as model:
        answers = model.predict_batch(list(faces))
    for answer in answers:
        assert set(answer.probabilities) == set(LABEL_SETS["six"].labels)
        assert sum(answer.probabilities.values()) == pytest.approx(1)
    assert len({answer.probability for answer in answers}) == 3


def test_the_table_has_a_line_per_stage_and_per_test(compressed: Path) -> None:
    """Aligned columns, labels in the model's order, and a sentence for each pair."""
    lines = shown(compressed).splitlines()
    assert lines[0].split()[-6:] == ["neutral", "happiness", "surprise", "sadness", "anger", "fear"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert sum(" against " in line for line in lines) == 3
    assert "synthetic valid, plurality, n = 24" in lines[4]


def test_without_options_there_is_one_float_file(trained: Path, tmp_path: Path) -> None:
    """Neither pruning nor INT8: the export alone, judged."""
    path = run(replace(PLAIN, run=str(trained), out=str(tmp_path)))
    assert path.name == "model.float.onnx"
    assert [row["stage"] for row in comparison(tmp_path)["rows"]] == ["float"]


def test_the_tensorrt_target_format_has_a_name_of_its_own(trained: Path, tmp_path: Path) -> None:
    """Its file cannot be taken for the CPU's, and its share is what the file asks for."""
    path = run(replace(INT8, run=str(trained), out=str(tmp_path), target_format="tensorrt"))
    assert path.name == "model.int8.tensorrt.onnx"
    assert read_card(path).precision.counted_by.startswith("asked of the engine")


def test_the_next_command_is_for_the_engine_of_the_file(trained: Path, tmp_path: Path) -> None:
    """TensorRT's file is built; in ONNX Runtime it would be slow, and judged so."""
    words = ["compress", str(trained), "--int8", "--calibration-count", "64", "--no-time", "--threads", "1"]
    words += ["--rounding", "nearest", "--min-agreement", "90"]
    for target_format, following in (("cpu", "bench --engine"), ("both", "build")):
        told = CliRunner().invoke(main, [*words, "--target-format", target_format, "--out", str(tmp_path)])
        path, command = told.output.splitlines()[-2:]
        assert command.startswith(f"next:  edgeemo {following} {path}")


@pytest.fixture(scope="session")
def everything(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scanned, pruned in two steps by global rank, taught, tuned for both formats, in FP16 and INT8, and timed."""
    out = tmp_path_factory.mktemp("everything")
    run(
        replace(
            INT8,
            run=str(trained),
            out=str(out),
            teacher=str(trained),
            views=1,
            time=True,
            prune=0.4,
            prune_steps=2,
            epochs=2,
            ranking="global",
            sensitivity=True,
            qat=True,
            target_format="both",
            fp16=True,
            layers=True,
            method="auto",
            rounding="auto",
        )
    )
    return out


def test_every_option_together_leaves_a_row_each(everything: Path) -> None:
    """Original, pruned, tuned, FP16 and two target formats; only what this engine is for is timed."""
    rows = {row["stage"]: row for row in comparison(everything)["rows"]}
    assert list(rows) == ["original", "pruned", "tuned", "fp16", "int8", "int8 tensorrt"]
    assert [name for name, row in rows.items() if row["latency_one_core"]] == ["original", "pruned", "tuned", "int8"]
    assert rows["fp16"]["size_bytes"] < 0.6 * rows["tuned"]["size_bytes"]
    text = shown(everything)
    assert "under a label its recall in percent; ms: p50 on one core" in text


def test_the_card_of_a_tuned_model_tells_what_tuned_it(everything: Path, trained: Path) -> None:
    """Prune and tune name the teacher; both formats come from ranges of one method, chosen by what each measured."""
    cards = [read_card(everything / name) for name in ("model.int8.onnx", "model.int8.tensorrt.onnx")]
    for card in cards:
        assert [line.stage for line in card.history] == ["train", "prune", "tune", "export", "quantize"]
        teachers = [line.measured["teachers"][0]["sha256"] for line in card.history[1:3]]
        assert teachers == [read_card(trained / "model.safetensors").sha256] * 2
        assert set(card.precision.calibration_methods) == {"minmax", "percentile", "entropy"}
    assert cards[0].precision.calibration_method == cards[1].precision.calibration_method
    assert [card.precision.target_format for card in cards] == ["cpu", "tensorrt"]


def test_pictures_and_their_numbers_lie_beside_the_models(everything: Path) -> None:
    """Of the scan and of each layer in INT8, for both target formats."""
    for name in ("sensitivity", "layers", "layers.tensorrt"):
        assert (everything / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((everything / f"{name}.json").read_text())
    rows = json.loads((everything / "sensitivity.json").read_text())["rows"]
    assert len({row["layer"] for row in rows}) == 8
    for row in rows:
        before, after = row["channels"]
        assert after < before
        assert 0 < row["macs_saved"] < 1
    assert len({(row["layer"], row["channels"][1]) for row in rows}) == len(rows) < 8 * 3  # of 16, a quarter is none
    assert max(row["macs_saved"] for row in rows) > 0.1


def test_another_input_size_is_learned_and_stands_in_the_card(trained: Path, tmp_path: Path) -> None:
    """At 40 px: fewer multiply-adds than as trained, a resize in the history, and the runtime resizes faces to it."""
    path = run(replace(PLAIN, run=str(trained), out=str(tmp_path), size=40, epochs=1, sensitivity=True))
    original, resized = comparison(tmp_path)["rows"]
    _, run_card = run_folder.load(trained)
    assert original["accuracy"] == pytest.approx(run_card.metrics["valid"].accuracy, abs=1 / 24)
    assert resized["macs"] < 0.8 * original["macs"]
    scanned = json.loads((tmp_path / "sensitivity.json").read_text())["faces"]
    assert scanned["accuracy"] > 0.5  # of the network as it was trained
    card = read_card(path)
    assert (card.input.size, read_card(tmp_path / "original.float.onnx").input.size) == (40, run_card.input.size)
    assert [line.stage for line in card.history] == ["train", "resize", "export"]
    with load(path) as model:
        assert model.predict(np.zeros((60, 60), np.uint8)).label in card.labels


def test_recovery_shows_faces_as_a_poor_camera_does_where_it_is_asked(
    compressed: Path, trained: Path, tmp_path: Path
) -> None:
    """As trained is without, to the bit; with every face corrupted other weights come of it."""
    shas = {}
    for share in (0.0, 1.0):
        out = tmp_path / str(share)
        run(replace(PLAIN, run=str(trained), out=str(out), prune=0.5, epochs=1, corrupt_share=share))
        shas[share] = read_card(out / "model.safetensors").sha256
    assert shas[0.0] == read_card(compressed / "model.safetensors").sha256 != shas[1.0]


def test_recovery_on_other_faces_stands_in_the_card(trained: Path, tmp_path: Path) -> None:
    """Trained on 120 drawn faces, recovered on 180: both counts, and metrics that name the faces they come from."""
    path = run(replace(PLAIN, run=str(trained), out=str(tmp_path), prune=0.5, epochs=1, data="synthetic:180"))
    card = read_card(path)
    assert (card.data.train.n, card.data.recovery.n) == (120, 180)
    assert card.metrics["valid"].ids_sha256 != card.data.valid.ids_sha256
    assert card.licences.recovery_faces


def test_a_second_compression_leaves_nothing_of_the_first(everything: Path, trained: Path, tmp_path: Path) -> None:
    """Reports, pictures and other target formats of before would look like steps of this model."""
    out = tmp_path / "again"
    shutil.copytree(everything, out)
    run(replace(PLAIN, run=str(trained), out=str(out)))
    assert sorted(file.name for file in out.iterdir()) == sorted(
        ["comparison.json", "model.float.onnx", "model.float.onnx.json"]
    )


def test_too_little_int8_leaves_no_int8_file(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that would run in float fails the stage and is not left behind."""
    monkeypatch.setattr("edgeemo.compress.quantize.precision.list_executed", _all_float)
    with pytest.raises(GateError, match=r"0\.0 % of the multiply-adds"):
        run(replace(INT8, run=str(trained), out=str(tmp_path)))
    assert not list(tmp_path.glob("*int8*"))


def test_int8_that_names_other_emotions_is_not_left_behind(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be another model; who wants it all the same says so, and its card tells the share."""
    asked: list[Faces] = []

    def between(_source: Path, _path: Path, faces: Faces, *_: Any, **__: Any) -> Fidelity:
        asked.append(faces)
        return Fidelity(0.1, 0.9)

    monkeypatch.setattr("edgeemo.compress.quantize.fidelity.compare_files", between)
    config = replace(INT8, run=str(trained), out=str(tmp_path), min_agreement=98)
    with pytest.raises(GateError, match=r"90\.0 % of 88 faces, expected 98 %"):
        run(config)
    assert not list(tmp_path.glob("*int8*"))
    precision = read_card(run(replace(config, min_agreement=90))).precision
    assert (precision.fidelity.agreement, precision.fidelity.faces) == (0.9, 88)
    valid = asked[-1].take(np.arange(len(asked[-1]) - 64))  # all of them, for there are few; then 64 train faces
    assert valid.fingerprint == read_card(trained / "model.safetensors").data.valid.ids_sha256


def _all_float(path: Path) -> list[Any]:
    from edgeemo.compress.quantize.precision import Kernel

    assert path.is_file()
    return [Kernel("FusedConv", 10, False)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prune": 0.95}, "--prune 0.95: expected 0 to 0.9"),
        ({"prune": -0.1}, "--prune -0.1"),
        ({"min_agreement": 101.0}, "--min-agreement 101: expected 0 to 100"),
        ({"qat": True}, "--qat has no effect without --int8"),
        ({"keep_float": "auto"}, "--keep-float has no effect without --int8"),
        ({"qat": True, "int8": True, "epochs": 0}, "tunes nothing"),
        ({"ranking": "luck"}, "unknown ranking 'luck'; known: layer, global"),
        ({"method": "luck"}, "known: minmax, percentile, entropy, auto"),
        ({"size": 20}, "--size 20: expected 32 to 512"),
        ({"epochs": -1}, "--epochs -1: expected 0 or more"),
        ({"target_format": "npu", "int8": True}, "unknown target format 'npu'; known: cpu, tensorrt"),
        ({"importance": "luck"}, "known: magnitude, group-norm, taylor"),
        ({"teacher": "runs/other", "int8": True}, "--teacher without anything to teach"),
        ({"teacher": "runs/other", "prune": 0.5, "epochs": 0}, "--teacher without anything to teach"),
        ({"calibration": "list.json"}, "--calibration has no effect without --int8"),
        ({"target_format": "tensorrt"}, "--target-format has no effect without --int8"),
        ({"importance": "taylor"}, "--importance has no effect without --prune"),
        ({"prune_steps": 2, "sensitivity": True}, "--prune-steps has no effect without"),
        ({"ranking": "global", "sensitivity": True}, "--ranking has no effect without --prune"),
        ({"epochs": 40, "int8": True}, "--epochs has no effect without --prune or --size or --qat"),
        ({"lr": 1e-3, "int8": True, "qat": True}, "--lr has no effect without --prune or --size"),
        ({"lr": 1e-3, "prune": 0.5, "epochs": 0}, "--lr has no effect without"),
        ({"corrupt_share": 0.2, "int8": True}, "--corrupt-share has no effect without --prune or --size or --qat"),
        ({"corrupt_share": 1.2, "prune": 0.5}, "--corrupt-share 1.2: expected 0 to 1"),
        ({"qat_lr": 1e-3, "int8": True}, "--qat-lr has no effect without --qat"),
        ({"views": 4, "prune": 0.5}, "--views has no effect without --teacher"),
        ({"min_agreement": 90.0}, "--min-agreement has no effect without --int8"),
        ({"calibration": "list.json", "calibration_count": 64, "int8": True}, "leave out one"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_refused(change: dict[str, Any], message: str, trained: Path) -> None:
    """Before any face is read, with what was expected."""
    with pytest.raises(UsageError, match=message):
        run(replace(PLAIN, **{"run": str(trained), "data": "folder:none", **change}))


def test_an_unknown_run_folder_is_named(tmp_path: Path) -> None:
    """The message says what is missing and how to make it."""
    with pytest.raises(IntegrityError, match=r"none/model.safetensors does not exist.*edgeemo train"):
        run(replace(PLAIN, run=str(tmp_path / "none")))


def test_pruning_nothing_is_refused(trained: Path, tmp_path: Path) -> None:
    """A share that rounds every width to what it was is a mistake, not a success; the message has what was typed."""
    with pytest.raises(UsageError, match=r"--prune 0\.01 with --round-to 8 removes no channel"):
        run(replace(PLAIN, run=str(trained), out=str(tmp_path), prune=0.01))


def test_a_step_that_removes_nothing_is_passed_over(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six steps to 40 %, in 32s: the first takes no 32 channels of any layer; a later one does, and has its epochs."""
    shown: list[int] = []
    plan = fit.plan_epoch
    monkeypatch.setattr(fit, "plan_epoch", lambda *a, epoch, **how: shown.append(epoch) or plan(*a, epoch=epoch, **how))
    run(replace(PLAIN, run=str(trained), out=str(tmp_path), prune=0.4, prune_steps=6, round_to=32, epochs=6))
    _, card = run_folder.load(tmp_path)
    line = next(line for line in card.history if line.stage == "prune")
    assert 0 < len(line.measured["accuracy_before_recovery"]) < 6
    assert shown == list(range(len(shown)))  # no epoch's order and views twice
    assert len(shown) > len(line.measured["accuracy_before_recovery"])


def test_the_run_folder_is_not_written_over(trained: Path) -> None:
    """--out must not be the run itself: its model would be replaced by the pruned one."""
    with pytest.raises(UsageError, match="run folder itself"):
        run(replace(PLAIN, run=str(trained), out=str(trained), prune=0.5))


@pytest.mark.parametrize("kept", ["log.json", "checkpoints/00000006", ""])
def test_another_training_is_not_written_over(kept: str, trained: Path, tmp_path: Path) -> None:
    """Ended, under way, or the teacher: its weights would be removed before the new ones are there."""
    other = tmp_path / "other"
    other.mkdir()
    for name in ("model.safetensors", "model.safetensors.json"):
        shutil.copy(trained / name, other / name)
    if kept.endswith("json"):
        shutil.copy(trained / kept, other / kept)
    elif kept:
        (other / kept).mkdir(parents=True)
    teacher = "" if kept else str(other)
    with pytest.raises(UsageError, match=r"other is the folder of a training"):
        run(replace(PLAIN, run=str(trained), out=str(other), prune=0.5, teacher=teacher))
    assert (other / "model.safetensors").is_file()


def test_data_that_is_gone_is_named(trained: Path, tmp_path: Path) -> None:
    """Faces that are not where they were stop the stage with their path."""
    with pytest.raises(DataError, match=r"nowhere\.zip does not exist"):
        run(replace(PLAIN, run=str(trained), out=str(tmp_path), data="ferplus:nowhere.zip"))


def test_a_run_without_its_log_still_compresses_if_its_faces_are_drawn(trained: Path, tmp_path: Path) -> None:
    """The card remembers the training; only where real faces lie it does not know."""
    for name in ("model.safetensors", "model.safetensors.json"):
        shutil.copy(trained / name, tmp_path / name)
    path = run(replace(PLAIN, run=str(tmp_path)))
    assert path == tmp_path / "compressed" / "model.float.onnx"


def test_a_layer_that_is_not_there_is_told_before_anything_is_trained(trained: Path, tmp_path: Path) -> None:
    """Hours of recovery would come before it otherwise; the layers that are there are listed."""
    with pytest.raises(UsageError, match=r"unknown layer to keep in float 'typo'; known: backbone\.0, .*head\.1"):
        run(replace(INT8, run=str(trained), out=str(tmp_path), prune=0.5, keep_float="typo"))
    assert not list(tmp_path.iterdir())
