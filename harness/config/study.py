"""The keys of a study file; the docstrings below the keys are the descriptions in the JSON schema."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from harness.config.calibrate import Calibrate
from harness.config.effects import EffectEntry
from harness.config.measures import COST_METRICS, ScoreName, is_of_machine
from harness.config.recipes.proxy import ProxyRecipe, StrictModel
from harness.config.search_methods import PLATEAU_TRIALS

HALVING_FACTOR = 3
"""One in three configurations of a rung is promoted (asynchronous successive halving, Li et al. 2020)."""
MEDIAN_STARTUP_TRIALS = 3
"""Complete trials before which the pruner median discards nothing."""
FIRST_RUNG_PROPOSALS = 4
"""Proposals of which the best is trained, where a study file has `first_rung` and not their number."""
RESERVED_NAMES = ("bench", "calibrations", "claims", "erf", "full_scale")
"""Folders in the results folder that belong to no study."""
Pairing = Literal["seed", "none"]
Direction = Literal["maximize", "minimize"]
UNIFORM_SAMPLERS = ("random", "qmc")
"""Samplers that draw uniformly on every axis, whatever the results; without a pruner, all their trials are uniform."""
MOST_OBJECTIVES = 6
"""Of more, almost every configuration is on the front."""
CURVES = ("top1", "val_loss")
"""Objectives that are measured after every epoch, so that a pruner can use them."""


def _either(name: str) -> Discriminator:
    """Distinguishes a mapping from the other form of a key, so that errors are about the form in the file."""

    def form(value: Any) -> str:
        return "<mapping>" if isinstance(value, Mapping | StrictModel) else f"<{name}>"

    return Discriminator(form)


class OrdinalRange(StrictModel):
    """An ordinal axis: `low`, `low + step`, ..., `high`; whole numbers if all three are."""

    low: float
    high: float
    step: Annotated[float, Field(gt=0)] = 1
    log: bool = False
    """Draw uniformly on a logarithmic scale; for whole numbers from 1 on, with a step of 1."""


Named = Annotated[Annotated[str, Tag("<name>")] | Annotated[dict[str, Any], Tag("<mapping>")], _either("name")]
"""A preset's name, the path of a spec file relative to the study file, or a mapping of a network's fields."""


class WeightedValues(StrictModel):
    """The values of an axis with a prior: how much each is expected to be the best one."""

    values: list[Any]
    prior: list[Annotated[float, Field(ge=0, allow_inf_nan=False)]]
    """A weight for each value; a value with twice the weight of another is proposed twice as often from the prior."""


def _axis_form(value: Any) -> str:
    """The form of an axis; see `_either`."""
    if isinstance(value, WeightedValues) or (isinstance(value, Mapping) and {"values", "prior"} & value.keys()):
        return "<values>"
    if isinstance(value, Mapping | StrictModel):
        return "<mapping>"
    return "<text>" if isinstance(value, str) else "<list>"


AxisEntry = Annotated[
    Annotated[list[Any], Tag("<list>")]
    | Annotated[WeightedValues, Tag("<values>")]
    | Annotated[OrdinalRange, Tag("<mapping>")]
    | Annotated[str, Tag("<text>")],
    Discriminator(_axis_form),
]
"""Values, values with a prior, a range, or for a derived axis an expression of other axes, as `K[0] - 2`."""


SamplerName = Literal["grid", "random", "qmc", "tpe", "gp", "nsga2", "cmaes"]


class Budgets(StrictModel):
    """Upper limits; a configuration above one is not trained (params, macs) or does not count (latency_ms)."""

    params: Annotated[float, Field(gt=0)] | None = None
    """Parameters of the merged network."""
    macs: Annotated[float, Field(gt=0)] | None = None
    """Multiply-accumulates of the merged network for one image of the proxy's resolution."""
    latency_ms: Annotated[float, Field(gt=0)] | None = None
    """Median milliseconds for one image, measured after the training on the device that trained."""


