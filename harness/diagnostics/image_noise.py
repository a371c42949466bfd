"""How much of a claim's error belongs to the images that it is judged on."""

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
"""Of an estimate of what a validation set adds."""
MOST_IMAGES = 100_000
"""Of a validation set, which is held in memory."""


class Asked(NamedTuple):
    """How the networks of a claim are to be judged."""

    sets: int
    images: int
    plan: Plan
    """The sizes of studies: from its first look to its last, as far as there are pairs."""
    studies: int
    """To draw, of each size."""
    seed: int


class Sized(NamedTuple):
    """Studies of one size."""

    expected: Studies
    """From the components of variance."""
    interval: tuple[float, float]
    """Of the expected coverage with one set for all pairs."""
    drawn: Studies


class ImageNoise(NamedTuple):
    """What came out for a claim."""

    study: str
    judged: ClaimResult
    asked: Asked
    table: Table
    crossed: Crossed
    sized: tuple[Sized, ...]


def images_of(recipe: ProxyRecipe, images: int | None) -> int:
    """The images of a validation set: as given, or as many as the last epoch of a run is judged on.

    Raises `UserError` for data that cannot be generated, and for a number out of range.
    """
    from harness.data.shapes.dataset import val_sizes

    if recipe.dataset != "shapes":
        raise UserError(
            "`--validation-sets` needs a study on generated images (`dataset: shapes`), of which there are more",
            value=recipe.dataset,
            remedy="With `resample: bootstrap` or `split`, every seed is judged on images of its own.",
        )
    if images is not None and images > MOST_IMAGES:
        raise UserError(f"`--images` must be at most {MOST_IMAGES:,}", value=images)
    return val_sizes(recipe)[1] if images is None else images


def measure_image_noise(
    study: str, result: ClaimResult, asked: Asked, workspace: Workspace, tell: Callable[[int], None]
) -> ImageNoise:
    """Judge the networks of a claim on further validation sets, and part the spread of its effect.

    `tell` is called with the number of sets that are done. Raises `UserError` for a claim or runs that do not allow it.
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
        rule = f"the claim must be about {' or '.join(CURVES)}, which are judged anew"
        raise UserError(rule, value=metric, place=study)
    if not LEAST_SETS <= asked.sets <= MOST_SETS:
        raise UserError(f"`--validation-sets` must be from {LEAST_SETS} to {MOST_SETS:,}", value=asked.sets)
    if len(result.values) < asked.plan.first:
        rule = f"the study must have at least {asked.plan.first} seeds that all arms have completed"
        raise UserError(rule, value=len(result.values), place=study)


def _values(formula: Formula, run: Run, values: Mapping[str, list[float]], sets: int) -> list[float]:
    """What the claim compares, of a run, on each set."""
    costs = {name: final_value(name, run, (), {}) for name in formula.names if name not in CURVES}
    found = [formula.value(({name: values[name][at] for name in CURVES} | costs).get) for at in range(sets)]
    if None in found:
        raise UserError("the claim's formula must have a value on every validation set", value=formula.text)
    return [value for value in found if value is not None]


def _contrasts(result: ClaimResult, values: Mapping[tuple[str, int], list[float]]) -> Table:
    """The contrast of each seed on each set, (pairs, sets), from the values by network and seed."""
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
    """For a terminal."""
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
    for each in noise.sized:
        low, high = each.interval
        expected, drawn = each.expected, each.drawn
        interval = f"[{100 * low:.1f}, {100 * high:.1f}]"
        for name, ends in (("shared", interval), ("own", "")):
            said, had = getattr(expected, name), getattr(drawn, name)
            first = str(expected.n) if name == "shared" else ""
            cells = (f"{said.sd:.2f}", f"{said.error:.2f}", f"{100 * said.coverage:.1f} %", ends)
            table.add_row(
                first, _SCHEMES[name], *cells, f"{had.sd:.2f}", f"{had.error:.2f}", f"{100 * had.coverage:.1f} %"
            )
    return table


_SCHEMES = {"shared": "one for all pairs", "own": "one for each pair"}


def _closing_lines(noise: ImageNoise) -> list[str]:
    return [
        "sd: of the estimated effect about that over all networks and images; stated: the standard error that a study "
        "states (root mean square); coverage: of its nominal 95 % t interval. On the left from the components of "
        f"variance, for normal noise; on the right of {noise.asked.studies:,} studies drawn from these pairs and sets "
        "without replacement. Where a study has most of the recorded pairs, drawn studies are nearly the same one, and "
        "their coverage is that of this table alone.",
        "A validation set that all pairs share is noise that their spread does not show, and that more pairs do not "
        "reduce. With `resample: split`, the default, every seed is judged on images of its own.",
    ]


def image_noise_values(noise: ImageNoise) -> dict[str, Any]:
    """For JSON."""
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
                "pairs": each.expected.n,
                "expected": _scheme_values(each.expected) | {"shared_coverage_interval": list(each.interval)},
                "drawn": _scheme_values(each.drawn),
            }
            for each in noise.sized
        ],
    }


def _scheme_values(studies: Studies) -> dict[str, Any]:
    return {"shared": studies.shared._asdict(), "own": studies.own._asdict()}
