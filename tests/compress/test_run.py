"""The compress stage, end to end."""

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

from edgeemo import selective
from edgeemo.artifact import lock_folder
from edgeemo.card import Precision, read_card
from edgeemo.cli import main
from edgeemo.compress.quantize.fidelity import Fidelity
from edgeemo.compress.run import run
from edgeemo.data import Faces, faces
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
    """Half of the channels pruned, fine-tuned for an epoch, quantized for this CPU."""
    out = tmp_path_factory.mktemp("compressed")
    run(replace(INT8, run=str(trained), out=str(out), prune=0.5, epochs=1, rounding="auto"))
    return out


def read_comparison(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "comparison.json").read_text())


def shown(folder: Path) -> str:
    """Return the comparison as printed, without line wrapping."""
    console = Console(width=40, file=(screen := StringIO()))
    show(read(folder / "comparison.json"), console)
    return screen.getvalue()


def test_every_step_writes_its_file_with_its_card(compressed: Path) -> None:
    """Original, pruned and INT8 model, pruned weights, list and comparison; no checkpoints or partial files."""
    models = ["model.float.onnx", "model.int8.onnx", "model.safetensors", "original.float.onnx"]
    cards = [f"{name}.json" for name in models]
    assert sorted(file.name for file in compressed.iterdir()) == sorted(
        [*models, *cards, "calibration.json", "comparison.json"]
    )
    for name in models:
        assert read_card(compressed / name).labels[0] == "neutral"


def test_the_card_has_the_whole_history(compressed: Path, trained: Path) -> None:
    """Train, prune, export, quantize; each entry has the hash of its input file."""
    history = read_card(compressed / "model.int8.onnx").history
    assert [entry.stage for entry in history] == ["train", "prune", "export", "quantize"]
    parents = [trained / "model.safetensors", compressed / "model.safetensors", compressed / "model.float.onnx"]
    assert [entry.parent_sha256 for entry in history[1:]] == [read_card(path).sha256 for path in parents]


def test_the_card_has_the_actual_precision(compressed: Path) -> None:
    """Requested INT8, its actual share, and the calibration list."""
    precision = read_card(compressed / "model.int8.onnx").precision
    listed = json.loads((compressed / "calibration.json").read_text())
    assert precision.requested == "int8"
    assert precision.int8_share_of_macs >= 0.9
    assert precision.calibration.ids_sha256 == listed["ids_sha256"]
    assert read_card(compressed / "model.float.onnx").precision == Precision("float32", actual="float32")


def test_the_comparison_has_a_row_per_stage_and_compares_each_with_earlier_ones(compressed: Path) -> None:
    """Size decreases from row to row, and INT8 is compared with its float form and with the original."""
    comparison = read_comparison(compressed)
    rows = {row["stage"]: row for row in comparison["rows"]}
    assert list(rows) == ["original", "pruned", "int8"]
    assert rows["original"]["macs"] > rows["pruned"]["macs"] == rows["int8"]["macs"]
    assert rows["original"]["size_bytes"] > rows["pruned"]["size_bytes"] > rows["int8"]["size_bytes"]
    assert [pair["name"] for pair in rows["int8"]["against"]] == ["pruned", "original"]
    assert all(0 <= pair["p_value"] <= 1 for pair in rows["int8"]["against"])
    recalls = [rows[name]["recall"]["fear"] for name in ("pruned", "int8")]
    assert rows["int8"]["against"][0]["recall_difference"]["fear"] == pytest.approx(recalls[1] - recalls[0])
    assert comparison["faces"]["n"] == rows["int8"]["n"] == 24


def test_card_and_comparison_have_the_same_numbers(compressed: Path) -> None:
    """They come from one evaluation."""
    for row in read_comparison(compressed)["rows"]:
        card = read_card(compressed / row["file"])
        assert card.metrics["valid"].accuracy == row["accuracy"]
        assert card.temperature == row["temperature"]
        assert card.sha256 == row["sha256"]


