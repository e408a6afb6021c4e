"""Atomic writing of files and folders, locks, and SHA-256 hashes."""

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

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # errors of writing only
PROBE_BYTES = 1 << 16
READ_BYTES = 1 << 20
LOCK = ".lock"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, renamed to it if the block succeeds and removed otherwise.

    The file gets the default permissions of new files, whatever library wrote it. Raises MachineError if `path` cannot
    be written; other errors of the block are propagated.
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    with _explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        mode = partial.stat().st_mode
    try:
        yield partial
        with _explain_os_errors(path):
            partial.chmod(mode)  # safetensors makes files readable by their owner only
            _sync(partial)
            partial.replace(path)
    except Exception as error:
        _raise_if_disk_full(error, path)
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, renamed to it if the block succeeds and removed otherwise.

    Temporary folders that interrupted processes left in the same parent are removed. Raises MachineError if `path`
    cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with _explain_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in path.parent.glob(".*.partial"):
            shutil.rmtree(abandoned)
        partial.mkdir()
    try:
        yield partial
        with _explain_os_errors(path):
            for file in partial.iterdir():
                _sync(file)
            shutil.rmtree(path, ignore_errors=True)
            partial.replace(path)
    except Exception as error:
        _raise_if_disk_full(error, path)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_writable(folder: Path) -> None:
    """Raise MachineError if a file cannot be written in the folder, which is created; call this before long work."""
    probe = folder / f".{os.getpid()}.probe"
    with _explain_os_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            probe.write_bytes(bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock `folder` until the block ends; raise UsageError if another process holds the lock."""
    locks = require("filelock", extra="train", purpose="writing checkpoints")
    file = folder / LOCK
    lock = locks.FileLock(file, blocking=False)
    try:
        lock.acquire()
    except locks.Timeout as error:
        raise UsageError(
            f"another process is writing to {folder}; wait until it ends, or choose another --out"
        ) from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def write_text(path: Path, text: str) -> None:
    r"""Write UTF-8 text, atomically; bytes of file names that are not UTF-8 as \udcNN, which JSON reads back."""
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys and a trailing newline, so that two runs can be compared line by line."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def hash_file(path: Path) -> str:
    """Return the hex SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            digest.update(part)
    return digest.hexdigest()


def hash_lines(lines: list[str]) -> str:
    """Return the hex SHA-256 of text lines in order: the fingerprint of a list of ids."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@contextmanager
def _explain_os_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(f"cannot write {path}: {error.strerror or error}") from error


def _errno(error: Exception) -> int:
    """Return the errno of an error, 0 if it has none; safetensors (Rust) gives it in the message only."""
    match = re.search(r"\(os error (\d+)\)$", str(error))
    return int(match[1]) if match else getattr(error, "errno", None) or 0


def _raise_if_disk_full(error: Exception, path: Path) -> None:
    """Raise MachineError if `error` means that nothing can be written to the disk."""
    if (number := _errno(error)) in DISK:
        raise MachineError(f"cannot write {path}: {os.strerror(number)}") from error
    check_writable(path.parent)  # torch does not report a full disk; the partial file still fills it


def _sync(file: Path) -> None:
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
