"""Makes the presets known to timm, whether timm is imported before the harness or after it.

`import harness` must stay light, and timm brings torch. So where timm is not loaded yet, a finder stands first among
`sys.meta_path` and waits for the one name `timm`: it lets the other finders find the module and the module's own loader
execute it, then it registers the presets and is gone. Every other import passes it by; a timm that is not installed,
or that fails on import, fails as it would without it. A process that is forked or spawned has, or makes, its own.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def install() -> None:
    """Register the presets in timm: now, or as soon as somebody imports it. Called again, it does nothing twice."""
    if sys.modules.get("timm") is not None:
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Of `timm`, the specification that the other finders give, with a loader that registers; of all else, none."""
        if name != "timm":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((module_spec for finder in others if (module_spec := finder.find_spec(name, path, target))), None)
        if spec is not None:
            spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
        return spec


class _Loader:
    """timm's own loader in all but the execution, after which the presets are registered."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self.loader = loader
        self.finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None, "a module that is loaded by its specification has one"
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        # A new list: a thread in the middle of another import goes on along the old one and skips no finder.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self.finder]
        _register()


def _register() -> None:
    """Import the module that registers. A timm without the functions it needs stays usable without the presets."""
    try:
        import_module("harness.models.timm.replknet")
    except ImportError as error:
        import warnings

        warnings.warn(f"RepLKNet is not registered in timm: {error}", RuntimeWarning, stacklevel=2)
