"""The systemd unit of a watch: what it starts is what was typed, it shows no secret, and systemd accepts it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edgeemo import cli
from edgeemo.config_file import make_config
from edgeemo.options import options
from edgeemo.stages import Watch
from edgeemo.watch.outputs.background import FLUSH_SECONDS
from edgeemo.watch.outputs.opening import FINISH_SECONDS
from edgeemo.watch.unit import find_program, make_unit, quote

CAMERA = "DevicePolicy=closed,DeviceAllow=char-video4linux rw,SupplementaryGroups=video"


def read_command(unit: str) -> list[str]:
    """The words that systemd starts; its quoting is the shell's, but for % and $ and escapes of control characters."""
    (line,) = re.findall(r"^ExecStart=((?:.*\\\n)*.*)$", unit, re.MULTILINE)
    assert not re.search(r"(?<!%)%(?:%%)*(?!%)", line)
    return shlex.split(line.replace("\\\n", "").replace("%%", "%").replace("$$", "$"))


def read_keys(unit: str) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", unit, re.MULTILINE))


def make(config: Watch, folder: Path = Path("/srv/watch")) -> str:
    return make_unit(config, program=["/opt/edgeemo/bin/edgeemo"], folder=folder)


def parse(words: list[str]) -> Watch:
    """The config of a command line, as edgeemo reads it."""
    command = click.Command("watch", params=[cli._make_parameter(one) for one in options(Watch)])
    return Watch(**command.make_context("watch", words).params)


@pytest.mark.parametrize(
    "config",
    [
        Watch(source="0"),
        Watch(source="/srv/a b/100% $HOME 'x' \"y\" \\z.mp4", detect_every=3, augment=True, realtime=True),
        Watch(source="synthetic:3", jsonl="-", save=Path("/srv/out.mp4"), blur=True, hysteresis=0.25, health=0),
        Watch(source="rtsp://camera.local/a?", mqtt="mqtt://me@broker/emotions", aggregate=60.0, least_people=3),
    ],
)
def test_the_unit_starts_what_was_typed(config: Watch) -> None:
    """The command line is read back to the same config."""
    program, command, *words = read_command(make(config))
    assert (program, command) == ("/opt/edgeemo/bin/edgeemo", "watch")
    assert parse(words) == config


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("--dwell=200", "--dwell=200"),
        ("", '""'),
        ("a b", '"a b"'),
        ("100%", "100%%"),
        ("$HOME", "$$HOME"),
        ("it's", '"it\'s"'),
        ('say "x"', '"say \\"x\\""'),
        ("a\\b", '"a\\\\b"'),
        ("a\nExecStartPre=/bin/x", '"a\\x0aExecStartPre=/bin/x"'),
        (";", '";"'),
        ("x\udcff", '"x\\xff"'),
    ],
)
def test_words_are_quoted_by_the_rules_of_systemd(word: str, quoted: str) -> None:
    """Of systemd.service(5): specifiers and variables doubled, C escapes inside of quotes."""
    assert quote(word) == quoted


def test_paths_of_inputs_are_absolute_and_outputs_lie_in_the_state_folder() -> None:
    """A service has no folder of the shell that printed its unit."""
    unit = make(Watch(source="videos/a.mp4", model="mine.onnx", jsonl="events.jsonl", csv="/srv/out put/x.csv"))
    words = read_command(unit)
    assert words[2:5] == ["/srv/watch/videos/a.mp4", "--model=/srv/watch/mine.onnx", "--jsonl=events.jsonl"]
    keys = read_keys(unit)
    assert keys["WorkingDirectory"] == "%S/edgeemo"
    assert keys["StateDirectory"] == "edgeemo"
    assert keys["ReadWritePaths"] == '"/srv/out put"'
    assert "ReadWritePaths" not in read_keys(make(Watch(source="0", jsonl="events.jsonl")))


