"""A new model takes over between two frames, once it has passed its check; until then, and else, the old one serves."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import make_tiny
import pytest

from edgeemo.card import card_path, read_card, write_card
from edgeemo.errors import DataError
from edgeemo.runtime import Model, golden, open_model, shipped
from edgeemo.watch.notify import Notifier
from edgeemo.watch.swap import ModelHolder

MODEL = "model.onnx"


def install(name: str | Path, folder: Path, **changes: object) -> None:
    """Put a model and its card in the place of those that are there, each by renaming, as a deployment does."""
    source = shipped.find(name)
    shutil.copy(source, folder / "new.onnx")
    write_card(folder / "new.onnx", replace(read_card(source), **changes))  # type: ignore[arg-type]
    card_path(folder / "new.onnx").replace(card_path(folder / MODEL))
    (folder / "new.onnx").replace(folder / MODEL)


class Opener:
    """Opens the model of a folder; remembers what it opened, and waits where a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.opened: list[Model] = []
        self.may_open = threading.Event()
        self.may_open.set()
        self.waiting = threading.Semaphore(0)

    def __call__(self) -> Model:
        """Open it, as soon as it may be opened."""
        self.waiting.release()
        assert self.may_open.wait(10)
        self.opened.append(open_model(self.folder / MODEL))
        return self.opened[-1]


class Finished(Notifier):
    """Counts reloads, and lets a test wait for the end of one."""

    def __init__(self) -> None:
        super().__init__({})
        self.started = 0
        self.ended = threading.Semaphore(0)

    def reloading(self) -> None:
        """Count it."""
        self.started += 1

    def ready(self, status: str = "") -> None:  # noqa: ARG002
        """Let `wait` return."""
        self.ended.release()

    def wait(self) -> None:
        """Wait for the end of a reload."""
        assert self.ended.acquire(timeout=20), "the reload did not end"


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    install("nano", tmp_path)
    return Opener(tmp_path)


@pytest.fixture
def finished() -> Finished:
    return Finished()


@pytest.fixture
def holder(opener: Opener, finished: Finished) -> Iterator[ModelHolder]:
    with ModelHolder(opener, notifier=finished) as made:
        yield made


def sha256_of(name: str) -> str:
    return read_card(shipped.find(name)).sha256


def is_closed(model: Model) -> bool:
    try:
        model.predict(golden.sample_face())
    except Exception:  # noqa: BLE001  a backend's own
        return True
    return False


def test_the_new_model_serves_from_the_next_frame_on(holder: ModelHolder, opener: Opener, finished: Finished) -> None:
    """And the old one is closed then, not before."""
    old = holder.take()
    assert old.card.sha256 == sha256_of("nano")
    install("small", opener.folder)
    holder.request()
    finished.wait()
    old.predict(golden.sample_face())  # the frame that is at work
    new = holder.take()
    assert new.card.sha256 == sha256_of("small")
    assert is_closed(old)
    new.predict(golden.sample_face())
    assert (holder.swaps, holder.failures) == (1, 0)
    assert holder.take() is new


def test_the_old_model_serves_while_the_new_one_loads(holder: ModelHolder, opener: Opener, finished: Finished) -> None:
    """The loop does not wait."""
    opener.waiting.acquire()  # of the first model
    opener.may_open.clear()
    install("small", opener.folder)
    holder.request()
    assert opener.waiting.acquire(timeout=10)
    assert holder.take().card.sha256 == sha256_of("nano")
    opener.may_open.set()
    finished.wait()
    assert holder.take().card.sha256 == sha256_of("small")


def test_requests_in_a_row_are_served_by_one_load(holder: ModelHolder, opener: Opener, finished: Finished) -> None:
    """Ten, while one is loading."""
    opener.waiting.acquire()
    opener.may_open.clear()
    install("small", opener.folder)
    holder.request()
    assert opener.waiting.acquire(timeout=10)
    for _ in range(10):
        holder.request()
    opener.may_open.set()
    finished.wait()
    finished.wait()
    assert finished.started == 2
    assert len(opener.opened) == 3


def spoil(folder: Path) -> None:
    (folder / MODEL).write_bytes(b"not a model")


def remove(folder: Path) -> None:
    (folder / MODEL).unlink()


def install_other_labels(folder: Path) -> None:
    install(make_tiny.HERE / "tiny.onnx", folder)


