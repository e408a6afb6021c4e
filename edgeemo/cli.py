"""The command line: one command per row of stages.STAGES, its options taken from the stage's config."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.exceptions import Exit

import edgeemo
from edgeemo import stages
from edgeemo.config_file import make_config
from edgeemo.console import finish_streams, prepare_streams, print_error, print_text, start_logging
from edgeemo.errors import ClosedPipeError, DataError, EdgeemoError, GateError
from edgeemo.limits import MEMORY, explain_limit
from edgeemo.machine import is_first_process, read_cpu_quota, usable_cores
from edgeemo.names import escape_message, escape_name
from edgeemo.options import Typed, clauses, options, settings, spell_flag
from edgeemo.resume import make_compress_config, make_train_config
from edgeemo.stages import Stage

NEED_MEMORY = ("batch_size", "size", "sizes", "calibration_count", "count")  # the higher, the more
QUIET = "print results, warnings and errors only"
RESUME = "; with --resume the command continues from its last checkpoint"
INTERRUPTED = 130  # 128 + SIGINT, by convention of the shell
SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "token_normalize_func": lambda token: token.replace("_", "-"),  # accept --batch_size for --batch-size
}


class Commands(click.Group):
    """A group that shows an EdgeemoError, or a limit of the machine, as one line; a bug keeps its traceback."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command line, whatever the standard streams are."""
        prepare_streams()
        try:
            return super().main(*args, **extra)
        finally:
            finish_streams()

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse a command line, which may print a help page."""
        with _exit_on_error():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit with the code of its error."""
        with _exit_on_error():
            return super().invoke(ctx)

    def list_commands(self, _: click.Context) -> list[str]:
        """Return the commands in the order of the pipeline."""
        return list(self.commands)


@contextmanager
def _exit_on_error() -> Iterator[None]:
    """Print an error of the block that is no bug, as one line, and exit with its code."""
    try:
        yield
    except (click.Abort, Exit):
        raise
    except click.ClickException as error:
        with suppress(OSError):  # of standard error, which does not change the exit code
            error.show()
        raise Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        print_error(f"interrupted{error}", word="")
        raise Exit(INTERRUPTED) from error
    except (ClosedPipeError, BrokenPipeError) as error:  # the second: a page of help
        raise Exit(ClosedPipeError.exit_code) from error
    except Exception as error:
        known = error if isinstance(error, EdgeemoError) else explain_limit(error)
        if not known:
            raise
        raise Exit(_report(known)) from error


def _report(error: EdgeemoError) -> int:
    """Print an error, after the result of a failed gate; return the exit code."""
    code = error.exit_code
    if isinstance(error, GateError) and error.result:
        try:
            _print_file(error.result)
        except EdgeemoError as second:
            print_error(second)
            code = second.exit_code
    print_error(error)
    return code


class StageCommand(click.Command):
    """A command whose help shows the common options in groups; --help-all shows every option."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; if it is interrupted, say how it goes on where it can."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(RESUME if any(one.name == "resume" for one in self.params) else "") from error

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Do nothing: format_options writes the arguments, because click before 8.4 has no section for them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the arguments, then a section per group."""
        show_all = bool(ctx.meta.get("edgeemo.help_all"))
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := _make_help_record(parameter, ctx, show_all=show_all):
                groups.setdefault(getattr(parameter, "group", ""), []).append(record)
        for group, records in groups.items():
            with formatter.section(group or "Options"):
                formatter.write_dl(records)


def _make_help_record(parameter: click.Parameter, ctx: click.Context, *, show_all: bool) -> tuple[str, str] | None:
    if isinstance(parameter, StageArgument):
        return (parameter.human_readable_name, parameter.text)
    if isinstance(parameter, StageOption) and parameter.rare and not show_all:
        return None
    if parameter.name == "help_all" and show_all:
        return None
    return parameter.get_help_record(ctx)


class StageOption(click.Option):
    """An option with its group, shown by --help or, if rare, by --help-all only."""

    def __init__(self, *declarations: Any, group: str = "", rare: bool = False, **about: Any) -> None:
        super().__init__(*declarations, **about)
        self.group = group
        self.rare = rare

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Show the --no- form only where it is not the default; recipes may need the other."""
        record = super().get_help_record(ctx)
        if record and self.secondary_opts and not self.default:
            return record[0].partition(" / ")[0], record[1]
        return record


class StageArgument(click.Argument):
    """An argument with a line of help."""

    group = "Arguments"

    def __init__(self, *declarations: Any, text: str = "", **about: Any) -> None:
        super().__init__(*declarations, **about)
        self.text = text


class NonEmptyPath(click.Path):
    """A path; empty text, as of an unset variable, is none, although Path("") is the current folder."""

    def convert(self, value: Any, parameter: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse empty text."""
        if value == "":
            self.fail("empty text; expected a path, or leave it out", parameter, ctx)
        return super().convert(value, parameter, ctx)


