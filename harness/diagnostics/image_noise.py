"""How much of a claim's error is due to the validation images."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.claims import ClaimResult
from harness.analysis.formatting import plural
from harness.analysis.objective import COST_OBJECTIVES, final_value
from harness.analysis.statistics import Plan
from harness.analysis.statistics.calibration import (
    Crossed,
    Scheme,
    Studies,
    Table,
    decompose,
    drawn_studies,
    expected_studies,
    shared_coverage_interval,
)
from harness.config.formula import Formula
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.study import CURVES
from harness.errors import UserError
from harness.report.console import indented, plain_table
from harness.storage.workspace import Workspace
from harness.training.run import Run

LEAST_SETS, MOST_SETS = 10, 1000
"""Bounds on the number of validation sets."""
MOST_IMAGES = 100_000
"""Maximum number of images of a validation set, which is kept in memory."""


class ValidationSettings(NamedTuple):
    """The settings of the evaluation on further validation sets."""

    sets: int
    images: int
    plan: Plan
    """The sizes of the studies, from its first look to its last, up to the number of pairs."""
    studies: int
    """Number of studies to draw of each size."""
    seed: int


class SizeResult(NamedTuple):
    """The results for studies of one size."""

    expected: Studies
    """Computed from the variance components."""
    interval: tuple[float, float]
    """Interval of the expected coverage with one validation set for all pairs."""
    drawn: Studies


class ImageNoise(NamedTuple):
    """The result for a claim."""

    study: str
    result: ClaimResult
    settings: ValidationSettings
    table: Table
    crossed: Crossed
    sizes: tuple[SizeResult, ...]


def images_of(recipe: ProxyRecipe, images: int | None) -> int:
    """The number of images of a validation set: `images`, or as many as a run is evaluated on after its last epoch.

    Raises `UserError` for data that cannot be generated, and for a number out of range.
    """
    from harness.data.shapes.dataset import val_sizes

    if recipe.dataset != "shapes":
        raise UserError(
            "`--validation-sets` needs a study on generated images (`dataset: shapes`), so that more can be generated",
            value=recipe.dataset,
            remedy="With `resample: bootstrap` or `split`, every seed is evaluated on its own images.",
        )
    if images is not None and images > MOST_IMAGES:
        raise UserError(f"`--images` must be at most {MOST_IMAGES:,}", value=images)
    return val_sizes(recipe)[1] if images is None else images


def measure_image_noise(
    study: str, result: ClaimResult, settings: ValidationSettings, workspace: Workspace, tell: Callable[[int], None]
) -> ImageNoise:
    """Evaluate the networks of a claim on further validation sets, and split the variance of its effect.

    `tell` is called with the number of completed sets. Raises `UserError` for a claim or runs that do not allow it.
    """
    formula = Formula(result.claim.metric)
    _require_measurable(study, result, settings)
    from harness.measures.validation_sets import judge_runs

    pairs = set(result.seeds)
    rows = [row for row in result.runs if row.run.seed in pairs]
    values = judge_runs(
        rows,
        sets=settings.sets,
        images=settings.images,
        cache=workspace.data_cache,
        folder=workspace.folder(study),
        tell=tell,
    )
    table = _contrasts(
        result,
        {
            (row.run.configuration, row.run.seed): _values(formula, row.run, values[row.id], settings.sets)
            for row in rows
        },
    )
    crossed = decompose(table)
    sizes = tuple(
        SizeResult(
            expected_studies(crossed.components, n),
            shared_coverage_interval(crossed, n, seed=settings.seed),
            drawn_studies(table, n, studies=settings.studies, seed=settings.seed),
        )
        for n in range(settings.plan.first, min(settings.plan.most, *table.shape) + 1)
    )
    return ImageNoise(study, result, settings, table, crossed, sizes)


def _require_measurable(study: str, result: ClaimResult, settings: ValidationSettings) -> None:
    metric, unknown = result.claim.metric, Formula(result.claim.metric).names - {*CURVES, *COST_OBJECTIVES}
    if unknown:
        rule = f"the claim must be about {' or '.join(CURVES)}, which can be evaluated again"
        raise UserError(rule, value=metric, place=study)
    sides = sorted({row.run.recipe.resolution for row in result.runs})
    if len(sides) > 1:
        rule = "all arms must be of one resolution, so that they can be evaluated on the same images"
        raise UserError(rule, value=f"{', '.join(map(str, sides))} px", place=study)
    if not LEAST_SETS <= settings.sets <= MOST_SETS:
        raise UserError(f"`--validation-sets` must be from {LEAST_SETS} to {MOST_SETS:,}", value=settings.sets)
    if len(result.values) < settings.plan.first:
        rule = f"the study must have at least {settings.plan.first} seeds that all arms have completed"
        raise UserError(rule, value=len(result.values), place=study)


def _values(formula: Formula, run: Run, values: Mapping[str, list[float]], sets: int) -> list[float]:
    """The values of the claim's formula for a run, one per validation set."""
    costs = {name: final_value(name, run, (), {}) for name in formula.names if name not in CURVES}
    results = [formula.value(({name: values[name][at] for name in CURVES} | costs).get) for at in range(sets)]
    if None in results:
        raise UserError("the claim's formula must have a value on every validation set", value=formula.text)
    return [value for value in results if value is not None]


