"""Model repositories of Triton: parsed by tritonclient's protobuf where it is installed, and checked as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import make_tiny
import numpy as np
import pytest

import edgeemo
from edgeemo.build import run
from edgeemo.card import Precision, Target, read_card, write_card
from edgeemo.errors import UsageError
from edgeemo.images import to_input, to_pixels
from edgeemo.runtime.backends.ort import OnnxBackend
from edgeemo.runtime.golden import sample_face
from edgeemo.stages import Build

TARGET = Target(
    library="tensorrt",
    version="10.3.0",
    compute_capabilities=("8.7",),
    gpu="Orin",
    driver="12.6",
    platform="Linux aarch64",
    max_batch=8,
    version_compatible=False,
    hardware_compatible=False,
    dla_core=-1,
    workspace_mib=0,
    source="small",
    source_sha256="0" * 64,
    source_seal="0" * 64,
)


def export(tmp_path: Path, model: str = "small", **options: Any) -> Path:
    """The one model of a repository."""
    out = run(Build(model=model, for_="triton", out=tmp_path / "triton", **options))
    (folder,) = (out / "models").iterdir()
    return folder


def write_engine(tmp_path: Path, **changes: Any) -> Path:
    """A file with the card of an engine; nothing opens it."""
    file = tmp_path / "engine.trt"
    file.write_bytes(b"an engine")
    write_card(file, replace(make_tiny.card(), target=replace(TARGET, **changes)))
    return file


def test_the_served_model_returns_the_models_probabilities(tmp_path: Path) -> None:
    """For the input that the warm-up sends, too: a packaged face."""
    folder = export(tmp_path)
    warm_up = np.fromfile(folder / "warmup" / "face", "<f4").reshape(1, 1, 48, 48)
    with edgeemo.load("small") as model:
        pixels = to_pixels(sample_face(), model.card.input)[None]
        assert np.array_equal(warm_up, to_input(pixels, model.card.input))
        expected = model.probabilities(pixels)
        assert (folder / "labels.txt").read_text().split() == list(model.labels)
    served = OnnxBackend(folder / "1" / "model.onnx", threads=1)
    assert np.abs(served.logits(warm_up) - expected).max() <= 1e-6
    served.close()


def test_tritons_own_protobuf_reads_the_configuration(tmp_path: Path) -> None:
    """Every key exists there and has the meaning that is wanted."""
    pytest.importorskip("tritonclient.grpc", reason="pip install 'tritonclient[grpc]'", exc_type=ImportError)
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    folder = export(tmp_path, max_batch=16)
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == (folder.name, "onnxruntime", 16)
    assert (folder / "1" / config.default_model_filename).is_file()
    assert [(one.name, list(one.dims)) for one in config.input] == [("images", [1, 48, 48])]
    assert [(one.name, list(one.dims), one.label_filename) for one in config.output] == [
        ("probabilities", [8], "labels.txt")
    ]
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16]
    assert config.dynamic_batching.max_queue_delay_microseconds == 1000
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 256
    assert config.version_policy.latest.num_versions == 1
    assert [group.kind for group in config.instance_group] == [model_config_pb2.ModelInstanceGroup.KIND_CPU]
    assert [one.batch_size for one in config.model_warmup] == [1, 16]
    assert (folder / "warmup" / config.model_warmup[0].inputs["images"].input_data_file).is_file()
    assert config.parameters["intra_op_thread_count"].string_value == "1"


# Of ModelConfig and the messages in it, as far as they are written; from model_config.proto of tritonclient 2.73.
KEYS = {
    "": "name backend default_model_filename max_batch_size input output version_policy instance_group "
    "dynamic_batching model_warmup parameters",
    "input": "name data_type dims",
    "output": "name data_type dims label_filename",
    "version_policy": "latest",
    "version_policy.latest": "num_versions",
    "instance_group": "count kind",
    "dynamic_batching": "preferred_batch_size max_queue_delay_microseconds default_queue_policy",
    "dynamic_batching.default_queue_policy": "timeout_action max_queue_size",
    "model_warmup": "name batch_size inputs",
    "model_warmup.inputs": "key value",
    "model_warmup.inputs.value": "data_type dims zero_data input_data_file",
    "parameters": "key value",
    "parameters.value": "string_value",
}
TOKEN = re.compile(r'"[^"\\\n]*"|[A-Za-z_][A-Za-z0-9_]*|\d+|[{}\[\]:,]')


def list_fields(text: str) -> Iterator[tuple[str, str]]:
    """(message, key) of a text in protobuf's format: a strict reader of the part of it that is written."""
    assert TOKEN.sub("", text).strip() == ""
    path: list[str] = []
    brackets: list[str] = []
    key = ""
    parts = TOKEN.findall(text)
    for part, following in zip(parts, [*parts[1:], ""], strict=True):
        if part in "{[":
            brackets.append(part)
            if part == "{":
                path.append(key)
        elif part in "}]":
            assert brackets.pop() == {"}": "{", "]": "["}[part]
            if part == "}":
                key = path.pop()
        elif following in (":", "{", "[") and part[0].isalpha():
            key = part
            yield ".".join(path), key
    assert not brackets


def test_the_configuration_has_only_known_keys(tmp_path: Path) -> None:
    """Triton refuses a model whose configuration has another."""
    fields = list(list_fields((export(tmp_path) / "config.pbtxt").read_text()))
    assert {message for message, _ in fields} == set(KEYS)
    assert [(message, key) for message, key in fields if key not in KEYS[message].split()] == []


def test_float_models_run_on_a_gpu_where_there_is_one(tmp_path: Path) -> None:
    """INT8 in the cpu format has kernels on the CPU alone."""
    source = make_tiny.write(tmp_path / "my model.onnx")
    folder = export(tmp_path, str(source))
    assert folder.name == "edgeemo_my_model"
    text = (folder / "config.pbtxt").read_text()
    assert "kind: KIND_AUTO" in text
    assert 'name: "input"' in text


def test_an_engine_is_served_by_tensorrt(tmp_path: Path) -> None:
    """It returns logits, and the README says what is left to do with them."""
    file = write_engine(tmp_path)
    folder = export(tmp_path, str(file))
    text = (folder / "config.pbtxt").read_text()
    assert (folder / "1" / "model.plan").read_bytes() == b"an engine"
    assert 'backend: "tensorrt"' in text
    assert 'name: "logits"' in text
    assert "kind: KIND_GPU" in text
    readme = (tmp_path / "triton" / "README.md").read_text()
    assert "divide by 1, then apply a softmax" in readme
    assert "TensorRT 10.3.0 on compute capability 8.7 only" in readme


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"library": "rtx"}, {}, "TensorRT for RTX, which Triton does not run"),
        ({"max_batch": 4}, {"max_batch": 8}, "was built for at most 4"),
    ],
)
def test_an_engine_that_triton_cannot_run_is_refused(
    changes: dict[str, Any], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Before anything is written."""
    with pytest.raises(UsageError, match=message):
        export(tmp_path, str(write_engine(tmp_path, **changes)), **options)
    assert not (tmp_path / "triton").exists()


def test_a_file_that_may_saturate_says_so(tmp_path: Path) -> None:
    """Triton cannot ask ONNX Runtime for exact arithmetic."""
    source = make_tiny.write(tmp_path / "model.onnx")
    write_card(source, replace(read_card(source), precision=Precision("int8", target_format="cpu")))
    export(tmp_path, str(source))
    assert "Not for x86 processors without VNNI" in (tmp_path / "triton" / "README.md").read_text()
