"""Atomic writing of files and folders, locks, and SHA-256 hashes.

A writer uses a temporary name next to the path, `.NAME.HOST.PID.partial`, and renames it when everything is on the
disk. What a killed writer leaves is removed when the same path is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import stat
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from edgeemo.errors import EdgeemoError, MachineError, UsageError
from edgeemo.limits import DISK, find_errno, is_failed_write
from edgeemo.names import escape_name
from edgeemo.packages import require

PROBE_BYTES = 1 << 16
READ_BYTES = 1 << 20
LOCK = ".lock"
MAX_NAME_BYTES = 150  # of a temporary name's own part; most file systems allow 255 bytes in all


@contextmanager
def atomic_write(path: Path, *, sweep: bool = True) -> Iterator[Path]:
    """Yield a temporary path next to `path`, renamed to it if the block succeeds and removed otherwise.

    The file gets the default permissions of new files, whatever library wrote it. File and folder are on the disk when
    this returns, so that neither a kill nor a power loss costs the file or the one before it.

    sweep: first remove what killed writers of `path` left, for which the folder is listed; False: `remove_leftovers`
    has done so.

    Raises UsageError as `check_file` does; MachineError if `path` cannot be written. Other errors of the block are
    propagated.
    """
    check_file(path)
    partial = path.with_name(f".{_shorten(path.stem)}.{_this_process()}.partial{path.suffix}")
    with _explain_os_errors(path):
        make_folder(path.parent)
        if sweep:
            remove_leftovers([path])
        partial.touch()
        mode = partial.stat().st_mode
    try:
        yield partial
        with _explain_os_errors(path):
            partial.chmod(mode)  # safetensors makes files readable by their owner only
            _sync(partial)
            partial.replace(path)
            _sync(path.parent)
    except Exception as error:
        _raise_if_disk_full(error, path)
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, renamed to it if the block succeeds and removed otherwise.

    All temporary files and folders in the same parent are removed first, whoever left them: only a process that has
    locked the parent's folder may call this. Raises MachineError if `path` cannot be written.
    """
    partial, old = (path.with_name(f".{path.name}.{_this_process()}.{what}partial") for what in ("", "old."))
    with _explain_os_errors(path):
        make_folder(path.parent)
        for abandoned in path.parent.glob(".*.partial*"):
            _remove(abandoned)
        partial.mkdir()
    try:
        yield partial
        with _explain_os_errors(path):
            for file in (*partial.iterdir(), partial):
                _sync(file)
            if path.exists():
                path.rename(old)  # to delete it takes longer than to rename it, and a kill may come at any time
            partial.replace(path)
            _sync(path.parent)
    except Exception as error:
        if old.exists():
            old.rename(path)
        _raise_if_disk_full(error, path)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, renamed to it if the block succeeds and removed otherwise.

    Raises UsageError if there is something at `path`, other than an empty folder; MachineError if it cannot be written.
    """
    path = path.resolve()
    check_empty(path)
    partial = path.with_name(f".{_shorten(path.name)}.{_this_process()}.partial")
    with _explain_os_errors(path):
        make_folder(path.parent)
        _sweep(path.parent, f".{_shorten(path.name)}.", ".partial")
        partial.mkdir()
    try:
        yield partial
        with _explain_os_errors(path):
            for file in (*partial.rglob("*"), partial):
                _sync(file)
            check_empty(path)  # another process may have written it meanwhile
            if path.exists():
                path.rmdir()
            partial.rename(path)
            _sync(path.parent)
    except Exception as error:
        _raise_if_disk_full(error, path)
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_empty(folder: Path) -> None:
    """Raise UsageError unless `folder` is an empty folder or does not exist."""
    with _explain_os_errors(folder):
        if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
            raise UsageError(f"{folder} is not empty; choose another --out, or remove it")


@contextmanager
def temporary_folder(*, room: int = 0) -> Iterator[Path]:
    """Yield a folder for temporary files, removed afterwards.

    room: bytes that the block needs at least; ONNX Runtime writes half a file without an error where they are missing.

    Raises MachineError if there is no place for it, or if the block fails because its disk is full, which some
    libraries report in other words.
    """
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise MachineError("no folder for temporary files can be written: set TMPDIR to one that can") from error
    with folder as name:
        if (free := shutil.disk_usage(name).free) < room:
            raise MachineError(
                f"temporary files need {room / 1e6:,.1f} MB, {Path(name).parent} has {free / 1e6:,.1f} MB: free space "
                "there, or set TMPDIR to a folder on another disk"
            )
        try:
            yield Path(name)
        except Exception as error:
            if not isinstance(error, EdgeemoError):
                _raise_if_no_room(error, Path(name))
            raise


def _raise_if_no_room(error: Exception, folder: Path) -> None:
    try:
        _raise_if_disk_full(error, folder / "file")
    except MachineError as full:
        raise MachineError(f"{full}; free space there, or set TMPDIR to a folder on another disk") from error


def check_file(path: Path) -> None:
    """Raise UsageError if `path` is no name for a file, or names a pipe, a device or standard output.

    A new file would take the place of these. A folder is left to the caller. Raises MachineError if the system cannot
    tell.
    """
    if not path.name:
        raise UsageError(f"{path} is a folder; expected the name of a file to write")
    with _explain_os_errors(path):
        try:
            facts = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except ValueError as error:  # a null character, or a letter that no file name has
            raise UsageError(
                f"{escape_name(str(path))} cannot be the name of a file ({error}); choose another"
            ) from error
    if stat.S_ISDIR(facts.st_mode):
        return
    if not stat.S_ISREG(facts.st_mode) or _is_standard_output(facts):
        raise UsageError(f"{path} is a pipe, a device or standard output; expected the name of a file to write")


def _is_standard_output(facts: os.stat_result) -> bool:
    """Return whether a regular file is the one to which standard output is redirected, as /dev/stdout is then."""
    with suppress(OSError):
        return os.path.samestat(facts, os.fstat(1))
    return False


def remove_leftovers(paths: Iterable[Path]) -> None:
    """Remove what killed writers of these files left; each folder is listed once.

    Also call this before many files are written to one folder, each with `atomic_write(path, sweep=False)`.
    """
    names: dict[Path, set[tuple[str, str]]] = defaultdict(set)
    for path in paths:
        names[path.parent].add((_shorten(path.stem), path.suffix))
    pattern = re.compile(rf"\.(.+)\.{re.escape(_this_host())}\.(\d+)\.partial(.*)", re.DOTALL)
    for folder, wanted in names.items():
        with suppress(OSError):  # a folder may not exist, or be writable and yet not readable
            for file in folder.iterdir():
                if (match := pattern.fullmatch(file.name)) and (match[1], match[3]) in wanted:
                    _remove_abandoned(file, int(match[2]))


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, on the disk when this returns."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in missing:
        _sync(one.parent)


def check_writable(folder: Path) -> None:
    """Raise MachineError if a file cannot be written in the folder, which is created; call this before long work."""
    probe = folder / f".{_this_process()}.probe"
    with _explain_os_errors(folder):
        make_folder(folder)
        _sweep(folder, ".", ".probe")
        try:
            probe.write_bytes(bytes(PROBE_BYTES))
        finally:
            probe.unlink(missing_ok=True)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Lock `folder` until the block ends; a lock ends with its process, however that ends.

    For commands that write several files over a long time. The others write each finished file atomically and without
    a lock, which devices have no package for: the last one wins, and no file is a mixture.

    Raises UsageError if another process holds the lock, MachineError if the file system has no locks.
    """
    locks = require("filelock", extra="train", purpose="writing a run folder")
    file = folder / LOCK
    lock = locks.FileLock(file, blocking=False)
    try:
        lock.acquire()
    except locks.Timeout as error:
        raise UsageError(
            f"another process is writing to {folder}; wait until it ends, or choose another --out"
        ) from error
    except (OSError, NotImplementedError) as error:
        raise MachineError(
            f"cannot lock {folder}: {getattr(error, 'strerror', None) or error}; choose an --out on a local disk that "
            "this user may write"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
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


def _raise_if_disk_full(error: Exception, path: Path) -> None:
    """Raise MachineError if `error` means that nothing can be written to the disk."""
    if (number := find_errno(error)) in DISK:
        raise MachineError(f"cannot write {path}: {os.strerror(number)}") from error
    check_writable(path.parent)  # torch does not report a full disk; the partial file still fills it
    if is_failed_write(error):
        raise MachineError(f"cannot write {path}; the disk, or a quota, may be full ({error})") from error


@cache
def _this_host() -> str:
    """Return a short name of this machine: several may write to one network share."""
    return re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:24] or "localhost"


