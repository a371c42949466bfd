"""Modules are found under the earlier names that users type or that model cards import."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def test_a_model_card_of_an_earlier_version_loads_weights() -> None:
    assert import_module("harness.weights").load_weights is import_module("harness.models.weights").load_weights


def test_a_script_of_timm_is_run_under_the_earlier_name(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import sys, timm; print(sys.argv[1], timm.is_model('replknet_31b'))")
    command = [sys.executable, "-m", "harness.timm_script", str(tmp_path / "train.py"), "x"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.split() == ["x", "True"]
