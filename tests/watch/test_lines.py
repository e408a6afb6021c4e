"""Files that grow line by line: whole lines after a kill, a full disk and a rotation."""

from __future__ import annotations

import csv
import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from watched import LABELS, make_face, make_watched

from edgeemo.errors import UsageError
from edgeemo.watch.aggregate import Aggregate
from edgeemo.watch.events import Changes, list_faces
from edgeemo.watch.outputs import lines
from edgeemo.watch.outputs.background import UndeliveredError
from edgeemo.watch.outputs.lines import Csv, Format, JsonLines, LineFile

RECORDS = list_faces(make_watched(0, make_face(1), make_face(2)))
FORMATS = [JsonLines(), Csv("frames", LABELS)]


def write(path: Path, form: Format, records: list[dict[str, Any]] = RECORDS) -> None:
    sink = LineFile(path, form)
    sink.send(records)
    sink.close()


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_json_lines_are_the_records(tmp_path: Path) -> None:
    """One object a line."""
    write(tmp_path / "new folder" / "out.jsonl", JsonLines())
    text = (tmp_path / "new folder" / "out.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line) for line in text.splitlines()] == RECORDS
    assert text.endswith("\n")


def test_a_table_has_a_row_per_face_with_every_label(tmp_path: Path) -> None:
    """Smoothed and raw."""
    write(tmp_path / "out.csv", Csv("frames", LABELS))
    first, second = read_rows(tmp_path / "out.csv")
    assert (first["event"], first["track"], second["track"]) == ("face", "1", "2")
    assert (first["x"], first["width"], first["detected"], first["flags"]) == ("80.0", "48.0", "True", "")
    assert [first[f"{kind}_neutral"] for kind in ("smoothed", "raw")] == ["0.8", "0.8"]
    assert all(first[f"smoothed_{label}"] for label in LABELS)


def test_changes_and_periods_have_their_own_columns(tmp_path: Path) -> None:
    """Each field of a record has one."""
    changes, periods = Changes(), Aggregate(60, LABELS, least_people=1)
    watched = make_watched(0, make_face(1))
    write(tmp_path / "changes.csv", Csv("changes", LABELS), changes.update(watched) + changes.finish())
    periods.update(watched)
    write(tmp_path / "periods.csv", Csv("periods", LABELS), periods.finish())
    assert [row["reason"] for row in read_rows(tmp_path / "changes.csv")] == ["", "stopped"]
    (row,) = read_rows(tmp_path / "periods.csv")
    assert (row["people"], row["people_neutral"], row["share_neutral"]) == ("1", "1", "1.0")


@pytest.mark.parametrize("form", FORMATS, ids=("jsonl", "csv"))
def test_a_file_of_ours_is_continued(form: Format, tmp_path: Path) -> None:
    """Without a second header."""
    path = tmp_path / "out"
    write(path, form)
    once = path.read_bytes()
    write(path, form)
    assert path.read_bytes() == once + once[len(form.header) :]


@pytest.mark.parametrize("form", FORMATS, ids=("jsonl", "csv"))
def test_another_file_is_refused_and_unchanged(form: Format, tmp_path: Path) -> None:
    """As are a table with the columns of another model, and a file that another program writes to."""
    path = tmp_path / "out"
    path.write_bytes(b"my notes\n")
    with pytest.raises(UsageError, match="no file of edgeemo watch"):
        LineFile(path, form)
    assert path.read_bytes() == b"my notes\n"


def test_a_table_of_other_labels_is_refused(tmp_path: Path) -> None:
    """Its columns would be wrong."""
    write(tmp_path / "out.csv", Csv("frames", LABELS))
    with pytest.raises(UsageError, match="same fields"):
        LineFile(tmp_path / "out.csv", Csv("frames", LABELS[::-1]))


@pytest.mark.skipif(os.name == "nt", reason="there is no flock")
def test_two_programs_do_not_write_to_one_file(tmp_path: Path) -> None:
    """The second is told so."""
    first = LineFile(tmp_path / "out.jsonl", JsonLines())
    with pytest.raises(UsageError, match="another process is writing"):
        LineFile(tmp_path / "out.jsonl", JsonLines())
    first.close()


def test_a_cut_line_is_kept_apart_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The next record begins on a line of its own."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(b'{"event":"face","time":"2027-01')
    write(path, JsonLines())
    cut, *whole = path.read_text(encoding="utf-8").splitlines()
    assert cut == '{"event":"face","time":"2027-01'
    assert [json.loads(line) for line in whole] == RECORDS
    assert "is cut" in caplog.text


@pytest.mark.parametrize("form", FORMATS, ids=("jsonl", "csv"))
def test_a_file_that_is_renamed_is_begun_again(form: Format, tmp_path: Path) -> None:
    """As by logrotate; nothing is lost, and a new table has its header."""
    path, old = tmp_path / "out", tmp_path / "out.1"
    sink = LineFile(path, form)
    sink.send(RECORDS)
    path.rename(old)
    sink.send(RECORDS)
    sink.close()
    assert path.read_bytes() == old.read_bytes()


@pytest.mark.parametrize("form", FORMATS, ids=("jsonl", "csv"))
def test_a_file_that_is_emptied_goes_on_from_its_start(form: Format, tmp_path: Path) -> None:
    """As by logrotate's copytruncate; no zeros stand before it."""
    sink = LineFile(tmp_path / "out", form)
    sink.send(RECORDS)
    once = (tmp_path / "out").read_bytes()
    os.truncate(tmp_path / "out", 0)
    sink.send(RECORDS)
    sink.close()
    assert (tmp_path / "out").read_bytes() == once


def test_somebody_elses_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    """Records wait until it is away."""
    path = tmp_path / "out.jsonl"
    sink = LineFile(path, JsonLines())
    path.unlink()
    path.write_bytes(b"my notes\n")
    with pytest.raises(UndeliveredError, match="no file of edgeemo watch"):
        sink.send(RECORDS)
    assert path.read_bytes() == b"my notes\n"
    path.unlink()
    sink.send(RECORDS)
    sink.close()
    assert len(path.read_bytes().splitlines()) == 2


@pytest.mark.parametrize("form", FORMATS, ids=("jsonl", "csv"))
def test_a_full_disk_leaves_no_half_line(form: Format, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written of a batch is taken back; it is whole when there is room again."""
    sink = LineFile(tmp_path / "out", form)
    sink.send(RECORDS)
    before = (tmp_path / "out").read_bytes()
    real, room = os.write, [700]

    def write_some(file: int, data: Any) -> int:
        if not room[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = real(file, bytes(data)[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(lines.os, "write", write_some)
    with pytest.raises(OSError, match="No space"):
        sink.send(RECORDS * 5)
    assert (tmp_path / "out").read_bytes() == before
    monkeypatch.undo()
    sink.send(RECORDS)
    sink.close()
    assert (tmp_path / "out").read_bytes() == before + before[len(form.header) :]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_every_line_but_the_last_is_whole_after_a_kill(tmp_path: Path) -> None:
    """Linux may cut a write between two pages; the next program sees it, and goes on in a line of its own."""
    code = (
        "import sys; from pathlib import Path; from watched import *\n"
        "from edgeemo.watch.events import list_faces\n"
        "from edgeemo.watch.outputs.background import Background\n"
        "from edgeemo.watch.outputs.lines import JsonLines, LineFile\n"
        "output = Background(LineFile(Path(sys.argv[1]), JsonLines()), waits=True)\n"
        "n = 0\n"
        "while True:\n"
        "    for record in list_faces(make_watched(n, make_face(1))): output.write(record)\n"
        "    n += 1\n"
        "    if n == 500: print('running', flush=True)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    path = tmp_path / "out.jsonl"
    with subprocess.Popen([sys.executable, "-c", code, path], env=env, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"running\n"
        process.kill()
    *whole, last = path.read_text(encoding="utf-8").split("\n")
    assert [json.loads(line)["frame"] for line in whole] == list(range(len(whole)))
    assert len(whole) > 100
    assert last == "" or last.startswith('{"event":')


def start_printing(code: str) -> subprocess.Popen[bytes]:
    """Start a program that prints 5,000 records, which no pipe can hold, and then runs `code`."""
    begin = (
        "import sys; from watched import *\n"
        "from edgeemo.errors import ClosedPipeError\n"
        "from edgeemo.watch.events import list_faces\n"
        "from edgeemo.watch.outputs.background import Background\n"
        "from edgeemo.watch.outputs.lines import JsonLines, StandardOutput\n"
        "output = Background(StandardOutput(JsonLines()), flush_seconds=0.1)\n"
        "for n in range(5000): output.write(list_faces(make_watched(n, make_face(1)))[0])\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-c", begin + code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_a_program_whose_standard_output_is_not_read_still_ends() -> None:
    """As `| less` at its first page; what was printed is whole but for the last line."""
    with start_printing("output.close(); assert output.lost") as process:
        assert process.wait(60) == 0, process.stderr.read()
        printed = process.stdout.read().splitlines()
    assert [json.loads(line)["frame"] for line in printed[:-1]] == list(range(len(printed) - 1))


def test_standard_output_that_nobody_will_read_ends_the_program() -> None:
    """As after `| head`."""
    wait = "import time\nwhile not output.error: time.sleep(0.01)\n"
    code = f"{wait}assert isinstance(output.error, ClosedPipeError)\noutput.close()"
    with start_printing(code) as process:
        process.stdout.close()
        assert process.wait(60) == 0, process.stderr.read()
