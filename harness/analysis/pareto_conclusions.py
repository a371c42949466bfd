"""Conclusions from the Pareto front of a study with several objectives, as sentences."""

from collections.abc import Sequence

from harness.analysis.configuration_result import ConfigurationResult
from harness.analysis.formatting import format_metric, format_params, join_words, plural
from harness.analysis.objective import COST_OBJECTIVES, LATENCY
from harness.analysis.pareto import BudgetOfFront, ParetoFront

BUDGET_NAMES = {"params": "parameters", "macs": "MACs", "latency_ms": "ms"}
LATENCY_NOTE = "A latency counts here with the upper end of its interval, as the mean over the seeds."
MOST_NAMED = 4
"""Number of values of the hypervolume that the sentence about its course names at most."""


def pareto_conclusions(front: ParetoFront, complete: Sequence[ConfigurationResult]) -> list[str]:
    """What the front is, its knee, its uncertainty, its hypervolume, and which budgets bind."""
    rows = {row.trials[0]: row for row in complete}
    size = f"{len(front.front)} of {plural(len(complete), 'complete configuration')}"
    verb = "is" if len(front.front) == 1 else "are"
    return [
        f"{size} {verb} on the Pareto front of {front.text}: no other is at least as good in all and better in one.",
        _knee_sentence(front, rows),
        *_uncertainty(front, rows),
        *_hypervolume(front),
        *([LATENCY_NOTE] if LATENCY in front.objectives and _has_intervals(complete) else []),
        *(_budget_sentence(budget) for budget in front.budgets),
    ]


def _has_intervals(rows: Sequence[ConfigurationResult]) -> bool:
    return any(row.latency is not None and row.latency.high_ms is not None for row in rows)


def objectives_text(front: ParetoFront, row: ConfigurationResult) -> str:
    """The means of a configuration: `top1 93.40, macs 15.4M`."""
    means = zip(front.objectives, row.means, strict=True)
    return ", ".join(f"{name} {format_metric(mean, name)}" for name, mean in means)


def _knee_sentence(front: ParetoFront, rows: dict[int, ConfigurationResult]) -> str:
    assert front.best is not None
    row = rows[front.best]
    named = f"{format_params(row.params)} ({objectives_text(front, row)})"
    if front.knee is not None:
        return f"The best is the knee of the front, {named}: {front.knee_rule}."
    first = next(iter(front.objectives))
    return f"There is no knee, since {front.why_no_knee}; the best is that of the front with the best {first}, {named}."


def _uncertainty(front: ParetoFront, rows: dict[int, ConfigurationResult]) -> list[str]:
    if all(name in COST_OBJECTIVES for name in front.objectives):
        return ["The objectives follow from the network alone, so chance plays no role."]
    if not front.has_spread:
        return [
            "Configurations of the front have one seed: without a spread, which of them are on it may be chance.",
            "Raise `search.seeds` to 3 or more to find out.",
        ]
    if not front.unsure:
        return ["Every configuration of the front stays on it if one objective is worse by its spread over seeds."]
    names = [format_params(rows[trial].params) for trial in front.unsure]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"On the front within the spread between seeds only, so perhaps by chance: {join_words(names[:3])}{more}."]


def _hypervolume(front: ParetoFront) -> list[str]:
    reference = ", ".join(f"{name} {format_metric(value, name)}" for name, value in front.reference.items())
    shares = [share for _, share in front.hypervolumes]
    n, last = len(shares), shares[-1]
    course = dict.fromkeys(max(1, n * part // MOST_NAMED) for part in range(1, MOST_NAMED + 1))
    values = ", ".join(f"{shares[i - 1]:.3f} after {i}" for i in course)
    since = next(i for i, share in enumerate(shares, 1) if share == last)
    return [
        f"Hypervolume {last:.3f} of the box between the reference point ({reference}: worse than the worst value by a "
        f"tenth of the range) and the best values; {values} of {plural(n, 'configuration')}, the same since {since}."
    ]


def _budget_sentence(budget: BudgetOfFront) -> str:
    unit = BUDGET_NAMES[budget.name]
    most = "" if budget.largest is None else f"; the front has up to {format_metric(budget.largest, budget.name)}"
    if budget.name == "latency_ms":
        over = plural(budget.excluded, "configuration")
        why = f"{over} over it would be on the front" if budget.binds else "none over it would be on the front"
    else:
        why = f"{plural(budget.excluded, 'configuration')} ruled out" if budget.binds else "nothing was ruled out"
    verb = "binds" if budget.binds else "does not bind"
    return f"The budget of {format_metric(budget.limit, budget.name)} {unit} {verb}: {why}{most}."