def _contrasts(result: ClaimResult, values: Mapping[tuple[tuple[str, str], int], list[float]]) -> Table:
    """The contrast of each seed on each validation set, shape (pairs, sets), by configuration and seed."""
    arms = list(zip(result.arms, result.claim.contrast.values(), strict=True))
    effects = [[weight * np.array(values[arm.identity, seed]) for arm, weight in arms] for seed in result.seeds]
    return np.asarray(np.array(effects).sum(axis=1), np.float64)


def image_noise_view(noise: ImageNoise) -> RenderableType:
    """The result for a terminal."""
    lines = [*map(indented, _part_lines(noise)), Text(), _table(noise), Text(), *map(indented, _closing_lines(noise))]
    return Group(Text(noise.study, style="bold"), *lines)


def _part_lines(noise: ImageNoise) -> list[str]:
    crossed, claim, n = noise.crossed, noise.result.claim, noise.sizes[0].expected.n
    pair, of_set, rest = (variance**0.5 for variance in crossed.components)
    on = f"{plural(crossed.sets, 'validation set')} of {noise.settings.images:,} images that all networks share"
    return [
        f"{claim.name} ({claim.metric}): {crossed.effect:.2f} ± {crossed.error():.2f} (standard error) on average over "
        f"{plural(crossed.pairs, 'pair')} of networks on {on}.",
        f"Standard deviation of the effect between pairs {pair:.2f}, between validation sets {of_set:.2f} (F test that "
        f"all have one effect: p = {crossed.p:.2g}), of the rest {rest:.2f}.",
        f"At fixed networks, the mean of {n} pairs has a standard deviation of {crossed.sd_of_fixed(n):.2f} over "
        f"validation sets; the standard error that {n} pairs on one of them state is "
        f"{noise.sizes[0].expected.shared.error:.2f}.",
    ]


def _table(noise: ImageNoise) -> RenderableType:
    drawn = ("drawn: sd", "stated", "coverage")
    table = plain_table()
    for name in ("  pairs", "validation sets", "sd", "stated", "coverage", "95 % interval", *drawn):
        table.add_column(name, justify="left" if name == "validation sets" else "right")
    for size in noise.sizes:
        low, high = size.interval
        expected, measured = (
            map(_scheme_cells, (schemes.shared, schemes.own)) for schemes in (size.expected, size.drawn)
        )
        firsts = ((str(size.expected.n), "one for all pairs"), ("", "one for each pair"))
        intervals = (f"[{100 * low:.1f}, {100 * high:.1f}]", "")
        for first, left, interval, right in zip(firsts, expected, intervals, measured, strict=True):
            table.add_row(*first, *left, interval, *right)
    return table


def _scheme_cells(scheme: Scheme) -> tuple[str, str, str]:
    return f"{scheme.sd:.2f}", f"{scheme.error:.2f}", f"{100 * scheme.coverage:.1f} %"


def _closing_lines(noise: ImageNoise) -> list[str]:
    return [
        "sd: standard deviation of the estimated effect around the effect over all networks and images; stated: the "
        "standard error that a study of pairs states (root mean square); coverage: of its nominal 95 % t interval. On "
        "the left, computed from the variance components for normal noise; on the right, measured on "
        f"{noise.settings.studies:,} studies drawn from these pairs and sets without replacement. If a study has most "
        "of the recorded pairs, the drawn studies are nearly identical, and their coverage holds only for this table.",
        "A validation set that all pairs share adds noise that their spread does not show and that more pairs do not "
        "reduce. With `resample: split`, the default, every seed is evaluated on its own images.",
    ]


def image_noise_values(noise: ImageNoise) -> dict[str, Any]:
    """The result for JSON."""
    crossed, settings = noise.crossed, noise.settings
    return {
        "study": noise.study,
        "claim": noise.result.claim.name,
        "metric": noise.result.claim.metric,
        "validation_sets": {"sets": settings.sets, "images": settings.images},
        "seeds": list(noise.result.seeds),
        "effects": noise.table.tolist(),
        "effect": crossed.effect,
        "standard_error": crossed.error(),
        "variances": crossed.components._asdict(),
        "p": crossed.p,
        "drawn_studies": settings.studies,
        "studies": [
            {
                "pairs": studies.expected.n,
                "expected": _scheme_values(studies.expected) | {"shared_coverage_interval": list(studies.interval)},
                "drawn": _scheme_values(studies.drawn),
            }
            for studies in noise.sizes
        ],
    }


def _scheme_values(studies: Studies) -> dict[str, Any]:
    return {"shared": studies.shared._asdict(), "own": studies.own._asdict()}
