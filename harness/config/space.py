"""A search space: axes, conditions, rules and budgets that turn a sampler's choices into networks.

An axis is a field of the spec (`K`) or one stage of a field that has one value per stage (`K[3]`). An axis with a
condition is chosen after the axes that its condition uses, and only if the condition holds; otherwise the base's value
applies. The axis `base` chooses a whole network before all others; an axis of one stage is active only if the base has
that stage. A derived axis has an expression of the others in place of values, as `K[0] - 2`; it is not chosen. An axis
`recipe.optimizer.lr` sets a key of the proxy, so that configurations have recipes of their own
(`recipe_axes`).

One value of the base is dropped where it does not fit: if a stage cannot have its small kernel (`reparam`), because K
is smaller or the kernel dilated or of a kind without one, that stage has none, as in the paper's RepLKNet-3. A small
kernel that an axis chose is never dropped: the network is then invalid, and the candidate has the reason.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from harness.config.axes import BASE, Axis, Choice, GridEnumerator, Sampler, Value, split_name
from harness.config.expressions import Expression
from harness.config.recipe_axes import checked_recipe, chosen_recipe, flat_recipe, is_recipe_axis, names_behind
from harness.config.recipes.proxy import ProxyRecipe
from harness.errors import SpecError, StudyError, did_you_mean
from harness.models.cost import Cost, network_cost
from harness.models.spec.family import FAMILIES
from harness.models.spec.kernel import fits_small_kernel
from harness.models.spec.network import FIELDS, PER_STAGE, NetworkSpec
from harness.system.fingerprint import fingerprint

BUDGETS = ("params", "macs")
"""Budgets that follow from the spec: parameters and nominal MACs of the merged form at the recipe's resolution."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration: a network within rules and budgets with its recipe, or the reason why it is infeasible."""

    params: dict[str, Value]
    """The choices on the active axes."""
    spec: NetworkSpec | None
    """None if the choices form no valid network and recipe."""
    cost: Cost | None
    """Cost of the merged network at the recipe's resolution."""
    violations: dict[str, float] = field(default_factory=dict)
    """Size of each violation, all above 0: `spec`, `recipe` and rules count 1, budgets their relative excess."""
    reason: str | None = None
    """The violations as text; None if there are none."""
    recipe: ProxyRecipe | None = None
    """The study's proxy with the choices on its axes; None as `spec`."""
    has_own_recipe: bool = False
    """Whether the recipe is a part of the configuration, since the space has axes that set keys of the proxy."""

    @property
    def is_feasible(self) -> bool:
        """Whether this network can be trained within rules and budgets."""
        return not self.violations

    @property
    def trained(self) -> tuple[NetworkSpec, ProxyRecipe]:
        """The network and the recipe of a feasible candidate."""
        assert self.spec is not None and self.recipe is not None, "a feasible candidate is a network with a recipe"
        return self.spec, self.recipe

    @property
    def identity(self) -> tuple[str, str]:
        """The fingerprints of network and recipe of a feasible candidate, as `Run.configuration` has them."""
        spec, recipe = self.trained
        return spec.fingerprint(), recipe.fingerprint()

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the network, with its recipe if the recipe varies; of the choices if they form no network."""
        if self.spec is None:
            return fingerprint(list(self.params.items()))
        return fingerprint(self.identity) if self.has_own_recipe else self.spec.fingerprint()


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """A search space: axes, conditions, rules and budgets. Raises `StudyError` for invalid axes and conditions."""

    base: NetworkSpec
    """The network whose values apply wherever no axis decides."""
    bases: dict[str, NetworkSpec] = field(default_factory=dict)
    """Networks by their names on the axis `base`, which then chooses one of them instead."""
    axes: dict[str, Axis]
    """In the order in which they are chosen: an axis follows those that its condition uses."""
    derived: dict[str, Expression] = field(default_factory=dict)
    """The axes whose values follow from others, in the order in which they are computed."""
    when: dict[str, Expression] = field(default_factory=dict)
    """Conditions of axes, derived ones included."""
    rules: tuple[Expression, ...] = ()
    budgets: dict[str, float] = field(default_factory=dict)
    """Upper limits by name in `BUDGETS`."""
    recipe: ProxyRecipe = field(default_factory=ProxyRecipe)
    """The study's proxy, whose values apply wherever no axis decides."""
    data: str | None = None
    """Digest of the data set that the networks are trained on; None for a generated one."""
    train_images: int | None = None
    """Number of training images of the data set; None if it is not known."""
    _recipes: dict[tuple[object, ...], ProxyRecipe] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Recipes by the choices on their axes, which many configurations share."""
    _order: tuple[str, ...] = field(default=(), init=False, repr=False, compare=False)
    """All axes, each after those that its condition and its expression use."""
    _most_stages: int = field(default=0, init=False, repr=False, compare=False)
    """The number of stages of the base that has most."""
    _is_recipe_named: bool = field(default=False, init=False, repr=False, compare=False)
    """Whether an expression names a key of the recipe."""

    def __post_init__(self) -> None:
        stages = {FAMILIES[base.family].stages for base in (self.base, *self.bases.values())}
        object.__setattr__(self, "_most_stages", max(stages))
        decided = {name: split_name(name, self._most_stages) for name in (*self.axes, *self.derived)}
        for name, (of, stage) in decided.items():
            if stage is not None and of in decided:
                rule = f"The axes `{of}` and `{name}` must not decide the same stage"
                raise StudyError(rule, remedy=f"Give `{of}` as whole lists, or every stage an axis of its own.")
        for name, condition in self.when.items():
            if name == BASE:
                raise StudyError(
                    "The axis `base` cannot have a condition", place=condition.place, remedy="Leave this one out."
                )
            if name not in decided:
                remedy = did_you_mean(name, decided, "Axes")
                raise StudyError(f"`{condition.key}` must name an axis", place=condition.place, remedy=remedy)
        order = tuple(_in_order(decided, self.when, self.derived, stages))
        object.__setattr__(self, "_order", order)
        object.__setattr__(self, "axes", {name: self.axes[name] for name in order if name in self.axes})
        object.__setattr__(self, "derived", {name: self.derived[name] for name in order if name in self.derived})
        expressions = (*self.when.values(), *self.rules, *self.derived.values())
        named = {of for expression in expressions for of, _ in expression.references()}
        object.__setattr__(self, "_is_recipe_named", any(map(is_recipe_axis, named)))

    def __hash__(self) -> int:
        return hash(self.fingerprint())

    @property
    def size(self) -> int:
        """The number of combinations of all axes: an upper bound of the number of configurations."""
        return math.prod(len(axis) for axis in self.axes.values())

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits; equal for equal spaces."""
        axes = {
            name: axis.values if isinstance(axis, Choice) else [axis.low, axis.high, axis.step, axis.log]
            for name, axis in self.axes.items()
        }
        when = {name: condition.text for name, condition in self.when.items()}
        rules = [rule.text for rule in self.rules]
        derived = {name: expression.text for name, expression in self.derived.items()}
        bases = [base.fingerprint() for base in self.bases.values()]
        recipe = [self.recipe.fingerprint(), self.train_images]
        return fingerprint([self.base.fingerprint(), *bases, axes, derived, when, rules, self.budgets, recipe])

    def sample(self, choose: Sampler) -> Candidate:
        """Choose on every active axis and return the candidate."""
        return self.candidate(self.sample_params(choose))

    def sample_params(self, choose: Sampler) -> dict[str, Value]:
        """Choose on every active axis, in order."""
        params: dict[str, Value] = {}
        for name, axis in self.axes.items():
            if self._is_active(name, self.with_derived(params, before=name)):
                params[name] = axis.member(choose(name, axis))
        return params

    def with_derived(self, params: Mapping[str, Value], *, before: str | None = None) -> dict[str, Value]:
        """The choices and the values of the active derived axes; with `before`, of those that precede this axis.

        Raises `StudyError` if an expression has no value.
        """
        values = dict(params)
        for name in self._order if self.derived else ():
            if name == before:
                break
            if name in self.derived and self._is_active(name, values):
                values[name] = self.derived[name].value(self._named(values))
        return values

    def candidate(self, params: dict[str, Value]) -> Candidate:
        """The candidate with these choices; all other values are the base's."""
        try:
            values = self.with_derived(params)
        except StudyError as error:
            return Candidate(params, None, None, {"derived": 1.0}, str(error))
        try:
            recipe = self.recipe_of(params)
            spec = self.network(params)
            cost = network_cost(spec, recipe.resolution)
        except SpecError as error:
            return Candidate(params, None, None, {"spec": 1.0}, str(error))
        except StudyError as error:
            return Candidate(params, None, None, {"recipe": 1.0}, str(error))
        named = fields_by_stage(spec) | self._recipe_values(values) if self.rules else {}
        wrong = {rule.key: (1.0, f"`{rule.text}` is not so") for rule in self.rules if not rule.holds(named)}
        for name, limit in self.budgets.items():
            amount = getattr(cost, name)
            if amount > limit:
                wrong[name] = (amount / limit - 1, f"{amount:,} {name} are over the budget of {limit:,.0f}")
        violations = {key: amount for key, (amount, _) in wrong.items()}
        reason = "; ".join(text for _, text in wrong.values()) or None
        return Candidate(params, spec, cost, violations, reason, recipe, self.has_recipe_axes)

    def network(self, params: Mapping[str, Value]) -> NetworkSpec:
        """The base with these choices. Raises `SpecError` if the result is no valid network."""
        return NetworkSpec.from_mapping(self._fields(self.with_derived(params)))

    def values_of(self, params: Mapping[str, Value]) -> dict[str, Any]:
        """What rules are evaluated on: the fields of the network with these choices, and the values of its recipe.

        Raises `SpecError` if there is no such network.
        """
        return fields_by_stage(self.network(params)) | self._recipe_values(self.with_derived(params))

    def recipe_of(self, params: Mapping[str, Value]) -> ProxyRecipe:
        """The study's proxy with these choices. Raises `StudyError` for a recipe with which nothing can be trained."""
        params = self.with_derived(params)
        choices = tuple(item for item in params.items() if is_recipe_axis(item[0]))
        if not choices:
            return self.recipe
        if choices not in self._recipes:
            values, _ = chosen_recipe(self.recipe, params)
            self._recipes[choices] = checked_recipe(values, self.recipe, self.train_images)
        return self._recipes[choices]

    def with_base(self, large: NetworkSpec) -> Self:
        """The axes on another base, without the conditions, rules and budgets, which are the proxy's.

        The axis `base` is left out, too: it chooses among networks of the proxy's size. So are axes of the recipe.
        Derived axes keep their conditions.
        """
        axes = {name: axis for name, axis in self.axes.items() if name != BASE and not is_recipe_axis(name)}
        derived = {name: value for name, value in self.derived.items() if not is_recipe_axis(name)}
        when = {name: condition for name, condition in self.when.items() if name in derived}
        return replace(self, base=large, bases={}, axes=axes, derived=derived, when=when, rules=(), budgets={})

    def grid(self) -> Iterator[Candidate]:
        """Yield every configuration once, feasible or not; choices that repeat an earlier network are skipped."""
        fingerprints: set[str] = set()
        enumerator = GridEnumerator()
        while enumerator.advance():
            candidate = self.sample(enumerator)
            if candidate.fingerprint not in fingerprints:
                fingerprints.add(candidate.fingerprint)
                yield candidate

    @property
    def has_recipe_axes(self) -> bool:
        """Whether an axis sets a key of the proxy, so that configurations have recipes of their own."""
        return any(map(is_recipe_axis, (*self.axes, *self.derived)))

    def _base(self, params: Mapping[str, Value]) -> NetworkSpec:
        return self.bases[str(params[BASE])] if BASE in params else self.base

    def _is_active(self, name: str, values: Mapping[str, Value]) -> bool:
        """Whether an axis counts with these values of those before it: the base has its stage, its condition holds."""
        condition, stage = self.when.get(name), split_name(name, self._most_stages)[1]
        if stage is not None and stage >= FAMILIES[self._base(values).family].stages:
            return False
        return condition is None or condition.holds(self._named(values))

    def _named(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """The fields of the network and the values of the recipe, unchecked, by their names in expressions."""
        return self._fields(values) | self._recipe_values(values)

    def _recipe_values(self, params: Mapping[str, Value]) -> dict[str, Any]:
        """The values of the recipe by their names in expressions, unchecked; empty if no expression uses any."""
        return flat_recipe(chosen_recipe(self.recipe, params)[0]) if self._is_recipe_named else {}

    def _fields(self, params: Mapping[str, Value]) -> dict[str, Any]:
        """All fields of the network; per-stage ones as lists. Raises `SpecError` for a stage that the base lacks."""
        base = self._base(params)
        fields, stages = fields_by_stage(base), FAMILIES[base.family].stages
        for name, value in params.items():
            of, stage = split_name(name, self._most_stages)
            if of == BASE or is_recipe_axis(of):
                continue
            if stage is not None and stage >= stages:
                raise SpecError(f"`{name}` must be a stage of the base, which has {stages}", field=name)
            if stage is not None:
                fields[of][stage] = value
            elif of in PER_STAGE:
                fields[of] = list(value) if isinstance(value, tuple) else [value] * len(fields[of])
            else:
                fields[of] = value
        if "reparam" not in params:
            chosen = {split_name(name, self._most_stages) for name in params}
            kernels = zip(fields["reparam"], fields["K"], fields["kernel"], fields["dilation"], strict=False)
            for i, (s, k, kind, dilation) in enumerate(kernels):
                if ("reparam", i) not in chosen and not fits_small_kernel(s, k, kind, dilation, fields["stripe"]):
                    fields["reparam"][i] = None
        return fields


def _in_order(
    decided: Mapping[str, tuple[str, int | None]],
    when: Mapping[str, Expression],
    derived: Mapping[str, Expression],
    stages: set[int],
) -> Iterator[str]:
    """The axes, each after those that its condition and expression use, and otherwise in the order of the file."""
    used = {name: [each[name] for each in (when, derived) if name in each] for name in decided}
    needs = {
        name: {BASE} & decided.keys() - {name}
        | {axis for expression in expressions for axis in _needs(expression, decided, stages)}
        for name, expressions in used.items()
    }
    left = list(decided)
    while left:
        ready = next((name for name in left if not needs[name] & set(left)), None)
        if ready is None:
            place = next(expression.place for name in left for expression in used[name])
            waiting = " and ".join(f"`{name}`" for name in left)
            wait = "wait for each other" if left[1:] else "waits for itself"
            what = "Conditions and derived axes" if derived.keys() & set(left) else "Conditions"
            remedy = f"{'List the values' if derived.keys() & set(left) else 'Remove the condition'} of one axis."
            raise StudyError(f"{what} must not go in a circle, but {waiting} {wait}", place=place, remedy=remedy)
        left.remove(ready)
        yield ready


def _needs(condition: Expression, decided: Mapping[str, tuple[str, int | None]], stages: set[int]) -> set[str]:
    """The axes that set the fields that a condition uses, in networks with these numbers of stages."""
    used = set(condition.references())
    small = [stage for of, stage in used if of == "reparam"]  # the base's small kernel depends on these fields
    used |= {(of, stage) for stage in small for of in ("K", "dilation", "kernel")}
    used |= {("stripe", None) for _ in small}
    used |= {(name, None) for of, _ in list(used) for name in names_behind(of)}
    return {
        name
        for name, (of, stage) in decided.items()
        for used_field, used_stage in used
        if of == used_field and (stage is None or used_stage is None or stage in {used_stage % n for n in stages})
    }


def axis_value(name: str, spec: NetworkSpec, recipe: ProxyRecipe) -> Value:
    """The value of a network and its recipe on an axis; None for a stage that the network lacks."""
    if is_recipe_axis(name):
        value: Value = flat_recipe(recipe.model_dump(mode="json"))[name]
        return value
    of, stage = split_name(name, max(family.stages for family in FAMILIES.values()))
    if stage is None:
        return getattr(spec, of)  # type: ignore[no-any-return]
    return spec.at(of, stage) if stage < len(spec.K) else None


def fields_by_stage(spec: NetworkSpec) -> dict[str, Any]:
    """All fields of a network as plain values, including defaults; per-stage ones as lists, in all cases."""
    return {name: list(spec.by_stage(name)) if name in PER_STAGE else getattr(spec, name) for name in FIELDS}


def plain_fields(spec: NetworkSpec) -> dict[str, Any]:
    """All fields of a network as they are written, including defaults: as the spec has them, with lists for tuples."""
    values = {name: getattr(spec, name) for name in FIELDS}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
