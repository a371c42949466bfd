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
from harness.analysis.statistics.crossed import (
    Crossed,
    Studies,
    Table,
    decompose,
    drawn_studies,
    expected_studies,
    shared_coverage_interval,
)
from harness.config.expressions import Formula
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


class Asked(NamedTuple):
    """The settings of the evaluation on further validation sets."""

    sets: int
    images: int
    plan: Plan
    """The sizes of the studies, from its first look to its last, up to the number of pairs."""
    studies: int
    """Number of studies to draw of each size."""
    seed: int


class Sized(NamedTuple):
    """The results for studies of one size."""

    expected: Studies
    """Computed from the variance components."""
    interval: tuple[float, float]
    """Interval of the expected coverage with one validation set for all pairs."""
    drawn: Studies


class ImageNoise(NamedTuple):
    """The result for a claim."""

    study: str
    judged: ClaimResult
    asked: Asked
    table: Table
    crossed: Crossed
    sized: tuple[Sized, ...]


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
    study: str, result: ClaimResult, asked: Asked, workspace: Workspace, tell: Callable[[int], None]
) -> ImageNoise:
    """Evaluate the networks of a claim on further validation sets, and split the variance of its effect.

    `tell` is called with the number of completed sets. Raises `UserError` for a claim or runs that do not allow it.
    """
    formula = Formula(result.claim.metric)
    _require_judgeable(study, result, asked)
    from harness.measures.validation_sets import judge_runs

    pairs = set(result.seeds)
    rows = [row for row in result.runs if row.run.seed in pairs]
    values = judge_runs(
        rows,
        sets=asked.sets,
        images=asked.images,
        cache=workspace.data_cache,
        folder=workspace.folder(study),
        tell=tell,
    )
    table = _contrasts(
        result,
        {
            (row.run.spec.fingerprint(), row.run.seed): _values(formula, row.run, values[row.id], asked.sets)
            for row in rows
        },
    )
    crossed = decompose(table)
    sizes = range(asked.plan.first, min(asked.plan.most, *table.shape) + 1)
    return ImageNoise(study, result, asked, table, crossed, tuple(_sized(table, crossed, n, asked) for n in sizes))


def _require_judgeable(study: str, result: ClaimResult, asked: Asked) -> None:
    metric, unknown = result.claim.metric, Formula(result.claim.metric).names - {*CURVES, *COST_OBJECTIVES}
    if unknown:
        rule = f"the claim must be about {' or '.join(CURVES)}, which can be evaluated again"
        raise UserError(rule, value=metric, place=study)
    if not LEAST_SETS <= asked.sets <= MOST_SETS:
        raise UserError(f"`--validation-sets` must be from {LEAST_SETS} to {MOST_SETS:,}", value=asked.sets)
    if len(result.values) < asked.plan.first:
        rule = f"the study must have at least {asked.plan.first} seeds that all arms have completed"
        raise UserError(rule, value=len(result.values), place=study)


def _values(formula: Formula, run: Run, values: Mapping[str, list[float]], sets: int) -> list[float]:
    """The values of the claim's formula for a run, one per validation set."""
    costs = {name: final_value(name, run, (), {}) for name in formula.names if name not in CURVES}
    results = [formula.value(({name: values[name][at] for name in CURVES} | costs).get) for at in range(sets)]
    if None in results:
        raise UserError("the claim's formula must have a value on every validation set", value=formula.text)
    return [value for value in results if value is not None]


def _contrasts(result: ClaimResult, values: Mapping[tuple[str, int], list[float]]) -> Table:
    """The contrast of each seed on each validation set, shape (pairs, sets), from the values by network and seed."""
    arms = list(zip(result.arms, result.claim.contrast.values(), strict=True))
    effects = [[weight * np.array(values[arm.fingerprint, seed]) for arm, weight in arms] for seed in result.seeds]
    return np.asarray(np.array(effects).sum(axis=1), np.float64)


def _sized(table: Table, crossed: Crossed, n: int, asked: Asked) -> Sized:
    return Sized(
        expected_studies(crossed.components, n),
        shared_coverage_interval(crossed, n, seed=asked.seed),
        drawn_studies(table, n, studies=asked.studies, seed=asked.seed),
    )


