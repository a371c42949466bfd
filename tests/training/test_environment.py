"""What computed a run: the environment of this machine with and without torch, comparison, and its words."""

import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import RECIPE, tiny_run, with_

from harness.executors.run_job import run_job
from harness.system import machine
from harness.training import environment
from harness.training.environment import (
    UNKNOWN_ENVIRONMENT,
    Environment,
    cluster_environment,
    describe_difference,
    describe_environment,
    differs,
    local_environment,
)
from harness.training.run import Job, Started

HERE = local_environment(RECIPE)
OTHERS: dict[str, tuple[Any, str]] = {
    "operator": ("a1b2", "operator revision a1b2"),
    "code": ("9f", "training code 9f"),
    "torch": ("2.14", "torch 2.14"),
    "libraries": ({**(HERE.libraries or {}), "numpy": "1.0"}, "numpy 1.0"),
    "capability": ("AVX1", "AVX1 kernels"),
    "processor": ("avx", "processor features avx"),
    "threads": (7, "7 threads"),
    "device": ("cuda", f"device cuda ({HERE.device_name})"),
    "device_name": ("Other", "Other"),
    "precision": ("bfloat16", "bfloat16"),
    "settings": ({"MKL_CBWR": "AVX2"}, "MKL_CBWR=AVX2"),
}


def test_every_field_that_differs_is_named() -> None:
    assert OTHERS.keys() == {field.name for field in fields(Environment)}
    for name, (value, words) in OTHERS.items():
        other = replace(HERE, **{name: value})
        assert differs(other, HERE) and describe_difference(other, HERE) == words
        assert words in describe_environment(other) or name == "device_name"


def test_several_differences_are_listed() -> None:
    other = replace(HERE, operator="a1b2", torch="2.14")
    assert describe_difference(other, HERE) == "operator revision a1b2, torch 2.14"


def test_an_equal_environment_does_not_differ_and_an_unknown_one_does() -> None:
    assert not differs(replace(HERE), HERE) and describe_difference(HERE, HERE) == ""
    assert differs(None, HERE) and describe_difference(None, HERE) == UNKNOWN_ENVIRONMENT == describe_environment(None)


def test_what_is_not_known_is_not_compared() -> None:
    assert not differs(replace(HERE, torch=None), HERE)
    cluster = cluster_environment(HERE)
    assert not differs(replace(HERE, torch="1", device="cuda", libraries={}, settings={"A": "1"}), cluster)
    assert differs(replace(HERE, operator="a1b2"), cluster) and differs(replace(HERE, threads=3), cluster)


def test_plain_values_give_the_environment_back_and_may_be_of_another_version() -> None:
    assert Environment.from_values(HERE.values()) == HERE
    assert Environment.from_values({"torch": "3", "something": 1}) == Environment(torch="3")
    assert Environment.from_values(None) is None


def test_a_worker_has_the_environment_that_was_predicted_without_torch(tmp_path: Path) -> None:
    first = next(iter(run_job(Job(tiny_run(), tmp_path / "s"))))
    assert isinstance(first, Started)
    code = (
        "import sys, json; from harness.training.environment import *; "
        "from harness.config.recipes.proxy import ProxyRecipe; "
        "print(json.dumps(local_environment(ProxyRecipe()).values())); "
        "print(*{'torch', 'numpy', 'timm', 'llvmlite'} & set(sys.modules), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.split() == []
    assert first.environment == Environment.from_values(json.loads(result.stdout))
    assert first.environment is not None
    assert first.environment.torch == torch.__version__
    assert first.environment.capability == torch.backends.cpu.get_cpu_capability()


def test_a_transfer_has_more_code_and_libraries() -> None:
    other = local_environment(with_(transfer={}))
    assert other.code != HERE.code and "torchvision" in (other.libraries or {})


@pytest.mark.parametrize(
    ("setting", "flags", "capability"),
    [
        ("", "avx2 fma avx512vl avx512bw avx512dq", "AVX512"),
        ("", "avx2 fma avx512f", "AVX2"),
        ("", "sse2", "DEFAULT"),
        ("avx2", "avx2 fma avx512vl avx512bw avx512dq", "AVX2"),
        ("default", "avx2 fma", "DEFAULT"),
    ],
)
def test_the_instructions_are_those_that_torch_would_choose(
    monkeypatch: pytest.MonkeyPatch, setting: str, flags: str, capability: str
) -> None:
    monkeypatch.setattr(machine, "_cpu_flags", lambda: frozenset(flags.split()))
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", setting)
    assert machine.cpu_capability() == capability


def test_a_setting_of_the_process_is_part_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    assert describe_difference(local_environment(RECIPE), HERE) == "MKL_CBWR=COMPATIBLE"


def test_a_gpu_is_known_by_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0000:01").mkdir()
    (tmp_path / "0000:01" / "information").write_text("Model: \t\t NVIDIA H200\nIRQ: 1\n")
    monkeypatch.setattr(machine, "GPUS", tmp_path)
    monkeypatch.setattr(environment, "gpu_name", machine.gpu_name.__wrapped__)
    monkeypatch.setattr(environment, "has_gpu", lambda: True)
    on_gpu = local_environment(RECIPE, gpus=0.5)
    assert (on_gpu.device, on_gpu.device_name) == ("cuda", "NVIDIA H200")
    (tmp_path / "0000:02").mkdir()
    (tmp_path / "0000:02" / "information").write_text("Model: NVIDIA L4\n")
    assert local_environment(RECIPE, gpus=0.5).device_name is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local_environment(RECIPE, gpus=0.5).device == "cpu"
