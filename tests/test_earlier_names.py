"""Modules are found under the earlier names that users type or that model cards import."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("earlier", "present", "name"),
    [
        ("harness.weights", "harness.models.weights", "load_weights"),
        ("harness.network", "harness.models.build", "merge"),
        ("harness.presets", "harness.models.spec.presets", "PRESETS"),
        ("harness.spec", "harness.models.spec.network", "NetworkSpec"),
        ("harness.data.imagefolder", "harness.data.image_file", "read_full_image"),
    ],
)
def test_a_script_of_an_earlier_version_gets_the_same_objects(earlier: str, present: str, name: str) -> None:
    earlier_module = import_module(earlier)
    assert getattr(import_module(present), name) in [
        getattr(earlier_module, exported) for exported in earlier_module.__all__
    ]


@pytest.mark.long
def test_a_script_of_timm_is_run_under_the_earlier_name(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("import sys; print(sys.argv[1], 'harness' in sys.modules)")
    command = [sys.executable, "-m", "harness.timm_script", str(tmp_path / "train.py"), "x"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert result.stdout.split() == ["x", "True"]
