"""A network as a value: frozen, every rule checked at construction, with a canonical form and a fingerprint.

Alphabet: B blocks, C channels and K kernel side per stage, S (`reparam`) side of the parallel small kernel.
Source: RepLKNet, arXiv 2203.06717, section 4.1; defaults as in the paper's released networks.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from harness.errors import SpecError
from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import KERNEL_KINDS, Kernel, largest_small_kernel
from harness.system.fingerprint import fingerprint

MAX_VALUE = 1_000_000
"""Upper bound of every count, side, width and ratio, to reject absurd values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec:
    """One network of a family. Fields per stage hold one value per stage; a single value is used for all stages.

    Raises `SpecError`, naming the field, if a value breaks a rule.
    """

    family: str = "replknet"
    B: tuple[int, ...]
    """Blocks per stage; in RepLKNet a block is a large-kernel block and the ConvFFN after it."""
    C: tuple[int, ...]
    """Channels per stage."""
    K: tuple[int, ...]
    """Side of the large kernel per stage; odd."""
    shortcut: bool = True
    """Whether large-kernel blocks have an identity shortcut (guideline 2)."""
    reparam: tuple[int | None, ...] = (None,)
    """Side of the small kernel parallel to the large one (guideline 3), odd and at most K; null for none."""
    depthwise: bool = True
    """Whether the large kernels are depth-wise (guideline 1); dense otherwise."""
    dw_ratio: float = 1.0
    """Width of the large-kernel convolution relative to C."""
    ffn_ratio: float = 4.0
    """Hidden width of the ConvFFN or MLP relative to C; in MobileNetV2 the expansion of a block's input."""
    drop_path: float = 0.0
    """Stochastic depth: drop probability of the last block; grows linearly from 0."""
    stem_stride: int = 4
    """Total stride of the stem; 2 keeps the ratio of kernel to map on small images."""
    in_channels: int = 3
    classes: int = 1000
    kernel: str = "plain"
    """How the large kernels are built: a key of `harness.models.spec.kernel.KERNEL_KINDS`."""
    dilation: tuple[int, ...] = (1,)
    """Dilation of the large kernel per stage; must be 1, except with `plain`, and with `sequential` (at least 2)."""
    stripe: int = 5
    """Short side of the stripes of kernel `stripes`; odd, at least the side of the small kernel, and at most K."""
    band_ratio: float = 0.125
    """Fraction of the channels that each of the three convolutions of kernel `bands` processes."""
    replica: int = 0
    """Index of one of several equal networks, which differ only in their initial weights and order of the images.
    Two of them are the arms of an A/A test (`search_spaces/aa.yaml`)."""

    def __post_init__(self) -> None:
        _check_key("family", self.family, FAMILIES)
        for name in PER_STAGE:
            object.__setattr__(self, name, _per_stage(name, getattr(self, name), FAMILIES[self.family].stages))
        for name in ("B", "C", "K"):
            for i, value in enumerate(getattr(self, name)):
                _check_int(f"{name}[{i}]", value, at_least=1)
        for i, (k, s) in enumerate(zip(self.K, self.reparam, strict=True)):
            _check_odd(f"K[{i}]", k)
            _check_small(f"reparam[{i}]", s, k)
        for name in ("shortcut", "depthwise"):
            if not isinstance(getattr(self, name), bool):
                raise SpecError(f"`{name}` must be true or false", field=name, value=getattr(self, name))
        for name in ("dw_ratio", "ffn_ratio"):
            object.__setattr__(self, name, _ratio(name, getattr(self, name), self.C))
        object.__setattr__(self, "drop_path", _drop_path(self.drop_path))
        _check_stem_stride(self.stem_stride, self.family)
        _check_int("in_channels", self.in_channels, at_least=1)
        _check_int("classes", self.classes, at_least=1)
        _check_int("replica", self.replica, at_least=0)
        _check_key("kernel", self.kernel, KERNEL_KINDS)
        _check_int("stripe", self.stripe, at_least=1)
        _check_odd("stripe", self.stripe)
        object.__setattr__(self, "band_ratio", _band_ratio(self.band_ratio))
        ratios = [getattr(self, name) for name in FAMILIES[self.family].widths]
        for i, c in enumerate(self.C):
            _check_int(f"dilation[{i}]", self.dilation[i], at_least=1)
            _check_kernel(i, self.kernel_of(i), width=min(inner_width(c, ratio) for ratio in ratios))
        for name in self.idle_fields:
            if getattr(self, name) != DEFAULTS[name]:
                raise SpecError(
                    f"`{name}` must keep its default where it changes nothing: in {self.family} with kernel "
                    f"{self.kernel}",
                    field=name,
                    value=getattr(self, name),
                    remedy=f"Leave it out, or write {DEFAULTS[name]}.",
                )

    @property
    def idle_fields(self) -> tuple[str, ...]:
        """The fields that change nothing in a network of this family with this kind of kernel."""
        other_fields = (name for key, kind in KERNEL_KINDS.items() if key != self.kernel for name in kind.fields)
        used = KERNEL_KINDS[self.kernel].fields
        return (*FAMILIES[self.family].unsupported_fields, *(name for name in other_fields if name not in used))

    def kernel_of(self, stage: int) -> Kernel:
        """The large kernel of a stage, counted from 0."""
        return Kernel(
            k=self.K[stage],
            s=self.reparam[stage],
            kind=self.kernel,
            dilation=self.dilation[stage],
            depthwise=self.depthwise,
            stripe=self.stripe,
            band_ratio=self.band_ratio,
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build a network from a mapping of field names to plain values; the inverse of `canonical`."""
        for name in values:
            if name not in FIELDS:
                raise SpecError(
                    f"`{name}` is no field of a network", field=name, remedy=f"Fields: {', '.join(FIELDS)}."
                )
        for name in ("B", "C", "K"):
            if name not in values:
                raise SpecError(f"`{name}` is required: one value per stage, or one for all", field=name)
        return cls(**values)

    def replace(self, **values: Any) -> Self:
        """A copy with some fields changed, with all checks."""
        return self.from_mapping({name: getattr(self, name) for name in FIELDS} | values)

    def canonical(self) -> dict[str, Any]:
        """Plain values, per stage, without the fields that have their default; the inverse of `from_mapping`."""
        form: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            value = list(value) if isinstance(value, tuple) else value
            is_default = value == field.default or (
                isinstance(field.default, tuple) and all(element == field.default[0] for element in value)
            )
            if not is_default:
                form[field.name] = value
        return form

    def identity(self) -> Self:
        """The canonical one of all specs that build this network: equal networks have equal identities."""
        kernels = [self.kernel_of(i) for i in range(len(self.K))]
        canonical = [KERNEL_KINDS[self.kernel].canonical(kernel) for kernel in kernels]
        kind = canonical[0].kind
        if canonical == kernels or any(kernel.kind != kind for kernel in canonical):  # no spec can have two kinds
            return self
        is_bare = FAMILIES[self.family].has_bare_kernels and any(kernel.s is None for kernel in canonical)
        if kind != self.kernel and is_bare:
            return self
        k, s, dilation = zip(*((kernel.k, kernel.s, kernel.dilation) for kernel in canonical), strict=True)
        return self.replace(kernel=kind, K=k, reparam=s, dilation=dilation)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits; equal for equal networks, whichever spec describes them."""
        return fingerprint(self.identity().canonical())


FIELDS = tuple(field.name for field in fields(NetworkSpec))
DEFAULTS = {field.name: field.default for field in fields(NetworkSpec)}
PER_STAGE = ("B", "C", "K", "reparam", "dilation")
"""The fields that have one value per stage; each stage can be an axis of its own, as `K[3]`."""


def inner_width(channels: int, ratio: float) -> int:
    """Channels inside a block with this ratio; a spec guarantees a whole number."""
    return round(channels * ratio)


def _check_key(name: str, value: object, table: Collection[str]) -> None:
    if not isinstance(value, str) or value not in table:
        raise SpecError(f"`{name}` must be a known one", field=name, value=value, remedy=f"Known: {', '.join(table)}.")


def _check_stem_stride(stride: object, family: str) -> None:
    _check_int("stem_stride", stride, at_least=1)
    allowed = FAMILIES[family].stem_strides
    if stride not in allowed:
        rule = f"`stem_stride` must be {' or '.join(map(str, allowed))} in {family}"
        raise SpecError(rule, field="stem_stride", value=stride)


def _per_stage(name: str, value: object, stages: int) -> tuple[object, ...]:
    """One value per stage, from a list of them or from a single value for all."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return (value,) * stages
    if value == DEFAULTS[name]:  # the default holds for any number of stages
        return tuple(value) * stages
    if len(value) != stages:
        rule = f"`{name}` must have one value per stage, {stages} in all"
        raise SpecError(rule, field=name, value=list(value), remedy=f"Give {stages} values, or one for all.")
    return tuple(value)


def _check_int(name: str, value: object, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= MAX_VALUE:
        raise SpecError(f"`{name}` must be a whole number from {at_least} to {MAX_VALUE}", field=name, value=value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_VALUE:
        raise SpecError(f"`{name}` must be a number of at most {MAX_VALUE}", field=name, value=value)
    return float(value)


def _check_odd(name: str, k: int) -> None:
    if k % 2 == 0:
        rule = f"`{name}` must be odd, so that the kernel has a center"
        raise SpecError(rule, field=name, value=k, remedy=f"Try {k - 1} or {k + 1}.")


def _check_small(name: str, s: object, k: int) -> None:
    if s is None:
        return
    _check_int(name, s, at_least=1)
    assert isinstance(s, int)
    _check_odd(name, s)
    if s > k:
        rule = f"`{name}` must be at most the large kernel's side {k}"
        remedy = f"Try {k}, or null for no small kernel in that stage."
        raise SpecError(rule, field=name, value=s, remedy=remedy)


def _check_kernel(i: int, kernel: Kernel, *, width: int) -> None:
    """Check the values of stage i against the rules of its kind of kernel."""
    kind, context = KERNEL_KINDS[kernel.kind], f"with kernel {kernel.kind}"
    if not kernel.depthwise and not kind.can_be_dense:
        raise SpecError(f"`depthwise` must be true {context}", field="depthwise", value=False)
    least, most = kind.dilations
    if not least <= kernel.dilation <= most:
        allowed = f"{least}" if least == most else f"from {least} to {most}"
        raise SpecError(f"`dilation[{i}]` must be {allowed} {context}", field="dilation", value=kernel.dilation)
    context += "".join(f" and {name} {getattr(kernel, name)}" for name in kind.fields)
    context += f" and dilation {kernel.dilation}" if kernel.dilation > 1 else ""
    if kernel.k < kind.least_k(kernel):
        raise SpecError(f"`K[{i}]` must be at least {kind.least_k(kernel)} {context}", field=f"K[{i}]", value=kernel.k)
    most = largest_small_kernel(kernel)
    if kernel.s is not None and kernel.s > most:
        allowed = f"at most {most}" if most else "null"
        rule = f"`reparam[{i}]` must be {allowed} {context}, which does not support this small kernel"
        raise SpecError(rule, field=f"reparam[{i}]", value=kernel.s)
    if width < kind.least_width:
        rule = f"`C[{i}]` must give the large kernel at least {kind.least_width} channels {context}"
        raise SpecError(rule, field=f"C[{i}]", value=width, remedy="Take more channels, or a larger ratio to them.")


def _band_ratio(ratio: object) -> float:
    value = _number("band_ratio", ratio)
    if not 0 < value <= 1 / 3:
        rule = "`band_ratio` must be above 0 and at most 1/3, since three convolutions share the channels"
        raise SpecError(rule, field="band_ratio", value=ratio, remedy="InceptionNeXt uses 0.125.")
    return value


def _ratio(name: str, ratio: object, channels: Sequence[int]) -> float:
    value = _number(name, ratio)
    for i, c in enumerate(channels):
        if inner_width(c, value) < 1 or not math.isclose(inner_width(c, value), c * value):
            divisor = math.gcd(*channels)
            rule = f"`{name}` must be positive and give every stage a whole number of channels (C[{i}] is {c})"
            remedy = f"Try {max(1, round(divisor * value)) / divisor}, or other channels."
            raise SpecError(rule, field=name, value=ratio, remedy=remedy)
    return value


def _drop_path(p: object) -> float:
    value = _number("drop_path", p)
    if not 0 <= value < 1:
        raise SpecError("`drop_path` must be at least 0 and below 1", field="drop_path", value=p)
    return value
