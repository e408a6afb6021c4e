"""One model serves several threads, in every backend, and each gets what it would get alone."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from threading import Event, Lock
from time import sleep

import make_tiny
import numpy as np
import pytest

import edgeemo
from edgeemo.runtime import Model, open_model
from edgeemo.runtime.backends import table

THREADS, CALLS = 6, 40


@pytest.fixture(autouse=True)
def many_switches() -> Iterator[None]:
    """Between threads, so that an overlap is not a matter of luck."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(call: Callable[[int], object]) -> list[object]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, range(THREADS * CALLS)))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_threads_get_what_they_would_get_alone(backend: str, rng: np.random.Generator) -> None:
    """Each with faces of its own, in batches of several sizes."""
    if backend == "openvino":
        pytest.importorskip("openvino", reason="pip install 'edgeemo[openvino]'")
    faces = [rng.integers(0, 256, (1 + k % 3, 48, 48), dtype=np.uint8) for k in range(THREADS)]
    with open_model("nano", backend=backend) as model:
        expected = [model.probabilities(face) for face in faces]
        found = in_threads(lambda k: model.probabilities(faces[k % THREADS]))
    assert all(np.array_equal(one, expected[k % THREADS]) for k, one in enumerate(found))


class OneAtATime:
    """A backend that notices when it is entered twice."""

    name = "onnxruntime"
    inputs, outputs = (("N", 1, make_tiny.SIZE, make_tiny.SIZE),), ()

    def __init__(self, *, concurrent: bool) -> None:
        self.concurrent, self.overlaps, self._inside, self._count = concurrent, 0, 0, Lock()

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Zeros, after some work."""
        with self._count:
            self._inside += 1
        sum(range(2000))
        with self._count:
            self.overlaps += self._inside > 1
            self._inside -= 1
        return np.zeros((len(batch), 6), np.float32)

    def close(self) -> None:
        """Nothing to free."""


@pytest.mark.parametrize("concurrent", [False, True])
def test_a_backend_that_takes_one_call_at_a_time_gets_one(concurrent: bool, tmp_path: Path) -> None:
    """And one that takes several gets several, or this test could not fail."""
    with edgeemo.load(make_tiny.write(tmp_path / "tiny.onnx")) as tiny:
        backend = OneAtATime(concurrent=concurrent)
        model = Model(tiny.path, tiny.card, backend, tiny.label_set)
    batch = np.zeros((1, 1, make_tiny.SIZE, make_tiny.SIZE), np.float32)
    in_threads(lambda _: model.logits(batch))
    assert bool(backend.overlaps) == concurrent


class SlowToClose(OneAtATime):
    """A backend whose memory must not be freed while it predicts."""

    def __init__(self) -> None:
        super().__init__(concurrent=False)
        self.started, self.freed_while_busy = Event(), False

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Zeros, after long enough for a close to come in between."""
        self._inside = 1
        self.started.set()
        sleep(0.2)
        self._inside = 0
        return np.zeros((len(batch), 6), np.float32)

    def close(self) -> None:
        """Note whether a call is running."""
        self.freed_while_busy = bool(self._inside)


def test_closing_waits_for_the_running_prediction(tmp_path: Path) -> None:
    """An engine's buffers would be freed under it."""
    backend = SlowToClose()
    with edgeemo.load(make_tiny.write(tmp_path / "tiny.onnx")) as tiny:
        model = Model(tiny.path, tiny.card, backend, tiny.label_set)
    batch = np.zeros((1, 1, make_tiny.SIZE, make_tiny.SIZE), np.float32)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(model.logits, batch)
        assert backend.started.wait(10)
        model.close()
        assert call.result().shape == (1, 6)
    assert not backend.freed_while_busy


def test_every_backend_says_whether_it_is_concurrent() -> None:
    """Only ONNX Runtime documents it."""
    kinds = (table.OnnxBackend, table.OpenvinoBackend, table.TensorrtBackend)
    assert [kind.concurrent for kind in kinds] == [True, False, False]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_model_is_pickled_by_its_path(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process opens the file itself, wherever it runs, with the same backend, threads and labels."""
    if backend == "openvino":
        pytest.importorskip("openvino", reason="pip install 'edgeemo[openvino]'")
    monkeypatch.chdir(tmp_path)
    name = make_tiny.write(tmp_path / "tiny.onnx").name
    batch = np.zeros((1, make_tiny.SIZE, make_tiny.SIZE), np.uint8)
    with edgeemo.load(name, backend=backend, threads=2) as model:
        monkeypatch.chdir(tmp_path.parent)
        content = pickle.dumps(model)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            expected = model.probabilities(batch)
            assert np.array_equal(pool.submit(model.probabilities, batch).result(), expected)
    with pickle.loads(content) as again:  # noqa: S301 (our own)
        assert (again.backend.name, again._threads, again.labels) == (backend, 2, model.labels)
        assert np.array_equal(again.probabilities(batch), expected)


def test_merged_labels_survive_pickling() -> None:
    """A model of eight labels that reports six."""
    with edgeemo.load("nano", labels="six") as model, pickle.loads(pickle.dumps(model)) as again:  # noqa: S301
        assert again.label_set == model.label_set


def test_a_model_shows_what_it_is() -> None:
    """At a prompt."""
    with edgeemo.load("nano") as model:
        assert repr(model).startswith("<edgeemo.Model nano.onnx in onnxruntime: neutral, ")
