"""Checks for values that are not finite: an argmax, a mean or a comparison over NaN returns a meaningless number.

Shapes: N images.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from harness.errors import Diverged, UserError, first_of

MAX_NAMED = 3
"""Most entries named in a message."""


def require_finite(output: Tensor, model: nn.Module, images: Any, subject: str = "the logits of an image") -> None:
    """Raise `Diverged` if an output of `model` for `images` is NaN or infinite, naming the first such layer.

    The network is run once more to find the layer, in the caller's precision; `subject` is that of the message.
    """
    if not bool(output.isfinite().all()):
        raise Diverged(describe_fault(model, images, subject))


def describe_fault(model: nn.Module, images: Any, subject: str) -> str:
    """A sentence that names the weights, or else the first layer, that are not finite."""
    entries = nonfinite_entries(model.state_dict())
    if entries:
        return f"{subject} must be finite; of the weights {count_nonfinite(entries)}"
    layer = first_nonfinite_layer(lambda: model(images), model)
    if layer is None:
        return f"{subject} must be finite"
    return f"{subject} must be finite; the first layer whose output is NaN or infinite is `{layer}`"


def nonfinite_entries(entries: Mapping[str, Any]) -> dict[str, int]:
    """The number of NaN or infinite values in each entry, by name; entries without any are left out."""
    counts = {}
    for name, value in entries.items():
        if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()):
            bad = value.numel() - int(value.isfinite().sum())
            if bad:
                counts[name] = bad
    return counts


def count_nonfinite(counts: Mapping[str, int]) -> str:
    """The result of `nonfinite_entries` as text: the number of entries, and the first ones with their counts."""
    named = first_of([f"`{name}`: {count:,}" for name, count in counts.items()], MAX_NAMED)
    entries_hold = "entry holds" if len(counts) == 1 else "entries hold"
    return f"{len(counts):,} {entries_hold} values that are NaN or infinite ({named})"


@torch.no_grad()
def first_nonfinite_layer(run_forward: Callable[[], Any], model: nn.Module) -> str | None:
    """The name of the first module, in the order of computation, whose output is NaN or infinite; None without any."""
    faults: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:  # noqa: ARG001 (the hook's signature)
            tensors = (leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor))
            if not faults and any(not bool(tensor.isfinite().all()) for tensor in tensors):
                faults.append(name)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        with suppress(Diverged):  # a detector checks its own outputs
            run_forward()
    finally:
        for handle in handles:
            handle.remove()
    return faults[0] if faults else None


@contextmanager
def as_user_error(name: str, remedy: str = "Take the weights of an earlier epoch, or train again.") -> Iterator[None]:
    """Convert `Diverged` into a `UserError` that names the network given on the command line."""
    try:
        yield
    except Diverged as error:
        raise UserError(str(error), place=name, remedy=remedy) from error
