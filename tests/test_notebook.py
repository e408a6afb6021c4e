"""The notebook runs from its first cell to its last, and is kept without outputs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
SMALLER = {  # what a notebook says, and what stands for it in a test: a tenth of the training, and the INT8 of that
    "first_model": {
        'DATA = "synthetic:1200"': 'DATA = "synthetic:240"',
        "epochs=12, batch_size=64": "epochs=4, batch_size=32",
        "int8=True, calibration_count=256": "int8=True, calibration_count=64, min_agreement=0.0",
    }
}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_runs(path, tmp_path):
    """In a fresh kernel and an empty folder; its last cell names an emotion.

    Every cell runs as it is, but for the numbers in SMALLER.
    """
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for said, small in SMALLER.get(path.stem, {}).items():
        (cell,) = [cell for cell in notebook.cells if cell.cell_type == "code" and said in cell.source]
        cell.source = cell.source.replace(said, small)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    said = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    assert any(label in said for label in ("neutral", "happiness", "surprise", "sadness", "anger", "fear"))
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in str(output)]
    assert len(pictures) >= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_notebook_is_kept_without_outputs(path):
    """Outputs could show faces and paths."""
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get("outputs")
        assert not cell.get("execution_count")
