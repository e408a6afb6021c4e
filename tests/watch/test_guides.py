"""The guides say what the program does: metrics, fields, files of options, and what was not run on a board."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgeemo.config_file import read_options
from edgeemo.options import options
from edgeemo.runtime import Prediction
from edgeemo.stages import Watch
from edgeemo.watch.aggregate import Aggregate
from edgeemo.watch.events import Changes, list_faces
from edgeemo.watch.frame import Frame, TrackedFace, WatchedFrame
from edgeemo.watch.status import Status

DOCS = Path(__file__).parents[2] / "docs"
WATCH = (DOCS / "watch.md").read_text(encoding="utf-8")
GUIDES = ("watch.md", "raspberry-pi.md", "kiosk.md", "jetson.md")
BLOCK = re.compile(r"^ *```toml\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
TOML = [
    pytest.param(body, id=f"{name} {number}")
    for name in GUIDES
    for number, body in enumerate(BLOCK.findall((DOCS / name).read_text("utf-8")))
]


def section(title: str) -> str:
    return WATCH.partition(f"# {title}\n")[2].partition("\n#")[0]


def fields_of(text: str) -> set[str]:
    """What stands in the first column of a table, in backticks."""
    return {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}


def watched(label: str, *, number: int = 0, faces: int = 1, ended: tuple[int, ...] = ()) -> WatchedFrame:
    one = Prediction(label, 0.9, {label: 0.9})
    found = (TrackedFace(1, (1.0, 2.0, 3.0, 4.0), 0.9, (), one, one, 0.0, True),) * faces
    return WatchedFrame(Frame(np.zeros((4, 4, 3), np.uint8), number, 0.0, 1.8e9 + number), found, ended=ended)


def test_every_metric_is_explained() -> None:
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    from edgeemo.watch.metrics import StatusCollector

    status = Status()
    status.output("mqtt", 1)
    samples = {family.samples[0].name for family in StatusCollector(status).collect()}
    names = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in samples}
    assert names == fields_of(section("Health and metrics"))


def test_every_field_of_a_record_is_explained() -> None:
    """Of faces and changes; and no field that there is not."""
    changes = Changes()
    frames = [watched("neutral"), watched("happiness", number=1), watched("", number=2, faces=0, ended=(1,))]
    records = [*list_faces(frames[0]), *(record for frame in frames for record in changes.update(frame))]
    assert {record["event"] for record in records} == {"face", "appeared", "changed", "ended"}
    assert {name for record in records for name in record} == fields_of(section("Fields of a record"))


def test_every_field_of_a_period_is_explained() -> None:
    counts = Aggregate(60, ("neutral",), least_people=1)
    found = [record for one in (watched("neutral"), watched("neutral", number=90)) for record in counts.update(one)]
    assert set(found[0]) - {"event"} == fields_of(section("Privacy"))


def test_the_answer_about_health_has_the_fields_that_are_shown() -> None:
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    from edgeemo.watch.health import HealthServer

    (shown,) = re.findall(r"```json\n(.*?)```", section("Health and metrics"), re.DOTALL)
    with HealthServer(Status()) as server:
        _, found = server.describe()
    shown = json.loads(shown)
    assert shown.keys() == found.keys()
    assert all(shown[name].keys() == found[name].keys() for name in ("source", "model"))


@pytest.mark.parametrize("body", TOML)
def test_files_of_options_are_understood(body: str, tmp_path: Path) -> None:
    file = tmp_path / "watch.toml"
    file.write_text(re.sub(r"^ +", "", body, flags=re.MULTILINE), encoding="utf-8")
    assert read_options(Watch, file, secrets=False)


def test_files_of_options_were_found() -> None:
    assert len(TOML) == 3


@pytest.mark.parametrize("name", GUIDES)
def test_options_that_are_named_exist(name: str) -> None:
    """In the text too, which no shell reads; options of other programs stand in code."""
    prose = re.sub(r"^( *)```.*?^\1```", "", (DOCS / name).read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    text = prose.partition("## Watch a camera")[2].partition("\n## ")[0] if name == "jetson.md" else prose
    known = {one.flag for one in options(Watch)}
    others = {"--force-reinstall", "--publish", "--json", "--help-all", "--for", "--out"}  # of pip, docker, edgeemo
    assert set(re.findall(r"(?<=`)--[a-z][a-z-]+|(?<= )--[a-z][a-z-]+(?=[ `])", text)) <= known | others


@pytest.mark.parametrize("name", ["raspberry-pi.md", "jetson.md", "kiosk.md"])
def test_what_was_not_run_on_a_board_says_so(name: str) -> None:
    """In its first lines; whoever has run it changes the page and this test."""
    assert re.search(r"\*\*Not yet run on a (board|kiosk)", (DOCS / name).read_text("utf-8")[:300])


def test_the_container_says_that_it_was_not_built() -> None:
    assert "**It was not built here**" in section("In a container")
