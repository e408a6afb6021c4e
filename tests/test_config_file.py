"""A file of options says the same as the command line, and an error says where."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path

import pytest

from edgeemo.config_file import has_secret, make_config, read_options, write_example
from edgeemo.errors import UsageError
from edgeemo.options import Config, argument, check, option, options
from edgeemo.stages import Watch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True)
class Sample(Config):
    """Watch a sample.

    And more.
    """

    source: str | None = argument("a camera, a file or a stream", default=None, may_be_path=True)
    model: str | None = option(None, "a name or a file", unit="MODEL", may_be_path=True)
    detect_every: int = option(5, "search faces in every Nth frame", least=1, unit="N")
    dwell: float = option(200.0, "shortest time of a label", least=0, unit="MS", group="Smoothing")
    events: str = option("frames", "what is written", choices=("frames", "changes"), group="Output")
    jsonl: str | None = option(None, "a file of records", unit="FILE", may_be_path=True, group="Output")
    save: Path | None = option(None, "a video", unit="FILE", group="Output")
    webhook: str | None = option(None, "where events are posted", unit="URL", group="Output")
    blur: bool = option(False, "hide faces", needs="save", group="Output")
    sizes: tuple[int, ...] = option((), "some sizes", least=2, group="Output")
    health: int | None = option(None, "a port", least=0, most=65535, unit="PORT", group="Operation")
    config: Path | None = option(None, "a file of options", group="Operation")
    print_config: bool = option(False, "print options", group="Operation")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the folder of the file."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")


def write(folder: Path, text: str) -> Path:
    file = folder / "watch.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_every_kind_of_option_is_read(tmp_path: Path) -> None:
    """With the names of the command line, with - or _."""
    file = write(
        tmp_path,
        'source = "0"\ndetect-every = 3\ndwell = 100\nevents = "changes"\nblur = true\nsizes = [4, 8]\n'
        'save = "/srv/out.mp4"\nhealth = 0\n',
    )
    assert read_options(Sample, file) == {
        "source": "0",
        "detect_every": 3,
        "dwell": 100,
        "events": "changes",
        "blur": True,
        "sizes": (4, 8),
        "save": Path("/srv/out.mp4"),
        "health": 0,
    }
    assert read_options(Sample, write(tmp_path, "detect_every = 3\n")) == {"detect_every": 3}


def test_the_command_line_wins(tmp_path: Path) -> None:
    """Also where it gives the default again; options of neither have the default."""
    file = write(tmp_path, "detect-every = 3\ndwell = 100.0\n")
    made = make_config(Sample, {"detect_every": 5, "health": 8080}, file)
    assert (made.detect_every, made.dwell, made.health, made.events) == (5, 100.0, 8080, "frames")
    assert make_config(Sample, {"dwell": 1.0}) == Sample(dwell=1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dwell = 1\ndetect-evry = 3\n", "line 2: unknown option detect-evry; did you mean detect-every?"),
        ("zzz = 3\n", "line 1: unknown option zzz; known: source, model, detect-every,"),
        ("# x\n\nhealth = 'x'\n", 'line 3: health = "x": expected a whole number'),
        ("health = 80.0\n", "line 1: health = 80.0: expected a whole number"),
        ("health = true\n", "line 1: health = true: expected a whole number"),
        ("health = 70000\n", "line 1: health 70000: expected 0 to 65535"),
        ("dwell = -1\n", "line 1: dwell -1: expected 0 or more"),
        ("dwell = nan\n", "line 1: dwell nan: expected 0 or more"),
        ("blur = 1\n", "line 1: blur = 1: expected true or false"),
        ("source = 0\n", 'line 1: source = 0: expected text in quotes; write "0"'),
        ("source = ''\n", "line 1: source is empty: expected text"),
        ("save = ''\n", "line 1: save is empty: expected a path"),
        ("save = 2026-01-01\n", 'line 1: save = "2026-01-01": expected a path in quotes'),
        ("sizes = [4, 'x']\n", 'line 1: sizes = [4, "x"]: expected a list, each a whole number'),
        ("sizes = [1]\n", "line 1: sizes 1: expected 2 or more"),
        ("events = 'all'\n", "line 1: unknown events 'all'; known: frames, changes"),
        ("detect-every = 3\ndetect_every = 3\n", "line 2: detect_every is given twice, with - and with _"),
        ("config = 'a.toml'\n", "line 1: config belongs on the command line, not in the file"),
        ("print-config = true\n", "line 1: print-config belongs on the command line"),
        ("dwell = 1\n[blur]\nx = 1\n", "line 2: blur is a table; expected true or false"),
        ("dwell = 1\ndwell = 2\n", "is not TOML: Cannot overwrite a value (at line 2"),
        ("dwell = \n", "is not TOML: Invalid value (at line 1"),
        ("dwell = 1\n[output]\n", "line 2: unknown option output"),
    ],
)
def test_an_error_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    """And what was expected there."""
    file = write(tmp_path, text)
    with pytest.raises(UsageError) as raised:
        read_options(Sample, file)
    assert str(raised.value).startswith(str(file))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), (b"\xff = 1", "is not TOML in UTF-8"), (b"#" * 2**21, "expected at most 1,048,576")],
)
def test_a_file_that_cannot_be_read_is_explained(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "watch.toml"
    if content:
        file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_options(Sample, file)
    with pytest.raises(UsageError, match="folder"):
        read_options(Sample, tmp_path)


def test_a_file_of_windows_is_read(tmp_path: Path) -> None:
    """With a mark at its start and other line ends."""
    file = tmp_path / "watch.toml"
    file.write_bytes("\ufeffdwell = 1\r\nhealth = 2\r\n".encode())
    assert read_options(Sample, file) == {"dwell": 1, "health": 2}


@pytest.mark.parametrize(
    ("line", "name", "path"),
    [
        ('save = "out.mp4"', "save", "out.mp4"),
        ('jsonl = "events"', "jsonl", "events"),
        ('source = "videos/a.mp4"', "source", "videos/a.mp4"),
        ('source = "a.mp4"', "source", "a.mp4"),
        ('source = "frames"', "source", "frames"),
        ('model = "mine.onnx"', "model", "mine.onnx"),
    ],
)
def test_relative_paths_are_relative_to_the_file(tmp_path: Path, line: str, name: str, path: str) -> None:
    (tmp_path / "frames").mkdir()
    assert read_options(Sample, write(tmp_path, line)) == {
        name: type(getattr(Sample(save="x"), name) or "")(tmp_path / path)
    }


@pytest.mark.parametrize(
    "line",
    [
        *('source = "0"', 'source = "synthetic:3"', 'source = "picamera2"', 'source = "rtsp://camera/a.sdp"'),
        *('source = "/dev/video0"', 'jsonl = "-"', 'model = "small"'),
    ],
)
def test_what_is_no_relative_path_stays(tmp_path: Path, line: str) -> None:
    """Names of cameras and models, streams, standard output; whatever files there are."""
    for name in ("0", "picamera2", "small"):
        (tmp_path / name).mkdir()
    assert list(read_options(Sample, write(tmp_path, line)).values()) == [line.split('"')[1]]


def test_a_secret_is_taken_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the file and on the command line; without the variable the error says so."""
    file = write(tmp_path, 'source = "env:CAMERA"\n')
    monkeypatch.setenv("CAMERA", "rtsp://me:word@camera/")
    assert read_options(Sample, file) == {"source": "rtsp://me:word@camera/"}
    assert make_config(Sample, {"source": "env:CAMERA"}).source == "rtsp://me:word@camera/"
    monkeypatch.delenv("CAMERA")
    with pytest.raises(UsageError, match="source env:CAMERA: the environment variable CAMERA is not set"):
        read_options(Sample, file)
    with pytest.raises(UsageError, match="--webhook env:CAMERA: the environment variable CAMERA is not set"):
        make_config(Sample, {"webhook": "env:CAMERA"})


