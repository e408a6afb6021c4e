"""The whole command: from a source to its outputs, and how it ends."""

from __future__ import annotations

import csv
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import edgeemo
from edgeemo.errors import MachineError, UsageError
from edgeemo.stages import Watch
from edgeemo.watch.outputs.background import Background
from edgeemo.watch.run import run
from edgeemo.watch.scene import CLEAR, Scene

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
FRAMES = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of two people, at 25 a second."""
    made = tmp_path_factory.mktemp("frames")
    scene = Scene(people=2, seed=3, labels=CLEAR)
    for number in range(FRAMES):
        Image.fromarray(scene.frame(number)[0]).save(made / f"{number}.png")
    return made


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_frame_of_a_folder_is_recorded(folder: Path, tmp_path: Path) -> None:
    """In natural order, with a record per face; none is dropped, however slow the model."""
    watched = run(Watch(str(folder), model="nano", jsonl=str(tmp_path / "faces.jsonl"), csv=tmp_path / "faces.csv"))
    records = read_lines(tmp_path / "faces.jsonl")
    assert (watched.frames, watched.dropped, watched.tracks) == (FRAMES, 0, 2)
    assert sorted({record["frame"] for record in records}) == list(range(FRAMES))
    assert {record["track"] for record in records} == {1, 2}
    assert records[-1]["position"] == pytest.approx((FRAMES - 1) / 25)
    with (tmp_path / "faces.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(records)


def test_changes_are_told_where_nothing_else_is_written(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A face that appears, and that it was there at the end."""
    run(Watch(str(folder), model="nano"))
    lines = capfd.readouterr().out.splitlines()
    assert any("face 1 appears: " in line for line in lines)
    assert lines[0].startswith("0.0")
    assert lines[-1].startswith("1.16 s: face 2 stays to the end, 1.")


