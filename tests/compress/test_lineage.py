"""Files of one folder belong to one model, and its card names every set of faces that shaped or judged it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeemo.card import read_card
from edgeemo.compress.run import run
from edgeemo.stages import Compress

SMALL = Compress(threads=1)


def test_earlier_results_do_not_stay_beside_new_ones(trained: Path, tmp_path: Path) -> None:
    """Pruned first, then not: the pruned weights and the unpruned export are gone from the folder."""
    run(replace(SMALL, run=str(trained), out=str(tmp_path), prune=0.5, epochs=1))
    run(replace(SMALL, run=str(trained), out=str(tmp_path)))
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("comparison.json", "model.float.onnx", "model.float.onnx.json"),
    ]


def test_recovery_on_other_faces_stands_in_the_card(trained: Path, tmp_path: Path) -> None:
    """Trained on 120 drawn faces, recovered on 180: both counts, and metrics that name the faces they come from."""
    path = run(replace(SMALL, run=str(trained), out=str(tmp_path), prune=0.5, epochs=1, data="synthetic:180"))
    card = read_card(path)
    assert (card.data["train"]["n"], card.data["recovery"]["n"]) == (120, 180)
    assert card.metrics["valid"]["ids_sha256"] != card.data["valid"]["ids_sha256"]
    assert "recovery faces" in card.licences
