"""What the harness asks of the machine that it runs on."""

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.system import machine
from harness.system.machine import available_cpus, cpu_quota

STEPS = """
import resource
import torch
from harness.system.machine import keep_freed_memory
torch.set_num_threads(1)

def page_faults():
    for step in range(6):
        if step == 1:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(8):
            torch.ones(10 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(page_faults())
assert keep_freed_memory() and keep_freed_memory()
print(page_faults())
"""
"""Page faults of 40 allocations of 40 MiB, after the first eight: as the machine is, and with memory kept."""


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_memory_that_is_kept_is_not_faulted_in_again() -> None:
    result = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    as_it_is, kept = map(int, result.stdout.split())
    assert kept < as_it_is / 10


# Processors


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "400000 100000", "a/cpu.max": "max 100000", "a/b/cpu.max": "200000 100000"}, 2.0),
        ({"cpu.max": "100000 100000", "a/b/cpu.max": "300000 100000"}, 1.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 2.5),
        ({"cpu.max": "nonsense"}, None),
    ],
)
def test_the_quota_of_a_control_group_is_the_least_of_those_above_it(
    tmp_path: Path, files: dict[str, str], quota: float | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    cgroup_file = tmp_path / "own"
    cgroup_file.write_text("0::/a/b\n")
    assert cpu_quota(tmp_path, cgroup_file) == quota
    assert cpu_quota(tmp_path, tmp_path / "none") == (None if "cpu.max" in files or not files else quota)


@pytest.mark.parametrize(("quota", "cpus"), [(None, 4), (2.5, 2), (1.999, 2), (0.5, 1), (64.0, 4)])
def test_processors_are_those_of_the_affinity_or_fewer(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cpus: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5, 7}, raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert available_cpus() == cpus


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_ray_gets_the_processors_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from harness.executors import ray_cluster

    ray_settings: dict[str, Any] = {}
    monkeypatch.setattr(ray, "init", lambda **settings: ray_settings.update(settings))
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        ray_cluster.start_cluster()
    finally:
        os.sched_setaffinity(0, before)
    assert ray_settings["num_cpus"] == 1
