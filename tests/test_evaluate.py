"""The evaluate stage: runs and their ensemble on the same faces."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sections
import torch
from click.testing import CliRunner
from rich.console import Console

import edgeemo
from edgeemo.card import Card, read_card, write_card
from edgeemo.card.history import make_entry
from edgeemo.cli import main
from edgeemo.data import load
from edgeemo.errors import IntegrityError, UsageError
from edgeemo.labels import label_set
from edgeemo.machine import this_machine
from edgeemo.metrics import softmax
from edgeemo.report.facts import FacesBlock
from edgeemo.report.files import read
from edgeemo.report.render import show
from edgeemo.selective import measure_curve
from edgeemo.stages import RECIPES, Evaluate, Train
from edgeemo.train import checkpoint, ensemble, evaluate, run_folder
from edgeemo.train import network as networks
from edgeemo.train.run import run as train

DATA = "synthetic:60"
HERE = Evaluate(runs=(), threads=1)


def made(
    folder: Path, *, labels: str = "six", size: int | None = None, seed: int = 0, temperature: float = 1.0
) -> Path:
    """A run folder with a network that knows nothing, and says it was trained on DATA."""
    torch.manual_seed(seed)
    found, contract = label_set(labels), networks.contract_for("edge_vgg_slim", size)
    architecture = networks.describe(
        "edge_vgg_slim", labels=len(found.labels), head="linear", attention=False, dropout=0.0
    )
    card = Card(found.labels, found.name, contract, architecture, temperature=temperature)
    history = make_entry("train", Train(data=DATA, label_set=labels), seconds=0)
    run_folder.save(networks.build(architecture).eval(), card.with_entry(history), folder)
    return folder


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two runs of different input size and temperature."""
    return [made(tmp_path / "first", temperature=0.5), made(tmp_path / "second", size=64, seed=1, temperature=2.0)]


def test_a_run_is_judged_on_the_faces_it_names(tmp_path: Path) -> None:
    """Without --data those of its training; the scores are those of its logits at the card's temperature."""
    run = made(tmp_path / "run", temperature=0.5)
    result = evaluate.run(replace(HERE, runs=[run]))
    member = ensemble.load_members([run])[0]
    faces = load(DATA, "valid", label_set("six"), contract=member.card.input)
    assert result.faces == FacesBlock("synthetic", "valid", "plurality", 12, faces.fingerprint)
    (row,) = result.rows
    share = softmax(member.logits(faces), temperature=0.5)
    assert row.accuracy == np.mean(share.argmax(1) == faces.truth)
    assert row.accuracy_low < row.accuracy < row.accuracy_high
    assert (row.name, row.sha256, row.temperature) == ("run", [member.card.sha256], 0.5)
    assert row.answers == measure_curve(share, faces.truth)
    assert row.lowest.recall == min(row.recall.values())
    assert row.against_first is None


def test_every_row_is_tested_against_the_first(pair: list[Path]) -> None:
    """Two runs, each with flips, and the ensemble of both: five paired tests on the same faces."""
    rows = evaluate.run(replace(HERE, runs=pair, flips=True)).rows
    assert [row.name for row in rows] == [
        *("first", "first, flips", "second", "second, flips", "ensemble of 2", "ensemble of 2, flips")
    ]
    assert all(row.against_first.name == "first" for row in rows[1:])
    for row in rows[1:]:
        found = row.against_first
        assert found.difference == pytest.approx(row.accuracy - rows[0].accuracy)
        assert found.n == row.n == 12


def test_no_temperature_is_fitted_on_test_faces(pair: list[Path]) -> None:
    """On valid the ensemble's is fitted and says so; on test it is 1."""
    on_valid, on_test = (evaluate.run(replace(HERE, runs=pair, split=split)).rows[-1] for split in ("valid", "test"))
    assert on_valid.temperature_from == "valid"
    assert (on_test.temperature_from, on_test.temperature) == ("none", 1.0)
    assert len(on_test.sha256) == 2


def test_the_json_names_no_folder_of_this_machine(pair: list[Path], tmp_path: Path) -> None:
    """The file holds what was returned: names of run folders, machine facts and versions, and no path."""
    out = tmp_path / "result.json"
    result = evaluate.run(replace(HERE, runs=pair, out=str(out)))
    assert read(out) == result
    assert str(tmp_path) not in out.read_text()
    assert (result.header.edgeemo, result.header.machine) == (edgeemo.__version__, this_machine())


