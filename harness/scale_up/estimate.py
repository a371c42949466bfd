"""How long an image takes in training on this machine, measured before a long training begins."""

import torch
from torch.nn import functional as F

from harness.cost import network_cost
from harness.errors import UserError
from harness.full_recipe import FullRecipe
from harness.measures.base import own_randomness
from harness.measures.timing import Patience, interleave
from harness.network import build
from harness.network.checkpointing import enable_checkpointing
from harness.scale_up.records import FullRun
from harness.training import autocast

PATIENCE = Patience(least=1, most=2, seconds=1.0)
LEAST_ON_A_CPU, MACS_ON_A_CPU = 2, 10_000_000_000
"""On a CPU as many images are tried as have so many MACs, or two: from there on time grows with their number alone."""


def image_s(run: FullRun[FullRecipe], device: torch.device, images: int) -> float:
    """Seconds per image of a step forward and backward, with so many at once, or as few as will do on a CPU.

    Raises `UserError` where there is too little memory for them.
    """
    recipe = run.recipe
    count = images
    if device.type == "cpu":
        macs = network_cost(run.spec, recipe.resolution, merged=False).macs
        count = min(images, max(LEAST_ON_A_CPU, MACS_ON_A_CPU // macs))
    with own_randomness(device):
        step = _Step(run, device, count)
        times = interleave({"step": step}, device, PATIENCE)["step"]
    if device.type == "cuda":
        torch.cuda.empty_cache()  # other processes may be about to use this GPU
    if times is None:
        raise UserError(
            f"the device must have memory for {count} images of {recipe.resolution} pixels in training",
            value=str(device),
            remedy="Take a smaller `--micro-batch`, `--precision bfloat16`, or a recipe with `checkpointing: true`.",
        )
    return times.median / count


class _Step:
    """A network and random images; a call goes forward and backward."""

    def __init__(self, run: FullRun[FullRecipe], device: torch.device, count: int) -> None:
        self._recipe, self._device = run.recipe, device
        form = torch.channels_last if run.recipe.channels_last else torch.contiguous_format
        self._model = build(run.spec, seed=0).to(device).to(memory_format=form).train()
        if run.recipe.checkpointing:
            enable_checkpointing(self._model, run.spec.family)
        side = run.recipe.resolution
        self._images = torch.randn(count, run.spec.in_channels, side, side, device=device).contiguous(
            memory_format=form
        )
        self._labels = torch.zeros(count, dtype=torch.int64, device=device)

    def __call__(self) -> None:
        self._model.zero_grad(set_to_none=True)
        with autocast(self._recipe, self._device):
            loss = F.cross_entropy(self._model(self._images).float(), self._labels)
        torch.autograd.backward(loss)