def _this_process() -> str:
    return f"{_this_host()}.{os.getpid()}"


def _shorten(name: str) -> str:
    """Return a name, or its hash if a temporary name made of it would be too long for a file system."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= MAX_NAME_BYTES else hashlib.sha256(encoded).hexdigest()


def _sweep(folder: Path, before: str, after: str) -> None:
    """Remove the temporary files and folders `before`HOST.PID`after` of processes of this machine that have ended."""
    pattern = re.compile(re.escape(f"{before}{_this_host()}.") + r"(\d+)" + re.escape(after))
    with suppress(OSError):  # a folder may be writable and yet not readable
        for file in folder.iterdir():
            if match := pattern.fullmatch(file.name):
                _remove_abandoned(file, int(match[1]))


def _remove_abandoned(file: Path, pid: int) -> None:
    """Remove a temporary file or folder of this machine if its process has ended.

    A process that got the number of an ended one keeps that one's files; so do other machines, whose processes are not
    known here.
    """
    if not _is_running(pid):
        _remove(file)


def _is_running(pid: int) -> bool:
    """Return whether a process has this number; True on Windows, where asking would interrupt it."""
    if os.name == "nt" or pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # another user's
        return True
    return True


def _remove(path: Path) -> None:
    """Remove a temporary file or folder; another process may do so at the same time."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file is on the disk, or the names in a folder, where the system can do that."""
    if path.is_dir():
        with suppress(OSError):  # Windows cannot open a folder, and some file systems cannot synchronise one
            _sync_descriptor(os.open(path, os.O_RDONLY))
        return
    _sync_descriptor(os.open(path, os.O_RDONLY))


def _sync_descriptor(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