def test_options_of_a_file_stay_in_the_file(tmp_path: Path) -> None:
    """So that changing the file changes the service; an option that overrides it is kept, also if it is the default."""
    file = tmp_path / "watch.toml"
    file.write_text('source = "0"\ndetect-every = 3\ndwell = 50.0\n', encoding="utf-8")
    config = make_config(Watch, {"config": Path("watch.toml"), "detect_every": 5}, file)
    words = read_command(make(Watch(**{**vars(config), "config": file})))
    assert words[2:] == ["--detect-every=5", f"--config={file}"]


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"source": "rtsp://me:word@camera/"}, "EDGEEMO_SOURCE"),
        ({"source": "0", "mqtt": "mqtts://me:word@broker/a"}, "EDGEEMO_MQTT"),
        ({"source": "0", "webhook": "https://hooks.example/word"}, "EDGEEMO_WEBHOOK"),
    ],
)
def test_secrets_are_read_from_the_environment(
    changes: dict[str, str], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a file that only root can read; the unit itself is readable by everybody."""
    unit = make(Watch(**changes))  # type: ignore[arg-type]
    assert "word" not in unit
    assert f"#   {variable}=..." in unit
    assert read_keys(unit)["EnvironmentFile"] == "-/etc/edgeemo/secrets.env"
    name, value = list(changes.items())[-1]
    monkeypatch.setenv(variable, value)
    assert f"env:{variable}" in " ".join(read_command(unit))
    assert getattr(make_config(Watch, {name: f"env:{variable}"}), name) == value


def test_a_secret_of_the_file_is_neither_shown_nor_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variable has to be set all the same."""
    monkeypatch.setenv("CAMERA", "rtsp://me:word@camera/")
    file = tmp_path / "watch.toml"
    file.write_text('source = "env:CAMERA"\n', encoding="utf-8")
    unit = make(make_config(Watch, {"config": file}, file))
    assert "word" not in unit
    assert "#   CAMERA=..." in unit
    assert read_command(unit)[2:] == [f"--config={file}"]


def test_a_unit_is_printed_where_the_secrets_are_not(tmp_path: Path) -> None:
    """On another machine, or by a user who may not read them; what it is about is reached through the network."""
    file = tmp_path / "watch.toml"
    file.write_text('source = "env:CAMERA"\n', encoding="utf-8")
    typed = {"config": file, "webhook": "env:HOOK", "print_unit": True}
    unit = make(make_config(Watch, typed, file))
    assert read_command(unit)[2:] == ["--webhook=env:HOOK", f"--config={file}"]
    assert {"#   CAMERA=...", "#   HOOK=..."} <= set(unit.splitlines())
    assert read_keys(unit)["Wants"] == "network-online.target"


def test_passwords_of_outputs_have_their_own_variables() -> None:
    assert "#   EDGEEMO_MQTT_PASSWORD=..." in make(Watch(source="0", mqtt="mqtt://me@broker/a"))
    assert "MQTT_PASSWORD" not in make(Watch(source="0", mqtt="mqtt://me:word@broker/a"))
    assert "#   EDGEEMO_WEBHOOK_TOKEN=..." in make(Watch(source="0", webhook="https://hooks.example/a"))
    assert "EnvironmentFile" not in make(Watch(source="0"))


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Watch(source="0"), CAMERA),
        (Watch(source="/dev/video2"), CAMERA),
        (Watch(source="picamera2"), f"{CAMERA},DeviceAllow=char-media rw,DeviceAllow=char-dma_heap rw"),
        (Watch(source="rtsp://camera/"), "PrivateDevices=yes,Wants=network-online.target,After=network-online.target"),
        (Watch(source="a.mp4"), "PrivateDevices=yes"),
        (Watch(source="a.mp4", model="a.trt"), "SupplementaryGroups=video render"),
        (
            Watch(source="a.mp4", webhook="http://broker/"),
            "PrivateDevices=yes,Wants=network-online.target,After=network-online.target",
        ),
    ],
)
def test_the_service_reaches_what_it_needs_and_no_more(config: Watch, expected: str) -> None:
    """Its camera, a GPU, the network."""
    lines = re.findall(
        r"^((?:PrivateDevices|Device\w+|SupplementaryGroups|Wants|After)=.*)$", make(config), re.MULTILINE
    )
    assert sorted(lines) == sorted(expected.split(","))


def test_the_service_is_watched_restarted_and_confined() -> None:
    keys = read_keys(make(Watch(source="0")))
    expected = {
        "Type": "notify",
        "WatchdogSec": "60",
        "ExecReload": "/bin/kill -HUP $MAINPID",
        "Restart": "on-failure",
        "RestartPreventExitStatus": "2 3 4",
        "DynamicUser": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "SystemCallFilter": "@system-service",
        "CapabilityBoundingSet": "",
    }
    assert {name: keys.get(name) for name in expected} == expected


def test_a_video_gets_time_to_be_completed() -> None:
    """What takes longer to stop is killed."""
    plain, video = (int(read_keys(make(Watch("0", save=save)))["TimeoutStopSec"]) for save in (None, Path("out.mp4")))
    assert FLUSH_SECONDS < plain < FLUSH_SECONDS + FINISH_SECONDS < video


def test_a_home_folder_is_pointed_out() -> None:
    """The service's user cannot read it on most systems."""
    unit = make(Watch(source="0", model="/home/me/model.onnx"))
    assert "# The service's user must be able to read /home/me/model.onnx\n" in unit
    assert read_keys(unit)["ProtectHome"] == "read-only"


def test_the_program_is_found_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script beside Python, else one on the path, else the module."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert find_program() == [str(tmp_path / "python"), "-m", "edgeemo"]
    (tmp_path / "edgeemo").touch()
    assert find_program() == [str(tmp_path / "edgeemo")]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
@pytest.mark.parametrize(
    "config",
    [
        Watch(source="0", jsonl="a b.jsonl", csv="/srv/out/x y.csv"),
        Watch(source="picamera2", mqtt="mqtt://me@broker/a"),
        Watch(source="rtsp://me:word@camera/$x%y", model="/opt/a.trt"),
        Watch(source='/srv/it\'s "100%" \\ ;.mp4'),
    ],
)
def test_systemd_accepts_the_unit(config: Watch, tmp_path: Path) -> None:
    """Without a warning."""
    file = tmp_path / "edgeemo.service"
    file.write_text(make_unit(config, program=[sys.executable, "-m", "edgeemo"]), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
