"""Errors that mean that this machine is at a limit: a full disk, no memory, no permission, a closed pipe.

Libraries raise them as classes of their own, some with nothing but words; here they become one MachineError.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from edgeemo.errors import EdgeemoError, MachineError

OS_ERROR = re.compile(r"\(os error (\d+)\)")  # of libraries in Rust, such as safetensors
NO_WRITE = re.compile(r"PytorchStreamWriter|unexpected pos \d+ vs|\d+ requested and \d+ written")  # torch, numpy
NO_MEMORY = re.compile(
    r"can't allocate memory|not enough memory|out of memory|bad[ _]alloc|failed to allocate memory|insufficient memory"
    r"|failed to map segment|cannot allocate memory"  # a library that does not load
    r"|could not create a primitive",  # oneDNN
    re.IGNORECASE,
)
NO_THREADS = re.compile(r"can't start new thread|DataLoader worker .*killed by signal|unable to open shared memory")
NO_TEMPORARY = re.compile("No usable temporary directory")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ROOM = (errno.ENOMEM, errno.EAGAIN)  # of memory, or of processes
DISK = (*DISK_FULL, errno.EROFS)  # errors of writing only

MEMORY = "close other programs, or take smaller batches or inputs"
ADVICE = {
    **dict.fromkeys(DISK_FULL, "free space there, or choose another folder; temporary files are written to TMPDIR"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "choose a folder that this user may read and write"),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "raise the limit of open files:  ulimit -n"),
    **dict.fromkeys(NO_ROOM, MEMORY),
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENOLCK, errno.ENODEV), "see whether the disk or share still works"),
    errno.EPIPE: "what reads the output has ended",
}


def explain_limit(error: BaseException, *, memory: str = MEMORY) -> MachineError | None:
    """Return the MachineError for an error of a library at a limit of this machine; None for any other error.

    memory: what to do about too little of it.
    """
    for one in _list_causes(error):
        if not isinstance(one, EdgeemoError) and (reason := _describe(one, memory)):
            return MachineError(reason)
    return None


def check_shortage(error: BaseException) -> None:
    """Raise MachineError if memory, processes or open files are used up; call this before input is called damaged."""
    if is_shortage(error) and (explained := explain_limit(error)):
        raise explained from error


def is_shortage(error: BaseException) -> bool:
    """Return whether an error means that memory, processes or open files are used up."""
    short = (*NO_ROOM, errno.EMFILE, errno.ENFILE)
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None or find_errno(error) in short


def find_errno(error: BaseException) -> int:
    """Return the errno of an error, 0 if it has none; libraries in Rust give it in the message only."""
    match = OS_ERROR.search(str(error))
    return int(match[1]) if match else getattr(error, "errno", None) or 0


def is_failed_write(error: BaseException) -> bool:
    """Return whether a library failed to write a file without saying why, as torch and numpy do."""
    return NO_WRITE.search(str(error)) is not None


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from, or while they were handled."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _describe(error: BaseException, memory: str) -> str:
    """Return what is at its limit and what to do, empty if nothing is."""
    text = (str(error) or type(error).__name__).strip().splitlines()[0]
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        return f"not enough memory ({text}): {memory}"
    if NO_THREADS.search(str(error)):
        return f"this machine refuses another process, thread or shared memory ({text}): use --workers 0"
    if NO_TEMPORARY.search(str(error)):
        return "no folder for temporary files can be written: set TMPDIR to one that can"
    number = find_errno(error)
    if number in ADVICE and (isinstance(error, OSError) or OS_ERROR.search(str(error))):
        where = getattr(error, "filename", None) or "input or output"
        return f"{where}: {os.strerror(number)}; {memory if number in NO_ROOM else ADVICE[number]}"
    return f"a file cannot be written ({text}); {ADVICE[errno.ENOSPC]}" if is_failed_write(error) else ""
