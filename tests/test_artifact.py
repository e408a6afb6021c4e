"""Writing files and folders: a kill or a power loss at any moment leaves the old or the new, and no litter for long."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock
import pytest

from edgeemo import artifact
from edgeemo.artifact import (
    atomic_folder,
    atomic_write,
    check_writable,
    lock_folder,
    new_folder,
    remove_leftovers,
    write_text,
)
from edgeemo.errors import MachineError, UsageError

IMPORTS = "import os, signal, sys; from pathlib import Path; from edgeemo import artifact; path = Path(sys.argv[1])\n"
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
# Where a process is killed while it writes a file, a card or a result, a folder, or a probe.
WRITERS = {
    "file": f"with artifact.atomic_write(path) as partial: partial.write_bytes(b'half'); {KILL}",
    "text": f"artifact.os.fsync = lambda _: {KILL}; artifact.write_text(path, 'new')",
    "probe": f"Path.write_bytes = lambda one, _: (one.touch(), {KILL}); artifact.check_writable(path.parent)",
}
posix = pytest.mark.skipif(os.name == "nt", reason="signals and links to descriptors as POSIX has them")


def run_killed(script: str, path: Path) -> int:
    """Run a script that kills itself; return its process number."""
    child = subprocess.Popen([sys.executable, "-c", IMPORTS + script, str(path)])
    assert child.wait() == -signal.SIGKILL
    return child.pid


@contextmanager
def in_another_process(script: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a script until it waits for its input, and kill it at the end."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", IMPORTS + script, str(path)], **pipes) as child:
        try:
            assert child.stdout
            assert child.stdout.readline() == "ready\n"
            yield child
        finally:
            child.kill()


@posix
@pytest.mark.parametrize("writer", WRITERS)
def test_what_a_killed_writer_left_goes_with_the_next_write(writer: str, tmp_path: Path) -> None:
    """The old file stays; the temporary one is removed, with nothing else."""
    path = tmp_path / "model.onnx"
    path.write_text("old")
    run_killed(WRITERS[writer], path)
    assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 2
    if writer == "probe":
        check_writable(tmp_path)
    else:
        write_text(path, "new")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


@posix
def test_a_killed_writer_of_a_new_folder_leaves_none(tmp_path: Path) -> None:
    """Nor anything that the next one does not remove; a file of another path stays."""
    path = tmp_path / "crops"
    (tmp_path / ".notes.partial").touch()
    run_killed(f"with artifact.new_folder(path) as partial: (partial / 'half').touch(); {KILL}", path)
    assert not path.exists()
    assert len(list(tmp_path.iterdir())) == 2
    with new_folder(path) as partial:
        (partial / "whole").touch()
    assert sorted(file.name for file in tmp_path.iterdir()) == [".notes.partial", "crops"]
    assert [file.name for file in path.iterdir()] == ["whole"]
    with pytest.raises(UsageError, match="is not empty"), new_folder(path):
        pytest.fail("a filled folder is never replaced")


@posix
def test_a_temporary_file_that_may_be_in_use_stays(tmp_path: Path) -> None:
    """Of a running process, of another machine (on a network share), of another path, and what only looks alike."""
    dead = run_killed(KILL, tmp_path)
    host = artifact._this_host()
    kept = [
        f".model.{host}.{os.getppid()}.partial.onnx",
        f".model.other-{host}.{dead}.partial.onnx",
        f".base.{host}.{dead}.partial.onnx",
        f".model.{host}.{dead}.partial.json",
        f".model.{host}.notes.partial.onnx",
    ]
    for name in (*kept, f".model.{host}.{dead}.partial.onnx"):
        (tmp_path / name).touch()
    write_text(tmp_path / "model.onnx", "new")
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([*kept, "model.onnx"])


@posix
def test_leftovers_of_many_files_go_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder is listed once, however many files follow; what other files left stays."""
    paths = [tmp_path / folder / name for folder in "ab" for name in ("1.png", "2.png", "m" * 250 + ".png")]
    for path in (*paths, tmp_path / "a" / "3.png"):
        path.parent.mkdir(exist_ok=True)
        run_killed(WRITERS["file"], path)
    listed = []
    iterdir = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: listed.append(self) or iterdir(self))
    remove_leftovers(paths)
    for path in paths:
        with atomic_write(path, sweep=False) as partial:
            partial.touch()
    assert listed == [tmp_path / "a", tmp_path / "b"]
    monkeypatch.undo()
    left = [path for path in tmp_path.rglob("*.*") if path not in paths]
    assert [path.name.split(".")[1] for path in left] == ["3"]


