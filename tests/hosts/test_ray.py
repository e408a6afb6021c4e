"""The batch job on Ray, on this machine: the rows are those of edgeemo in one process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgeemo

ray = pytest.importorskip("ray", reason="pip install 'ray[data]', 700 MB")
parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'ray[data]', 700 MB")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster() -> Iterator[None]:
    """Two processes that import edgeemo from here."""
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hosts" / "ray")])}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": environment}, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_a_folder_of_images_becomes_a_table_of_faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a row for the file that is no image."""
    monkeypatch.syspath_prepend(ROOT / "hosts" / "ray")
    import predict_images

    folder = tmp_path / "images"
    shutil.copytree(ROOT / "hosts" / "fixtures" / "pictures", folder)
    (folder / "broken.png").write_bytes(b"not an image")
    predict_images.predict_images(str(folder), str(tmp_path / "out"), model="nano", processes=1)
    rows = parquet.read_table(tmp_path / "out").to_pylist()
    with edgeemo.load("nano") as model:
        expected = {
            (path.name, face.box, face.prediction.label)
            for path in folder.glob("*.png")
            if path.name != "broken.png"
            for face in model.faces(path)
        }
    found = {(Path(row["image"]).name, tuple(row[key] for key in predict_images.COLUMNS), row["label"]) for row in rows}
    assert {row for row in found if row[0] != "broken.png"} == expected
    assert [Path(row["image"]).name for row in rows if row["error"]] == ["broken.png"]
