"""Faces stay where they are: their pixels are in no file that a command writes, nor in temporary files."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgeemo import stages
from edgeemo.labels import LABEL_SETS
from edgeemo.stages import RECIPES, Audit, Bench, Compress, Evaluate

SIDE = 48  # also of the network's input, so that no pixel is interpolated


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """A folder of noise, in which no row of pixels can be there by chance, and the pixels."""
    folder, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    planted = []
    for name in LABEL_SETS["six"].labels:
        (folder / name).mkdir()
        for number in range(20):
            planted.append(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8))
            Image.fromarray(planted[-1]).save(folder / name / f"{number}.png")
    return folder, planted


def find_pixels(folder: Path, planted: list[np.ndarray]) -> list[str]:
    """List the files in which the middle row of a planted face stands, as bytes or as numbers of a usual type."""
    rows = [face[SIDE // 2, 8:40] for face in planted]
    needles = [row.astype(kind).tobytes() for row in rows for kind in (np.uint8, np.float32)]
    needles += [(row / np.float32(255)).astype(np.float32).tobytes() for row in rows]
    needles += [",".join(map(str, row)).encode() for row in rows] + [", ".join(map(str, row)).encode() for row in rows]
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [file.name for file in files if any(needle in file.read_bytes() for needle in needles)]


@pytest.fixture
def keep_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which every temporary file stays."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(tempfile.TemporaryDirectory, "_rmtree", lambda *_, **__: None)
    return tmp_path / "temporary"


def test_no_command_writes_pixels(
    faces: tuple[Path, list[np.ndarray]],
    tmp_path: Path,
    keep_temporary_files: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Run folder, checkpoints, plots, logs, models, cards, results and temporary files of a whole pipeline."""
    folder, planted = faces
    data: dict[str, Any] = {"data": f"folder:{folder}"}
    recipe = replace(RECIPES["demo"], **data, epochs=1, batch_size=16, threads=1, corrupt_share=0.5)
    run = stages.run(replace(recipe, out=tmp_path / "run", tensorboard=True)).parent
    int8: dict[str, Any] = {"int8": True, "calibration_count": 64, "rounding": "nearest", "min_agreement": 0.0}
    model = stages.run(Compress(run=run, threads=1, time=False, min_int8_share=0.0, **int8))
    stages.run(Evaluate(runs=(run,), threads=1, out=tmp_path / "evaluation.json"))
    stages.run(Bench(engine=str(model), runs=1, out=tmp_path / "bench.json", **data))
    stages.run(Audit(out=tmp_path / "audit.json", **data))
    (tmp_path / "log.txt").write_text(caplog.text)
    assert len(list(tmp_path.rglob("*"))) > 20
    assert list(keep_temporary_files.rglob("*.onnx"))
    assert find_pixels(tmp_path, planted) == []


def test_planted_pixels_are_found(faces: tuple[Path, list[np.ndarray]], tmp_path: Path) -> None:
    """In an array, in normalised numbers and in text, wherever they stand."""
    _, planted = faces
    np.save(tmp_path / "a.npy", np.stack(planted))
    np.save(tmp_path / "b.npy", np.stack(planted).astype(np.float32) / np.float32(255))
    (tmp_path / "c.json").write_text(str(planted[3].tolist()))
    (tmp_path / "d.bin").write_bytes(b"junk" + planted[7].tobytes() + b"junk")
    shutil.copy(__file__, tmp_path / "e.py")
    assert sorted(find_pixels(tmp_path, planted)) == ["a.npy", "b.npy", "c.json", "d.bin"]
