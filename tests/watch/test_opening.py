"""All outputs as one object."""

from __future__ import annotations

import csv
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from mqtt_broker import run_broker
from watched import LABELS, make_face, make_watched

from edgeemo.errors import ClosedPipeError, MachineError, UsageError
from edgeemo.options import check
from edgeemo.stages import Watch
from edgeemo.watch.frame import WatchedFrame
from edgeemo.watch.outputs import opening
from edgeemo.watch.outputs.opening import Outputs, open_outputs

TOPIC = "door"


def start(*, live: bool = False, read: dict[Path, str] | None = None, **options: Any) -> Outputs:
    config = Watch(**options)
    check(config)
    return open_outputs(config, LABELS, live=live, read=read, status=False)


def watch(number: int) -> WatchedFrame:
    """Return a frame with two faces, of which one becomes angry in the third frame."""
    faces = (
        make_face(1, "anger" if number >= 2 else "neutral", seconds=number / 25),
        make_face(2, seconds=number / 25),
    )
    return make_watched(number, *faces, live=False)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_output_gets_its_records(tmp_path: Path) -> None:
    """Files every face of every frame, the broker what changes, the video the frames."""
    pytest.importorskip("cv2")
    with run_broker() as broker:
        outputs = start(
            jsonl=str(tmp_path / "out.jsonl"),
            csv=tmp_path / "out.csv",
            save=tmp_path / "out.mp4",
            mqtt=f"mqtt://127.0.0.1:{broker.port}/{TOPIC}",
        )
        for number in range(4):
            outputs.write(watch(number))
        outputs.close()
        events = [json.loads(payload)["event"] for payload in broker.list_payloads(TOPIC)]
    assert events == ["appeared", "appeared", "changed", "ended", "ended"]
    assert [(row["frame"], row["track"]) for row in read_lines(tmp_path / "out.jsonl")] == [
        (number, track) for number in range(4) for track in (1, 2)
    ]
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == 8
    assert {name.rpartition("/")[2]: (row.written, row.lost, row.failed) for name, row in outputs.count().items()} == {
        "out.jsonl": (8, 0, None), "out.csv": (8, 0, None), "out.mp4": (4, 0, None), TOPIC: (5, 0, None)
    }  # fmt: skip


def test_files_may_get_changes(tmp_path: Path) -> None:
    """A table then has the columns of changes."""
    outputs = start(csv=tmp_path / "out.csv", events="changes")
    for number in range(4):
        outputs.write(watch(number))
    outputs.close()
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["event"] for row in csv.DictReader(file)] == ["appeared", "appeared", "changed", "ended", "ended"]


def test_standard_output_gets_text_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Text where records go nowhere else."""
    for jsonl in (None, "-"):
        outputs = start(jsonl=jsonl)
        outputs.write(watch(0))
        outputs.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "0.00 s: face 1 appears: neutral 80 %"
    assert [json.loads(line)["track"] for line in lines[-2:]] == [1, 2]


def test_an_aggregate_is_all_that_leaves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every output gets the same counts, also of the last period, and nothing else."""
    with run_broker() as broker:
        outputs = start(
            jsonl=str(tmp_path / "out.jsonl"),
            mqtt=f"mqtt://127.0.0.1:{broker.port}/{TOPIC}",
            aggregate=1.0,
            least_people=2,
        )
        for number in range(30):
            outputs.write(watch(number))
        outputs.close()
        published = [json.loads(payload) for payload in broker.list_payloads(TOPIC)]
    assert read_lines(tmp_path / "out.jsonl") == published
    assert [(one["event"], one["people"], one["partial"]) for one in published] == [
        ("period", 2, False), ("period", 2, True)
    ]  # fmt: skip
    assert not capsys.readouterr().out


