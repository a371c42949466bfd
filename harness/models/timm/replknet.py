"""RepLKNet with timm's interface, and the registration of its presets; imported by `harness.models.timm.hook`.

    import harness, timm
    timm.create_model("replknet_31b", num_classes=10, features_only=True, out_indices=(0, 1, 2, 3))

Names in the state dict are those of the paper's released checkpoints. There are no weights to download; load local
ones by `checkpoint_path=`. Shapes: N batch, H W height and width of the image, C[s] channels of stage s.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD
from timm.layers import DropPath as ScriptableDropPath
from timm.layers import SelectAdaptivePool2d, create_classifier, is_scriptable
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model, register_notrace_module
from torch import Tensor, nn

from harness.errors import SpecError, UserError
from harness.models.layers import DropPath
from harness.models.replknet import RepLKNet
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.ops import DepthwiseConv2d

SAME_GROUP_AS_PREVIOUS = 99999
"""timm's matchers interpret this as: do not start a new group."""

for _leaf in (DepthwiseConv2d, DropPath):  # they depend on shapes and mode, which torch.fx cannot trace
    register_notrace_module(_leaf)


def set_output_stride(network: RepLKNet, strides: Sequence[int], output_stride: int) -> list[int]:
    """Change the network in place so that no stage has a larger stride; `strides` are the current ones of its stages.

    Dilation replaces the strides of later transitions, for dense prediction. At every n-th pixel (n = old / new
    stride) the maps are unchanged, including borders. Returns the new strides of the stages.
    """
    if output_stride not in strides:
        rule = "`output_stride` must be the stride of a stage"
        raise UserError(rule, value=output_stride, remedy=f"Strides: {', '.join(map(str, strides))}.")
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
    return (module for module in module.modules() if isinstance(module, nn.Conv2d))


class TimmRepLKNet(RepLKNet):
    """`harness.models.build.RepLKNet` with timm's arguments and members; same state dict, same logits.

    Any field of a `NetworkSpec` may be given in addition to timm's arguments, such as `K=13`. As always in timm,
    `drop_path_rate` is 0 by default, whatever the preset's value. `merged=True` builds the merged form, for merged
    checkpoints.
    """

    global_pool: SelectAdaptivePool2d

    def __init__(
        self,
        cfg: NetworkSpec,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        output_stride: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        merged: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **fields: Any,
    ) -> None:
        spec = replace(cfg, **fields, classes=max(num_classes, 1), in_channels=in_chans, drop_path=drop_path_rate)
        with nullcontext() if device is None else torch.device(device):
            super().__init__(spec, merged=merged)
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = spec.C[-1]
        strides = [spec.stem_stride * 2**i for i in range(len(spec.C))]
        if output_stride is not None:
            if any(kind != "plain" for kind in spec.by_stage("kernel")):
                raise SpecError("`output_stride` needs plain large kernels", field="kernel", value=spec.kernel)
            strides = set_output_stride(self, strides, output_stride)
        self.feature_info = [
            {"num_chs": c, "reduction": stride, "module": f"stages.{i}"}
            for i, (c, stride) in enumerate(zip(spec.C, strides, strict=True))
        ]
        self.drop_rate = drop_rate
        self.head_drop = nn.Dropout(drop_rate)
        drawn = self.head
        self.reset_classifier(num_classes, global_pool)
        if isinstance(self.head, nn.Linear) and self.head.in_features == spec.C[-1]:
            self.head = drawn  # so that a seed yields the same weights as in `harness.models.build.build`
        if is_scriptable():  # type: ignore[no-untyped-call]
            _make_scriptable(self)
        self.to(dtype=dtype)

    def get_classifier(self) -> nn.Module:
        """The last layer; an identity if there are no classes."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer (none for 0 classes), and optionally the pooling ("" for none)."""
        like = next(self.parameters())
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        self.num_classes = num_classes
        pooling, head = create_classifier(self.num_features, num_classes, pool, device=like.device, dtype=like.dtype)
        self.global_pool, self.head = pooling.train(self.training), head.train(self.training)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """timm's groups of layers, for layer decay: the stem, each pair of blocks (or each stage), the classifier.

        As in the paper's layer decay, a transition belongs to the stage before it.
        """
        pairs = [
            (rf"^stages\.{s}\.blocks\.(?:{2 * i}|{2 * i + 1})\.", (s, i))
            for s, stage in enumerate(self.stages)
            for i in range(len(list(stage.get_submodule("blocks").children())) // 2)
        ]
        transitions = (r"^transitions\.(\d+)", (SAME_GROUP_AS_PREVIOUS,))
        norm = (r"^norm", (SAME_GROUP_AS_PREVIOUS,))
        stages = (r"^(?:stages|transitions)\.(\d+)", None)
        return {"stem": r"^stem", "blocks": [stages, norm] if coarse else [*pairs, transitions, norm]}

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, C[-1], H', W') -> logits (N, classes), or with `pre_logits` the input of the classifier."""
        x = self.head_drop(self.global_pool(x))
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """(final map, maps of some stages in order), or only the latter with `intermediates_only`.

        `indices` are stages, a number of last stages, or None for all; `norm` normalizes the last stage's map.
        """
        if output_fmt != "NCHW":
            raise UserError("`output_fmt` must be NCHW", value=output_fmt)
        taken = self._intermediates(indices)
        maps = self.features(x, count=max(taken) + 1 if stop_early else None)
        final = maps[-1]
        if len(maps) == len(self.stages) and (norm or not intermediates_only):
            final = self.norm(final)
        if norm:
            maps[-1] = final
        intermediates = [tensor for i, tensor in enumerate(maps) if i in taken]
        return intermediates if intermediates_only else (final, intermediates)

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the stages after the last of these, and norm and classifier; returns the indices of the stages."""
        taken = self._intermediates(indices)
        kept = max(taken) + 1
        is_shorter = kept < len(self.stages)
        del self.stages[kept:], self.transitions[kept - 1 :]
        self.num_features = self.head_hidden_size = self.feature_info[kept - 1]["num_chs"]
        if prune_norm or is_shorter:
            self.norm = nn.Identity().train(self.training)
        if prune_head or is_shorter:
            self.reset_classifier(0, "")
        return taken

    @torch.no_grad()
    def fold(self) -> None:
        """As in RepLKNet if the pooling is a mean; else nothing, because a maximum does not commute with the norm."""
        if self.global_pool.pool_type in ("avg", "fast", "fastavg"):
            super().fold()

    def __prepare_scriptable__(self) -> nn.Module:
        """The traced graph for `torch.jit.script`, of a network created with `scriptable=True`."""
        return torch.fx.GraphModule(self, _Tracer().trace(self))

    def _intermediates(self, indices: int | Sequence[int] | None) -> list[int]:
        """Stages counted from 0, from any of timm's forms of indices."""
        n = len(self.stages)
        if indices is None or isinstance(indices, int):
            indices = range(-(n if indices is None else indices), 0)
        if not indices or not all(-n <= i < n for i in indices):
            rule = f"`out_indices` must name stages from 0 to {n - 1}"
            remedy = f"There are {n} maps; segmentation_models_pytorch requests them with encoder_depth={n}."
            raise UserError(rule, value=list(indices), remedy=remedy)
        return [i % n for i in indices]


