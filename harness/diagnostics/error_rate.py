"""The rate of false verdicts on recorded runs, and the coverage of their intervals."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.claims import ANALYSES, ClaimResult
from harness.analysis.formatting import plural
from harness.analysis.results import noise_line, study_results
from harness.analysis.statistics import Plan
from harness.analysis.statistics.calibration import ErrorRate, VarianceParts, false_verdicts, variance_parts
from harness.analysis.statistics.sample import Sample
from harness.analysis.study_reader import open_study_reader
from harness.config.recipe_axes import is_recipe_axis
from harness.config.space import Candidate
from harness.config.study import Pairing
from harness.errors import UserError
from harness.report.claims import variance_text
from harness.report.console import indented
from harness.storage.workspace import Workspace
from harness.system.command_line import command_line

LEAST_SEEDS = 40
"""Minimum number of seeds for an A/A test; from fewer, the drawn studies are too similar."""


class RecordedClaim(NamedTuple):
    """The claim of a study, evaluated on its recorded runs."""

    study: str
    result: ClaimResult
    noise: str | None


class AATestResult(NamedTuple):
    """The result of `harness aa` on the recorded runs of one or several studies."""

    recorded: tuple[RecordedClaim, ...]
    plan: Plan
    rate: ErrorRate | None
    """The rate of false verdicts, for an A/A test."""
    parts: VarianceParts | None
    """The variance of the effect, for several data sets."""
    pairing: Pairing = "seed"
    """How the drawn studies of an A/A test were tested."""

    @property
    def holds(self) -> bool:
        """Whether the rate of false verdicts is not significantly above the plan's."""
        return self.rate is None or self.rate.low <= self.plan.alpha


def read_claim(path: Path, workspace: Workspace) -> RecordedClaim:
    """Read the claim of a study. Raises `UserError` if there is more than one claim, or no pair of complete runs."""
    with open_study_reader(path, workspace) as reader:
        claims, study = reader.claims(), reader.file.study.study
        noise = noise_line(study_results(reader.file.study, reader.store, reader.trials, {}).resampling)
    if len(claims) != 1:
        rule = "the study must have one claim, the contrast of its two arms"
        raise UserError(rule, value=len(claims), place=str(path))
    if not claims[0].values:
        remedy = f"Train it: `{command_line('run', path, [])}`."
        raise UserError("the study must have complete runs of both arms", value=study, place=str(path), remedy=remedy)
    if claims[0].limit is not None:
        rule = f"the arms must not be at {claims[0].limit}, where nothing can be told apart"
        raise UserError(rule, value=study, place=str(path))
    return RecordedClaim(study, claims[0], noise)


def measure_error_rate(
    recorded: RecordedClaim, plan: Plan, pairing: Pairing | None = None, *, studies: int, seed: int
) -> AATestResult:
    """The share of drawn studies that reach a verdict, tested with the pairing of the study or with another one.

    Raises `UserError` for unequal arms or too few seeds.
    """
    result, arms = recorded.result, [arm.trained for arm in recorded.result.arms]
    equal = {(spec.replace(replica=0).fingerprint(), recipe.fingerprint()) for spec, recipe in arms}
    if len(arms) != 2 or len(equal) != 1 or sum(result.claim.contrast.values()) != 0:
        rule = "an A/A test must have two arms of one network and recipe, weighed alike, that differ in `replica` alone"
        remedy = "See search_spaces/aa.yaml. Or name several studies, one per data set, to split their effect."
        raise UserError(rule, value=", ".join(result.claim.contrast), place=recorded.study, remedy=remedy)
    if len(result.values) < LEAST_SEEDS:
        rule = f"an A/A test must have at least {LEAST_SEEDS} seeds that both arms have completed"
        raise UserError(rule, value=len(result.values), place=recorded.study)
    if plan.most > len(result.values):
        raise UserError("`--most` must be at most the seeds that there are", value=plan.most, place=recorded.study)
    pairing = pairing or result.pairing
    values = result.values if pairing == "seed" else result.terms
    rate = false_verdicts(values, plan, studies=studies, seed=seed)
    return AATestResult((recorded,), plan, rate, None, pairing)