class SearchBudget(StrictModel):
    """What a study trains at most, over all calls of it; screening runs count, and runs taken from the store do not.

    A run is started only if it is expected to stay within every limit; what has been started ends.
    """

    hours: Annotated[float, Field(gt=0)] | None = None
    """Core-hours of training: the wall time of every run times its threads (`resources.cpus`)."""
    runs: Annotated[int, Field(ge=1)] | None = None
    """Number of runs that are trained."""
    epochs: Annotated[int, Field(ge=1)] | None = None
    """Number of epochs that are trained; those before a run is resumed count once."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.hours is None and self.runs is None and self.epochs is None:
            raise ValueError("must have a limit: `hours`, `runs` or `epochs`")
        return self

    def part(self, share: float) -> Self:
        """This share of every limit, whole runs and epochs rounded down."""
        whole = {
            name: None if (limit := getattr(self, name)) is None else int(share * limit + 1e-9)
            for name in ("runs", "epochs")
        }
        return self.model_copy(update={"hours": None if self.hours is None else share * self.hours, **whole})


class Racing(StrictModel):
    """Further seeds for the configurations that may be the best: each earns its second and third seed.

    `search.seeds` is what every configuration gets. The best one is the one with the largest pessimistic bound.
    """

    most: Annotated[int, Field(ge=2, le=1000)] = 3
    """Number of seeds that a configuration gets at most."""
    level: Annotated[float, Field(ge=0.5, lt=1)] = 0.95
    """Confidence of the bounds: a configuration gets further seeds while its optimistic bound is above the pessimistic
    bound of the best one. A lower level trains fewer runs, and is wrong more often."""
    share: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of `search.budget` that is kept for the race: a sampler proposes nothing further when the rest is used."""


