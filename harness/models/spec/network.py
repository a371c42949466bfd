"""A network as a value: frozen, every rule checked at construction, with a canonical form and a fingerprint.

Alphabet: B blocks, C channels and K kernel side per stage, S (`reparam`) side of the parallel small kernel.
Source: RepLKNet, arXiv 2203.06717, section 4.1; defaults as in the paper's released networks.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

from harness.errors import SpecError
from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import KERNEL_KINDS, Kernel, largest_small_kernel
from harness.system.fingerprint import fingerprint

MAX_VALUE = 1_000_000
"""Upper bound of every count, side, width and ratio, to reject absurd values."""


class _Fingerprinted:
    """A slot of a frozen dataclass that is not a field, for a value that is computed once for each object."""

    __slots__ = ("_fingerprint",)
    _fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSpec(_Fingerprinted):
    """One network of a family. A field per stage takes one value per stage, or a single value for all stages.

    `B`, `C`, `K`, `reparam` and `dilation` are tuples. The fields in `MAY_DIFFER` are a single value where all stages
    have the same one, and a tuple otherwise; `at` and `by_stage` read both forms.

    Raises `SpecError`, naming the field, if a value breaks a rule.
    """

    family: str = "replknet"
    B: tuple[int, ...]
    """Blocks per stage; in RepLKNet a block is a large-kernel block and the ConvFFN after it."""
    C: tuple[int, ...]
    """Channels per stage."""
    K: tuple[int, ...]
    """Side of the large kernel per stage; odd."""
    shortcut: bool | tuple[bool, ...] = True
    """Whether large-kernel blocks have an identity shortcut (guideline 2)."""
    reparam: tuple[int | None, ...] = (None,)
    """Side of the small kernel parallel to the large one (guideline 3), odd and at most K; null for none."""
    depthwise: bool | tuple[bool, ...] = True
    """Whether the large kernels are depth-wise (guideline 1); dense otherwise."""
    dw_ratio: float | tuple[float, ...] = 1.0
    """Width of the large-kernel convolution relative to C."""
    ffn_ratio: float | tuple[float, ...] = 4.0
    """Hidden width of the ConvFFN or MLP relative to C; in MobileNetV2 the expansion of a block's input."""
    drop_path: float = 0.0
    """Stochastic depth: drop probability of the last block; grows linearly from 0."""
    stem_stride: int = 4
    """Total stride of the stem; 2 keeps the ratio of kernel to map on small images."""
    in_channels: int = 3
    classes: int = 1000
    kernel: str | tuple[str, ...] = "plain"
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
        for name in ALWAYS_TUPLES:
            object.__setattr__(self, name, _per_stage(name, getattr(self, name), FAMILIES[self.family].stages))
        for name in ("B", "C", "K"):
            for i, value in enumerate(getattr(self, name)):
                _check_int(f"{name}[{i}]", value, at_least=1)
        for i, (k, s) in enumerate(zip(self.K, self.reparam, strict=True)):
            _check_odd(f"K[{i}]", k)
            _check_small(f"reparam[{i}]", s, k)
        for name, check in (("shortcut", _bool), ("depthwise", _bool), ("dw_ratio", _ratio), ("ffn_ratio", _ratio)):
            self._set_stages(name, check)
        object.__setattr__(self, "drop_path", _drop_path(self.drop_path))
        _check_stem_stride(self.stem_stride, self.family)
        _check_int("in_channels", self.in_channels, at_least=1)
        _check_int("classes", self.classes, at_least=1)
        _check_int("replica", self.replica, at_least=0)
        self._set_stages("kernel", _kind)
        _check_int("stripe", self.stripe, at_least=1)
        _check_odd("stripe", self.stripe)
        object.__setattr__(self, "band_ratio", _band_ratio(self.band_ratio))
        for i in range(len(self.C)):
            _check_int(f"dilation[{i}]", self.dilation[i], at_least=1)
            self._check_kernel(i)
        for name in self.idle_fields:
            if getattr(self, name) != DEFAULTS[name]:
                raise SpecError(
                    f"`{name}` must keep its default where it changes nothing: in {self.family} with kernel "
                    f"{' and '.join(dict.fromkeys(self.by_stage('kernel')))}",
                    field=name,
                    value=getattr(self, name),
                    remedy=f"Leave it out, or write {DEFAULTS[name]}.",
                )

    def _check_kernel(self, stage: int) -> None:
        """Check the values of a stage against the rules of its kind of kernel."""
        kernel = self.kernel_of(stage)
        _check_kernel(stage, kernel, name="depthwise" if isinstance(self.depthwise, bool) else f"depthwise[{stage}]")
        widths = (
            inner_width(c, self.at(name, stage))
            for name in FAMILIES[self.family].widths
            if stage in self._used_in(name)
            for c in self._inputs(name, (stage,)).values()
        )
        least = KERNEL_KINDS[kernel.kind].least_width
        if least > 1 and (width := min(widths)) < least:
            rule = f"`C[{stage}]` must give the large kernel at least {least} channels {_context(kernel)}"
            remedy = "Take more channels, or a larger ratio to them."
            raise SpecError(rule, field=f"C[{stage}]", value=width, remedy=remedy)

    def _set_stages(self, name: str, check: "StageCheck") -> None:
        """Check a field of `MAY_DIFFER`, and set it to a single value if all stages have the same one."""
        value, stages = getattr(self, name), range(FAMILIES[self.family].stages)
        if not isinstance(value, bool | int | float | str) and isinstance(value, Sequence):
            value = _per_stage(name, value, len(stages))
            if any(one != value[0] or type(one) is not type(value[0]) for one in value):  # 1 is not true
                checked = tuple(check(f"{name}[{i}]", value[i], self._inputs(name, (i,))) for i in stages)
                object.__setattr__(self, name, checked[0] if all(one == checked[0] for one in checked) else checked)
                return
            value = value[0]
        object.__setattr__(self, name, check(name, value, self._inputs(name, stages)))

    def _inputs(self, name: str, stages: Sequence[int]) -> dict[int, int]:
        """The channels that a ratio multiplies in these stages, by the stage that has them.

        Where a block expands its input, the first block of a stage has the channels of the stage before.
        """
        before = [i - 1 for i in stages if i > 0] if name in FAMILIES[self.family].ratios_to_input else []
        return {i: self.C[i] for i in sorted({*before, *stages})}

    def at(self, name: str, stage: int) -> Any:
        """The value of a field in a stage, counted from 0."""
        value = getattr(self, name)
        return value[stage] if isinstance(value, tuple) else value

    def by_stage(self, name: str) -> tuple[Any, ...]:
        """The values of a field, one per stage."""
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,) * len(self.K)

    @property
    def differing_fields(self) -> tuple[str, ...]:
        """The fields of `MAY_DIFFER` whose stages have different values."""
        return tuple(name for name in MAY_DIFFER if isinstance(getattr(self, name), tuple))

    @property
    def idle_fields(self) -> tuple[str, ...]:
        """The fields that change nothing in a network of this family with these kinds of kernels."""
        kinds = {self.kernel} if isinstance(self.kernel, str) else set(self.kernel)
        used = {name for kind in kinds for name in KERNEL_KINDS[kind].fields}
        others = (name for key, kind in KERNEL_KINDS.items() if key not in kinds for name in kind.fields)
        return (*FAMILIES[self.family].unsupported_fields, *(name for name in others if name not in used))

    def kernel_of(self, stage: int) -> Kernel:
        """The large kernel of a stage, counted from 0."""
        return Kernel(
            k=self.K[stage],
            s=self.reparam[stage],
            kind=self.at("kernel", stage),
            dilation=self.dilation[stage],
            depthwise=self.at("depthwise", stage),
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
        """The canonical one of all specs that build this network: equal networks have equal identities.

        If specs with one kind of kernel in all stages and specs with several kinds build it, it is one of the former.
        """
        kernels = [self._canonical_kernel(i) for i in range(len(self.K))]
        fields = self._of_one_kind(kernels) or _kernel_fields(kernels)
        for name in ("shortcut", "ffn_ratio"):
            if name in self.differing_fields:
                fields[name] = self._without_idle_stages(name)
        return self if all(self.by_stage(name) == tuple(fields[name]) for name in fields) else self.replace(**fields)

    def _canonical_kernel(self, stage: int) -> Kernel:
        """The canonical one of all kernels that build the same as a stage's."""
        kernel = self.kernel_of(stage)
        canonical = KERNEL_KINDS[kernel.kind].canonical(kernel)
        is_bare = FAMILIES[self.family].has_bare_kernels and canonical.s is None
        return kernel if is_bare and canonical.kind != kernel.kind else canonical

    def _of_one_kind(self, kernels: list[Kernel]) -> dict[str, Any] | None:
        """The fields of a spec with one kind of kernel whose canonical kernels are these; None if they have one kind.

        None also if there is no such spec.
        """
        kinds = {kernel.kind for kernel in kernels}
        if len(kinds) != 2 or "plain" not in kinds:
            return None
        (kind,) = kinds - {"plain"}
        has_small = KERNEL_KINDS[kind].has_small
        fields = _kernel_fields([each._replace(kind=kind, s=each.s if has_small else None) for each in kernels])
        try:
            spec = self.replace(**fields)
        except SpecError:
            return None
        return fields if [spec._canonical_kernel(i) for i in range(len(kernels))] == kernels else None

    def _without_idle_stages(self, name: str) -> list[Any]:
        """The values of a field by stage; where a stage does not use it, that of the first stage that does."""
        values, used = self.by_stage(name), self._used_in(name)
        first = values[used[0]] if used else DEFAULTS[name]
        return [value if i in used else first for i, value in enumerate(values)]

    def _used_in(self, name: str) -> list[int]:
        """The stages in which a field of `MAY_DIFFER` can change the network."""
        family, stages = FAMILIES[self.family], range(len(self.C))
        if name == "ffn_ratio":
            return [i for i in stages if i not in family.unexpanded_stages]
        if name == "shortcut" and family.joins_equal_shapes:
            keeps_shape = [i for i in stages if i > 0 and family.strides[i] == 1 and self.C[i - 1] == self.C[i]]
            return [i for i in stages if self.B[i] > 1 or i in keeps_shape]
        return list(stages)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits; equal for equal networks, whichever spec describes them."""
        try:
            return self._fingerprint
        except AttributeError:  # not computed yet
            object.__setattr__(self, "_fingerprint", fingerprint(self.identity().canonical()))
            return self._fingerprint


FIELDS = tuple(field.name for field in fields(NetworkSpec))
DEFAULTS = {field.name: field.default for field in fields(NetworkSpec)}
ALWAYS_TUPLES = ("B", "C", "K", "reparam", "dilation")
"""The fields that are stored and written as one value per stage."""
MAY_DIFFER = ("shortcut", "depthwise", "dw_ratio", "ffn_ratio", "kernel")
"""The fields that are stored and written as a single value where all stages have the same one."""
PER_STAGE = (*ALWAYS_TUPLES, *MAY_DIFFER)
"""The fields that can have one value per stage; each stage can be an axis of its own, as `K[3]`."""
StageCheck = Callable[[str, object, Mapping[int, int]], object]
"""Function of a field's name, a value and the channels that it multiplies by stage that returns the checked value."""


def inner_width(channels: int, ratio: float) -> int:
    """Channels inside a block with this ratio; a spec guarantees a whole number."""
    return round(channels * ratio)


def _kernel_fields(kernels: Sequence[Kernel]) -> dict[str, Any]:
    """The fields of a spec that kernels have of their own, per stage."""
    names = {"kernel": "kind", "K": "k", "reparam": "s", "dilation": "dilation"}
    return {name: [getattr(kernel, of) for kernel in kernels] for name, of in names.items()}


def _check_key(name: str, value: object, table: Collection[str]) -> None:
    if not isinstance(value, str) or value not in table:
        raise SpecError(f"`{name}` must be a known one", field=name, value=value, remedy=f"Known: {', '.join(table)}.")


def _kind(name: str, kind: object, _: Mapping[int, int]) -> object:
    _check_key(name, kind, KERNEL_KINDS)
    return kind


def _bool(name: str, value: object, _: Mapping[int, int]) -> object:
    if not isinstance(value, bool):
        raise SpecError(f"`{name}` must be true or false", field=name, value=value)
    return value


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


def _check_kernel(i: int, kernel: Kernel, *, name: str) -> None:
    """Check the values of stage i against the rules of its kind of kernel; `name` is that of `depthwise` in errors."""
    kind = KERNEL_KINDS[kernel.kind]
    if not kernel.depthwise and not kind.can_be_dense:
        raise SpecError(f"`{name}` must be true with kernel {kernel.kind}", field=name, value=False)
    least, most = kind.dilations
    if not least <= kernel.dilation <= most:
        allowed = f"{least}" if least == most else f"from {least} to {most}"
        rule = f"`dilation[{i}]` must be {allowed} with kernel {kernel.kind}"
        raise SpecError(rule, field="dilation", value=kernel.dilation)
    if kernel.k < kind.least_k(kernel):
        rule = f"`K[{i}]` must be at least {kind.least_k(kernel)} {_context(kernel)}"
        raise SpecError(rule, field=f"K[{i}]", value=kernel.k)
    largest = largest_small_kernel(kernel)
    if kernel.s is not None and kernel.s > largest:
        allowed = f"at most {largest}" if largest else "null"
        rule = f"`reparam[{i}]` must be {allowed} {_context(kernel)}, which does not support this small kernel"
        raise SpecError(rule, field=f"reparam[{i}]", value=kernel.s)


def _context(kernel: Kernel) -> str:
    """Text such as `with kernel stripes and stripe 5`, for errors."""
    fields = "".join(f" and {name} {getattr(kernel, name)}" for name in KERNEL_KINDS[kernel.kind].fields)
    dilation = f" and dilation {kernel.dilation}" if kernel.dilation > 1 else ""
    return f"with kernel {kernel.kind}{fields}{dilation}"


def _band_ratio(ratio: object) -> float:
    value = _number("band_ratio", ratio)
    if not 0 < value <= 1 / 3:
        rule = "`band_ratio` must be above 0 and at most 1/3, since three convolutions share the channels"
        raise SpecError(rule, field="band_ratio", value=ratio, remedy="InceptionNeXt uses 0.125.")
    return value


def _ratio(name: str, ratio: object, channels: Mapping[int, int]) -> float:
    value = _number(name, ratio)
    for i, c in channels.items():
        if inner_width(c, value) < 1 or not math.isclose(inner_width(c, value), c * value):
            divisor = math.gcd(*channels.values())
            rule = f"`{name}` must be positive and give every stage a whole number of channels (C[{i}] is {c})"
            remedy = f"Try {max(1, round(divisor * value)) / divisor}, or other channels."
            raise SpecError(rule, field=name, value=ratio, remedy=remedy)
    return value


def _drop_path(p: object) -> float:
    value = _number("drop_path", p)
    if not 0 <= value < 1:
        raise SpecError("`drop_path` must be at least 0 and below 1", field="drop_path", value=p)
    return value