def test_a_comparison_of_compress_is_not_written_over(tmp_path: Path) -> None:
    """It has rows and labels too; refused before the runs are read."""
    comparison = tmp_path / "comparison.json"
    comparison.write_text('{"kind": "comparison", "format": 2, "faces": {}, "labels": [], "rows": []}')
    with pytest.raises(UsageError, match="not a result of this command"):
        evaluate.run(replace(HERE, runs=[tmp_path], out=str(comparison)))


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Two folders called run: they are numbered in the order given."""
    runs = [made(tmp_path / where / "run") for where in ("a", "b")]
    assert [row.name for row in evaluate.run(replace(HERE, runs=runs)).rows] == ["run (1)", "run (2)", "ensemble of 2"]


def test_runs_that_tell_other_labels_are_refused(tmp_path: Path) -> None:
    """Six labels cannot be reported as eight; before any face is read."""
    runs = [made(tmp_path / "eight", labels="ferplus8"), made(tmp_path / "six")]
    with pytest.raises(UsageError, match="six has the labels"):
        evaluate.run(replace(HERE, runs=runs, data="folder:/nowhere"))


def test_a_run_of_eight_labels_is_judged_in_six(tmp_path: Path) -> None:
    """Beside a run of six and with it in an ensemble; alone, too, where --label-set asks for it."""
    runs = [made(tmp_path / "six"), made(tmp_path / "eight", labels="ferplus8", seed=1)]
    together = evaluate.run(replace(HERE, runs=runs))
    alone = evaluate.run(replace(HERE, runs=runs[1:], label_set="six"))
    assert together.labels == alone.labels == list(label_set("six").labels)
    assert [row.n for row in together.rows] == [12, 12, 12]
    assert together.rows[1].confusion == alone.rows[0].confusion


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    """The error names the file that is missing."""
    with pytest.raises(IntegrityError, match=r"model\.safetensors does not exist"):
        evaluate.run(replace(HERE, runs=[tmp_path]))


def test_the_table_has_all_that_decides(pair: list[Path]) -> None:
    """In 80 columns: both runs, their ensemble, F1, recalls and a sentence per paired test."""
    console = Console(width=80, record=True)
    show(evaluate.run(replace(HERE, runs=pair)), console)
    text = console.export_text()
    assert "synthetic valid, plurality, n = 12" in text
    assert all(word in text for word in ("acc.", "interval", "F1", "fear", "ECE"))
    assert "ensemble of 2 against first:" in text
    assert "Selective accuracy / coverage" in text
    assert "…" not in text  # nothing was cut off


def test_last_weights_are_judged_beside_their_moving_average(tmp_path: Path) -> None:
    """After a training with a moving average: two rows, and their logits differ."""
    demo = replace(RECIPES["demo"], data=DATA, epochs=2, batch_size=16, threads=1, out=str(tmp_path / "run"))
    run = train(demo).parent
    rows = evaluate.run(replace(HERE, runs=[run], last=True)).rows
    assert [row.name for row in rows] == ["run", "run, last weights"]
    assert rows[0].ece != rows[1].ece


@pytest.mark.parametrize("mirror", [False, True])
def test_last_weights_are_those_of_the_run(mirror: bool, tmp_path: Path) -> None:
    """Without a moving average the last weights are the kept ones, also where filters were tied in mirrored pairs."""
    demo = replace(RECIPES["demo"], data=DATA, epochs=1, batch_size=16, threads=1, ema=0.0, mirror=mirror)
    run = train(replace(demo, out=str(tmp_path / "run"))).parent
    kept, last = evaluate.run(replace(HERE, runs=[run], last=True)).rows
    assert last.confusion == kept.confusion
    assert last.ece == pytest.approx(kept.ece, abs=1e-5)


def test_last_weights_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    """The moving average cannot be undone without them, nor by a damaged one."""
    demo = replace(RECIPES["demo"], data=DATA, epochs=1, batch_size=16, threads=1, out=str(tmp_path / "run"))
    run = train(demo).parent
    file = checkpoint.list_checkpoints(run)[-1] / checkpoint.WEIGHTS
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match="damaged"):
        evaluate.run(replace(HERE, runs=[run], last=True))
    checkpoint.remove(run)
    with pytest.raises(IntegrityError, match="checkpoints"):
        evaluate.run(replace(HERE, runs=[run], last=True))


def test_what_flatters_is_told(tmp_path: Path) -> None:
    """An epoch chosen on the evaluated faces, the ensemble's temperature, and faces that were trained on."""
    runs = [made(tmp_path / "fixed"), made(tmp_path / "chosen")]
    card = read_card(runs[1] / "model.safetensors")
    write_card(
        runs[1] / "model.safetensors", replace(card, metrics={"valid": sections.metrics(selected_on_valid=True)})
    )
    result = evaluate.run(replace(HERE, runs=runs))
    assert [row.selected_on_these_faces for row in result.rows] == [False, True, True]
    console = Console(width=80, record=True)
    show(result, console)
    text = " ".join(console.export_text().split())
    assert "The epoch was chosen on these faces, which flatters a little: chosen, ensemble of 2." in text
    assert "The temperature was fitted on these faces, which flatters ECE: ensemble of 2." in text
    console = Console(width=80, record=True)
    show(evaluate.run(replace(HERE, runs=runs, split="train")), console)
    assert "Every run was trained on these faces" in console.export_text()


def test_the_command_prints_the_table(tmp_path: Path) -> None:
    """`edgeemo evaluate RUN` ends well and shows the run; of a folder without run it ends with 4."""
    run = made(tmp_path / "run")
    done = CliRunner().invoke(main, ["evaluate", str(run), "--threads", "1"])
    assert (done.exit_code, "synthetic valid" in done.output) == (0, True)
    assert CliRunner().invoke(main, ["evaluate", str(tmp_path), "--threads", "1"]).exit_code == 4
