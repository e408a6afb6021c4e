"""The audit finds what was planted."""

import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

from edgeemo.data import audit
from edgeemo.data.tables import of_audit
from edgeemo.stages import Audit


@pytest.fixture
def planted(folder_of_faces, tmp_path):
    """Train and valid folders with one exact copy, one mirrored copy and one unreadable file in valid."""
    root = tmp_path / "planted"
    shutil.copytree(folder_of_faces, root / "train")
    for label in (root / "train").iterdir():
        (root / "valid" / label.name).mkdir(parents=True)
        shutil.copy(label / "0.png", root / "valid" / label.name / "copy.png") if label.name == "fear" else None
        gradient = np.linspace(0, 255, 48 * 48, dtype=np.uint8).reshape(48, 48)
        noise = np.random.default_rng(len(label.name)).permutation(gradient.ravel()).reshape(48, 48)
        Image.fromarray(noise).save(root / "valid" / label.name / "own.png")
    with Image.open(root / "train" / "angry" / "0.png") as picture:
        ImageOps.mirror(picture).save(root / "valid" / "angry" / "mirrored.png")
    (root / "valid" / "happy" / "broken.png").write_bytes(b"\x89PNG")
    return root


def test_planted_faults_are_found(planted):
    """One exact copy, one mirrored near copy and one unreadable file; nothing else."""
    report = audit.run(Audit(data=f"folder:{planted}"))
    (across,) = report["copies_across"]
    assert (across["of"], across["in"], across["exact"], across["near"]) == ("valid", "train", 1, 2)
    (unreadable,) = report["splits"]["valid"]["unreadable"]
    assert "broken.png" in unreadable
    assert report["splits"]["train"]["labels"]["plurality"]["fear"] == 10


def test_report_can_be_printed(planted):
    """The table is made of the report alone."""
    assert of_audit(audit.run(Audit(data=f"folder:{planted}"))).renderables


@pytest.mark.ferplus
def test_real_faces_leak_across_splits(ferplus):
    """279 of the 3,579 valid faces of FER+ are byte-identical to a train face."""
    (across,) = audit.run(Audit(data=ferplus, near=0))["copies_across"]
    assert (across["n"], across["exact"]) == (3579, 279)