def test_counts_are_printed_where_they_go_nowhere_else(capsys: pytest.CaptureFixture[str]) -> None:
    """A line a period."""
    outputs = start(aggregate=1.0, least_people=2)
    for number in range(30):
        outputs.write(watch(number))
    outputs.close()
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["0.00 s", "1.00 s"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"aggregate": 60.0, "jsonl": "-", "save": Path("a.mp4")}, "no effect with --aggregate"),
        ({"aggregate": 60.0, "jsonl": "-", "show": True}, "no effect with --aggregate"),
        ({"aggregate": 60.0, "jsonl": "-", "events": "frames"}, "no effect with --aggregate"),
        ({"aggregate": 60.0, "mqtt": "mqtt://h/t", "publish": "frames"}, "no effect with --aggregate"),
        ({"aggregate": 0.5, "jsonl": "-"}, "1 or more"),
        ({"blur": True, "jsonl": "-"}, "--save or --show"),
        ({"events": "changes", "webhook": "https://h/"}, "--jsonl or --csv"),
        ({"publish": "frames", "jsonl": "-"}, "--mqtt or --webhook"),
        ({"save": Path("out.gif")}, "ends in"),
        ({"mqtt": "mqtt://host"}, "topic"),
        ({"webhook": "http://example.com/"}, "unencrypted"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    options: dict[str, Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written, and without a thread left."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        start(csv=Path("out.csv") if "mqtt" in options and "publish" not in options else None, **options)
    assert not [path for path in tmp_path.iterdir() if path.name != "out.csv"]


def test_two_outputs_of_one_file_are_refused(tmp_path: Path) -> None:
    """As is a file that is read."""
    with pytest.raises(UsageError, match="two of --jsonl, --csv and --save would both write"):
        start(jsonl=str(tmp_path / "out"), csv=tmp_path / "out")
    source = tmp_path / "in.mp4"
    source.write_bytes(b"a video")
    with pytest.raises(UsageError, match="the source, which is not overwritten"):
        start(save=source, read={source: "the source"})
    assert source.read_bytes() == b"a video"


def test_an_output_that_ended_for_good_ends_the_loop(monkeypatch: pytest.MonkeyPatch, wait_for: Any) -> None:
    """As where nobody reads standard output any more."""

    class Closed:
        name, batch = "standard output", 1

        def __init__(self, _form: object) -> None:
            """Be closed."""

        def send(self, _items: object) -> None:
            """Fail."""
            raise ClosedPipeError("standard output is not read any more")

        def abort(self) -> None:
            """Be closed."""

        close = abort

    monkeypatch.setattr(opening, "StandardOutput", Closed)
    outputs = start(jsonl="-")
    outputs.write(watch(0))
    wait_for(lambda: outputs.count()["standard output"].failed is not None)
    with pytest.raises(ClosedPipeError):
        outputs.write(watch(1))
    outputs.close()
    with pytest.raises(ClosedPipeError):  # also where it ended after the last frame
        outputs.check()


def test_a_file_that_lacks_something_is_told_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: the program must not report success."""

    def fail(_self: object, _items: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(opening.LineFile, "send", fail)
    monkeypatch.setitem(opening.Background.__init__.__kwdefaults__, "flush_seconds", 0.01)
    outputs = start(jsonl=str(tmp_path / "out.jsonl"))
    outputs.write(watch(0))
    outputs.close()
    outputs.check()
    with pytest.raises(MachineError, match=r"out\.jsonl did not get 2 items: no space left"):
        outputs.check(complete=True)


def test_a_window_without_a_screen_is_refused_and_releases_the_rest(tmp_path: Path) -> None:
    """With the headless OpenCV that the extra installs."""
    cv2 = pytest.importorskip("cv2")
    if "GUI:                           NONE" not in cv2.getBuildInformation():
        pytest.skip("this OpenCV has windows")
    with pytest.raises(MachineError, match=r"--save out\.mp4"):
        start(show=True, jsonl=str(tmp_path / "out.jsonl"))
    start(jsonl=str(tmp_path / "out.jsonl")).close()


def test_a_closed_window_is_told_to_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which ends the program."""

    class FakeWindow:
        def __init__(self, _overlay: object) -> None:
            """Be shown."""

        def show(self, watched: WatchedFrame) -> bool:
            """Be closed in the second frame."""
            return watched.frame.number < 1

        def close(self) -> None:
            """Be closed."""

    monkeypatch.setattr(opening, "Window", FakeWindow)
    outputs = start(show=True)
    stopped = []
    for number in range(3):
        outputs.write(watch(number))
        stopped.append(outputs.stopped)
    outputs.close()
    assert stopped == [False, True, True]


def test_a_video_that_is_slow_costs_a_live_source_frames_and_a_file_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file waits; a camera does not."""
    pytest.importorskip("cv2")
    answers = threading.Event()
    real = opening.VideoFile.send
    monkeypatch.setattr(opening.VideoFile, "send", lambda self, items: answers.wait(20) and real(self, items))
    live = start(save=tmp_path / "live.avi", live=True)
    for number in range(100):
        live.write(watch(number))
    counted = live.count()[str(tmp_path / "live.avi")]
    assert counted.lost >= 100 - opening.VIDEO_CAPACITY - 1
    answers.set()
    live.close()
    file = start(save=tmp_path / "file.avi")
    for number in range(100):
        file.write(watch(number))
    file.close()
    counted = file.count()[str(tmp_path / "file.avi")]
    assert (counted.written, counted.lost) == (100, 0)