@posix
@pytest.mark.parametrize("kind", ["pipe", "device", "standard output"])
def test_only_a_regular_file_is_replaced(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe, a device or /dev/null, which root could replace, stays."""
    path = tmp_path / "out"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to(os.devnull)
    else:
        path.touch()
        monkeypatch.setattr(os, "fstat", lambda _: before)
    before = path.lstat()
    with pytest.raises(UsageError, match="expected the name of a file to write"):
        write_text(path, "text")
    assert os.path.samestat(before, path.lstat())
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a\0.csv", "\ud800.csv"])
def test_a_name_that_no_file_can_have_is_wrong_usage(name: str, tmp_path: Path) -> None:
    """As a program may pass it."""
    with pytest.raises(UsageError, match="cannot be the name of a file"):
        write_text(tmp_path / name, "text")


def read_name(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def record_synced(monkeypatch: pytest.MonkeyPatch, path: Path) -> list[tuple[str, bool]]:
    """Record what is synchronised, by its path, and whether `path` had its final name then."""
    synced: list[tuple[str, bool]] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((read_name(fd), path.exists())))
    return synced


@pytest.mark.skipif(sys.platform != "linux", reason="reads the path of a descriptor from /proc")
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_content_is_on_the_disk_before_its_name_and_the_name_before_it_returns(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the names of folders that were made for it; otherwise a power loss costs what `fsync` has kept."""
    path = tmp_path / "new" / "run" / "result"
    synced = record_synced(monkeypatch, path)
    if kind == "file":
        write_text(path, "text")
    else:
        with atomic_folder(path) as partial:
            (partial / "weights").write_bytes(b"weights")
    made = [(str(tmp_path / "new"), False), (str(tmp_path), False)]
    assert synced[:2] == made
    *content, (last, named) = synced[2:]
    assert (last, named) == (str(path.parent), True)
    assert [named for _, named in content] == [False] * (1 if kind == "file" else 2)
    assert all(".partial" in one for one, _ in content)


def test_a_file_system_that_cannot_synchronise_a_folder_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network and FUSE file systems refuse it; the file itself was synchronised."""
    fsync = os.fsync

    def refuse_folders(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):  # noqa: PTH112
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse_folders)
    write_text(tmp_path / "model.json", "text")
    assert (tmp_path / "model.json").read_text() == "text"


@pytest.mark.parametrize("name", ["m" * 250 + ".json", "ä" * 120 + ".json", "." + "m" * 200])
def test_any_name_that_the_file_system_allows_can_be_written(name: str, tmp_path: Path) -> None:
    """The temporary name is not longer than allowed, and leaves nothing behind."""
    write_text(tmp_path / name, "text")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_folder_that_cannot_take_its_name_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old one is renamed, not deleted, before the new one has its name."""
    (tmp_path / "00000005").mkdir()
    (tmp_path / "00000005" / "weights").write_text("old")
    replace = Path.replace

    def fail(self: Path, target: Path) -> Path:
        if target.name == "00000005":
            raise OSError(errno.EIO, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(MachineError, match="cannot write"), atomic_folder(tmp_path / "00000005") as partial:
        (partial / "weights").write_text("new")
    assert (tmp_path / "00000005" / "weights").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_checkpoint_removes_temporary_files_and_folders_of_its_parent(tmp_path: Path) -> None:
    """Whoever left them: the run's folder is locked. A file among them is no obstacle."""
    (tmp_path / ".00000003.other.7.partial").mkdir()
    (tmp_path / ".00000004.7.partial").touch()
    with atomic_folder(tmp_path / "00000005"):
        pass
    assert [one.name for one in tmp_path.iterdir()] == ["00000005"]


@posix
def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """While it runs, it is refused in one line; a kill leaves the lock's file and no lock."""
    hold = "lock = artifact.lock_folder(path); lock.__enter__(); print('ready', flush=True); input()"
    with in_another_process(hold, tmp_path), pytest.raises(UsageError, match="another process is writing to"):
        lock_folder(tmp_path).__enter__()
    assert (tmp_path / artifact.LOCK).exists()
    with lock_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOLCK, "No locks available"), PermissionError(errno.EACCES, "Permission denied")]
)
def test_a_folder_that_cannot_be_locked_is_a_fault_of_the_machine(
    error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As NFS without its lock service, or a folder of another user."""

    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(MachineError, match=f"cannot lock .*: {error.strerror}; choose an --out"), ExitStack() as stack:
        stack.enter_context(lock_folder(tmp_path))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file data/1"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"),
        OSError("1000 requested and 0 written"),  # of numpy's tofile
    ],
    ids=["torch", "torch at the end", "numpy"],
)
def test_a_failed_write_without_a_reason_is_a_fault_of_the_machine(error: Exception, tmp_path: Path) -> None:
    """Also where a small file can be written, as under a quota of the largest file."""
    words = r"cannot write .*state\.pt; the disk, or a quota, may be full"
    with pytest.raises(MachineError, match=words), atomic_write(tmp_path / "state.pt"):
        raise error
