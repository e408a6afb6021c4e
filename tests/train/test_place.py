"""Where training runs."""

import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from edgeemo.train.place import keep_freed_memory
assert sys.argv[1] == "default" or keep_freed_memory()
seen = []
for step in range(8):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(2**20 * share) for share in (1, 2, 4, 8, 8, 4, 2, 1)]  # 120 MB, freed at once
    seen.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(seen[3:]))  # at first the heap still grows, and where a block comes to lie may vary
"""


def page_faults_of_a_step(way):
    done = subprocess.run([sys.executable, "-c", STEPS, way], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is what gives freed memory back in this way")
def test_a_step_uses_the_memory_of_the_step_before():
    """By default most pages of 120 MB are cleared anew in every step, and with freed memory kept hardly any."""
    assert page_faults_of_a_step("kept") < page_faults_of_a_step("default") / 20
