"""The command line: one command per stage, its options read off the stage's config."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import Field, asdict, fields, replace
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console

import edgeemo
from edgeemo import stages
from edgeemo.artifact import check_result, write_json, write_text
from edgeemo.errors import EdgeemoError, UsageError, known
from edgeemo.machine import is_first_process
from edgeemo.packages import require

INTERRUPTED = 130  # 128 + SIGINT, the shell's convention
SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    "token_normalize_func": lambda token: token.replace("_", "-"),  # the origin document writes --batch_size
}


class Commands(click.Group):
    """Shows a user's mistake as one message and its exit code; a bug keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except EdgeemoError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("interrupted; where the command has --resume, it goes on from the last checkpoint", err=True)
            ctx.exit(INTERRUPTED)


def options_of(config: type, *, without: tuple[str, ...] = ()) -> Callable[..., Any]:
    """A decorator that gives a command one option per field of a stage's config."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for f in reversed(fields(config)):
            if f.name not in without:
                command = _option(f)(command)
        return command

    return decorate


def _option(f: Field[Any]) -> Callable[..., Any]:
    name = "--" + f.name.replace("_", "-")
    spelled = f"{name}/--no-{name[2:]}" if isinstance(f.default, bool) else name
    kind = click.Choice(f.metadata["choices"]) if f.metadata["choices"] else type(f.default)
    flag = {"is_flag": True} if isinstance(f.default, bool) else {"type": kind}
    return click.option(spelled, f.name, default=f.default, help=f.metadata["help"], show_default=True, **flag)


def _stage(module: str, *, extra: str, purpose: str) -> Any:
    return require(f"edgeemo.{module}", extra=extra, purpose=purpose)


@click.group(cls=Commands, context_settings=SETTINGS)
@click.version_option(edgeemo.__version__, prog_name="edgeemo")
@click.option("--quiet", is_flag=True, help="say nothing but results and errors")
def main(quiet: bool) -> None:
    """Labelled faces in, a proven emotion model for a device out: train, compress, bench, predict."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("edgeemo").setLevel(logging.WARNING if quiet or not is_first_process() else logging.INFO)


@main.group()
def data() -> None:
    """Look at labelled faces before training on them."""


@data.command(help=stages.Audit.__doc__)
@options_of(stages.Audit)
def audit(**given: Any) -> None:
    config = stages.Audit(**given)
    if config.out:
        check_result(Path(config.out), "copies_across")
    report = _stage("data.audit", extra="train", purpose="the audit").run(config)
    if config.out:
        write_json(Path(config.out), report)
    _print(_stage("data.tables", extra="train", purpose="the audit").of_audit(report))


@main.command(help=stages.Train.__doc__)
@click.option(
    "--recipe", default="enhanced", show_default=True, help=f"settings to start from: {', '.join(stages.RECIPES)}"
)
@click.option("--show-recipe", is_flag=True, help="print the settings that would be used, and stop")
@options_of(stages.Train)
@click.pass_context
def train(ctx: click.Context, /, recipe: str, show_recipe: bool, **given: Any) -> None:
    if recipe not in stages.RECIPES:
        raise known("recipe", recipe, stages.RECIPES)
    config = replace(stages.RECIPES[recipe], **_typed(ctx, given))
    if show_recipe:
        click.echo(json.dumps(asdict(config), indent=2))
        return
    _limit_threads(config.threads)
    path = _stage("train.run", extra="train", purpose="training").run(config)
    if is_first_process():
        click.echo(f"{path}\nnext:  edgeemo compress {path.parent} --int8")


@main.command(help=stages.Evaluate.__doc__)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@options_of(stages.Evaluate)
def evaluate(runs: tuple[str, ...], **given: Any) -> None:
    config = stages.Evaluate(**given)
    _limit_threads(config.threads)
    stage = _stage("evaluate", extra="train", purpose="the evaluation of runs")
    _print(stage.table(stage.run([Path(name) for name in runs], config)))


@main.command(help=stages.Explain.__doc__)
@click.argument("run", metavar="RUN")
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@options_of(stages.Explain, without=("run",))
def explain(images: tuple[str, ...], **given: Any) -> None:
    config = stages.Explain(**given)
    _limit_threads(config.threads)
    for path in _stage("explain", extra="train", purpose="explanations").run(config, [Path(name) for name in images]):
        click.echo(path)


@main.command(help=stages.Compress.__doc__)
@click.argument("run", metavar="RUN")
@options_of(stages.Compress, without=("run",))
def compress(**given: Any) -> None:
    config = stages.Compress(**given)
    _limit_threads(config.threads)
    stage = _stage("compress.run", extra="train", purpose="compression")
    path = stage.run(config)
    click.echo(stage.table(json.loads((path.parent / "comparison.json").read_text(encoding="utf-8"))))
    engine_first = config.int8 and config.flavour != "cpu"  # the last file is TensorRT's, slow in ONNX Runtime
    click.echo(f"{path}\nnext:  edgeemo " + (f"build {path}" if engine_first else f"bench --engine {path} --data DATA"))