def test_standard_output_has_only_records_if_asked_for(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(Watch(str(folder), model="nano", jsonl="-", events="changes"))
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {record["event"] for record in records} >= {"appeared", "ended"}


def test_counts_alone_are_told_of_an_aggregate(
    folder: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Withheld below five people; no face is named, nor counted in the summary."""
    caplog.set_level("INFO", logger="edgeemo")
    run(Watch(str(folder), model="nano", aggregate=1.0))
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("withheld" in line and "face" not in line for line in lines)
    assert "tracked" not in caplog.text
    run(Watch(str(folder), model="nano", aggregate=1.0, least_people=2))
    lines = capfd.readouterr().out.splitlines()
    assert all("2 faces: " in line for line in lines)
    assert "face 1" not in "".join(lines)


def test_a_peer_that_got_nothing_of_a_folder_is_a_failure(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script must not take the end of the folder for the end of the work."""
    monkeypatch.setitem(Background.__init__.__kwdefaults__, "flush_seconds", 0.1)
    with pytest.raises(MachineError, match=r"did not get \d items"):
        run(Watch(str(folder), model="nano", webhook="http://127.0.0.1:9/", seconds=0.2))


def test_what_is_read_is_not_written_to(folder: Path, tmp_path: Path) -> None:
    """Neither a video, nor the model."""
    video = tmp_path / "seen.mp4"
    run(Watch(str(folder), model="nano", save=video, seconds=0.2))
    with pytest.raises(UsageError, match="is the source, which is not overwritten"):
        run(Watch(str(video), model="nano", save=video))
    assert run(Watch(str(video), model="nano")).frames == 5


def test_a_blurred_video_is_searched_in_every_frame(folder: Path, tmp_path: Path) -> None:
    """Otherwise a face that comes in would be seen for some frames."""
    pytest.importorskip("cv2")
    for name, blur in (("plain", False), ("blurred", True)):
        records = str(tmp_path / f"{name}.jsonl")
        run(Watch(str(folder), model="nano", blur=blur, save=tmp_path / f"{name}.mp4", jsonl=records, seconds=0.4))
    assert not all(record["detected"] for record in read_lines(tmp_path / "plain.jsonl"))
    assert all(record["detected"] for record in read_lines(tmp_path / "blurred.jsonl"))


def test_it_stops_after_some_seconds(folder: Path) -> None:
    """Of a file, in its own time; of a live source, on the clock."""
    assert run(Watch(str(folder), model="nano", seconds=0.5)).frames == 13
    start = time.monotonic()
    assert run(Watch("synthetic", model="nano", seconds=1.0)).frames > 5
    assert time.monotonic() - start < 10


def test_a_file_of_options_is_read_and_the_command_line_wins(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "watch.toml").write_text(f'source = "{folder}"\nmodel = "base"\njsonl = "faces.jsonl"\n')
    ended = run_cli("--config", str(tmp_path / "watch.toml"), "--model", "nano", "--seconds", "0.2")
    assert ended.returncode == 0, ended.stderr
    assert len(read_lines(tmp_path / "faces.jsonl")) == 2 * 5


def run_cli(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeemo", "watch", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_printed_options_are_accepted(tmp_path: Path) -> None:
    """As they are, they change nothing."""
    printed: list[str] = []
    run(Watch(print_config=True), show=printed.append)
    (tmp_path / "watch.toml").write_text("\n".join(printed), encoding="utf-8")
    ended = run_cli("synthetic", "--config", str(tmp_path / "watch.toml"), "--seconds", "0.3")
    assert ended.returncode == 0, ended.stderr


def test_without_a_source_a_first_try_is_named() -> None:
    with pytest.raises(UsageError, match="edgeemo watch synthetic"):
        run(Watch())


def test_a_prior_that_is_estimated_from_a_person_is_refused() -> None:
    """Hundreds of frames of one person are one face."""
    with pytest.raises(UsageError, match="one person counts as hundreds"):
        run(Watch("synthetic", prior="auto"))
    with edgeemo.load("nano", prior="auto") as model, pytest.raises(UsageError, match="one person counts"):
        edgeemo.stream("synthetic", model=model)


def test_a_prior_changes_the_predictions(folder: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    for name, prior in (("without", None), ("with", "neutral=0.99")):
        file = tmp_path / f"{name}.jsonl"
        run(Watch(str(folder), model="nano", prior=prior, jsonl=str(file), seconds=0.1))
        shares.append(sum(record["probabilities"]["raw"]["neutral"] for record in read_lines(file)))
    assert shares[1] > shares[0] + 0.1


@pytest.mark.parametrize("size", ["640", "640x", "x480", "640*480", "-1x3"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(UsageError, match="WIDTHxHEIGHT"):
        run(Watch("synthetic", size=size))


def test_a_scene_has_the_size_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="edgeemo")
    run(Watch("synthetic", model="nano", size="320x240", seconds=0.3))
    assert "frames of 320x240" in caplog.text


@contextmanager
def start_watching(tmp_path: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Run the command on a scene; yield it when the first records are written, with their file."""
    records = tmp_path / "faces.jsonl"
    command = [sys.executable, "-m", "edgeemo", "watch", "synthetic:2", "--jsonl", str(records), *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            wait_for(lambda: records.is_file() and records.stat().st_size > 0)
            yield child, records
        finally:
            child.kill()


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        pause.wait(0.02)


@POSIX
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_live_source_with_whole_files(name: str, tmp_path: Path) -> None:
    """Exit code 0, because nothing else ends a camera; the video has its name, the last line its end."""
    with start_watching(tmp_path, "--model", "nano", "--save", str(tmp_path / "faces.mp4")) as (child, records):
        child.send_signal(getattr(signal, name))
        _, log = child.communicate(timeout=60)
    assert child.returncode == 0, log
    assert f"ended by {name}" in log
    assert " tracked" in log.splitlines()[-1]
    assert read_lines(records)[-1]["event"] == "face"
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["faces.jsonl", "faces.mp4"]


@POSIX
def test_a_file_that_was_not_read_to_its_end_is_an_interruption(folder: Path, tmp_path: Path) -> None:
    """Exit code 130, so that a script does not take the records for those of the whole."""
    records = tmp_path / "faces.jsonl"
    command = [sys.executable, "-m", "edgeemo", "watch", str(folder), "--realtime", "--fps", "2"]
    with subprocess.Popen([*command, "--jsonl", str(records)], stderr=subprocess.PIPE, text=True) as child:
        wait_for(lambda: records.is_file() and records.stat().st_size > 0)
        child.send_signal(signal.SIGTERM)
        _, log = child.communicate(timeout=60)
    assert child.returncode == 130, log
    assert read_lines(records)


@POSIX
def test_a_hangup_loads_the_model_again(tmp_path: Path) -> None:
    """A new file under the same name takes over; one that is no model is refused, and the old one serves on."""
    shipped = Path(edgeemo.runtime.shipped.find("nano"))  # type: ignore[attr-defined]
    copy_model(shipped, tmp_path / "model.onnx")
    with start_watching(tmp_path, "--model", str(tmp_path / "model.onnx"), "--health", "0") as (child, _):
        assert child.stderr is not None
        url = next(line for line in child.stderr if "/metrics" in line).split()[-1]
        copy_model(Path(edgeemo.runtime.shipped.find("small")), tmp_path / "model.onnx")  # type: ignore[attr-defined]
        child.send_signal(signal.SIGHUP)
        wait_for(lambda: read_metric(url, "edgeemo_model_swaps_total") == 1)
        (tmp_path / "model.onnx").write_bytes(b"no model")
        child.send_signal(signal.SIGHUP)
        wait_for(lambda: read_metric(url, "edgeemo_model_swap_failures_total") == 1)
        answered = read_metric(url, "edgeemo_frames_answered_total")
        wait_for(lambda: read_metric(url, "edgeemo_frames_answered_total") > answered + 5)


def copy_model(source: Path, target: Path) -> None:
    """Write the file and its card under another name, each in one step."""
    for suffix in ("", ".json"):
        partial = target.with_name(f"partial{suffix}")
        partial.write_bytes(Path(f"{source}{suffix}").read_bytes())
        partial.replace(f"{target}{suffix}")


def read_metric(url: str, name: str) -> float:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    return float(next(line.split()[-1] for line in lines if line.startswith(f"{name} ")))


def test_a_program_iterates_over_frames(folder: Path) -> None:
    """With tracks and steady predictions, in a few lines."""
    with edgeemo.stream(folder, model="nano") as frames:
        seen = [(face.track, face.smoothed.label) for frame in frames for face in frame.faces]
    assert len(seen) >= 2 * FRAMES - 4
    assert {track for track, _ in seen} == {1, 2}


def test_a_stream_ends_when_the_loop_is_left() -> None:
    """No thread stays behind."""
    before = threading.active_count()
    with edgeemo.stream("synthetic", model="nano") as frames:
        for number, frame in enumerate(frames):
            assert frame.latency < 30
            if number == 3:
                break
    wait_for(lambda: threading.active_count() <= before, 10.0)


def test_a_loop_that_was_left_goes_on_in_the_next_one(folder: Path) -> None:
    """As over any iterator, of which `next` takes a single frame."""
    with edgeemo.stream(folder, model="nano") as frames:
        numbers = [next(frames).frame.number]
        for watched in frames:
            numbers.append(watched.frame.number)
            break
        numbers += [watched.frame.number for watched in frames]
    assert numbers == list(range(FRAMES))
    assert list(frames) == []


def test_a_stream_that_is_forgotten_leaves_no_thread() -> None:
    """Without a with-block."""
    before = threading.active_count()
    for _ in edgeemo.stream("synthetic", model="nano"):
        break
    gc.collect()
    wait_for(lambda: threading.active_count() <= before, 10.0)


def test_a_model_of_the_caller_stays_open(folder: Path) -> None:
    with edgeemo.load("nano") as model:
        with edgeemo.stream(folder, model=model) as frames:
            next(iter(frames))
        assert model.predict(Image.new("L", (48, 48))).label in model.labels
