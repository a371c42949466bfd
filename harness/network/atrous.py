"""Maps that stop shrinking at a stride, for dense prediction: dilation in place of the later transitions' steps."""

from collections.abc import Sequence

from torch import nn

from harness.errors import UserError
from harness.network.replknet import RepLKNet


def hold_stride(network: RepLKNet, strides: Sequence[int], output_stride: int) -> list[int]:
    """Change the network in place so that no stage has a larger stride; `strides` are those of its stages until now.

    On every so-manieth pixel the maps are what they were, borders included. Returns the new strides of the stages.
    """
    if output_stride not in strides:
        raise UserError(
            "`output_stride` must be the stride of a stage",
            value=output_stride,
            remedy=f"Strides: {', '.join(map(str, strides))}.",
        )
    dilation = 1
    later = zip(network.transitions, network.stages[1:], strides[1:], strict=True)
    for transition, stage, stride in later:
        _dilate(transition, dilation)
        if stride > output_stride:
            transition[-1].conv.stride = (1, 1)
            dilation *= 2
        _dilate(stage, dilation)
    return [min(stride, output_stride) for stride in strides]


def _dilate(module: nn.Module, dilation: int) -> None:
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size != (1, 1):
            conv.dilation = tuple(dilation * d for d in conv.dilation)
            conv.padding = tuple(dilation * int(p) for p in conv.padding)