class CommaSeparated(click.ParamType):  # type: ignore[type-arg]  # generic from 8.4 on, and only for mypy
    """A list as one word: 40,48,64."""

    def __init__(self, items: Any, unit: str) -> None:
        self.items = items
        self.name = unit

    def convert(self, value: Any, parameter: click.Parameter | None, ctx: click.Context | None) -> tuple[Any, ...]:
        """Convert each part; surrounding spaces and empty parts are dropped."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in value.split(",") if part.strip()]
        return tuple(self.items.convert(part, parameter, ctx) for part in parts)


def _make_parameter(one: Typed) -> click.Parameter:
    """Return the click option or argument of a config's field."""
    required = one.default is MISSING
    if one.about.argument:
        count = {"nargs": -1} if one.many else {}
        kind = _click_type(one)
        return StageArgument([one.name], type=kind, required=required, text=one.about.help, **count)
    flag = spell_flag(one.name)
    about: dict[str, Any] = {"group": one.about.group, "rare": one.about.rare, "help": _make_help(one)}
    if one.type is bool:
        declaration = f"{flag}/--no-{flag[2:]}" if one.default else flag
        return StageOption([declaration, one.name], is_flag=True, default=one.default, **about)
    if not required:
        about["default"] = ",".join(map(str, one.default)) if one.many else one.default
        about["show_default"] = one.default != ()
    if not one.about.choices or one.many:
        about["metavar"] = one.about.unit or {int: "N", float: "X", str: "TEXT", Path: "PATH"}[one.type]
    kind = CommaSeparated(_click_type(one), one.about.unit) if one.many else _click_type(one)
    return StageOption([flag, one.name], type=kind, required=required, **about)


def _make_help(one: Typed) -> str:
    """Return the help with the options that it needs."""
    needed = [" or ".join(_spell(name) for name in clause) for clause in clauses(one.about.needs)]
    return f"{one.about.help} (needs {', and '.join(needed)})" if needed else one.about.help


def _spell(condition: str) -> str:
    """Return loss=focal as --loss focal."""
    name, _, value = condition.partition("=")
    return f"{spell_flag(name)} {value}".rstrip()


def _click_type(one: Typed) -> Any:
    about = one.about
    if about.choices:
        return click.Choice(about.choices)
    if one.type is Path:
        return NonEmptyPath(path_type=Path)
    if one.type in (int, float):
        range_type: Any = click.IntRange if one.type is int else click.FloatRange
        lower = about.least if about.above is None else about.above
        upper = about.most if about.below is None else about.below
        exclusive = {"min_open": about.above is not None, "max_open": about.below is not None}
        return range_type(lower, upper, **exclusive)
    return click.STRING


@click.group(cls=Commands, context_settings=SETTINGS)
@click.version_option(edgeemo.__version__, prog_name="edgeemo")
@click.option("--quiet", is_flag=True, help=QUIET)
def main(quiet: bool) -> None:
    """Train, compress, prove and run facial-emotion models on edge devices."""
    start_logging(logging.WARNING if quiet or not is_first_process() else logging.INFO)


@main.group(cls=Commands)
def data() -> None:
    """Check labelled faces, and crop them out of photos, before training on them."""


def _add_command(stage: Stage) -> None:
    """Add the command of a stage to its group."""
    *_, word = stage.command.split()
    parent = data if stage.command.startswith("data ") else main
    parameters = [_make_parameter(one) for one in options(stage.config)]
    if stage.config is stages.Train:
        parameters = [*RECIPE, *parameters]
    if stage.json:
        parameters.append(click.Option(["--json", "as_json"], is_flag=True, help=stage.json))
    has_rare = any(getattr(parameter, "rare", False) for parameter in parameters)
    parameters += [_make_quiet(), _make_help_all(stage.command, hidden=not has_rare)]
    callback = click.pass_context(_command_of(stage))
    parent.add_command(StageCommand(word, params=parameters, callback=callback, help=stage.config.__doc__))


def _make_quiet() -> click.Option:
    """Return --quiet as an option of a command, where people type it too."""

    def start(_: click.Context, __: click.Parameter, value: bool) -> None:
        if value:
            start_logging(logging.WARNING)

    return click.Option(["--quiet"], is_flag=True, expose_value=False, callback=start, help=QUIET)


