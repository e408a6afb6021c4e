"""The README keeps its word: its tables, its commands, its code."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import click
import pytest

from edgeemo.cli import SETTINGS, main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(<!-- needs: [^>]+ -->\n)?```(\w+)\n(.*?)```", README, re.DOTALL)
RESULTS = sorted((ROOT / "benchmarks" / "results").glob("*.json"))


def commands():
    """Every `edgeemo …` line of the README's bash blocks, comments cut off."""
    for _, kind, body in BLOCKS:
        for line in body.replace("\\\n", " ").splitlines() if kind == "bash" else ():
            if line.startswith("edgeemo "):
                yield shlex.split(line, comments=True)[1:]


def readme_script():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_equal_the_results_files():
    """Every table is what `make readme` renders from benchmarks/results/."""
    assert README.count("<!-- table: ") == README.count("<!-- end -->") > 0
    assert readme_script().rendered(README) == README


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_is_understood(words):
    """Its options exist and its values are of the right kind."""
    context = main.make_context("edgeemo", list(words))
    command, rest = main, list(words)
    while isinstance(command, click.Group):
        _, command, rest = command.resolve_command(context, rest)
        context = click.Context(command, parent=context, **SETTINGS)
    command.parse_args(context, rest)


def test_python_blocks_run(tmp_path, monkeypatch, face):
    """With the picture that they need beside them."""
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.fromarray(face).save("face.jpg")
    blocks = [body for _, kind, body in BLOCKS if kind == "python"]
    assert blocks
    for body in blocks:
        exec(compile(body, "README.md", "exec"), {})  # noqa: S102  our own README


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_results_hold_no_path_of_a_machine(path):
    """Neither folders nor user names travel with a result."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\"/|/home/|/root/|\.\./", text)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.name)
def test_results_were_measured_on_unseen_faces(path):
    """No committed accuracy comes from train faces, and none was calibrated on the faces it is measured on."""
    result = json.loads(path.read_text(encoding="utf-8"))
    assert result["accuracy"] is None or result["accuracy"]["split"] == "valid"
