"""An option says all about itself once, and everything that reads it agrees."""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import edgeemo
from edgeemo import options, stages
from edgeemo.cli import main
from edgeemo.errors import UsageError
from edgeemo.options import Config, argument, option
from edgeemo.stages import STAGES, Compress, Train

LONGEST_HELP = 40  # lines at 100 columns


@dataclass(frozen=True)
class Sample(Config):
    """One option of each kind."""

    run: Path = argument("a folder")
    whole: int = option(1, "a number", least=1, most=3)
    share: float = option(0.5, "a fraction", above=0, below=1)
    names: tuple[str, ...] = option((), "names", choices=("a", "b"))
    sizes: tuple[int, ...] = option((), "sizes", least=2)
    out: Path | None = option(None, "a file")
    flag: bool = option(False, "a flag")
    mode: str = option("x", "a choice", choices=("x", "y"))
    rate: float = option(80.0, "a rate", least=0, most=100, unit=options.PERCENT)
    data: str = option("synthetic", "faces", may_be_path=True)
    of_flag: int = option(0, "needs the flag", needs="flag")
    of_both: int = option(0, "needs more", needs="flag|whole & mode=y")
    beside: int = option(0, "excludes out", needs="!out")


def test_text_becomes_what_the_annotation_says() -> None:
    """Paths and lists, as Python users and the command line give them; None stays None."""
    made = Sample(run="a/b", names="a, b", sizes=["3", 4], out=None)  # type: ignore[arg-type]
    assert (made.run, made.names, made.sizes, made.out) == (Path("a/b"), ("a", "b"), (3, 4), None)


@pytest.mark.parametrize("one", ["a,b.png", Path("a,b.png")])
def test_one_path_for_a_list_is_that_path(one: str | Path) -> None:
    """A file name may contain a comma, and a path is not a sequence of letters."""
    assert stages.Predict(images=one).images == (Path("a,b.png"),)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"whole": 0}, "--whole 0: expected 1 to 3"),
        ({"whole": 1.5}, "--whole 1.5: expected a whole number"),
        ({"whole": True}, "--whole True: expected a whole number"),
        ({"share": 1.0}, "--share 1: expected above 0 to below 1"),
        ({"share": float("nan")}, "--share nan"),
        ({"share": None}, "--share None: expected a number"),
        ({"names": ("c",)}, "unknown names 'c'; known: a, b"),
        ({"sizes": (1,)}, "--sizes 1: expected 2 or more"),
        ({"mode": "z"}, "unknown mode 'z'; known: x, y"),
        ({"out": 3}, "--out 3: expected a path"),
        ({"out": "caf\udce9"}, r"--out caf\\xe9: expected a path in UTF-8"),
        ({"data": ""}, "--data is empty: expected text, or leave it out"),
        ({"rate": 0.98}, "--rate 0.98: expected percent; write 98 for 98 %"),
        ({"rate": 101}, "--rate 101: expected 0 to 100"),
        ({"of_flag": 1}, "--of-flag has no effect without --flag: add it, or leave out --of-flag"),
        ({"of_both": 1}, "--of-both has no effect without --mode y"),
        ({"beside": 1, "out": "x"}, "--beside has no effect with --out: leave out one of them"),
    ],
)
def test_what_cannot_be_meant_is_refused(change: dict[str, Any], message: str) -> None:
    """With the option, what came, and what was expected."""
    with pytest.raises(UsageError, match=message):
        options.check(Sample(**{"run": "r", **change}))


def test_what_is_meant_passes() -> None:
    """Defaults need nothing, and what is needed may be any of several."""
    options.check(Sample(run=Path("r")))
    options.check(Sample(run=Path("r"), flag=True, of_flag=1, of_both=1, mode="y", sizes=(2, 9)))


def test_settings_survive_json() -> None:
    """A log holds them whole; a card holds no folder of this machine."""
    made = Sample(run=Path("a/b"), names=("a",), out=Path("c/d.json"), data="folder:e/f")
    stored = json.loads(json.dumps(options.settings(made)))
    assert options.read_settings(Sample, stored) == made
    public = options.public_settings(made)
    assert (public["run"], public["out"], public["data"]) == ("b", "d.json", "folder:f")


@pytest.mark.parametrize("value", ["synthetic:300", "imagenet", "nano", "folder:faces", ""])
def test_names_that_are_no_paths_stay_whole(value: str) -> None:
    """Only folders go."""
    assert options.public_settings(Sample(run=Path("r"), data=value))["data"] == value


