"""Worker threads, batches of crops, and a model that is replaced while threads use it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import make_tiny  # noqa: F401  tests/fixtures is importable
import numpy as np
import pytest

served = pytest.importorskip("served", reason="edgeemo[serve] or httpx is not installed")
from served import wait_until  # noqa: E402

from edgeemo.card import card_path  # noqa: E402
from edgeemo.errors import DataError  # noqa: E402
from edgeemo.runtime import Model, Prediction, golden, open_model, shipped  # noqa: E402
from edgeemo.serve.batching import MOST, Batcher  # noqa: E402
from edgeemo.serve.models import Models  # noqa: E402
from edgeemo.serve.workers import SOON, Workers  # noqa: E402

CROPS = np.zeros((1, 4, 4), np.uint8)


def test_workers_run_in_parallel_and_raise_where_it_is_awaited() -> None:
    workers = Workers(2)
    barrier = threading.Barrier(2)

    def fail() -> None:
        raise DataError("no image")

    async def run() -> None:
        await asyncio.gather(*(workers.run(lambda: barrier.wait(10)) for _ in range(2)))
        with pytest.raises(DataError, match="no image"):
            await workers.run(fail)

    asyncio.run(run())
    workers.close()


def test_what_completes_a_request_goes_before_what_begins_one() -> None:
    workers, order = Workers(1), []
    gate = threading.Event()

    async def run() -> None:
        first = workers.run(lambda: gate.wait(10))
        jobs = [workers.run(lambda: order.append("later")), workers.run(lambda: order.append("soon"), priority=SOON)]
        gate.set()
        await asyncio.gather(first, *jobs)

    asyncio.run(run())
    workers.close()
    assert order == ["soon", "later"]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_that_outlives_the_loop_ends_in_silence() -> None:
    """As after --grace, when nobody waits for its result any more; the threads go on to their end."""
    workers, gate = Workers(1), threading.Event()

    async def run() -> None:
        workers.run(lambda: gate.wait(10))

    asyncio.run(run())
    gate.set()
    workers.close()


class Classifier:
    """Notes the sizes of its batches; waits where a test says so."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, crops: np.ndarray, views: int) -> list[Prediction]:
        """Return the sum of the first crop of each face as its label."""
        self.sizes.append(len(crops))
        assert self.may_go.wait(10)
        return [Prediction(str(one.sum()), 1.0, {}) for one in crops[::views]]


def prepare(value: int, count: int = 1) -> Callable[[], np.ndarray]:
    """Return a function that returns crops with this sum."""
    crops = np.zeros((count, 4, 4), np.uint8)
    crops[:, 0, 0] = value
    return lambda: crops


def run_batches(
    test: Callable[[Batcher, Classifier], object], *, workers: int = 1, delay: float = 0, count: int = 99
) -> None:
    """Run a coroutine with a batcher of `workers` threads."""
    pool, classifier = Workers(workers), Classifier()

    async def run() -> None:
        await test(Batcher(pool, classifier, delay=delay, count_requests=lambda: count), classifier)  # type: ignore[misc]

    try:
        asyncio.run(run())
    finally:
        classifier.may_go.set()
        pool.close()


def test_crops_that_arrive_while_all_workers_classify_share_the_next_call() -> None:
    """Each request gets its own, and a damaged image costs nobody else an answer."""

    async def test(batcher: Batcher, classifier: Classifier) -> None:
        classifier.may_go.clear()
        first = batcher.predict(prepare(1), crops=1)
        others = [batcher.predict(prepare(k), crops=1) for k in (2, 3)]

        def fail() -> np.ndarray:
            raise DataError("no image")

        broken = batcher.predict(fail, crops=1)
        classifier.may_go.set()
        assert [(await one)[0].label for one in (first, *others)] == ["1", "2", "3"]
        with pytest.raises(DataError):
            await broken
        assert classifier.sizes == [1, 2]

    run_batches(test)


