"""Frames from pixels to emotions: what is drawn, what is found, and what is timed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import results

from edgeemo.bench.run import run
from edgeemo.errors import UsageError
from edgeemo.faces import Detection, load_detector
from edgeemo.faces.crop import AUGMENTED
from edgeemo.measure import frames, latency
from edgeemo.measure.frames import TimedFrame, draw_frame, open_marked
from edgeemo.report.files import read
from edgeemo.report.render import make_page
from edgeemo.stages import Bench


@pytest.mark.parametrize("frame", latency.FRAMES, ids=str)
def test_the_packaged_detector_finds_every_drawn_face_and_nothing_else(frame: tuple[int, int, int]) -> None:
    """Otherwise crop and classify would be timed on another number of faces."""
    width, height, faces = frame
    drawn = draw_frame(*frame)
    assert drawn.shape == (height, width, 3)
    found = load_detector().detect(drawn)
    rows = round(faces**0.5)
    cells = sorted(
        (int((y + high / 2) * rows / height), int((x + wide / 2) * rows / width))
        for x, y, wide, high in (one.box for one in found)
    )
    assert cells == [divmod(number, rows) for number in range(faces)]


def test_a_frame_is_the_same_on_every_machine() -> None:
    """Drawn from packaged pixels and a seed."""
    assert np.array_equal(draw_frame(64, 48, 1), draw_frame(64, 48, 1))


@pytest.mark.parametrize("frame", [(640, 480, 3), (640, 480, 25), (100, 480, 4), (640, 480, -1)])
def test_faces_that_do_not_fit_are_refused(frame: tuple[int, int, int]) -> None:
    """With the numbers that fit."""
    with pytest.raises(UsageError, match="expected 1, 4 or 16"):
        draw_frame(*frame)


class Finder:
    """A detector that finds as many faces as it is told."""

    def __init__(self, count: int) -> None:
        self.count = count

    def detect(self, _: np.ndarray, /) -> list[Detection]:
        """Return the same face, `count` times."""
        face = Detection((40, 40, 40, 40), 0.9, ((50.0, 50.0), (70.0, 50.0)))
        return [face] * self.count


@pytest.mark.parametrize("count", [0, 1, 3])
def test_all_found_faces_are_classified_as_one_batch(tiny: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the parts add up to the whole."""
    batches: list[int] = []
    with open_marked(str(tiny)) as model:
        plain = model.logits
        monkeypatch.setattr(model, "logits", lambda batch: (batches.append(len(batch)), plain(batch))[1])
        detect, crop, classify, total = TimedFrame(draw_frame(120, 120, 1), Finder(count), model).run()
    assert batches == ([count * len(AUGMENTED)] if count else [])
    assert detect + crop + classify == total
    assert min(detect, crop, classify) >= 0
    assert (classify > 0) == (count > 0)


def test_every_frame_is_timed_on_every_model_in_its_turn(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process, which stays on its cores; at least the requested runs, each with all its parts."""
    monkeypatch.setattr(frames, "pin_to_cores", lambda _: False)
    models = [(str(tiny), ""), (str(tiny), "onnxruntime")]
    output = frames.measure(models, {"faces": "few"}, [(320, 240, 1), (320, 240, 4)], [0], runs=2, seconds=0.0)
    assert not output["pinned"]
    assert [len(row) for row in output["frames"]] == [2, 2]
    for row in output["frames"]:
        for one in row:
            assert {len(one[part]) for part in frames.PARTS} == {len(one["total"])}
            assert len(one["total"]) >= 2
    assert json.loads(json.dumps(output)) == output


def test_processor_time_leaves_out_what_is_waited_for(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For ratios on a busy machine; by default, the clock decides."""
    ticks = iter(range(0, 1000, 10))
    monkeypatch.setattr(frames, "thread_time_ns", lambda: next(ticks))
    with open_marked(str(tiny)) as model:
        assert TimedFrame(draw_frame(120, 120, 1), Finder(1), model, processor_time=True).run() == (10, 10, 10, 30)
        assert TimedFrame(draw_frame(120, 120, 1), Finder(1), model).run() != (10, 10, 10, 30)


def test_large_frames_take_a_quarter_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each size in a process of its own, on the last core; the rows are in the order of the frames."""
    jobs: list[dict[str, Any]] = []

    def child(module: str, job: str) -> dict[str, Any]:
        jobs.append(json.loads(job))
        spent = 10**6 * len(jobs)
        timed = {"found": 1, "detect": [spent], "crop": [1], "classify": [2], "total": [spent + 3]}
        assert module == "frames"
        return {"pinned": True, "frames": [[timed, timed] for _ in jobs[-1]["frames"]]}

    monkeypatch.setattr(latency, "_run_module", child)
    monkeypatch.setattr(latency, "usable_cores", lambda: [0, 1])
    first, second = latency.measure_frames([(Path("a"), ""), (Path("b"), "")], detector={"faces": "few"}, runs=20)
    assert [(job["cores"], job["runs"], job["detector"]) for job in jobs] == [
        ([1], 20, {"faces": "few"}),
        ([1], 5, {"faces": "few"}),
    ]
    assert [(row.width, row.height, row.drawn) for row in first] == list(latency.FRAMES)
    assert [row.detect.ms_p50 for row in second] == [1.0] * 3 + [2.0] * 3


@pytest.mark.usefixtures("quick")
def test_bench_times_frames_and_gates_them(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes of their own; the default target then has their gate, and the result survives its file."""
    monkeypatch.setitem(latency.measure_frames.__kwdefaults__, "frames", ((640, 480, 1),))
    out = tmp_path / "tiny.json"
    result = run(Bench(engine=str(tiny), frames=True, faces="few", threshold=0.6, runs=3, out=out))
    (row,) = result.frames.rows
    assert (row.drawn, row.found) == (1, 1)
    assert row.total.n >= 3
    assert row.detect.ms_min < row.total.ms_min
    assert (result.frames.detector.name, result.frames.detector.faces) == ("blazeface-full", "few")
    assert result.frames.detector.threshold == 0.6
    assert [gate.gate for gate in result.gates] == ["accuracy", "latency_ms_p95", "frame_ms_p95"]
    assert read(out).frames == result.frames
    assert "Frames, from pixels to emotions" in out.with_suffix(".md").read_text(encoding="utf-8")


def test_a_detector_without_frames_or_boxes_is_refused() -> None:
    """Before anything is measured; an unknown one as well."""
    with pytest.raises(UsageError, match="--detector has no effect without --frames or --boxes"):
        run(Bench(engine="nano", detector="blazeface-full"))
    with pytest.raises(UsageError, match="unknown detector 'haar'"):
        run(Bench(engine="nano", frames=True, detector="haar"))


def test_the_page_has_a_row_per_frame_with_the_ratio_of_its_parts() -> None:
    """Detect, crop and classify against classify; unstable timings are noted, and found faces counted."""
    made = results.bench(frames=results.frames())
    page = make_page(made).to_markdown()
    assert "| 640x480 | 1 of 1 | 1 | 30 | 0.5 | 2 | 32.5 / 40 | 15 : 0.25 : 1 |" in page
    assert "| 1920x1080 | 4 of 4 | 1 | 90 | 2 | 8 | 100 / 300 | 11 : 0.25 : 1 |" in page
    assert "the ratio detect : crop : classify" in page
    assert "Unstable" in page
    steady = replace(made.frames, rows=made.frames.rows[:1])
    assert "Unstable" not in make_page(replace(made, frames=steady)).to_markdown()
    assert "1 of 1 | 1 | 30 | 0.5 | 2 | 32.5 / 40 | - |" not in page