def test_settings_of_an_earlier_edgeemo_are_read() -> None:
    """It wrote empty text and 0 where nothing was given, and lists as text; it had options that are gone."""
    earlier = {**options.settings(Train()), "size": 0, "threads": 0, "teacher": "runs/a, runs/b", "bias_folds": 0}
    read = options.read_settings(Train, earlier)
    assert (read.size, read.threads, read.teacher) == (None, None, (Path("runs/a"), Path("runs/b")))
    assert options.read_settings(Train, {**earlier, "teacher": ""}) == Train()


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.command)
def test_every_default_passes_its_own_check(stage: stages.Stage) -> None:
    """Of every stage; what must be given is made up."""
    needed = {f.name: {"runs": ("a",), "models": ("nano",)}.get(f.name, "synthetic") for f in fields(stage.config)}
    given = {f.name: needed[f.name] for f in fields(stage.config) if f.default is MISSING}
    options.check(stage.config(**given))


@pytest.mark.parametrize("recipe", stages.RECIPES)
def test_every_recipe_passes_the_check(recipe: str) -> None:
    options.check(stages.RECIPES[recipe])


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.command)
def test_what_an_option_needs_exists(stage: stages.Stage) -> None:
    """Or the check would end in a traceback."""
    names = {one.name for one in options.options(stage.config)}
    for one in options.options(stage.config):
        needed = {name.partition("=")[0] for clause in options.clauses(one.about.needs) for name in clause}
        assert needed <= names, one.name


@pytest.mark.parametrize("command", [("train",), ("compress",)], ids=lambda words: words[0])
def test_the_first_help_fits_a_screen(command: tuple[str, ...]) -> None:
    """--help shows what most people use; --help-all shows every option, in groups."""
    env = {"COLUMNS": "100"}
    first = CliRunner().invoke(main, [*command, "--help"], env=env, terminal_width=100).output
    whole = CliRunner().invoke(main, [*command, "--help-all"], env=env, terminal_width=100).output
    assert len(first.splitlines()) <= LONGEST_HELP
    config = Train if command == ("train",) else Compress
    flags = [one.flag for one in options.options(config) if not one.about.argument]
    assert all(flag in whole for flag in flags)
    assert "Distillation:" in whole or "Fine-tuning:" in whole


def test_commands_stand_in_the_order_of_the_pipeline() -> None:
    """As in the table of stages."""
    shown = CliRunner().invoke(main, ["--help"]).output.partition("Commands:")[2]
    listed = [line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line.strip()]
    expected = list(dict.fromkeys(stage.command.split()[0] for stage in STAGES))
    assert [word for word in listed if word in expected] == expected


def test_choices_are_those_of_the_tables_behind_them() -> None:
    """The tables live with the code that uses them, which --help must not import."""
    pytest.importorskip("torch")
    from edgeemo.compress.prune import channels
    from edgeemo.compress.quantize import qdq, ranges
    from edgeemo.data import faces, sample
    from edgeemo.measure import turns
    from edgeemo.runtime.backends.table import BACKENDS

    of_compress = {one.name: one.about.choices for one in options.options(Compress)}
    assert set(of_compress["importance"]) == set(channels.IMPORTANCE)
    assert set(of_compress["target_format"]) == {*qdq.TARGET_FORMATS, "both"}
    assert set(of_compress["method"]) == {*ranges.METHODS, "auto"}
    assert set(stages.PROTOCOLS) == set(faces.PROTOCOLS)
    assert set(stages.SPLIT_NAMES) == set(sample.SPLITS)
    assert tuple(BACKENDS) == stages.BACKENDS
    assert next(one.about.most for one in options.options(stages.Bench) if one.name == "runs") == turns.MAX_RUNS
    limit = next(one.about.most for one in options.options(Compress) if one.name == "prune")
    assert limit == channels.MAX_SHARE


def test_a_stage_runs_by_its_config_alone() -> None:
    """As its command does; something else is refused."""
    result = edgeemo.run(stages.Predict(sample=True, model="nano"))
    assert result.images[0].faces[0].prediction.label == "surprise"
    with pytest.raises(UsageError, match=r"Sample is no config of a stage; known: Audit, CropPhotos, Train"):
        edgeemo.run(Sample(run=Path("r")))
