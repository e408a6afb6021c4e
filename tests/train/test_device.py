"""Device setup."""

import sys

import forked
import pytest

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