def install_with_other_answers(folder: Path) -> None:
    """A model whose golden logits, in its card, are not what it computes: as after a damaged library or processor."""
    stored = read_card(shipped.find("small")).golden
    assert stored
    shifted = tuple(tuple(value + 1 for value in row) for row in stored.logits)
    install("small", folder, golden=replace(stored, logits=shifted))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (spoil, "is not the file that its card describes"),
        (remove, MODEL),
        (install_other_labels, "expected neutral, happiness"),
        (install_with_other_answers, "fails its self-check: 0 of 8 labels differ"),
    ],
)
def test_a_model_that_does_not_pass_is_refused(
    holder: ModelHolder,
    opener: Opener,
    finished: Finished,
    caplog: pytest.LogCaptureFixture,
    change: object,
    reason: str,
) -> None:
    """With the reason in the log; the old one serves on, and a good one is taken later."""
    old = holder.take()
    change(opener.folder)  # type: ignore[operator]
    with caplog.at_level(logging.ERROR, "edgeemo"):
        holder.request()
        finished.wait()
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("model not swapped, the old one stays in use: ")
    assert reason in message
    assert holder.take() is old
    old.predict(golden.sample_face())
    assert (holder.swaps, holder.failures) == (0, 1)
    assert all(is_closed(model) for model in opener.opened if model is not old)
    install("small", opener.folder)
    holder.request()
    finished.wait()
    assert holder.take().card.sha256 == sha256_of("small")


def test_a_bug_while_loading_costs_no_frame(
    tmp_path: Path, finished: Finished, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that edgeemo does not know is logged too, and the thread lives on."""
    install("nano", tmp_path)
    answers = iter([open_model(tmp_path / MODEL), KeyError("size"), DataError("later")])

    def answer() -> Model:
        one = next(answers)
        if isinstance(one, Exception):
            raise one
        return one

    with ModelHolder(answer, notifier=finished) as holder:
        for _ in range(2):
            holder.request()
            finished.wait()
        assert holder.failures == 2
        holder.take().predict(golden.sample_face())
    assert "KeyError: 'size'" in caplog.text


def test_an_unchanged_file_is_not_swapped(holder: ModelHolder, opener: Opener, finished: Finished) -> None:
    old = holder.take()
    holder.request()
    finished.wait()
    assert holder.take() is old
    assert (holder.swaps, holder.failures) == (0, 0)
    assert is_closed(opener.opened[1])


def test_a_model_without_golden_logits_must_only_predict(
    holder: ModelHolder, opener: Opener, finished: Finished
) -> None:
    """Such cards were written by earlier versions."""
    install("small", opener.folder, golden=None)
    holder.request()
    finished.wait()
    assert holder.take().card.golden is None


def test_a_model_that_was_never_taken_is_closed_by_the_next(
    holder: ModelHolder, opener: Opener, finished: Finished
) -> None:
    """While the source is lost, no frame takes one."""
    for name in ("small", "base"):
        install(name, opener.folder)
        holder.request()
        finished.wait()
    assert is_closed(opener.opened[1])
    assert holder.take().card.sha256 == sha256_of("base")


def test_closing_leaves_no_model_and_no_thread(opener: Opener, finished: Finished) -> None:
    """Also a model that was loaded and not yet taken."""
    with ModelHolder(opener, notifier=finished) as holder:
        install("small", opener.folder)
        holder.request()
        finished.wait()
    assert all(is_closed(model) for model in opener.opened)
    assert not any(thread.name == "edgeemo-model" for thread in threading.enumerate())


def test_an_error_of_the_first_model_is_raised(opener: Opener) -> None:
    """Before a thread is started."""
    remove(opener.folder)
    with pytest.raises(Exception, match=MODEL):
        ModelHolder(opener)
    assert not any(thread.name == "edgeemo-model" for thread in threading.enumerate())


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_a_signal_swaps_the_model_and_systemd_hears_of_it(
    opener: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RELOADING=1, then READY=1."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("notify")
        systemd.settimeout(20)
        with ModelHolder(opener, notifier=Notifier({"NOTIFY_SOCKET": "notify"})) as holder:
            before = signal.signal(signal.SIGHUP, lambda *_: holder.request())
            try:
                install("small", opener.folder)
                os.kill(os.getpid(), signal.SIGHUP)
                assert systemd.recv(200).startswith(b"RELOADING=1\n")
                assert systemd.recv(200) == b"READY=1"
            finally:
                signal.signal(signal.SIGHUP, before)
            assert holder.take().card.sha256 == sha256_of("small")
