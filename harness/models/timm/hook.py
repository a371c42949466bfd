"""Registers the presets in timm, whether timm is imported before the harness or after it.

`import harness` must stay light, and timm imports torch. So if timm is not loaded yet, a finder is put first in
`sys.meta_path` and waits for the name `timm`: it lets the other finders find the module and the module's own loader
execute it, then registers the presets and removes itself. All other imports are unaffected; a timm that is missing or
fails on import fails as without the finder. A forked process inherits the finder, a spawned process creates its own.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def install() -> None:
    """Register the presets in timm: now, or as soon as timm is imported. Idempotent."""
    if sys.modules.get("timm") is not None:
        _register()
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """For `timm`, the module spec from the other finders, with a loader that registers; None for other modules."""
        if name != "timm":
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next((module_spec for finder in others if (module_spec := finder.find_spec(name, path, target))), None)
        if spec is not None:
            spec.loader = _Loader(spec.loader, self)  # type: ignore[assignment]
        return spec


class _Loader:
    """Wraps timm's own loader; registers the presets after the module is executed."""

    def __init__(self, loader: Any, finder: _Finder) -> None:
        self.loader = loader
        self.finder = finder

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None, "a module that is loaded by a spec has one"
        module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)
        # A new list: a thread in the middle of another import still iterates over the old one and skips no finder.
        sys.meta_path = [finder for finder in sys.meta_path if finder is not self.finder]
        _register()


def _register() -> None:
    """Import the module that registers the presets; warn if this timm lacks the functions it needs."""
    try:
        import_module("harness.models.timm.replknet")
    except ImportError as error:
        import warnings

        warnings.warn(f"RepLKNet is not registered in timm: {error}", RuntimeWarning, stacklevel=2)