def test_a_free_worker_waits_for_crops_that_could_still_come_but_not_longer_than_the_delay() -> None:
    async def test(batcher: Batcher, classifier: Classifier) -> None:
        one, two = batcher.predict(prepare(1), crops=1), batcher.predict(prepare(2), crops=1)
        await asyncio.wait_for(asyncio.gather(one, two), 10)
        assert classifier.sizes == [2]

    run_batches(test, delay=0.05)


def test_nobody_waits_for_crops_when_no_other_request_is_in_work() -> None:
    async def test(batcher: Batcher, classifier: Classifier) -> None:
        await asyncio.wait_for(batcher.predict(prepare(1), crops=1), 10)
        assert classifier.sizes == [1]

    run_batches(test, delay=3600, count=1)


def test_a_call_takes_no_more_crops_than_the_limit_and_one_number_of_views() -> None:
    async def test(batcher: Batcher, classifier: Classifier) -> None:
        classifier.may_go.clear()
        jobs = [batcher.predict(prepare(1), crops=1)]
        jobs += [batcher.predict(prepare(2, 30), crops=30) for _ in range(3)]
        jobs += [batcher.predict(prepare(3, 3), crops=3, views=3)]
        classifier.may_go.set()
        assert [len(await job) for job in jobs] == [1, 30, 30, 30, 1]
        assert classifier.sizes == [1, 60, 30, 3]
        assert max(classifier.sizes) <= MOST

    run_batches(test)


def test_an_error_of_the_model_reaches_every_request_of_its_batch() -> None:
    async def test(batcher: Batcher, classifier: Classifier) -> None:
        classifier.may_go.clear()
        first = batcher.predict(prepare(1), crops=1)
        wrong = [batcher.predict(lambda size=size: np.zeros((1, size, size), np.uint8), crops=1) for size in (4, 5)]
        classifier.may_go.set()
        await first
        for job in wrong:
            with pytest.raises(Exception, match="another input size"):
                await job

    run_batches(test)


def install(name: str, folder: Path) -> Path:
    """Copy a packaged model and its card over those of a folder."""
    source, target = shipped.find(name), folder / "m.onnx"
    for old, new in ((source, target), (card_path(source), card_path(target))):
        (folder / "part").write_bytes(old.read_bytes())
        (folder / "part").replace(new)
    return target


def is_closed(model: Model) -> bool:
    try:
        model.predict(golden.sample_face())
    except Exception:  # noqa: BLE001  a backend's own
        return True
    return False


@pytest.mark.parametrize("concurrent", [True, False])
def test_a_replaced_model_is_closed_after_its_last_use(
    concurrent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a backend runs one input at a time, so is the copy of each thread."""
    path = install("nano", tmp_path)
    opened: list[Model] = []

    def open_one() -> Model:
        opened.append(open_model(path))
        return opened[-1]

    kind = type(open_one().backend)
    monkeypatch.setattr(kind, "concurrent", concurrent)
    opened.pop().close()
    models = Models(open_one, workers=2)
    try:
        with models.lend() as first, models.lend() as second:
            assert (first is second) == concurrent
            install("small", tmp_path)
            models.request_reload()

            def lend() -> bool:
                with models.lend() as newest:
                    return newest.card != first.card

            wait_until(lend)
            for old in (first, second):
                old.predict(golden.sample_face())
        assert is_closed(first)
        assert is_closed(second)
        with models.lend() as newest:
            newest.predict(golden.sample_face())
        assert (models.swaps, models.failures) == (1, 0)
    finally:
        models.close()
    assert all(map(is_closed, opened))


def test_a_model_that_does_not_pass_its_check_is_refused(tmp_path: Path) -> None:
    path = install("nano", tmp_path)
    models = Models(lambda: open_model(path), workers=1)
    try:
        path.write_bytes(b"damaged")
        models.request_reload()
        wait_until(lambda: models.failures == 1)
        with models.lend() as model:
            model.predict(golden.sample_face())
    finally:
        models.close()
