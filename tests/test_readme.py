"""README and docs/ keep their word: their tables, their commands, their code."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import backbones
import pytest
from click.testing import CliRunner
from PIL import Image
from place import write_faces
from scenes import draw

from edgeemo import cli, options
from edgeemo.cli import main
from edgeemo.compress.quantize import calibrate
from edgeemo.data import samples
from edgeemo.labels import label_set
from edgeemo.train.network import BACKBONES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {
    page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
}
PYTHON = [
    pytest.param(body, id=f"{name} {k}")
    for name, text in PAGES.items()
    for k, body in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
]
SHELL = re.compile(r"^( *)```bash\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"\s*(?:\$\(BIN\)/)?(?:edgeemo|torchrun .+? cli\.py) (\w.*)")
RESULTS = sorted((ROOT / "benchmarks" / "results").rglob("*.json"))
CALIBRATION = sorted((ROOT / "calibration").glob("*.json"))
PUBLISHED = [
    *RESULTS,
    *sorted((ROOT / "benchmarks" / "results").rglob("*.md")),
    *sorted((ROOT / "edgeemo" / "models").glob("*.json")),
    *CALIBRATION,
]
# An absolute path wherever one may begin (line, space, quote, colon, bracket, home), a way up, or a Windows drive.
MACHINE_PATH = re.compile(r"(?:^|[\s\"'`:=(,~])/\w|\.\./|\b[A-Za-z]:\\", re.MULTILINE)


def commands():
    """Every `edgeemo …` line of the pages' code and of `make demo`, comments cut off, and the README's inline ones."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(DEMO)", "runs/demo")
    inline = re.findall(r"`(edgeemo \w+ [^`]+)`", README)
    blocks = [body for page in PAGES.values() for _, body in SHELL.findall(page)]
    lines = "\n".join([*blocks, makefile]).replace("\\\n", " ").splitlines()
    for line in [*lines, *inline]:
        if found := COMMAND.match(line):
            yield shlex.split(found[1], comments=True)


def readme_script():
    spec = importlib.util.spec_from_file_location("readme", ROOT / "benchmarks" / "readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_equal_the_results_files():
    """Every table is what `make readme` renders from benchmarks/results/."""
    script = readme_script()
    for page in script.PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- table: ") == text.count("<!-- end -->") > 0
        assert script.rendered(text) == text, page.name


@pytest.mark.parametrize("words", list(dict.fromkeys(map(tuple, commands()))), ids=" ".join)
def test_every_command_is_understood(words, tmp_path, monkeypatch):
    """Its options exist, its values are of the right kind, and its stage takes them together."""
    configs = []
    monkeypatch.setattr(cli, "run_stage", lambda _, config, **__: configs.append(config))
    monkeypatch.chdir(tmp_path)
    Path("watch.toml").write_text('source = "synthetic"\n', encoding="utf-8")  # of --config
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 0, done.output
    for config in configs:
        options.check(config)


def test_commands_were_found():
    """Of the README, the pages beside it and `make demo`."""
    found = [" ".join(words) for words in commands()]
    assert len(found) > 20
    known_ones = (
        *("train --recipe demo", "build model.int8.tensorrt.onnx", "search runs/edge", "bench --engine base"),
        *("predict --sample", "train --recipe edge --data ferplus:ferplus.zip"),
    )
    for known in known_ones:
        assert any(line.startswith(known) for line in found), known


@pytest.mark.parametrize("body", PYTHON)
def test_python_blocks_run(body, tmp_path, monkeypatch, face):
    """In a folder with the images that they need."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(face).save("face.jpg")
    Image.fromarray(face).save("photo.jpg")
    write_faces(Path("mine"), range(3))
    exec(compile(body, "page", "exec"), {})  # noqa: S102  our own pages


def test_python_finds_what_the_command_does(capsys, tmp_path, monkeypatch):
    """The first block of the README prints the faces of a photo that edgeemo predict finds."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw((480, 640), (60, 80, 128), (400, 200, 160))).save("photo.jpg")
    exec(compile(PYTHON[0].values[0], "README.md", "exec"), {})  # noqa: S102  our own README
    printed = capsys.readouterr().out.splitlines()
    shown = CliRunner().invoke(main, ["predict", "photo.jpg", "--json"]).stdout
    found = json.loads(shown)["faces"]
    assert len(printed) == len(found) == 2
    for line, face in zip(printed, found, strict=True):
        box, label, probability = line.replace("(", "").replace(")", "").rsplit(maxsplit=2)
        assert [float(value) for value in box.split(",")] == pytest.approx(face["box"], abs=0.005)
        assert label == face["label"]
        assert float(probability) == pytest.approx(face["probability"], abs=1e-6)


@pytest.mark.parametrize(
    "text",
    ['"/srv/faces"', "in /tmp/x", "ferplus:/data/faces.zip", "(/root)", "../shared", "~/runs", "C:\\\\faces"],
)
def test_a_path_of_a_machine_is_recognised(text):
    """The test below looks for the right thing."""
    assert MACHINE_PATH.search(text)


@pytest.mark.parametrize("text", ["p50 / p95 ms", "https://a.org/b", "runs/edge", "ferplus:ferplus.zip", "2.1 GB/s"])
def test_what_is_no_path_of_a_machine_is_let_through(text):
    """And for nothing more."""
    assert not MACHINE_PATH.search(text)


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.name)
def test_results_hold_no_path_of_a_machine(path):
    """Neither folders nor user names travel with a result, a card or a calibration list."""
    assert not MACHINE_PATH.findall(path.read_text(encoding="utf-8"))


