"""What the harness asks of the machine that it runs on."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch, torch._dynamo
from harness.machine import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory() and keep_freed_memory()
torch.set_num_threads(1)
for step in range(21):
    if step == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(10 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
"""Page faults of 160 allocations of 40 MiB, after the first eight."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_memory_that_is_kept_is_not_faulted_in_again() -> None:
    faults = {}
    for mode in ("keep", "as it is"):
        done = subprocess.run([sys.executable, "-c", STEPS, mode], capture_output=True, text=True, check=True)
        faults[mode] = int(done.stdout)
    assert faults["keep"] < faults["as it is"] / 10