def _make_help_all(command: str, *, hidden: bool) -> click.Option:
    def show(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta["edgeemo.help_all"] = True
            click.echo(ctx.get_help())
            ctx.exit()

    text = f"show all options of edgeemo {command}"
    return click.Option(
        ["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=show, help=text, hidden=hidden
    )


RECIPE = (
    StageOption(
        ["--recipe"],
        type=click.Choice(tuple(stages.RECIPES)),
        default="enhanced",
        show_default=True,
        help="settings to start from",
    ),
    StageOption(["--show-recipe"], is_flag=True, help="print the settings and stop"),
)


def _command_of(stage: Stage) -> Callable[..., None]:
    def command(ctx: click.Context, /, *, as_json: bool = False, **given: Any) -> None:
        config = _make_config(ctx, stage, given)
        if given.get("show_recipe"):
            print_text(json.dumps(settings(config), indent=2))
            return
        ctx.exit(run_stage(stage, config, as_json=as_json))

    return command


def run_stage(stage: Stage, config: Any, *, as_json: bool = False) -> int:
    """Run a stage and print what it made or measured; returns the exit code."""
    _limit_threads(stage, config)
    module = stages.import_stage(stage)
    try:
        result = module.run(config, show=partial(_print_part, as_json)) if stage.streams else module.run(config)
    except Exception as error:
        if not isinstance(error, EdgeemoError) and (limit := explain_limit(error, memory=_advise_on_memory(stage))):
            raise limit from error
        raise
    if stage.makes:
        _print_made(stage, config, result)
        return 0
    if not stage.streams:
        _print_result(result, as_json=as_json)
    for unreadable in getattr(result, "unreadable", ()):
        print_error(unreadable)
    return _exit_code(result)


def _advise_on_memory(stage: Stage) -> str:
    """Return which options of a stage take less memory."""
    flags = [one.flag for name in NEED_MEMORY for one in options(stage.config) if one.name == name]
    return f"close other programs, or choose a smaller {' or '.join(flags)}" if flags else MEMORY


def _make_config(ctx: click.Context, stage: Stage, given: dict[str, Any]) -> Any:
    """Return the config of a command line; options that are not typed are those of the recipe or the resumed run."""
    typed = {name: value for name, value in given.items() if ctx.get_parameter_source(name) != ParameterSource.DEFAULT}
    if stage.config is stages.Compress:
        return make_compress_config(typed)
    if stage.config in (stages.Watch, stages.Serve):
        return make_config(stage.config, typed, given["config"])
    if stage.config is not stages.Train:
        return stage.config(**given)
    recipe = typed.pop("recipe", None)
    typed.pop("show_recipe", None)
    return make_train_config(typed, recipe)


def _limit_threads(stage: Stage, config: Any) -> None:
    """Set OpenMP's limit in the environment before torch is imported, because OpenMP reads it then.

    Without --threads, a CPU quota is the limit, of which OpenMP knows nothing, unless the user has set another one.
    """
    if stage.extra != "train":
        return
    if threads := getattr(config, "threads", None):
        os.environ["OMP_NUM_THREADS"] = str(threads)
    elif read_cpu_quota() is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(len(usable_cores())))


def _print_made(stage: Stage, config: Any, path: Path) -> None:
    if not is_first_process():
        return
    if stage.shows:
        _print_file(stage.shows(path))
    print_text(escape_name(str(path)))
    if following := stage.following(config, path) if stage.following else "":
        print_text(f"next:  edgeemo {escape_message(following)}")


def _print_result(result: Any, *, as_json: bool = False) -> None:
    if as_json:
        content = result.to_json()
        print_text(content if isinstance(content, str) else json.dumps(content, indent=2, sort_keys=True))
    elif hasattr(result, "kind"):  # a Result of edgeemo.report
        import_module("edgeemo.report.render").show(result)
    else:
        print_text(str(result))


def _print_part(as_json: bool, part: Any) -> None:
    """Print a part of a result as soon as it is known."""
    print_text(part.to_json() if as_json else str(part))


def _print_file(path: Path) -> None:
    _print_result(import_module("edgeemo.report.files").read(path))


def _exit_code(result: Any) -> int:
    """Return 0, that of a failed gate, or that of unreadable data."""
    if getattr(result, "unreadable", ()):
        return DataError.exit_code
    return 0 if getattr(result, "passed", True) else GateError.exit_code


for _stage in stages.STAGES:
    _add_command(_stage)
