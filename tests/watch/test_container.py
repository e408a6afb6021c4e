"""The container file, as far as it can be checked without a container: what it copies, installs, runs and asks."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import click
import numpy as np
import pytest

from edgeemo import cli
from edgeemo.options import check, options
from edgeemo.stages import Watch
from edgeemo.watch.frame import Frame, WatchedFrame
from edgeemo.watch.status import Status

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs" / "Containerfile"
KNOWN = {"FROM", "WORKDIR", "COPY", "RUN", "USER", "ENV", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def read_instructions() -> list[tuple[str, str]]:
    """Each instruction with its words; comments and line breaks are left out."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def find(name: str) -> str:
    return [words for one, words in read_instructions() if one == name][-1]


def test_it_has_known_instructions_alone() -> None:
    assert {name for name, _ in read_instructions()} == KNOWN


def test_the_user_is_a_number_and_not_root() -> None:
    """Kubernetes' runAsNonRoot can check a number only."""
    user, group = map(int, find("USER").split(":"))
    assert min(user, group) >= 10_000
    assert f"--owner={user} --group={group}" in FILE.read_text(encoding="utf-8")
    names = [name for name, _ in read_instructions()]
    assert "RUN" not in names[names.index("USER") :]


def test_the_wheel_can_be_built_from_what_is_copied(tmp_path: Path) -> None:
    """Its models, detectors and licences are in it."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    for words in [words for name, words in read_instructions() if name == "COPY"]:
        *sources, target = words.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, tmp_path / target)
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("edgeemo-*.whl")
    with ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "edgeemo/models/small.onnx" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_extras_that_it_installs_exist() -> None:
    """And bring what watching needs."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (extras,) = re.findall(r"edgeemo-\*\.whl\)\[([\w,]+)\]", FILE.read_text(encoding="utf-8"))
    packages = [one for extra in extras.split(",") for one in about["project"]["optional-dependencies"][extra]]
    for needed in ("opencv-python-headless", "prometheus-client", "paho-mqtt"):
        assert any(one.startswith(needed) for one in packages), needed
    assert about["project"]["requires-python"] == ">=3.10"


@pytest.mark.parametrize("words", [[], ["rtsp://camera/", "--mqtt", "mqtt://broker/a", "--health-address", "0.0.0.0"]])  # noqa: S104
def test_what_it_starts_is_understood(words: list[str]) -> None:
    """With its own words, and with those of a user in their place."""
    program, command, *first = json.loads(find("ENTRYPOINT"))
    assert (program, command) == ("edgeemo", "watch")
    parser = click.Command("watch", params=[cli._make_parameter(one) for one in options(Watch)])
    config = Watch(**parser.make_context("watch", [*first, *(words or json.loads(find("CMD")))]).params)
    check(config)
    assert config.health == 9100


def test_its_check_of_health_passes_and_fails_with_the_program() -> None:
    """By the exit code of the very command that the container runs."""
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    from edgeemo.watch.health import HealthServer

    _, *words = json.loads(find("HEALTHCHECK").partition("CMD ")[2])
    status = Status()
    with HealthServer(status) as server:
        command = [sys.executable, *(word.replace(":9100/", f":{server.server_port}/") for word in words)]
        status.source(True)
        status.answered(WatchedFrame(Frame(np.zeros((2, 2, 3), np.uint8), 0, 0.0, 0.0), ()))
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
        status.source(False)
        assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_it_is_stopped_by_the_signal_that_ends_a_watch_cleanly() -> None:
    assert find("STOPSIGNAL") == "SIGTERM"