class Search(StrictModel):
    """How configurations are chosen, how often each is trained, and when a bad one is given up."""

    sampler: Annotated[
        Annotated[SamplerName, Tag("<name>")]
        | Annotated[str, Tag("<plug-in>"), Field(json_schema_extra={"pattern": ":"})],
        Discriminator(lambda value: "<plug-in>" if isinstance(value, str) and ":" in value else "<name>"),
    ] = "grid"
    """All configurations in turn (grid); drawn uniformly, or by a Sobol sequence (qmc); or proposed by a model: a
    tree-structured Parzen estimator (tpe), a Gaussian process (gp), a genetic algorithm (nsga2) or CMA-ES (cmaes). Or
    one of your own: `module.py:name` next to the study file, or `package.module:name`."""
    trials: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Number of configurations to train; not for a grid, which trains all."""
    seeds: Annotated[int, Field(ge=1, le=1000)] = 3
    """Number of seeds with which each configuration is trained; its value is the mean."""
    max_seeds: Annotated[int, Field(ge=1, le=1000)] | None = None
    """The configurations of undecided claims get one more seed at a time, up to this number, those of the claim first
    that gains the most chance of a verdict for its computing; null for none."""
    racing: Racing | None = None
    """Race for the best: when the search has ended, further seeds go only to configurations that may be the best."""
    deterministic: bool = False
    """Same proposals and same answer for any number of workers and any order of ending: a proposal does not use the
    results of the seven trials before it, and waits for those of all earlier ones."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of the sampler, and the first of the seeds that all configurations share."""
    pairing: Pairing = "seed"
    """How claims are tested: by t tests of the contrast by seed; or of independent arms, with the sum of their
    variances (Welch). A part of the plan of the claims, to be chosen before the first run.

    Pairing is of use where seeds have similar effects on all arms (`variance_removed_by_pairing` in `summary.json`);
    where they have not, it costs degrees of freedom.
    """
    pruner: Literal["none", "successive_halving", "asha", "hyperband", "median", "wilcoxon"] = "none"
    """The rule that discards a bad configuration: after the first epochs of a screening run, or after some seeds.

    A screening run has its own seed, which enters no mean; a configuration that passes is trained with all its seeds
    to the end. `asha` pauses screening runs at its rungs, and resumes the best of them. `wilcoxon` has no screening
    run: it compares a configuration's seeds with those of the best one, and gives up its further seeds if it is worse.
    """
    sampler_digest: str | None = None
    """Version and digest of the code of a sampler of your own, which a study keeps; filled in when it is started."""

    space_filling: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the trials that are drawn uniformly from the space and trained to the end, whatever sampler and pruner.

    They make the intervals of `harness effects` valid; 0.2 suits a search of 100 trials or more.
    """
    first_rung: ScoreName | None = None
    """A score that is computed before any training: of each `first_rung_proposals` networks that the sampler proposes,
    only the best by this score is trained; null for none. Space-filling trials are never chosen so. Whether the score
    is worth anything is shown by `harness trust`."""
    first_rung_proposals: Annotated[int, Field(ge=2, le=100)] | None = None
    """Number of proposals of which `first_rung` chooses one; null for 4."""

    budget: SearchBudget | None = None
    """What the study trains at most, over all calls; when it is used up, the study ends, and a larger one continues
    it."""
    plateau: Annotated[float, Field(gt=0)] | None = None
    """The search ends when a further trial is expected to gain less than this over the best so far, in units of the
    objective; from 20 complete configurations on, for samplers other than grid."""

    enqueue: list[
        Annotated[Annotated[str, Tag("<name>")] | Annotated[dict[str, Any], Tag("<mapping>")], _either("name")]
    ] = Field(default=[])
    """Configurations that are tried first: presets (`replknet_nano`), choices (`{K: 13, shortcut: true}`, the base's on
    all other axes), and `best of OTHER_STUDY` or `best 3 of OTHER_STUDY`, of the same database."""

    @property
    def draws_uniformly(self) -> bool:
        """Whether every trial is a uniform draw that is trained to the end, whatever its results and scores."""
        return self.sampler in UNIFORM_SAMPLERS and self.pruner == "none" and self.first_rung is None

    @model_validator(mode="after")
    def _check_first_rung(self) -> Self:
        if self.first_rung is not None and self.sampler == "grid":
            raise ValueError("`first_rung` must be left out for the sampler grid, which trains every configuration")
        if self.first_rung is None and self.first_rung_proposals is not None:
            raise ValueError("`first_rung_proposals` must be left out where `first_rung` names no score")
        return self

    @model_validator(mode="after")
    def _check_plateau(self) -> Self:
        if self.plateau is None:
            return self
        if self.sampler == "grid":
            raise ValueError("`plateau` must be left out for the sampler grid, which trains every configuration")
        if self.seeds < 2:
            raise ValueError(f"`plateau` needs `seeds: 2` or more, which show the noise, but `seeds` is {self.seeds}")
        if self.trials is not None and self.trials <= PLATEAU_TRIALS:
            raise ValueError(
                f"`plateau` needs more than {PLATEAU_TRIALS} `trials`, since it ends no search before, but got "
                f"{self.trials}"
            )
        return self

    @model_validator(mode="after")
    def _check_space_filling(self) -> Self:
        if self.space_filling == 0:
            return self
        if self.sampler == "grid":
            raise ValueError("`space_filling` must be left out for the sampler grid, which trains every configuration")
        if self.draws_uniformly:
            raise ValueError(
                f"`space_filling` must be left out for the sampler {self.sampler} without a pruner, whose trials all "
                "are drawn uniformly and trained to the end"
            )
        return self

    @model_validator(mode="after")
    def _check_deterministic(self) -> Self:
        if not self.deterministic:
            return self
        if self.pruner in ("asha", "hyperband", "wilcoxon"):
            raise ValueError(
                f"`pruner` must be none, median or successive_halving with `deterministic`, but got {self.pruner}, "
                "which compares with trials that end in any order"
            )
        if self.budget is not None:
            raise ValueError(
                "`budget` must be left out with `deterministic`: what is used of it at a proposal depends on the order "
                "in which trials end; write the number of `trials`"
            )
        return self

    @model_validator(mode="after")
    def _check_racing(self) -> Self:
        if self.racing is None:
            return self
        if self.racing.most <= self.seeds:
            raise ValueError(
                f"`racing.most` must be more than the {self.seeds} `seeds` that every configuration gets, but got "
                f"{self.racing.most}; write `seeds: 1`"
            )
        if self.pruner == "wilcoxon":
            raise ValueError(
                "`racing` must be left out for the pruner wilcoxon: both decide which configurations get further seeds"
            )
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sampler == "grid" and self.trials is not None:
            raise ValueError("`trials` must be left out for the sampler grid, which trains every configuration once")
        if self.sampler != "grid" and self.trials is None:
            raise ValueError(f"`trials` must be given for the sampler {self.sampler}, as `trials: 40`")
        if self.max_seeds is not None and self.max_seeds < self.seeds:
            raise ValueError(f"`max_seeds` must be at least `seeds` ({self.seeds}), but got {self.max_seeds}")
        return self


class Resources(StrictModel):
    """The resources of each run, which determine how many runs train at a time. None of them changes the outcome."""

    cpus: Annotated[int, Field(ge=1, le=4096)] = 1
    """Threads of a worker."""
    gpus: Annotated[float, Field(ge=0, le=1024)] = 0.0
    """Share of a GPU, or a whole number of them, if there are any; 0 trains on the CPU."""
    minutes_per_run: Annotated[float, Field(gt=0)] = 60.0
    """Time limit of a run."""

    @field_validator("gpus")
    @classmethod
    def _check_gpus(cls, gpus: float) -> float:
        if gpus > 1 and not gpus.is_integer():
            raise ValueError("must be a share of at most 1 or a whole number")
        return gpus


class FullScale(StrictModel):
    """The network and the recipe with which the winner is trained at full scale."""

    base: Named
    """The network to which the winner's choices are applied, and which decides its size."""
    recipe: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")] | None = None
    """Name of a full-scale recipe, as `imagenet_300`."""