def test_the_example_is_accepted_and_equals_the_defaults(tmp_path: Path) -> None:
    """It names every option that a file may give."""
    example = write_example(Sample)
    made = make_config(Sample, {}, write(tmp_path, example))
    assert made == Sample()
    check(made)
    for one in fields(Sample):
        key = one.name.replace("_", "-")
        written = f"\n{key} = " in example or f"\n# {key} = " in example
        assert written == (one.name not in ("config", "print_config")), key


def test_the_example_explains_each_option() -> None:
    example = write_example(Sample)
    assert example.startswith("# Watch a sample.\n")
    assert "# search faces in every Nth frame (1 or more)\ndetect-every = 5\n" in example
    assert '# what is written (frames or changes)\nevents = "frames"\n' in example
    assert "# hide faces (needs save)\nblur = false\n" in example
    assert "# a port (PORT 0 to 65535)\n# health = PORT\n" in example
    assert "# shortest time of a label (MS 0 or more)\ndwell = 200.0\n" in example
    assert example.count("# --- Output ---") == 1


def test_the_example_of_a_config_says_the_same_as_the_config(tmp_path: Path) -> None:
    """Whatever characters its text has."""
    strange = 'a "b" \\ \t\x7f ü'
    config = Sample(source=f"/{strange}", detect_every=7, blur=True, sizes=(2, 3), save=Path("/srv/x.mp4"), dwell=1e-7)
    text = write_example(config)
    assert tomllib.loads(text)["source"] == f"/{strange}"
    assert make_config(Sample, {}, write(tmp_path, text)) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "rtsp://me:word@camera/a"),
        ("source", "http://camera/a?token=word"),
        ("source", "rtsp://camera/user=me_password=word_channel=1"),
        ("source", "rtsp://me:wo/word@camera/a"),
        ("source", "rtsp://word@camera/a"),
        ("webhook", "https://hooks.example/word"),
    ],
)
def test_the_example_does_not_show_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    text = write_example(Sample(**{name: value}))
    assert "word" not in text
    monkeypatch.setenv(f"EDGEEMO_{name.upper()}", value)
    assert getattr(make_config(Sample, {}, write(tmp_path, text)), name) == value


