"""Files that appear whole or not at all, and the hashes that name their content."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgeemo.errors import MachineError, UsageError
from edgeemo.packages import require

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # no read fails with these
PROBE_BYTES = 1 << 16
READ_BYTES = 1 << 20
LOCK = ".lock"


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    Whoever may read new files here may read it, whatever library wrote it. MachineError if `path` cannot be written;
    what else goes wrong inside the block passes through.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
    try:
        yield partial
        with _writing(path):
            partial.chmod(mode)  # safetensors writes files that nobody else may read
            _sync(partial)
            partial.replace(path)
    except Exception as error:
        _explain_disk(error, path)
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def written_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path`, renamed to it when the block ends well and removed when it does not.

    Another process's abandoned temporary folders for the same parent go too; MachineError if it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in path.parent.glob(".*.partial"):
            shutil.rmtree(abandoned)
        partial.mkdir()
    try:
        yield partial
        with _writing(path):
            for file in partial.iterdir():
                _sync(file)
            shutil.rmtree(path, ignore_errors=True)
            partial.replace(path)
    except Exception as error:
        _explain_disk(error, path)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Make the folder and a file in it, which goes again; MachineError if that fails. Ask before hours of work."""
    probe = folder / f".{os.getpid()}.probe"
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes that ask so out of `folder` until the block ends; UsageError if one is in there already."""
    locks = require("filelock", extra="train", purpose="writing checkpoints")
    file = folder / LOCK
    lock = locks.FileLock(file, blocking=False)
    try:
        lock.acquire()
    except locks.Timeout as error:
        raise UsageError(
            f"another process is at work in {folder}; wait for its end, or choose another --out"
        ) from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with written(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys and one trailing newline, so that two runs can be compared line by line."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            found.update(part)
    return found.hexdigest()


def sha256_of_lines(lines: list[str]) -> str:
    """Hex SHA-256 of text lines in their order: the fingerprint of a list of ids."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror or error}") from error


def _errno(error: Exception) -> int:
    """The operating system's number of an error, 0 if it has none; safetensors, which is Rust, has it in its text."""
    told = re.search(r"\(os error (\d+)\)$", str(error))
    return int(told[1]) if told else getattr(error, "errno", None) or 0


def _explain_disk(error: Exception, path: Path) -> None:
    """MachineError if `error` comes from a disk that takes nothing more."""
    if (number := _errno(error)) in DISK:
        raise MachineError(f"cannot write {path}: {os.strerror(number)}") from error
    check_writable(path.parent)  # torch does not say that a disk is full; the partial file still fills it


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
