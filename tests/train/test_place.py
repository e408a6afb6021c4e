"""Where training runs."""

import sys

import forked
import pytest

STEPS = """
import resource, sys
import torch
from edgeemo.train.place import keep_freed_memory

def page_faults():
    seen = []
    for step in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        [torch.ones(2**20 * share) for share in (1, 2, 4, 8, 8, 4, 2, 1)]  # 120 MB, freed at once
        seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return min(seen[3:])  # at first the heap still grows, and where a block comes to lie may vary

print(page_faults())
assert keep_freed_memory()
print(page_faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is what gives freed memory back in this way")
def test_a_step_uses_the_memory_of_the_step_before(tmp_path):
    """By default most pages of 120 MB are cleared anew in every step, and with freed memory kept hardly any."""
    process = forked.python(tmp_path / "said", STEPS)
    process.join()
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 0, said
    default, kept = map(int, said.split())
    assert kept < default / 20
