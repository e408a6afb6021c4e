"""Device setup."""

import sys

import forked
import pytest

from edgeemo.errors import DataError, UsageError
from edgeemo.stages import Train
from edgeemo.train import device, fit

STEPS = """
import resource, sys
import torch
from edgeemo.train.device import keep_freed_memory

def page_faults():
    faults = []
    for step in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        [torch.ones(2**20 * share) for share in (1, 2, 4, 8, 8, 4, 2, 1)]  # 120 MB, freed at once
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(faults[3:])  # the heap grows in the first steps, and the location of blocks may vary

print(page_faults())
assert keep_freed_memory()
print(page_faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc returns freed memory in this way")
def test_a_step_reuses_the_memory_of_the_previous_one(tmp_path):
    """By default, most pages of 120 MB are cleared again in every step; if freed memory is kept, hardly any."""
    process = forked.python(tmp_path / "output", STEPS)
    process.join()
    output = (tmp_path / "output").read_text()
    assert process.exitcode == 0, output
    default, kept = map(int, output.split())
    assert kept < default / 20


@pytest.mark.parametrize(
    ("processes", "batch_size", "accepted"), [(1, 2, True), (2, 2, False), (2, 3, False), (2, 4, True), (3, 6, True)]
)
def test_a_batch_needs_two_faces_in_each_process(monkeypatch, processes, batch_size, accepted):
    """BatchNorm would fail in the first step; torchrun starts as many processes as it sets in WORLD_SIZE."""
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    config = Train(weights="none", batch_size=batch_size)
    if accepted:
        device.check(config)
    else:
        with pytest.raises(UsageError, match=rf"--batch-size {batch_size}: .* {processes} processes, 4 or more"):
            device.check(config)


@pytest.mark.parametrize(("faces", "processes", "size"), [(2, 1, 2), (40, 1, 32), (31, 2, 30), (5, 2, 4)])
def test_a_batch_of_few_faces_is_shared_evenly(faces, processes, size):
    """A last face that would be alone in a process is left out."""
    assert fit._choose_batch_size(32, faces, processes) == size


@pytest.mark.parametrize(("faces", "processes"), [(1, 1), (3, 2), (0, 1)])
def test_too_few_faces_for_the_processes_are_refused(faces, processes):
    """Before the first step."""
    with pytest.raises(DataError, match=f"{faces} train faces: expected {2 * processes} or more"):
        fit._choose_batch_size(32, faces, processes)
