"""The measure `zero_cost`: scores of an untrained network that are meant to order networks as their training does.

Sources: SynFlow, Tanaka et al. 2020 (arXiv 2006.05467), as a score of a network by Abdelfattah et al. 2021 (arXiv
2101.08134); the gradient norm, the same; NASWOT, Mellor et al. 2021 (arXiv 2006.04647). Each is computed on a copy of
the initial network with one thread, so that equal runs have bitwise equal scores, and the network, its gradients and
the global random state stay as they are.

Shapes: N images, C channels, H W height and width of the images.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.config.measures import SCORES, ScoreName
from harness.config.recipes.proxy import ProxyRecipe
from harness.data import Dataset
from harness.data.augment import normalize
from harness.measures.base import TrainedRun
from harness.measures.receptive_field import HasFeatures, balanced_indices
from harness.models.layers import DropPath
from harness.system.device_slot import yield_slot

SCORE_IMAGES = 32
"""Number of training images of the scores that need images, balanced over the classes."""
FIELD_SIDE = 1 << 15
"""Side of the image, without data, on which the theoretical receptive field is counted: no kernel is larger than the
maps of such an image, so that none is cut."""

ACTIVATIONS = (F.relu, torch.relu, torch.relu_, F.relu6, F.hardtanh, F.gelu)
NORMS = (F.batch_norm, torch.batch_norm, F.layer_norm, torch.layer_norm)
CONVOLUTIONS = (F.conv2d, torch.conv2d)


class ScoreInputs(NamedTuple):
    """What a score is computed from."""

    model: nn.Module
    """With its initial weights, on the CPU, in training form."""
    images: Tensor
    """Normalized training images (N, C, H, W); for scores that use no images, their shape alone counts."""
    labels: Tensor
    """(N,)"""


def zero_cost(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """All scores of the initial weights, in the recipe's resolution, under the names of their metrics."""
    images, labels = score_images(trained.dataset)
    inputs = ScoreInputs(trained.model, images, labels)
    for name, metric in SCORES.items():
        yield metric, score(name, inputs)


def score(name: ScoreName, inputs: ScoreInputs) -> float:
    """One score; larger ones are meant to be better. -inf or NaN if it is not defined for this network."""
    yield_slot()
    device_free = inputs._replace(model=copy.deepcopy(inputs.model).cpu())
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), one_thread():
        torch.manual_seed(0)  # for modules that draw in training, such as dropout
        return SCORE_FUNCTIONS[name](device_free)


def score_images(dataset: Dataset) -> tuple[Tensor, Tensor]:
    """The training images of the scores (N, C, H, W), normalized, and their labels (N,)."""
    train = dataset.train
    chosen = balanced_indices(train.labels, SCORE_IMAGES)
    return normalize(torch.from_numpy(train.images[chosen]), dataset), torch.from_numpy(train.labels[chosen])


def blank_images(recipe: ProxyRecipe, channels: int) -> tuple[Tensor, Tensor]:
    """One image without content, for the scores that use none."""
    return torch.zeros(1, channels, recipe.resolution, recipe.resolution), torch.zeros(1, dtype=torch.int64)


def synflow(inputs: ScoreInputs) -> float:
    """log10 of the sum over all weights w of |w| dR/d|w|, with R the sum of the outputs for an image of ones.

    The network is made linear: every parameter is replaced by its absolute value, norms and activations by the
    identity. That is what ReLU does to values that are not negative, but not what GELU does; with GELU itself, the
    score would depend on the scale of the values. The weights are those of convolutions and linear layers. In float64.
    """
    model = inputs.model.double().eval().requires_grad_()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    weights = _weights(model)
    ones = torch.ones(1, *inputs.images.shape[1:], dtype=torch.float64)
    with _Linear():
        total = model(ones).sum()
    gradients = torch.autograd.grad(total, weights, allow_unused=True)
    flow = math.fsum(float((w.detach() * g).sum()) for w, g in zip(weights, gradients, strict=True) if g is not None)
    return math.log10(flow) if flow > 0 else -math.inf


def grad_norm(inputs: ScoreInputs) -> float:
    """The sum over convolutions and linear layers of the Euclidean norm of the gradient of their weights.

    The gradient is that of the cross-entropy on one batch of training images, with the batch's own statistics, without
    augmentation, label smoothing and stochastic depth.
    """
    model = _in_training(inputs.model)
    weights = _weights(model)
    loss = F.cross_entropy(model(inputs.images), inputs.labels)
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    return math.fsum(float(g.double().norm()) for g in gradients if g is not None)