def test_results_were_measured_on_valid_faces():
    """No committed accuracy comes from train faces, nor from the test faces that are kept for the end."""
    found = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in RESULTS}
    faces = {name: result.get("faces") or (result.get("accuracy") or {}).get("faces") for name, result in found.items()}
    splits = {(name, block["split"]) for name, block in faces.items() if block}
    assert {"base.json", "teacher-six-plurality.json", "edge-int8.json", "ablation.json"} <= {
        name for name, _ in splits
    }
    assert {split for _, split in splits} == {"valid"}


def of_training(name):
    return json.loads((ROOT / "benchmarks" / "results" / "training" / name).read_text(encoding="utf-8"))


def of_compression(name):
    return json.loads((ROOT / "benchmarks" / "results" / "compression" / name).read_text(encoding="utf-8"))


def test_every_backbone_survives_compression_or_is_refused():
    """INT8 predicts the label of its float form on 98 % of 512 synthetic faces; the float form predicts five labels."""
    found = of_compression("backbones.json")
    assert {row["backbone"] for row in found["rows"]} == set(BACKBONES)
    for row in found["rows"]:
        last = row["tried"][-1]
        assert row["agrees"] == (last["agreement"] >= 0.98 and last["labels_named"] >= 5)
        assert row["agrees"] or {one["road"] for one in row["tried"]} == set(backbones.ROADS), row["backbone"]
        assert {one["n"] for one in row["tried"]} == {512}


def test_twenty_kills_left_no_trace():
    """The committed run: twenty kills at random moments, and the same bits at the end."""
    found = of_training("kills.json")
    assert found["facts"]["bit_identical"]
    assert len(found["rows"]) == 20


def test_making_batches_costs_little():
    """In each of the eight measured cases below a tenth of the time of the small net's training."""
    rows = of_training("throughput.json")["rows"]
    assert len(rows) == 8
    assert all(row["data_share"] < 0.1 for row in rows)


def test_every_combination_learns_and_every_backbone_is_exported():
    """The committed grid: every backbone, three modes and five losses; each loss falls, each file agrees with torch."""
    found = of_training("grid.json")
    cells, exports = found["rows"], found["facts"]["exports"]
    assert len({(row["backbone"], row["mode"], row["loss"]) for row in cells}) == len(BACKBONES) * 3 * 5
    assert all(row["last_loss"] < 0.99 * row["first_loss"] for row in cells)
    for name, mode in {(row["backbone"], row["mode"]) for row in cells}:
        rows = [row for row in cells if (row["backbone"], row["mode"]) == (name, mode)]
        assert len({row["first_loss"] for row in rows}) == 5, "two losses that are one"
    assert set(exports) == set(BACKBONES)
    assert all(one["gap"] <= 1e-3 and one["spread"] > 0.1 for one in exports.values())


@pytest.mark.parametrize("name", ["class-weights.json", "ablation.json", "resnet50-64.json", "mirror.json"])
def test_runs_were_judged_on_valid_faces(name):
    """Of FER+, all of them, and never of its test split."""
    found = of_training(name)
    faces, n = found["faces"], {6: 3557, 8: 3555}[len(found["labels"])]
    assert (faces["data"], faces["split"], faces["n"]) == ("ferplus", "valid", n)


def test_the_small_net_is_compressed_without_loss():
    """4 times smaller, 3 times faster beside its float form; 0.3 points lost, 2 of any label with 80 faces, at most."""
    found = of_compression("edge-int8.json")
    against, support = found["against"], found["accuracy"]["support"]
    assert against["model"]["size_bytes"] >= 4 * found["model"]["size_bytes"]
    assert against["latency_ratio_p50"] <= 1 / 3
    assert against["accuracy"]["difference"] >= -0.003
    lost = {label: -gain for label, gain in against["accuracy"]["recall_difference"].items() if support[label] >= 80}
    assert len(lost) == 5
    assert max(lost.values()) <= 0.02