def test_options_are_printed_where_the_secrets_are_not(tmp_path: Path) -> None:
    """A file for another machine may name variables that are not set here."""
    file = write(tmp_path, 'source = "env:CAMERA"\n')
    text = write_example(make_config(Sample, {"config": file, "webhook": "env:HOOK", "print_config": True}, file))
    assert 'source = "env:CAMERA"' in text
    assert 'webhook = "env:HOOK"' in text


def test_the_version_of_a_broker_is_no_secret() -> None:
    one = next(one for one in options(Watch) if one.name == "mqtt")
    assert not has_secret(one, "mqtt://me@broker/a?version=3.1.1")
    assert has_secret(one, "mqtt://me:word@broker/a")


def test_the_example_shows_a_variable_as_its_file_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not its value, whether or not it looks like a secret."""
    monkeypatch.setenv("CAMERA", "/dev/word")
    file = write(tmp_path, 'source = "env:CAMERA"\nmodel = "nano"\n')
    config = make_config(Sample, {"config": file}, file)
    text = write_example(config)
    assert 'source = "env:CAMERA"' in text
    assert 'model = "nano"' in text
    assert "word" not in text


def test_the_example_of_watch_is_accepted_and_equals_its_defaults(tmp_path: Path) -> None:
    """Every option of the command can be in its file."""
    text = write_example(Watch)
    made = make_config(Watch, {}, write(tmp_path, text))
    assert made == Watch()
    check(made)
    assert all(len(line) <= 120 for line in text.splitlines())