def image_noise_view(noise: ImageNoise) -> RenderableType:
    """The result for a terminal."""
    lines = [*map(indented, _part_lines(noise)), Text(), _table(noise), Text(), *map(indented, _closing_lines(noise))]
    return Group(Text(noise.study, style="bold"), *lines)


def _part_lines(noise: ImageNoise) -> list[str]:
    crossed, claim, n = noise.crossed, noise.judged.claim, noise.sized[0].expected.n
    pair, of_set, rest = (variance**0.5 for variance in crossed.components)
    on = f"{plural(crossed.sets, 'validation set')} of {noise.asked.images:,} images that all networks share"
    return [
        f"{claim.name} ({claim.metric}): {crossed.effect:.2f} ± {crossed.error():.2f} (standard error) on average over "
        f"{plural(crossed.pairs, 'pair')} of networks on {on}.",
        f"Standard deviation of the effect between pairs {pair:.2f}, between validation sets {of_set:.2f} (F test that "
        f"all have one effect: p = {crossed.p:.2g}), of the rest {rest:.2f}.",
        f"At fixed networks, the mean of {n} pairs has a standard deviation of {crossed.sd_of_fixed(n):.2f} over "
        f"validation sets; the standard error that {n} pairs on one of them state is "
        f"{noise.sized[0].expected.shared.error:.2f}.",
    ]


def _table(noise: ImageNoise) -> RenderableType:
    table = plain_table()
    for heading in ("  pairs", "validation sets", "sd", "stated", "coverage", "95 % interval", "drawn: sd", "stated"):
        table.add_column(heading, justify="left" if heading == "validation sets" else "right")
    table.add_column("coverage", justify="right")
    for studies in noise.sized:
        low, high = studies.interval
        expected, drawn = studies.expected, studies.drawn
        interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
        for name, ends in (("shared", interval), ("own", "")):
            left, right = getattr(expected, name), getattr(drawn, name)
            first = str(expected.n) if name == "shared" else ""
            cells = (f"{left.sd:.2f}", f"{left.error:.2f}", f"{100 * left.coverage:.1f} %", ends)
            table.add_row(
                first, _SCHEMES[name], *cells, f"{right.sd:.2f}", f"{right.error:.2f}", f"{100 * right.coverage:.1f} %"
            )
    return table


_SCHEMES = {"shared": "one for all pairs", "own": "one for each pair"}


def _closing_lines(noise: ImageNoise) -> list[str]:
    return [
        "sd: standard deviation of the estimated effect around the effect over all networks and images; stated: the "
        "standard error that a study states (root mean square); coverage: of its nominal 95 % t interval. On the left, "
        "computed from the variance components for normal noise; on the right, measured on "
        f"{noise.asked.studies:,} studies drawn from these pairs and sets without replacement. If a study has most of "
        "the recorded pairs, the drawn studies are nearly identical, and their coverage holds only for this table.",
        "A validation set that all pairs share adds noise that their spread does not show and that more pairs do not "
        "reduce. With `resample: split`, the default, every seed is evaluated on its own images.",
    ]


def image_noise_values(noise: ImageNoise) -> dict[str, Any]:
    """The result for JSON."""
    crossed, asked = noise.crossed, noise.asked
    return {
        "study": noise.study,
        "claim": noise.judged.claim.name,
        "metric": noise.judged.claim.metric,
        "validation_sets": {"sets": asked.sets, "images": asked.images},
        "seeds": list(noise.judged.seeds),
        "effects": noise.table.tolist(),
        "effect": crossed.effect,
        "standard_error": crossed.error(),
        "variances": crossed.components._asdict(),
        "p": crossed.p,
        "drawn_studies": asked.studies,
        "studies": [
            {
                "pairs": studies.expected.n,
                "expected": _scheme_values(studies.expected) | {"shared_coverage_interval": list(studies.interval)},
                "drawn": _scheme_values(studies.drawn),
            }
            for studies in noise.sized
        ],
    }


def _scheme_values(studies: Studies) -> dict[str, Any]:
    return {"shared": studies.shared._asdict(), "own": studies.own._asdict()}