def test_the_card_gets_the_threshold_of_its_file(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fitted on valid at the card's temperature; where none reaches the accuracy, there is none, and a line says so."""
    monkeypatch.setattr(selective, "MIN_ANSWERS", 12)  # valid has 24 faces, of which a third is classified correctly
    path = run(replace(PLAIN, run=str(trained), out=str(tmp_path / "low"), answer_accuracy=2))
    card = read_card(path)
    valid = faces.load("synthetic:120", "valid", LABEL_SETS["six"], contract=card.input)
    with load(path) as model:
        assert card.answers == selective.fit_answers(model.probabilities(valid.pixels[:]), valid.truth, 0.02)
    assert (card.answers.n, card.answers.least_accuracy) == (24, 0.02)
    with caplog.at_level("INFO"):
        path = run(replace(PLAIN, run=str(trained), out=str(tmp_path / "high"), answer_accuracy=100))
    assert read_card(path).answers is None
    assert "no prediction will be flagged as unsure: on 24 valid faces" in caplog.text


def test_pruned_weights_load_as_a_run(compressed: Path) -> None:
    """The output folder can be loaded like a run, with its own metrics in the card (one face may be a tie)."""
    network, card = run_folder.load(compressed)
    assert network.backbone[0].weight.shape[0] == 8
    assert card.metrics["valid"].accuracy == pytest.approx(
        read_comparison(compressed)["rows"][1]["accuracy"], abs=1 / 24
    )
    assert card.architecture.widths["backbone.0"] == (8, 1, 3, 3)


def test_the_int8_model_runs_in_the_runtime(compressed: Path) -> None:
    """For every face, the probabilities of the labels sum to one."""
    faces = np.random.default_rng(0).integers(0, 256, (3, 60, 50), dtype=np.uint8)
    with load(compressed / "model.int8.onnx") as model:
        predictions = model.predict_batch(list(faces))
    for prediction in predictions:
        assert set(prediction.probabilities) == set(LABEL_SETS["six"].labels)
        assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert len({prediction.probability for prediction in predictions}) == 3


def test_the_table_has_a_line_per_stage_and_per_pair(compressed: Path) -> None:
    """Aligned columns, labels in the order of the model, and a sentence for each pair."""
    lines = shown(compressed).splitlines()
    assert lines[0].split()[-6:] == ["neutral", "happiness", "surprise", "sadness", "anger", "fear"]
    assert len({len(line) for line in lines[:4]}) == 1
    assert sum(" against " in line for line in lines) == 3
    assert "synthetic valid, plurality, n = 24" in lines[4]


def test_without_options_one_float_file_is_written(trained: Path, tmp_path: Path) -> None:
    """Neither pruning nor INT8: the export only."""
    path = run(replace(PLAIN, run=str(trained), out=str(tmp_path)))
    assert path.name == "model.float.onnx"
    assert [row["stage"] for row in read_comparison(tmp_path)["rows"]] == ["float"]


def test_the_tensorrt_target_format_has_its_own_file_name(trained: Path, tmp_path: Path) -> None:
    """It cannot be confused with the file for the CPU, and its integer share is that requested by the file."""
    path = run(replace(INT8, run=str(trained), out=str(tmp_path), target_format="tensorrt"))
    assert path.name == "model.int8.tensorrt.onnx"
    assert read_card(path).precision.counted_by.startswith("requested of the engine")


def test_the_next_command_fits_the_engine_of_the_file(trained: Path, tmp_path: Path) -> None:
    """Build for the TensorRT format, which is slow in ONNX Runtime; otherwise bench."""
    words = ["compress", str(trained), "--int8", "--calibration-count", "64", "--no-time", "--threads", "1"]
    words += ["--rounding", "nearest", "--min-agreement", "90"]
    for target_format, following in (("cpu", "bench --engine"), ("both", "build")):
        result = CliRunner().invoke(main, [*words, "--target-format", target_format, "--out", str(tmp_path)])
        path, command = result.output.splitlines()[-2:]
        assert command.startswith(f"next:  edgeemo {following} {path}")


@pytest.fixture(scope="session")
def everything(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All options: sensitivity, two pruning steps with global ranking, a teacher, QAT, both formats, FP16, latency."""
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


def test_all_options_together_give_a_row_per_stage(everything: Path) -> None:
    """Original, pruned, tuned, FP16 and two target formats; only files for ONNX Runtime on this CPU are timed."""
    rows = {row["stage"]: row for row in read_comparison(everything)["rows"]}
    assert list(rows) == ["original", "pruned", "tuned", "fp16", "int8", "int8 tensorrt"]
    assert [name for name, row in rows.items() if row["latency_one_core"]] == ["original", "pruned", "tuned", "int8"]
    assert rows["fp16"]["size_bytes"] < 0.6 * rows["tuned"]["size_bytes"]
    text = shown(everything)
    assert "under a label its recall in percent; ms: p50 on one core" in text


def test_the_card_of_a_fine_tuned_model_has_its_teacher_and_calibration(everything: Path, trained: Path) -> None:
    """Prune and tune have the teacher's hash; both formats use the ranges of the method with the best result."""
    cards = [read_card(everything / name) for name in ("model.int8.onnx", "model.int8.tensorrt.onnx")]
    for card in cards:
        assert [entry.stage for entry in card.history] == ["train", "prune", "tune", "export", "quantize"]
        teachers = [entry.measured["teachers"][0]["sha256"] for entry in card.history[1:3]]
        assert teachers == [read_card(trained / "model.safetensors").sha256] * 2
        assert set(card.precision.calibration_methods) == {"minmax", "percentile", "entropy"}
    assert cards[0].precision.calibration_method == cards[1].precision.calibration_method
    assert [card.precision.target_format for card in cards] == ["cpu", "tensorrt"]


def test_plots_and_their_numbers_are_written(everything: Path) -> None:
    """Sensitivity to pruning, and the error of each layer in INT8 for both target formats."""
    for name in ("sensitivity", "layers", "layers.tensorrt"):
        assert (everything / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((everything / f"{name}.json").read_text())
    rows = json.loads((everything / "sensitivity.json").read_text())["rows"]
    assert len({row["layer"] for row in rows}) == 8
    for row in rows:
        before, after = row["channels"]
        assert after < before
        assert 0 < row["macs_saved"] < 1
    assert (
        len({(row["layer"], row["channels"][1]) for row in rows}) == len(rows) < 8 * 3
    )  # a quarter of 16 rounds to none
    assert max(row["macs_saved"] for row in rows) > 0.1


def test_fine_tuning_at_another_input_size_is_recorded_in_the_card(trained: Path, tmp_path: Path) -> None:
    """At 40 px: fewer multiply-adds, a resize step in the history, and the runtime resizes faces to it."""
    path = run(replace(PLAIN, run=str(trained), out=str(tmp_path), size=40, epochs=1, sensitivity=True))
    original, resized = read_comparison(tmp_path)["rows"]
    _, run_card = run_folder.load(trained)
    assert original["accuracy"] == pytest.approx(run_card.metrics["valid"].accuracy, abs=1 / 24)
    assert resized["macs"] < 0.8 * original["macs"]
    sensitivity = json.loads((tmp_path / "sensitivity.json").read_text())["faces"]
    assert sensitivity["accuracy"] > 0.5  # of the network as trained
    card = read_card(path)
    assert (card.input.size, read_card(tmp_path / "original.float.onnx").input.size) == (40, run_card.input.size)
    assert [entry.stage for entry in card.history] == ["train", "resize", "export"]
    with load(path) as model:
        assert model.predict(np.zeros((60, 60), np.uint8)).label in card.labels


def test_fine_tuning_corrupts_faces_if_requested(compressed: Path, trained: Path, tmp_path: Path) -> None:
    """Without, weights are bit-identical to the default; with all faces corrupted they differ."""
    shas = {}
    for share in (0.0, 1.0):
        out = tmp_path / str(share)
        run(replace(PLAIN, run=str(trained), out=str(out), prune=0.5, epochs=1, corrupt_share=share))
        shas[share] = read_card(out / "model.safetensors").sha256
    assert shas[0.0] == read_card(compressed / "model.safetensors").sha256 != shas[1.0]


def test_fine_tuning_on_other_faces_is_recorded_in_the_card(trained: Path, tmp_path: Path) -> None:
    """Trained on 120 synthetic faces, fine-tuned on 180: both counts, their shares, metrics with the hash of theirs."""
    path = run(replace(PLAIN, run=str(trained), out=str(tmp_path), prune=0.5, epochs=1, data="synthetic:180"))
    card = read_card(path)
    assert (card.data.train.n, card.data.recovery.n) == (120, 180)
    assert card.metrics["valid"].ids_sha256 != card.data.valid.ids_sha256
    assert card.licences.recovery_faces
    listed = faces.list_labelled("synthetic:180", "train", LABEL_SETS[card.label_set]).truth
    shares = np.bincount(listed) / len(listed)
    assert list(card.data.prior.values()) == pytest.approx(shares, abs=1e-6)


def test_the_shares_of_training_stay_in_the_card(everything: Path, trained: Path) -> None:
    """Of pruned, tuned and quantized models too, in the order of the labels."""
    stated = read_card(trained / "model.safetensors").data.prior
    assert tuple(stated) == read_card(trained / "model.safetensors").labels
    for name in ("model.int8.onnx", "model.int8.tensorrt.onnx"):
        assert read_card(everything / name).data.prior == stated


def test_a_second_compression_removes_the_files_of_the_first(everything: Path, trained: Path, tmp_path: Path) -> None:
    """Previous reports, plots and target formats would look like steps of the new model."""
    out = tmp_path / "again"
    shutil.copytree(everything, out)
    run(replace(PLAIN, run=str(trained), out=str(out)))
    assert sorted(file.name for file in out.iterdir()) == sorted(
        ["comparison.json", "model.float.onnx", "model.float.onnx.json"]
    )


def test_too_small_an_integer_share_leaves_no_int8_file(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that would run in float fails the stage and is removed."""
    monkeypatch.setattr("edgeemo.compress.quantize.precision.list_executed", _list_float_kernels)
    with pytest.raises(GateError, match=r"0\.0 % of the multiply-adds"):
        run(replace(INT8, run=str(trained), out=str(tmp_path)))
    assert not list(tmp_path.glob("*int8*"))


def test_too_little_agreement_leaves_no_int8_file(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless a lower agreement is accepted; the card has the actual one."""
    compared: list[Faces] = []

    def compare(_source: Path, _path: Path, faces: Faces, *_: Any, **__: Any) -> Fidelity:
        compared.append(faces)
        return Fidelity(0.1, 0.9)

    monkeypatch.setattr("edgeemo.compress.quantize.fidelity.compare_files", compare)
    config = replace(INT8, run=str(trained), out=str(tmp_path), min_agreement=98)
    with pytest.raises(GateError, match=r"90\.0 % of 88 faces, expected 98 %"):
        run(config)
    assert not list(tmp_path.glob("*int8*"))
    precision = read_card(run(replace(config, min_agreement=90))).precision
    assert (precision.fidelity.agreement, precision.fidelity.faces) == (0.9, 88)
    valid = compared[-1].take(np.arange(len(compared[-1]) - 64))  # all 24 valid faces, then 64 train faces
    assert valid.fingerprint == read_card(trained / "model.safetensors").data.valid.ids_sha256


def _list_float_kernels(path: Path) -> list[Any]:
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
        ({"qat": True, "int8": True, "epochs": 0}, "trains nothing"),
        ({"ranking": "luck"}, "unknown ranking 'luck'; known: layer, global"),
        ({"method": "luck"}, "known: minmax, percentile, entropy, auto"),
        ({"size": 20}, "--size 20: expected 32 to 512"),
        ({"epochs": -1}, "--epochs -1: expected 0 or more"),
        ({"target_format": "npu", "int8": True}, "unknown target format 'npu'; known: cpu, tensorrt"),
        ({"importance": "luck"}, "known: magnitude, group-norm, taylor"),
        ({"teacher": "runs/other", "int8": True}, "--teacher without any fine-tuning"),
        ({"teacher": "runs/other", "prune": 0.5, "epochs": 0}, "--teacher without any fine-tuning"),
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
def test_invalid_settings_are_refused(change: dict[str, Any], message: str, trained: Path) -> None:
    """Before any face is read, with the expected values."""
    with pytest.raises(UsageError, match=message):
        run(replace(PLAIN, **{"run": str(trained), "data": "folder:none", **change}))


def test_a_missing_run_folder_is_reported(tmp_path: Path) -> None:
    """The message has the missing file and the command that makes it."""
    with pytest.raises(IntegrityError, match=r"none/model.safetensors does not exist.*edgeemo train"):
        run(replace(PLAIN, run=str(tmp_path / "none")))


def test_pruning_nothing_is_refused(trained: Path, tmp_path: Path) -> None:
    """A share that rounds every width to its current value is an error, with the options in the message."""
    with pytest.raises(UsageError, match=r"--prune 0\.01 with --round-to 8 removes no channel"):
        run(replace(PLAIN, run=str(trained), out=str(tmp_path), prune=0.01))


def test_a_pruning_step_that_removes_nothing_is_skipped(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six steps to 40 %, in multiples of 32: the first removes nothing; a later one also gets its epochs."""
    epochs: list[int] = []
    plan = fit.plan_epoch
    monkeypatch.setattr(fit, "plan_epoch", lambda *a, epoch, **kw: epochs.append(epoch) or plan(*a, epoch=epoch, **kw))
    run(replace(PLAIN, run=str(trained), out=str(tmp_path), prune=0.4, prune_steps=6, round_to=32, epochs=6))
    _, card = run_folder.load(tmp_path)
    step = next(entry for entry in card.history if entry.stage == "prune")
    assert 0 < len(step.measured["accuracy_before_recovery"]) < 6
    assert epochs == list(range(len(epochs)))  # no epoch with the same order and views twice
    assert len(epochs) > len(step.measured["accuracy_before_recovery"])


def test_the_run_folder_is_not_overwritten(trained: Path) -> None:
    """--out must not be the run folder: its model would be replaced by the pruned one."""
    with pytest.raises(UsageError, match="run folder itself"):
        run(replace(PLAIN, run=str(trained), out=str(trained), prune=0.5))


@pytest.mark.parametrize("kept", ["log.json", "checkpoints/00000006", ""])
def test_another_training_is_not_overwritten(kept: str, trained: Path, tmp_path: Path) -> None:
    """Finished, interrupted, or the teacher: its weights would be lost."""
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


def test_missing_data_is_reported(trained: Path, tmp_path: Path) -> None:
    """The error has the path at which the faces were in training."""
    with pytest.raises(DataError, match=r"nowhere\.zip does not exist"):
        run(replace(PLAIN, run=str(trained), out=str(tmp_path), data="ferplus:nowhere.zip"))


def test_a_run_on_synthetic_faces_can_be_compressed_without_its_log(trained: Path, tmp_path: Path) -> None:
    """The card has the settings of the training; only the path of real faces is not in it."""
    for name in ("model.safetensors", "model.safetensors.json"):
        shutil.copy(trained / name, tmp_path / name)
    path = run(replace(PLAIN, run=str(tmp_path)))
    assert path == tmp_path / "compressed" / "model.float.onnx"


def test_an_unknown_layer_is_reported_before_any_training(trained: Path, tmp_path: Path) -> None:
    """Otherwise hours of fine-tuning would be lost; the error lists the existing layers."""
    with pytest.raises(UsageError, match=r"unknown layer to keep in float 'typo'; known: backbone\.0, .*head\.1"):
        run(replace(INT8, run=str(trained), out=str(tmp_path), prune=0.5, keep_float="typo"))
    assert not list(tmp_path.iterdir())


def test_two_compressions_cannot_share_a_folder(trained: Path, tmp_path: Path) -> None:
    """The second would remove the files of the first; it is refused, and nothing has changed."""
    (tmp_path / "model.float.onnx").write_text("of the first")
    with lock_folder(tmp_path), pytest.raises(UsageError, match="another process is writing to"):
        run(replace(PLAIN, run=str(trained), out=str(tmp_path)))
    assert (tmp_path / "model.float.onnx").read_text() == "of the first"