def test_half_of_the_channels_cost_a_point_at_most():
    """Pruned, recovered, in INT8, against the float original: a quarter of the multiply-adds, a tenth of the bytes."""
    original, pruned, int8, _ = of_compression("edge-half.json")["rows"]
    (against,) = (pair for pair in int8["against"] if pair["name"] == "original")
    assert against["difference"] >= -0.01
    assert original["size_bytes"] >= 10 * int8["size_bytes"]
    assert pruned["macs"] < 0.26 * original["macs"]
    assert int8["latency_one_core"]["ms_p50"] < original["latency_one_core"]["ms_p50"] / 6


def test_a_resnet50_fits_an_edge_device():
    """Pruned, in INT8, at 224 px on one core: 8 MB, 50 ms and 80 % of FER+ valid, all of it; its gates say the same."""
    found = of_compression("resnet50-small.json")
    model, scored = found["model"], found["accuracy"]
    assert (model["architecture"]["backbone"], model["input"]["size"], model["precision"]["got"]) == (
        "resnet50",
        224,
        "int8",
    )
    faces = scored["faces"]
    assert (faces["data"], faces["split"], faces["n"]) == ("ferplus", "valid", 3557)
    assert scored["accuracy"] >= 0.80
    assert model["size_bytes"] < 8_000_000
    assert found["latency"]["one_core"]["total"]["ms_p95"] < 50
    assert found["verdict"] == "PASS (3 of 3 gates)"


def test_a_search_foretells_what_bench_measures():
    """The latency of the candidate that it chose, within a tenth, at the median and at p95."""
    search, bench = of_compression("search.json"), of_compression("search-best.json")
    (best,) = (row for row in search["candidates"] if row["file"].startswith(search["best"] + "/"))
    measured = bench["latency"]["one_core"]["total"]
    assert not best["latency"]["unstable"]
    assert best["latency"]["ms_p50"] == pytest.approx(measured["ms_p50"], rel=0.1)
    assert best["latency"]["ms_p95"] == pytest.approx(measured["ms_p95"], rel=0.1)


def test_tuning_holds_what_quantization_alone_does():
    """On MobileNetV3, the hard case: INT8 after tuning is no worse than without, and neither loses half a point."""
    alone, tuned = (of_compression(f"mobilenet-{road}.json")["rows"] for road in ("minmax", "qat"))
    assert tuned[-1]["accuracy"] >= alone[-1]["accuracy"] >= alone[0]["accuracy"] - 0.005
    assert tuned[0]["sha256"] == alone[0]["sha256"]


def test_every_backbone_became_an_engine():
    """In float, FP16 and INT8, for every GPU that TensorRT for RTX knows and takes the form on; none was refused."""
    found = json.loads((ROOT / "benchmarks" / "results" / "engines" / "rtx.json").read_text(encoding="utf-8"))
    assert {row["backbone"] for row in found["rows"]} == set(BACKBONES)
    for row in found["rows"]:
        assert len(row["engines"]) == 3
        for form, engine in row["engines"].items():
            assert engine["size_bytes"] > 100_000, (row["backbone"], form)
            assert {"8.0", "8.6", "8.9", "12.0", "12.1"} <= set(engine["compute_capabilities"])


def test_backends_were_timed_side_by_side():
    """The same file in both, INT8, on one core, with every sample kept."""
    for name in ("edge", "resnet50"):
        path = ROOT / "benchmarks" / "results" / "engines" / f"openvino-{name}.json"
        found = json.loads(path.read_text(encoding="utf-8"))
        ours, theirs = found["model"], found["against"]["model"]
        assert (ours["backend"], theirs["backend"]) == ("openvino", "onnxruntime")
        assert ours["sha256"] == theirs["sha256"]
        assert ours["precision"]["got"] == "int8"
        assert not found["latency"]["one_core"]["unstable"]


def test_backends_agree_on_every_file():
    """On 512 FER+ faces, in float and both INT8 formats, ONNX Runtime and OpenVINO name 99 % of them alike."""
    found = json.loads((ROOT / "benchmarks" / "results" / "engines" / "parity.json").read_text(encoding="utf-8"))
    again = [row["same_file"]["agreement"] for row in found["rows"] if row["same_file"]]
    assert (found["passed"], found["faces"]["n"], found["faces"]["data"]) == (True, 512, "ferplus")
    assert len(again) == 3
    assert min(again) >= 0.99


@pytest.mark.ferplus
@pytest.mark.parametrize("path", CALIBRATION, ids=lambda path: path.name)
def test_no_model_was_calibrated_on_faces_that_judge_it(path, ferplus):
    """The committed lists are sealed, of FER+, and share no face with its valid split."""
    chosen = calibrate.read(path)
    valid = {sample.id for sample in samples(ferplus, "valid", label_set(chosen.label_set))}
    assert chosen.data == "ferplus"
    assert len(valid) > 3000
    assert valid.isdisjoint(chosen.ids)
