"""A detector on labelled boxes, from the command to its result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import results
from click.testing import CliRunner
from PIL import Image

from edgeemo.bench.detection import detect_all, find_images
from edgeemo.bench.run import run
from edgeemo.cli import main
from edgeemo.data.boxes import LabelledBox, LabelledImage
from edgeemo.errors import DataError, IntegrityError, UsageError
from edgeemo.measure.frames import draw_frame
from edgeemo.report.files import read
from edgeemo.report.render import make_page
from edgeemo.stages import Bench

FACE = (290, 210, 64, 64)  # about where the packaged detector finds the one face of a 640x480 frame
NOWHERE = (10, 10, 60, 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images: one face, four faces, none."""
    made = tmp_path_factory.mktemp("photos")
    for name, faces in {"one.png": 1, "four.png": 4, "none.png": 0}.items():
        Image.fromarray(draw_frame(640, 480, faces)).save(made / name, compress_level=1)
    return made


def write(path: Path, rows: dict[str, list[tuple[int, int, int, int]]]) -> Path:
    """A file of boxes in CSV."""
    lines = ["image,x,y,width,height"]
    for name, boxes in rows.items():
        lines += [f"{name},{','.join(map(str, box))}" for box in boxes] or [f"{name},,,,"]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_found_missed_and_false_faces_are_counted(folder: Path, tmp_path: Path) -> None:
    """One face found; of `four.png`, labelled as without faces, four false boxes; one label that nothing finds."""
    boxes = write(tmp_path / "boxes.csv", {"one.png": [FACE], "four.png": [], "none.png": [NOWHERE]})
    out = tmp_path / "result.json"
    result = run(Bench(boxes=boxes, images=folder, out=out))
    assert (result.total.labelled, result.total.found, result.total.false) == (2, 1, 4)
    assert (result.total.recall, result.total.precision) == (0.5, 0.2)
    assert result.right_counts == 1
    assert result.faceless_false == 4
    assert (result.boxes.images, result.boxes.without_faces, result.boxes.format) == (3, 1, "csv")
    assert [(one.image, one.labelled, one.found, one.false) for one in result.wrong] == [
        ("four.png", 0, 0, 4),
        ("none.png", 1, 0, 0),
    ]
    assert sum(row.labelled for row in result.sizes) == 2
    assert result.latency.n == 3
    assert result.latency.ms_min > 0
    assert (result.passed, result.verdict, result.gates) == (True, "", [])
    assert read(out) == result
    assert result.to_json() == json.loads(out.read_text())
    assert str(tmp_path) not in out.read_text() + out.with_suffix(".md").read_text()


def test_false_boxes_beside_a_face_are_not_those_of_images_without_faces(folder: Path, tmp_path: Path) -> None:
    """A face where the label is not: missed, and false."""
    boxes = write(tmp_path / "boxes.csv", {"one.png": [NOWHERE], "none.png": []})
    result = run(Bench(boxes=boxes, images=folder))
    assert (result.total.found, result.total.false, result.faceless_false) == (0, 1, 0)
    assert result.right_counts == 2  # as many as there are, although at another place


def test_the_three_formats_give_the_same_result(folder: Path) -> None:
    """Beside the images, where they are looked for."""
    formats = {
        "boxes.txt": f"one.png\n1\n{' '.join(map(str, FACE))} 0 0 0 0 0 0\nnone.png\n0\n0 0 0 0 0 0 0 0 0 0\n",
        "boxes.csv": f"image,x,y,width,height\none.png,{','.join(map(str, FACE))}\nnone.png,,,,\n",
        "boxes.json": json.dumps(
            {
                "images": [
                    {"id": 1, "file_name": "one.png", "width": 640, "height": 480},
                    {"id": 2, "file_name": "none.png"},
                ],
                "annotations": [{"image_id": 1, "bbox": FACE}],
            }
        ),
    }
    for name, text in formats.items():
        (folder / name).write_text(text, encoding="utf-8")
        result = run(Bench(boxes=folder / name))
        assert (result.total.found, result.total.false, result.right_counts) == (1, 0, 2), name


@pytest.mark.parametrize(
    ("limits", "passed", "says"),
    [
        ({"min_recall": 50.0}, True, "PASS (1 of 1 gates)"),
        ({"min_recall": 60.0}, False, "FAIL: recall of labelled faces 50.00 %, limit 60.00 %: missed by 10.00 points"),
        ({"min_recall": 50.0, "min_precision": 100.0}, True, "PASS (2 of 2 gates)"),
    ],
)
def test_gates_decide_the_verdict(folder: Path, tmp_path: Path, limits: dict[str, float], passed: bool, says: str):
    """One of two faces found, nothing false."""
    boxes = write(tmp_path / "boxes.csv", {"one.png": [FACE], "none.png": [NOWHERE]})
    result = run(Bench(boxes=boxes, images=folder, faces="few", **limits))
    assert (result.passed, result.verdict) == (passed, says)


def test_precision_without_detections_is_not_met(folder: Path, tmp_path: Path) -> None:
    """Nothing that was found is no perfect precision."""
    boxes = write(tmp_path / "boxes.csv", {"none.png": [NOWHERE]})
    result = run(Bench(boxes=boxes, images=folder, min_precision=90.0))
    assert not result.passed
    assert result.verdict == "FAIL: precision of found boxes not measured: no detections"


