"""One short bench of the tiny model against another of its kind, shared by the tests that read its result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import make_tiny
import pytest

from edgeemo.bench.run import run
from edgeemo.measure import latency
from edgeemo.report.result import BenchResult
from edgeemo.stages import Bench

RUNS = 7


@pytest.fixture(scope="session")
def tiny() -> Path:
    return make_tiny.HERE / "tiny.onnx"


@pytest.fixture(scope="session")
def quick() -> Any:
    """Short measurements: what is tested is the road, not the speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latency, "MIN_SECONDS", 0.01)
        patch.setattr(latency, "COLD_STARTS", 1)
        yield


@pytest.fixture(scope="session")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench") / "tiny.json"


@pytest.fixture(scope="session")
def result(quick: None, tiny: Path, out: Path) -> BenchResult:  # noqa: ARG001  pytest reads the name
    other = make_tiny.write(out.with_name("other.onnx"), seed=1)
    return run(Bench(engine=str(tiny), against=str(other), data="synthetic:120", runs=RUNS, out=str(out)))
