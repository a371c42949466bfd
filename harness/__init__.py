"""Architecture studies of large-kernel convolutional networks: from one YAML file to a statistically tested answer.

The names of `__all__` are the public API, described in docs/python_api.md. Each is imported at its first use, so
`import harness` loads neither torch nor any other library.
"""

from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING

from harness.models.timm.hook import install as _install

if TYPE_CHECKING:
    from harness.analysis.networks import load_network
    from harness.analysis.results import StudyResults
    from harness.analysis.study_reader import load_results
    from harness.cli.study_run import run_study
    from harness.config.study_file import load_study
    from harness.errors import HarnessError, UserError
    from harness.export.export import export_network
    from harness.models.build import build as build_network
    from harness.models.build import fold, merge
    from harness.models.cost import network_cost
    from harness.models.spec.kernel import Kernel
    from harness.models.spec.network import NetworkSpec
    from harness.models.spec.presets import PRESETS, preset
    from harness.models.weights import load_weights
    from harness.ops import DepthwiseConv2d, autotune, depthwise_conv2d
    from harness.storage.load_network import LoadedNetwork

__version__ = "0.1.0"

__all__ = [
    "PRESETS",
    "DepthwiseConv2d",
    "HarnessError",
    "Kernel",
    "LoadedNetwork",
    "NetworkSpec",
    "StudyResults",
    "UserError",
    "autotune",
    "build_network",
    "depthwise_conv2d",
    "export_network",
    "fold",
    "load_network",
    "load_results",
    "load_study",
    "load_weights",
    "merge",
    "network_cost",
    "preset",
    "run_study",
]

_HOMES = {
    "PRESETS": "harness.models.spec.presets.PRESETS",
    "DepthwiseConv2d": "harness.ops.DepthwiseConv2d",
    "HarnessError": "harness.errors.HarnessError",
    "Kernel": "harness.models.spec.kernel.Kernel",
    "LoadedNetwork": "harness.storage.load_network.LoadedNetwork",
    "NetworkSpec": "harness.models.spec.network.NetworkSpec",
    "StudyResults": "harness.analysis.results.StudyResults",
    "UserError": "harness.errors.UserError",
    "autotune": "harness.ops.autotune",
    "build_network": "harness.models.build.build",
    "depthwise_conv2d": "harness.ops.depthwise_conv2d",
    "export_network": "harness.export.export.export_network",
    "fold": "harness.models.build.fold",
    "load_network": "harness.analysis.networks.load_network",
    "load_results": "harness.analysis.study_reader.load_results",
    "load_study": "harness.config.study_file.load_study",
    "load_weights": "harness.models.weights.load_weights",
    "merge": "harness.models.build.merge",
    "network_cost": "harness.models.cost.network_cost",
    "preset": "harness.models.spec.presets.preset",
    "run_study": "harness.cli.study_run.run_study",
}
"""The module and the name in it of each public name."""

__path__.append(str(_Path(__file__).parent / "models" / "earlier_names"))

_install()

if not TYPE_CHECKING:  # with it, type checkers would accept any name

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _HOMES[name].rpartition(".")
        globals()[name] = value = getattr(_import_module(module), attribute)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