def test_the_command_exits_with_the_gate(folder: Path, tmp_path: Path) -> None:
    """1 where it fails, after the table; the threshold is that of the option."""
    boxes = str(write(tmp_path / "boxes.csv", {"one.png": [FACE], "none.png": [NOWHERE]}))
    words = ["bench", "--detector", "blazeface-full", "--boxes", boxes, "--images", str(folder), "--threshold", "0.6"]
    done = CliRunner().invoke(main, [*words, "--min-recall", "90"])
    assert done.exit_code == 1
    assert "missed by 40.00 points" in done.output.replace("\n", " ")
    assert "score from 0.6" in done.output
    assert CliRunner().invoke(main, words).exit_code == 0


def test_a_high_threshold_finds_less(folder: Path, tmp_path: Path) -> None:
    """The option reaches the detector, as does the number of faces."""
    boxes = write(tmp_path / "boxes.csv", {"one.png": [FACE]})
    result = run(Bench(boxes=boxes, images=folder, threshold=0.99, faces="many"))
    assert (result.total.found, result.detector.threshold, result.detector.faces) == (0, 0.99, "many")


def test_missing_images_are_refused_with_the_first_line(folder: Path, tmp_path: Path) -> None:
    """Before any is searched, with how many are missing and the option that names their folder."""
    boxes = write(tmp_path / "boxes.csv", {"one.png": [FACE], "gone.png": [], "away.png": [FACE]})
    with pytest.raises(
        DataError, match=r"boxes.csv, line 3: .* has no image 'gone.png' \(2 of 3 are missing\).*--images"
    ):
        run(Bench(boxes=boxes, images=folder))


def test_a_name_too_long_for_a_file_is_that_of_a_missing_image(folder: Path, tmp_path: Path) -> None:
    """Not an error of the operating system."""
    boxes = write(tmp_path / "boxes.csv", {"n" * 300 + ".png": [FACE]})
    with pytest.raises(DataError, match=r"boxes.csv, line 2: .* has no image 'nnn.*--images"):
        run(Bench(boxes=boxes, images=folder))


def test_an_image_in_a_folder_that_may_not_be_searched_is_not_called_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading it says why it cannot be read."""

    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", refuse)
    assert find_images([LabelledImage("one.png", "line 2")], folder) == [folder / "one.png"]


def test_a_box_outside_its_image_is_refused(folder: Path, tmp_path: Path) -> None:
    """With file and line: the wrong image, or corners instead of sizes."""
    boxes = write(tmp_path / "boxes.csv", {"none.png": [], "one.png": [(700, 10, 50, 50)]})
    with pytest.raises(DataError, match=r"boxes.csv, line 3: the box 700 10 50 50 lies outside of 'one.png', 640x480"):
        run(Bench(boxes=boxes, images=folder))


def test_an_unknown_detector_is_refused(folder: Path, tmp_path: Path) -> None:
    """By name and by file."""
    boxes = write(tmp_path / "boxes.csv", {"one.png": [FACE]})
    with pytest.raises(UsageError, match="unknown detector 'haar'"):
        run(Bench(detector="haar", boxes=boxes, images=folder))
    with pytest.raises(IntegrityError, match="no known face detector"):
        run(Bench(detector=str(folder / "one.png"), boxes=boxes, images=folder))


@pytest.mark.parametrize("option", [{"engine": "nano"}, {"frames": True}, {"data": "synthetic"}, {"target": "origin"}])
def test_options_of_a_model_are_refused_with_boxes(option: dict[str, object], tmp_path: Path) -> None:
    """They would have no effect, as those of boxes without a file."""
    with pytest.raises(UsageError, match="has no effect with --boxes"):
        run(Bench(boxes=tmp_path / "boxes.csv", **option))
    with pytest.raises(UsageError, match="--min-recall has no effect without --boxes"):
        run(Bench(min_recall=90.0))


def test_a_result_of_a_model_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    """Nor one of a detector by one of a model."""
    (tmp_path / "bench.json").write_text(json.dumps(results.bench().to_json()), encoding="utf-8")
    boxes = write(tmp_path / "boxes.csv", {"one.png": [FACE]})
    with pytest.raises(UsageError, match="is not a result of this command"):
        run(Bench(boxes=boxes, images=folder, out=tmp_path / "bench.json"))


def test_each_image_is_searched_once_after_a_warm_up(folder: Path) -> None:
    """The warm-up is not timed."""
    seen: list[tuple[int, ...]] = []

    class Detector:
        def detect(self, image: np.ndarray, /) -> list[object]:
            seen.append(image.shape)
            return []

    labelled = [LabelledImage("one.png", "", boxes=[LabelledBox(FACE, "")]), LabelledImage("none.png", "")]
    matches, spent = detect_all(Detector(), labelled, [folder / image.name for image in labelled])
    assert len(seen) == 3
    assert len(matches) == len(spent) == 2
    assert matches[0].missed == (FACE,)


def test_the_page_names_images_with_mistakes_and_leaves_out_what_was_not_measured() -> None:
    """Up to ten of them; a rate without faces is a dash."""
    page = make_page(results.detection()).to_markdown()
    assert "| recall (95 %) | 75.00 % (30.06 to 95.44) |" in page
    assert "| 0 to below 48 | 0 | 0 | - | 0 | - |" in page
    assert "| a.png | 4 | 1 | 0 |" in page
    assert "## Gates" not in page
    many = results.detection(wrong=results.detection().wrong * 6)
    assert "The first 10 of 12" in make_page(many).to_markdown()
    assert "Images with mistakes" not in make_page(replace(many, wrong=[])).to_markdown()
