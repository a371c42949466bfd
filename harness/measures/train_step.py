"""Whether the network can be trained as the recipe says, and what a step takes: time and memory."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from harness.data.augment import normalize
from harness.errors import OutOfMemory
from harness.measures.allocation import extra_bytes
from harness.measures.base import Trained
from harness.measures.timing_cache import Metrics, timed_alone
from harness.ops.timing import Patience, interleave
from harness.training.device import own_randomness
from harness.training.fit import autocast

PATIENCE = Patience(least=3, most=10, seconds=2.0, once_s=10.0)


def train_step(trained: Trained) -> Iterator[tuple[str, float]]:
    """One step forward and backward at the recipe's resolution, batch size and precision, on a copy of the network.

    Seconds are the median of 3 to 10 steps, or of one where a step takes 10 s. Bytes are the most that tensors take at
    a time: parameters, buffers, images, activations and gradients, without the optimiser's state. They are what PyTorch
    allocates, on a CPU too, where the resident size of a process that has trained does not tell, for it keeps what it
    freed; that of a fresh process grows by 1.2 to 1.9 times as much (replknet_3 at 224 px, replknet_nano at 48 px).
    Where other work of ours did not make room for the times, they are `train_step_disturbed` (1.0).
    Gradients are finite (1.0) where every parameter has one and no number of it is NaN or infinite; else 0.0.
    """
    with own_randomness(trained.device):
        peak_bytes = extra_bytes(lambda: Step(trained)(), trained.device)
        step = Step(trained)
        metrics, is_quiet = timed_alone(trained, lambda: _times(step, trained))
    yield from (metrics if is_quiet else metrics | {"train_step_disturbed": 1.0}).items()
    yield "train_step_peak_bytes", float(peak_bytes)
    yield "train_step_gradients_finite", float(step.has_finite_gradients)


def _times(step: "Step", trained: Trained) -> Metrics:
    batch = trained.recipe.batch_size
    times = interleave({"step": step}, trained.device, PATIENCE)["step"]
    if times is None:
        raise OutOfMemory(f"the measure `train_step` needs memory for {batch} images at once")
    return {"train_step_s": times.median, "train_step_images_per_s": batch / times.median}


class Step:
    """A copy of a network and one batch of its training images; a call goes forward and backward, and gives nothing."""

    def __init__(self, trained: Trained) -> None:
        train, recipe = trained.dataset.train, trained.recipe
        memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
        index = np.arange(recipe.batch_size) % len(train)  # a split may be smaller than a batch
        images = torch.from_numpy(train.images[index]).to(trained.device)
        self._trained = trained
        self._model = copy.deepcopy(trained.model).train()
        self._images = normalize(images, trained.dataset).contiguous(memory_format=memory_format)
        self._labels = torch.from_numpy(train.labels[index]).to(trained.device)

    def __call__(self) -> tuple[Tensor, ...]:  # noqa: D102 (the class says it)
        self._model.zero_grad(set_to_none=True)
        recipe = self._trained.recipe
        with autocast(recipe, self._trained.device):
            logits = self._model(self._images).float()
            loss = F.cross_entropy(logits, self._labels, label_smoothing=recipe.label_smoothing)
        torch.autograd.backward(loss)
        return ()

    @property
    def has_finite_gradients(self) -> bool:
        """Whether the last call left a finite gradient to every parameter."""
        return all(p.grad is not None and bool(p.grad.isfinite().all()) for p in self._model.parameters())
