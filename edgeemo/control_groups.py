"""The control groups that limit this process on Linux, such as those of a container."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

OWN = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def list_control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the groups of this process that may limit `controller` (cpu or memory), parents last.

    Version 2 has one tree for all controllers (Linux's Documentation/admin-guide/cgroup-v2.rst), version 1 one for
    each (Documentation/admin-guide/cgroup-v1). In a container, the listed group may not exist under its own mount,
    whose root then is the container's group. Nothing is yielded on other systems.
    """
    for line in read_text(OWN).splitlines():
        _, names, path = line.split(":", 2)  # as in 4:cpu,cpuacct:/docker/1f2e, or in 0::/ of version 2
        if names and controller not in names.split(","):
            continue
        # Version 2 is at unified/ where version 1 is mounted as well.
        mounts = (MOUNT / names, MOUNT / controller) if names else (MOUNT, MOUNT / "unified")
        group = PurePosixPath(path.lstrip("/"))
        yield from (mount / part for mount in mounts for part in (group, *group.parents))


def read_text(file: Path) -> str:
    """Return the text of a small system file, or an empty text if it does not exist or cannot be read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