class Claim(StrictModel):
    """A statement about configurations that the runs may support or contradict."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    """Name of the claim in tables."""
    says: str
    """The claim in a sentence."""
    metric: str = "top1"
    """The metric to compare, or a formula of metrics, as `log(latency_ms_p50 / macs)`."""
    contrast: Annotated[dict[str, float], Field(min_length=1)]
    """Weights by arm, a choice on every axis, as `K=13, shortcut=false: -1`; the weighted sum is the effect."""
    expect: str
    """The expected effect: `> 0`, `< -1.5`, or `within 0.5` of 0."""
    ignore: Annotated[float, Field(gt=0)] | None = None
    """Smallest effect of interest: an effect surely closer than this to the bound is `equivalent`, not undecided."""
    paper: str | None = None
    """The published result, with its place."""


class Study(StrictModel):
    """A question about a network, as one file."""

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    """Name of the study, and of its folder in the results folder."""
    base: Named | None = None
    """A preset, the path of a spec file, or the fields of a network; every axis overrides one of them."""
    axes: Annotated[dict[str, AxisEntry], Field(min_length=1)]
    """Values by axis: a field of the network (`K`), one stage of a field (`K[3]`), whole networks (`base`), or a key of
    the proxy (`recipe.optimizer.lr`). Text is an expression of other axes, from which the value follows: `K[0] - 2`."""
    bases: dict[str, Named] = Field(default={})
    """Networks by name, for the axis `base`; presets and spec files need no entry here."""
    when: dict[str, str] = Field(default={})
    """Conditions by axis; where one is false, the axis is not chosen and the base's value applies."""
    rules: list[str] = Field(default=[])
    """Conditions that every configuration must meet, as `C[3] <= 8 * C[0]`, `recipe.epochs >= 4 or max(K) < 13`."""
    budgets: Budgets = Budgets()
    objectives: dict[str, Direction] = Field(default={"top1": "maximize"})
    """The metric to optimize: `top1`, `val_loss`, `params`, `macs`, or a measured one such as `latency_ms_p50`. Of
    several, as `{top1: maximize, macs: minimize}`, the answer is the Pareto front; the first one orders the tables."""
    search: Search = Search()
    proxy: ProxyRecipe = ProxyRecipe()
    """How each configuration is trained, where no axis decides."""
    resources: Resources = Resources()
    full_scale: FullScale | None = None
    claims: list[Claim] = Field(default=[])
    """Statements that are tested by statistics over paired seeds."""
    effects: list[EffectEntry] = Field(default=[])
    """Effects that `harness effects` names, with what is known of each; those of all axes are estimated anyway."""
    calibrate: Calibrate | None = None
    """What `harness calibrate` varies to find the proxy that decides the claims for the least computing."""
    quick: dict[str, Any] | None = Field(default=None)
    """Changes for a short first run, as `{search: {seeds: 1}, proxy: {epochs: 2}}`; `--quick` runs it, under the name
    `<study>_quick`."""

    @field_validator("study")
    @classmethod
    def _check_study(cls, name: str) -> str:
        if name.lower() in RESERVED_NAMES:
            raise ValueError(f"must not be `{name}`, a folder that the results folder has already")
        return name

    @field_validator("objectives")
    @classmethod
    def _check_objectives(cls, objectives: dict[str, Any]) -> dict[str, Any]:
        if not 1 <= len(objectives) <= MOST_OBJECTIVES:
            raise ValueError(
                f"must hold 1 to {MOST_OBJECTIVES} objectives; put the others into `budgets` (got {len(objectives)})"
            )
        return objectives

    @property
    def objective(self) -> str:
        """The first objective, which orders tables and decides where only one can."""
        return next(iter(self.objectives))

    @property
    def direction(self) -> Direction:
        """The direction of the first objective."""
        return self.objectives[self.objective]

    @property
    def curve_objective(self) -> str:
        """The first objective that epochs have; if none has one, the first."""
        return next((name for name in self.objectives if name in CURVES), self.objective)

    @property
    def has_several_objectives(self) -> bool:
        """Whether its answer is a Pareto front."""
        return len(self.objectives) > 1

    @model_validator(mode="after")
    def _check_claims(self) -> Self:
        names = [claim.name for claim in self.claims]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"`claims` must have different names, but two are called `{twice}`")
        if self.claims and self.search.sampler != "grid":
            raise ValueError(f"`search.sampler` must be grid where there are claims, but got {self.search.sampler}")
        if self.claims and self.search.pruner != "none":
            raise ValueError(f"`search.pruner` must be none where there are claims, but got {self.search.pruner}")
        if self.claims and self.search.racing is not None:
            raise ValueError(
                "`search.racing` must be left out where there are claims: it chooses by the results which arms get "
                "further seeds, and the tests of claims are not valid then; `search.max_seeds` decides claims"
            )
        if self.search.max_seeds is not None and not self.claims:
            raise ValueError("`search.max_seeds` must be left out where there are no claims that need more seeds")
        return self

    @model_validator(mode="after")
    def _check_untrained(self) -> Self:
        objective = next((name for name in self.objectives if name in CURVES), None)
        if self.proxy.epochs == 0 and objective is not None:
            raise ValueError(
                f"`objectives` must hold a cost or a measure where `proxy.epochs` is 0 and nothing is trained, but got "
                f"{objective}; take params, macs or latency_ms_p50"
            )
        return self

    @model_validator(mode="after")
    def _check_racing(self) -> Self:
        objective = self.objective
        if self.search.racing is not None and (objective in COST_METRICS or is_of_machine(objective)):
            raise ValueError(
                f"`search.racing` must be left out for the objective {objective}, of which further seeds show nothing: "
                "a cost follows from the network, and the seeds of a network share their measured times"
            )
        return self

    @model_validator(mode="after")
    def _check_budget(self) -> Self:
        """The first configuration must be within the budget: with all seeds, except on a grid, which closes others."""
        search = self.search
        if search.budget is None:
            return self
        is_grid = search.sampler == "grid"
        screening = 0 if is_grid else screening_epochs(search.pruner, self.proxy.epochs)
        runs = 1 if is_grid else search.seeds + (screening > 0)
        kept = 0.0 if is_grid or search.racing is None else search.racing.share
        limits = search.budget.part(1 - kept)
        rest = f", of which `racing.share` leaves {1 - kept:.3g} to the search" if kept else ""
        if limits.runs is not None and limits.runs < runs:
            of = f"{search.seeds} runs (`seeds`)" + (" and a screening run" if screening else "")
            raise ValueError(
                f"`search.budget.runs` must allow a configuration, which has {of}, but got {search.budget.runs}{rest}"
            )
        epochs = self.proxy.epochs * (1 if is_grid else search.seeds) + screening
        if limits.epochs is not None and limits.epochs < epochs and "recipe.epochs" not in self.axes:
            what = "run" if is_grid else "configuration"
            raise ValueError(
                f"`search.budget.epochs` must allow a {what}, which takes {epochs} epochs, but got "
                f"{search.budget.epochs}{rest}"
            )
        return self

    @model_validator(mode="after")
    def _check_pruner(self) -> Self:
        objective = " and ".join(self.objectives)
        if self.search.pruner not in ("none", "wilcoxon") and not any(name in CURVES for name in self.objectives):
            raise ValueError(
                f"`search.pruner` must be none for the objective {objective}, which only finished runs have; "
                f"{' and '.join(CURVES)} can be pruned, and wilcoxon takes every objective"
            )
        return self