@main.command(help=stages.Search.__doc__)
@click.argument("run", metavar="RUN")
@options_of(stages.Search, without=("run",))
@click.pass_context
def search(ctx: click.Context, /, **given: Any) -> None:
    config = stages.Search(**given)
    _limit_threads(config.threads)
    stage = _stage("compress.search", extra="train", purpose="the search")
    result = stage.run(config)
    click.echo(stage.table(result))
    if not result["best"]:
        ctx.exit(1)
    click.echo(f"{result['model']}\nnext:  edgeemo bench --engine {result['model']} --data DATA")


@main.command(help=stages.Build.__doc__)
@click.argument("model", metavar="MODEL")
@options_of(stages.Build, without=("model",))
def build(**given: Any) -> None:
    path = _stage("build", extra="tensorrt", purpose="building engines").run(stages.Build(**given))
    click.echo(f"{path}\nnext:  edgeemo bench --engine {path} --data DATA")


@main.command(help=stages.Bench.__doc__)
@options_of(stages.Bench)
@click.pass_context
def bench(ctx: click.Context, /, **given: Any) -> None:
    stage = _stage("bench.run", extra="bench", purpose="the benchmark")
    result = stage.run(stages.Bench(**given))
    _print(stage.show(result))
    ctx.exit(0 if result["passed"] else 1)


@main.command(help=stages.Parity.__doc__)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@options_of(stages.Parity)
@click.pass_context
def parity(ctx: click.Context, /, models: tuple[str, ...], **given: Any) -> None:
    stage = _stage("bench.parity", extra="bench", purpose="parity")
    result = stage.run([Path(name) for name in models], stages.Parity(**given))
    _print(stage.show(result))
    ctx.exit(0 if result["passed"] else 1)


@main.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...")
@click.option("--check", is_flag=True, help="run models (default: all shipped) on packaged faces; exit 1 if one fails")
@click.option("--baseline", default="", help="JSON of an earlier check here: fail if a model became 1.5 times slower")
@click.option("--json", is_flag=True, help="print JSON")
@click.pass_context
def doctor(ctx: click.Context, /, models: tuple[str, ...], check: bool, baseline: str, json: bool) -> None:
    """Show which engines this machine can build and run; with --check, whether its answers and speed still hold."""
    if not check and (models or baseline):
        raise UsageError("MODEL and --baseline would do nothing here: add --check, or leave them out")
    if not check:
        stage = _stage("doctor", extra="tensorrt", purpose="the doctor")
        found = stage.run()
        _print_found(found, stage.table, as_json=json)
        return
    stage = _stage("check", extra="bench", purpose="the check")
    result = stage.run(models, baseline=baseline)
    _print_found(result, stage.show, as_json=json)
    ctx.exit(0 if result["passed"] else 1)


@main.command(help=stages.Report.__doc__)
@click.argument("results", nargs=-1, required=True, metavar="RESULT.json...")
@options_of(stages.Report)
def report(results: tuple[str, ...], out: str) -> None:
    stage, paths = _stage("bench.report", extra="bench", purpose="the report"), [Path(name) for name in results]
    if out:
        stage.check_out(Path(out), paths)
    table = stage.render_files(paths)
    if out:
        write_text(Path(out), table)
    else:
        click.echo(table)


@main.command(help=stages.Predict.__doc__)
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@options_of(stages.Predict)
def predict(images: tuple[str, ...], model: str, label_set: str, json: bool) -> None:
    with edgeemo.load(model, labels=label_set) as loaded:
        for name in images:
            _tell(name, loaded.predict(Path(name)), as_json=json)


def _print_found(found: dict[str, Any], table: Callable[[dict[str, Any]], Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(found, indent=2, sort_keys=True))
    else:
        _print(table(found))


def _tell(name: str, prediction: edgeemo.Prediction, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"image": name, **asdict(prediction)}))
    else:
        click.echo(f"{name}: {prediction}")


def _typed(ctx: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """The options that stand on the command line; the recipe decides the rest."""
    return {name: value for name, value in given.items() if ctx.get_parameter_source(name) != ParameterSource.DEFAULT}


def _limit_threads(threads: int) -> None:
    """OpenMP reads its limit when torch is loaded, so it must stand in the environment before."""
    if threads < 0:
        raise UsageError(f"--threads {threads}: expected 0 (all cores) or more")
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def _print(renderable: Any) -> None:
    Console(markup=False, emoji=False).print(renderable)  # names of files are no markup