def _make_scriptable(module: nn.Module) -> None:
    """Replace our modules, which TorchScript cannot compile, by stock ones; same parameters, equal up to rounding."""
    for name, child in list(module.named_children()):
        if type(child) is DepthwiseConv2d:
            child.__class__ = nn.Conv2d  # type: ignore[assignment]  # it has the same parameters and attributes
        elif isinstance(child, DropPath):
            module.add_module(name, ScriptableDropPath(child.p))
        else:
            _make_scriptable(child)


class _Tracer(torch.fx.Tracer):
    """Keeps modules that differ between training and evaluation as leaves."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, ScriptableDropPath) or super().is_leaf_module(m, module_qualified_name)


def _cfg(spec: NetworkSpec, side: int = 224, **values: Any) -> dict[str, Any]:
    """timm's configuration of a preset: the preprocessing of images, and the names of the first and last layer."""
    return {
        "input_size": (spec.in_channels, side, side),
        "pool_size": (side // (8 * spec.stem_stride),) * 2,
        "num_classes": spec.classes,
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.0.conv",
        "classifier": "head",
        "license": "mit",
        "paper_name": "Scaling Up Your Kernels to 31x31: Revisiting Large Kernel Design in CNNs",
        "paper_ids": "arXiv:2203.06717",
        **values,
    }


_PUBLISHED_CFGS: dict[str, dict[str, Any]] = {
    "replknet_31l": {"side": 384, "crop_pct": 1.0, "crop_mode": "squash"},
    "replknet_xl": {"side": 320, "mean": IMAGENET_INCEPTION_MEAN, "std": IMAGENET_INCEPTION_STD},
    "replknet_tiny": {"side": 64, "crop_pct": 1.0},
    "replknet_nano": {"side": 64, "crop_pct": 1.0},
}
"""Presets whose images are not 224 x 224 with ImageNet's statistics (section 4.2, table 6, released code)."""

_SPECS = {name: spec for name, spec in PRESETS.items() if spec.family == "replknet"}

default_cfgs = generate_default_cfgs(
    {name: _cfg(spec, **_PUBLISHED_CFGS.get(name, {})) for name, spec in _SPECS.items()}
)
"""Configurations by preset; timm reads a variable of this name on registration."""


def _entrypoint(name: str, spec: NetworkSpec) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        features: dict[str, Any] = {"out_indices": tuple(range(len(spec.C))), "feature_cls": "getter"}
        model: nn.Module = build_model_with_cfg(
            TimmRepLKNet, name, pretrained, model_cfg=spec, feature_cfg=features, **kwargs
        )
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"The preset {name}."
    return create


for _name, _spec in _SPECS.items():
    if not is_model(_name):
        globals()[_name] = register_model(_entrypoint(_name, _spec))
