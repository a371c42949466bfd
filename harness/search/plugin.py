"""Builds a plug-in sampler: executes its module, and checks what its function or class returns.

Optuna is imported inside the functions.
"""

import importlib
import inspect
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any

from harness.config.sampler_plugin import SamplerPlugin
from harness.errors import StudyError

if TYPE_CHECKING:
    import optuna


def build_plugin(plugin: SamplerPlugin, seed: int) -> "optuna.samplers.BaseSampler":
    """The sampler that a plug-in returns for a seed. Raises `StudyError` if it returns none, or its code fails."""
    from optuna.samplers import BaseSampler

    build: Any = getattr(_run(plugin, _import), plugin.name, None)
    if not _takes_seed(build):
        rule = "a plug-in sampler must be a function or class that can be called as `name(seed=...)`"
        remedy = (
            "Write a function `def make(seed): return SomeSampler(..., seed=seed)` in a file next to the study file."
        )
        raise StudyError(rule, value=plugin.text, remedy=remedy)
    sampler = _run(plugin, lambda _: build(seed=seed))
    if not isinstance(sampler, BaseSampler):
        rule = f"a plug-in sampler must return an `optuna.samplers.BaseSampler`, but returned {type(sampler).__name__}"
        raise StudyError(rule, value=plugin.text, remedy="Return one of Optuna's samplers, or of a subclass.")
    return sampler


def _takes_seed(build: Any) -> bool:
    try:
        inspect.signature(build).bind_partial(seed=0)
    except (TypeError, ValueError):
        return False
    return True


def _import(plugin: SamplerPlugin) -> ModuleType:
    if not plugin.is_file:
        return importlib.import_module(plugin.module)
    name = f"harness_sampler_{plugin.digest}"
    module = sys.modules[name] = ModuleType(name)  # dataclasses and pickles of the module look it up there
    module.__file__ = str(plugin.code)
    exec(compile(plugin.source, plugin.code, "exec"), module.__dict__)  # an import would leave a `__pycache__`
    return module


def _run(plugin: SamplerPlugin, step: Any) -> Any:
    """The result of a step of a plug-in's code. Raises `StudyError` with the line for any error of it."""
    try:
        return step(plugin)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(plugin.code)]
        place = f"{plugin.code}:{lines[-1]}" if lines else str(plugin.code)
        rule = f"the code of a plug-in sampler must run without an error, but {type(error).__name__}: {error}"
        raise StudyError(rule, place=place, remedy="Put it right.") from error