def split_effect(recorded: tuple[RecordedClaim, ...], plan: Plan) -> AATestResult:
    """The variance of a claim's effect between data sets and between seeds. Raises `UserError` for unequal claims."""
    for claim in recorded:
        if _comparison(claim.result) != _comparison(recorded[0].result):
            raise UserError("all studies must make the same claim, on different data", value=claim.study)
    if len({claim.study for claim in recorded}) < len(recorded):
        raise UserError("all studies must be different ones", value=", ".join(claim.study for claim in recorded))
    try:
        parts = variance_parts({claim.study: claim.result.values for claim in recorded})
    except ValueError as error:
        raise UserError(f"the variance of an effect cannot be split: {error}") from error
    return AATestResult(recorded, plan, None, parts)


def _comparison(result: ClaimResult) -> tuple[object, ...]:
    """The metric, networks, choices of the recipe and weights that a claim compares, independent of its names."""
    arms = zip(result.arms, result.claim.contrast.values(), strict=True)
    return result.claim.metric, *((arm.trained[0].fingerprint(), _recipe_choices(arm), weight) for arm, weight in arms)


def _recipe_choices(arm: Candidate) -> tuple[tuple[str, object], ...]:
    """The choices on axes of the recipe; the rest of it may differ between studies on different data."""
    return tuple(sorted(item for item in arm.params.items() if is_recipe_axis(item[0])))


def outcome_view(outcome: AATestResult) -> RenderableType:
    """The result for a terminal."""
    lines = _rate_lines(outcome) if outcome.rate is not None else _part_lines(outcome)
    names = ", ".join(claim.study for claim in outcome.recorded)
    return Group(Text(names, style="bold"), *(indented(line) for line in lines))


def _rate_lines(outcome: AATestResult) -> list[str]:
    (recorded,), rate, plan = outcome.recorded, outcome.rate, outcome.plan
    assert rate is not None
    pairs, removed = Sample.of(recorded.result.values), recorded.result.variance_removed
    looks = f"looks at {plan.looks[0]} to {plan.most} pairs, {ANALYSES[outcome.pairing]}"
    share = f"{100 * rate.share:.2f} % [{100 * rate.low:.2f}, {100 * rate.high:.2f}]"
    return [
        f"{plural(pairs.n, 'pair')} of equal arms: mean difference {pairs.mean:.2f}, standard deviation "
        f"{pairs.sd:.2f}, p = {pairs.p(0):.2g} against 0 (t test of all pairs).",
        f"Of {rate.studies:,} studies drawn from them with {looks}, {rate.hits:,} reached a verdict: {share}; "
        f"{100 * plan.alpha:g} % are allowed.",
        "Each study is a random subset of the pairs in random order; the arms of a pair are swapped at random, as "
        "equal arms may be. The interval covers the random draws of studies, given these runs.",
        *([] if removed is None else [f"Pairing by seed {variance_text(removed)} the variance of the difference."]),
        *([recorded.noise] if recorded.noise else []),
    ]


def _part_lines(outcome: AATestResult) -> list[str]:
    parts, claim, noise = outcome.parts, outcome.recorded[0].result.claim, outcome.recorded[0].noise
    assert parts is not None
    seeds, held = plural(parts.seeds, "seed"), parts.held
    between, within = math.sqrt(parts.between), math.sqrt(parts.within)
    share = f"{100 * parts.coverage:.0f} % [{100 * parts.coverage_low:.0f}, {100 * parts.coverage_high:.0f}]"
    return [
        f"{claim.name} ({claim.metric}): {parts.effect:.2f} on average over {parts.sets} data sets with {seeds} each.",
        f"Standard deviation between data sets {between:.2f}, between the seeds of one {within:.2f} (F test that all "
        f"data sets have one effect: p = {parts.p:.2g}).",
        f"A nominal 95 % interval from {seeds} of one data set, paired, contains the effect over all in {share} at "
        f"these variances; {held.hits} of {held.studies} contained the mean of the other data sets.",
        *([noise] if noise else []),
    ]


def outcome_values(outcome: AATestResult) -> dict[str, Any]:
    """The result for JSON."""
    rate, parts = outcome.rate, outcome.parts
    plan = {"first": outcome.plan.first, "most": outcome.plan.most, "alpha": outcome.plan.alpha}
    return {
        "studies": [claim.study for claim in outcome.recorded],
        "noise": outcome.recorded[0].noise,
        "pairs": {claim.study: list(claim.result.values) for claim in outcome.recorded},
        "plan": plan,
        "pairing": outcome.pairing,
        "false_verdicts": None if rate is None else rate._asdict() | {"share": rate.share},
        "data_sets": None if parts is None else parts._asdict() | {"held": parts.held._asdict()},
        "holds": outcome.holds,
    }
