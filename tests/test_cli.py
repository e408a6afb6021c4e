"""The command line: options from configs, errors as one message with an exit code."""

import io
import json
import logging
from dataclasses import fields, replace
from pathlib import Path

import pytest
import results
from click.testing import CliRunner

from edgeemo import progress, stages
from edgeemo.cli import main
from edgeemo.errors import GateError, UsageError
from edgeemo.report.facts import make_header
from edgeemo.report.files import write
from edgeemo.report.render import show
from edgeemo.report.result import SearchResult

TINY = Path(__file__).parent / "fixtures" / "tiny.onnx"

NAMES = ("photo [copy].png", "edge[old]", ":smile:", "a[/b].png")


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize("name", stages.RECIPES)
def test_recipe_is_shown_as_it_would_run(name):
    """--show-recipe prints every setting; an option on the line wins over the recipe."""
    done = call("train", "--recipe", name, "--epochs", 3, "--show-recipe")
    shown = json.loads(done.output)
    assert shown["epochs"] == 3
    assert shown["backbone"] == stages.RECIPES[name].backbone
    assert set(shown) == {f.name for f in fields(stages.Train)}


def test_the_origin_documents_spelling_works():
    """--batch_size and --target_accuracy mean --batch-size and --target-accuracy."""
    words = ["--backbone", "resnet50", "--epochs", "25", "--batch_size", "32", "--target_accuracy", "80.0"]
    shown = json.loads(call("train", *words, "--show-recipe").output)
    assert (shown["backbone"], shown["epochs"], shown["batch_size"], shown["target_accuracy"]) == (
        "resnet50",
        25,
        32,
        80,
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train", "--recipe", "grand"], 2, "'grand' is not one of 'enhanced', 'edge', 'demo'"),
        (["train", "--backbone", "resnet51"], 2, "unknown backbone 'resnet51'; known: edge_vgg"),
        (
            ["train", "--recipe", "demo", "--data", "imagenet"],
            2,
            "known: synthetic[:COUNT], ferplus:PATH, fer2013:PATH, rafdb:PATH, affectnet:PATH, folder:PATH",
        ),
        (
            ["train", "--recipe", "demo", "--data", "folder:/nowhere"],
            3,
            "/nowhere does not exist; expected LABEL/*.png",
        ),
        (["train", "--recipe", "demo", "--data", "ferplus:/nowhere.zip"], 3, "/nowhere.zip does not exist"),
        (["train", "--label-set", "nine"], 2, "unknown label set 'nine'"),
        (["train", "--size", "7"], 2, "7 is not in the range 32<=x<=512"),
        (["train", "--recipe", "edge", "--weights", "imagenet"], 2, "no ImageNet weights for edge_vgg"),
        (["train", "--epochs", "0"], 2, "'--epochs': 0 is not in the range x>=1"),
        (["train", "--vote-share", "1.5"], 2, "'--vote-share': 1.5 is not in the range 0<=x<=1"),
        (["train", "--corrupt-share", "-1"], 2, "'--corrupt-share': -1.0 is not in the range 0<=x<=1"),
        (["train", "--threads", "-1"], 2, "'--threads': -1 is not in the range 1<=x<=1024"),
        (["compress", "/nowhere"], 4, "model.safetensors does not exist"),
        (["bench", "--engine", "/nowhere.onnx"], 4, "/nowhere.onnx does not exist"),
        (["predict", "/nowhere.png"], 3, "/nowhere.png does not exist"),
        (["data", "audit", "--data", "folder:/nowhere"], 3, "/nowhere does not exist; expected LABEL/*.png"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_gets_one_clear_error(words, code, message, tmp_path, monkeypatch):
    """What was expected, what came, and the exit code of its kind; never a traceback."""
    monkeypatch.chdir(tmp_path)
    done = call(*words)
    assert message in done.output
    assert done.exit_code == code
    assert "Traceback" not in done.output


def test_unknown_option_is_a_usage_error():
    """Click's own errors exit 2 as well."""
    assert call("train", "--speed", "fast").exit_code == 2


def test_a_bug_keeps_its_traceback(monkeypatch):
    """Only a user's mistakes are turned into one line."""

    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr("edgeemo.stages.require", broken)
    assert isinstance(call("train").exception, ZeroDivisionError)


def test_an_interrupted_command_says_how_it_goes_on(monkeypatch):
    """Ctrl-C ends with the shell's own code for it, and without a traceback."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeemo.stages.require", interrupted)
    done = call("train")
    assert done.exit_code == 130
    assert "--resume" in done.output


def test_an_interrupted_command_without_resume_does_not_name_it(monkeypatch):
    """Neither of a group nor of the program itself."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("edgeemo.stages.import_stage", interrupted)
    for words in (["predict", "a.png"], ["data", "audit", "--data", "synthetic"], ["search", "run"]):
        done = call(*words)
        assert (done.exit_code, done.output) == (130, "interrupted\n")


@pytest.mark.parametrize("words", [[""], ["a.png", "--csv", ""], ["a.png", "--draw", ""]])
def test_an_empty_path_is_not_the_current_folder(words, tmp_path, monkeypatch):
    """As of a variable that is not set, on the command line and in a config."""
    monkeypatch.chdir(tmp_path)
    done = call("predict", *words)
    assert done.exit_code == 2
    assert "empty text; expected a path, or leave it out" in done.output
    with pytest.raises(UsageError, match="is empty: expected a path"):
        stages.Predict(images=words[:1], csv=words[-1], draw=words[-1])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("best", [None, "prune-30-int8"])
def test_a_search_prints_its_candidates_whether_one_meets_the_gates_or_not(best, monkeypatch, tmp_path):
    """With the next command; or with exit code 1, so that a script does not go on with nothing."""
    row = results.candidate(0.3, 2.0, 0.82)
    found = SearchResult(header=make_header(), search={}, budget_ms=5.0, min_accuracy=80.0, best=best, candidates=[row])
    write(found, tmp_path / "search.json")
    kept = tmp_path / "best" / "model.onnx"

    def search(_):
        if not best:
            raise GateError("no candidate has p95 <= 5 ms", result=tmp_path / "search.json")
        return kept

    monkeypatch.setattr("edgeemo.compress.search.run", search)
    done = call("search", "run")
    assert done.exit_code == (0 if best else 1), done.output
    assert done.stdout.splitlines()[1].startswith("prune-30-int8")
    assert (f"next:  edgeemo bench --engine {kept}" in done.output) == bool(best)
    assert ("error: no candidate" in done.stderr) == (not best)


def test_a_report_is_printed_or_written(tmp_path):
    """The same table either way; not over one of its own rows."""
    files = sorted((Path(__file__).parents[1] / "benchmarks" / "results" / "models").glob("*-six.json"))
    printed = call("report", *files)
    assert printed.exit_code == 0
    assert printed.output.count("| edge_vgg") == len(files) == 3
    assert call("report", *files, "--out", tmp_path / "all.md").exit_code == 0
    assert (tmp_path / "all.md").read_text().strip() == printed.output.strip()
    assert call("report", *files, "--out", files[0]).exit_code == 2


def test_a_report_shows_every_kind_and_refuses_what_is_none():
    """A page each; a card ends with exit code 3 and the command that makes a result."""
    folder = Path(__file__).parents[1] / "benchmarks" / "results"
    kinds = {
        "compression/search.json": "# Search",
        "compression/edge.json": "# Compression to model.int8.tensorrt.onnx",
        "training/ablation.json": "# Evaluation of base",
        "training/kills.json": "# benchmarks/kills.py",
        "engines/parity.json": "# Parity of original.float.onnx",
    }
    done = call("report", *(folder / name for name in kinds))
    assert done.exit_code == 0, done.output
    assert all(heading in done.output for heading in kinds.values())
    refused = call("report", next(folder.glob("models/teachers/*.json")))
    assert refused.exit_code == 3
    assert "edgeemo bench --engine MODEL --out FILE.json" in refused.output


@pytest.mark.parametrize(
    ("words", "level"),
    [
        (["doctor"], logging.INFO),
        (["--quiet", "doctor"], logging.WARNING),
        (["doctor", "--quiet"], logging.WARNING),
        (["--quiet", "doctor", "--quiet"], logging.WARNING),
    ],
)
def test_quiet_is_quiet(words, level, caplog):
    """Then only warnings and errors are printed, whether it stands before or after the command."""
    caplog.set_level(logging.DEBUG, logger="edgeemo")  # what it was comes back after the test
    assert call(*words).exit_code == 0
    assert logging.getLogger("edgeemo").level == level


def test_quiet_may_follow_the_command(caplog):
    """Where most people write it."""
    caplog.set_level(logging.DEBUG, logger="edgeemo")
    assert call("doctor", "--quiet").exit_code == 0
    assert logging.getLogger("edgeemo").level == logging.WARNING


@pytest.mark.parametrize("command", [stage.command for stage in stages.STAGES])
def test_every_command_has_help_all(command):
    """Also one whose help shows every option."""
    done = call(*command.split(), "--help-all")
    assert done.exit_code == 0
    assert done.output.startswith("Usage: ")


def test_what_took_long_is_logged_with_its_unit(monkeypatch, caplog):
    """So many images, faces or layers."""
    monkeypatch.setattr(progress, "perf_counter", iter([0.0, 2.5]).__next__)
    caplog.set_level(logging.INFO, logger="edgeemo")
    assert len(list(progress.track(range(3), "predicting", total=3, unit="images"))) == 3
    assert caplog.messages == ["predicting: 3 images in 2.5 s"]


def test_names_are_printed_as_they_are(capsys):
    """What rich takes for markup or an emoji is the name of a file here."""
    model = results.bench().model
    for name in NAMES:
        show(results.bench(model=replace(model, file=name), verdict=name))
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)


@pytest.mark.parametrize(("level", "bars"), [(logging.INFO, 1), (logging.WARNING, 0)], ids=["", "--quiet"])
def test_a_quiet_command_draws_no_bar(level, bars, monkeypatch, caplog):
    """Nor does any but the first of several processes, whose level is the same."""
    started = []
    monkeypatch.setattr(progress.Progress, "start", lambda _: started.append(1))
    monkeypatch.setattr(progress.sys, "stderr", Terminal())
    caplog.set_level(level, logger="edgeemo")
    assert list(progress.track(range(3), "counting", total=3)) == [0, 1, 2]
    assert len(started) == bars


@pytest.mark.parametrize(("prints", "seen", "bars"), [(False, True, 1), (True, True, 0), (True, False, 1)])
def test_a_bar_is_not_drawn_between_results(prints, seen, bars, monkeypatch, caplog):
    """Which is where a terminal shows both; elsewhere, results still go to standard output."""
    errors, output = Terminal(), Terminal() if seen else io.StringIO()
    monkeypatch.setattr(progress.sys, "stderr", errors)
    monkeypatch.setattr(progress.sys, "stdout", output)
    monkeypatch.setenv("TERM", "xterm")
    caplog.set_level(logging.INFO, logger="edgeemo")
    for number in progress.track(range(3), "counting", total=3, prints=prints):
        print(number)  # noqa: T201
    assert output.getvalue() == "0\n1\n2\n"
    assert ("counting" in errors.getvalue()) == bool(bars)


class Terminal(io.StringIO):
    """A terminal to write to."""

    def isatty(self):
        """As one says it."""
        return True


def test_audit_writes_its_report(folder_of_faces, tmp_path):
    """The table on the terminal, the same as JSON with --out."""
    done = call("data", "audit", "--data", f"folder:{folder_of_faces}", "--out", tmp_path / "audit.json")
    assert done.exit_code == 0
    assert "fear" in done.output
    assert json.loads((tmp_path / "audit.json").read_text())["splits"][0]["faces"] == 48


@pytest.mark.parametrize(
    ("gate", "code", "says"),
    [
        ("latency_ms_p95 = 10000.0", 0, "PASS"),
        ("size_bytes = 10", 1, "file size 1.3"),
        ("accuracy = 80", 1, "accuracy not measured"),
    ],
    ids=["all pass", "one fails", "one not measured"],
)
def test_bench_exits_with_its_verdict(gate, code, says, tmp_path):
    """0 if the gates of the target pass, 1 if one fails or was not measured, and the output says which."""
    (tmp_path / "target.toml").write_text(gate)
    done = call("bench", "--engine", TINY, "--target", tmp_path / "target.toml", "--runs", 5)
    assert done.exit_code == code
    assert says in " ".join(done.output.split())