def naswot(inputs: ScoreInputs) -> float:
    """log |det K|, where K[i, j] is the number of units whose activation is on, or off, for both images i and j.

    A unit is one number before an activation, and on if it is above 0. For ReLU that is its linear region, as in the
    paper; GELU and ReLU6 have the same code by definition here, although GELU has no regions and ReLU6 has a third.
    """
    model = _in_training(inputs.model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *_: None)  # with a hook, the activation after it is a call of its own
    kernel = torch.zeros(len(inputs.images), len(inputs.images), dtype=torch.float64)

    def add(units: Tensor) -> None:
        code = (units.detach().flatten(1) > 0).double()
        kernel.add_(code @ code.T + (1 - code) @ (1 - code).T)

    with torch.no_grad(), _ActivationInputs(add):
        model(inputs.images)
    return float(torch.linalg.slogdet(kernel).logabsdet)


def receptive_field(inputs: ScoreInputs) -> float:
    """The side in pixels of the square that one position of the last map can depend on: the theoretical field.

    1 + the sum over the convolutions of a path of (side - 1) * dilation * stride before it, on the path on which it is
    largest. It may be larger than the image.
    """
    model = inputs.model.to("meta", torch.float32).eval()
    images = torch.empty(1, inputs.images.shape[1], FIELD_SIDE, FIELD_SIDE, device="meta")
    with torch.no_grad(), _FieldCounter() as counting:
        last = cast(HasFeatures, model).features(images)[-1]
    return float(max(counting.field_of(last).sides))


SCORE_FUNCTIONS: Mapping[ScoreName, Callable[[ScoreInputs], float]] = {
    "synflow": synflow,
    "grad_norm": grad_norm,
    "naswot": naswot,
    "receptive_field": receptive_field,
}
"""By the name in a study file; `harness.config.measures.SCORES` has the name of each one's metric."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, because sums of several have other bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _weights(model: nn.Module) -> list[Tensor]:
    """The weights of convolutions and linear layers."""
    return [module.weight for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def _in_training(model: nn.Module) -> nn.Module:
    """The model with the statistics of the batch, and without stochastic depth."""
    model.train().requires_grad_()
    for module in model.modules():
        if isinstance(module, DropPath):
            module.eval()
    return model


class _Linear(TorchFunctionMode):
    """Within the `with` block, norms and activations are the identity."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ACTIVATIONS or func in NORMS:
            return args[0]
        return func(*args, **(kwargs or {}))


class _ActivationInputs(TorchFunctionMode):
    """Within the `with` block, the input of every activation is passed to a function."""

    def __init__(self, use: Callable[[Tensor], None]) -> None:
        super().__init__()
        self._use = use

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ACTIVATIONS:
            self._use(args[0])
        return func(*args, **(kwargs or {}))


class _Field(NamedTuple):
    """What one position of a map depends on: height and width in pixels, and the pixels between two positions."""

    sides: tuple[int, int] = (1, 1)
    steps: tuple[int, int] = (1, 1)


class _FieldCounter(TorchFunctionMode):
    """Within the `with` block, each result has the largest field of its arguments; a convolution enlarges it."""

    def field_of(self, tensor: Tensor) -> _Field:
        """The field of a tensor; that of a pixel for the image itself, and for parameters."""
        field: _Field = getattr(tensor, "_field", _Field())
        return field

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        fields = [self.field_of(tensor) for tensor in _tensors([args, kwargs])]
        if fields:
            field = _Field(*(tuple(map(max, zip(*parts, strict=True))) for parts in zip(*fields, strict=True)))
            if func in CONVOLUTIONS:
                field = _enlarged(self.field_of(args[0]), *args, **kwargs)
            for tensor in _tensors([result]):
                tensor._field = field  # type: ignore[attr-defined]
        return result


def _enlarged(
    field: _Field,
    input: Tensor,  # noqa: ARG001 (the arguments of F.conv2d)
    weight: Tensor,
    bias: Tensor | None = None,  # noqa: ARG001
    stride: Any = 1,
    padding: Any = 0,  # noqa: ARG001
    dilation: Any = 1,
    groups: int = 1,  # noqa: ARG001
) -> _Field:
    """The field after `F.conv2d` with these arguments."""
    strides, dilations = ((value, value) if isinstance(value, int) else tuple(value) for value in (stride, dilation))
    axes = zip(field.sides, field.steps, weight.shape[2:], strides, dilations, strict=True)
    grown = [(side + (k - 1) * d * step, step * s) for side, step, k, s, d in axes]
    return _Field(*(tuple(part) for part in zip(*grown, strict=True)))


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and mappings."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())
