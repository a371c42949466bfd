"""Maps that stop shrinking at a stride, for dense prediction: dilation in place of the later transitions' steps."""

from collections.abc import Iterator, Sequence

from torch import nn

from harness.errors import UserError
from harness.models.replknet import RepLKNet


def hold_stride(network: RepLKNet, strides: Sequence[int], output_stride: int) -> list[int]:
    """Change the network in place so that no stage has a larger stride; `strides` are those of its stages until now.

    On every n-th pixel, n the old stride by the new one, the maps are what they were, borders included. Returns the new
    strides of the stages.
    """
    if output_stride not in strides:
        raise UserError(
            "`output_stride` must be the stride of a stage",
            value=output_stride,
            remedy=f"Strides: {', '.join(map(str, strides))}.",
        )
    dilation = 1
    for transition, stage, stride in zip(network.transitions, network.stages[1:], strides[1:], strict=True):
        _dilate(transition, dilation)
        if stride > output_stride:
            for conv in _convolutions(transition):
                conv.stride = (1, 1)
            dilation *= 2
        _dilate(stage, dilation)
    return [min(stride, output_stride) for stride in strides]


def _dilate(module: nn.Module, dilation: int) -> None:
    for conv in _convolutions(module):
        conv.dilation = tuple(dilation * d for d in conv.dilation)
        conv.padding = tuple(dilation * int(p) for p in conv.padding)


def _convolutions(module: nn.Module) -> Iterator[nn.Conv2d]:
    return (each for each in module.modules() if isinstance(each, nn.Conv2d))