def first_rung(epochs: int) -> int:
    """Epochs after which successive halving first decides."""
    return max(1, math.ceil(epochs / HALVING_FACTOR))


def screening_epochs(name: str, epochs: int) -> int:
    """Epochs of the screening run after which the pruner decides; 0 if it never decides.

    No decision is made after half of the epochs: by then, training the configuration's seeds is worth its cost.
    """
    latest = min(math.ceil(epochs / 2), epochs - 1)
    match name:
        case "none" | "wilcoxon":
            return 0
        case "median":
            return latest
        case "hyperband" | "asha":
            rung = max(1, epochs // HALVING_FACTOR**2)
        case _:
            rung = first_rung(epochs)
    if rung > latest:
        return 0
    while rung * HALVING_FACTOR <= latest:
        rung *= HALVING_FACTOR
    return rung


def decision_epochs(pruner: str, epochs: int) -> tuple[int, ...]:
    """The numbers of epochs of a screening run after which a pruner decides, without those before a study has begun."""
    last = screening_epochs(pruner, epochs)
    match pruner:
        case "median":
            return tuple(range(max(1, first_rung(epochs) - 1), last + 1))  # as Optuna's rule counts the warm-up
        case "hyperband" | "asha":
            return _rungs(max(1, epochs // HALVING_FACTOR**2), last)
        case _:
            return _rungs(first_rung(epochs), last)


def _rungs(first: int, last: int) -> tuple[int, ...]:
    rungs = []
    while first <= last:
        rungs.append(first)
        first *= HALVING_FACTOR
    return tuple(rungs)
