"""The comparison of simulated searches, as a table, as sentences and for JSON."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from harness.analysis.formatting import DASH, format_duration, plural
from harness.report.console import indented, plain_table
from harness.report.tables import ResultTable

if TYPE_CHECKING:  # numpy comes with these
    from harness.search.rehearsal import PolicyOutcome, RehearsalResult

PLACES = {"top1": 2, "val_loss": 4}
"""Decimals of a regret, by objective."""
END_HEADINGS = ("wrong", "over the first", "held out", "networks", "given up", "time", "computed in")
UNITS = {"top1": "points", "val_loss": "of the loss"}


def simulation_view(result: "RehearsalResult") -> RenderableType:
    """The regret of every policy after equal computing, and what the numbers mean."""
    rehearsal = result.rehearsal
    title = Text(rehearsal.table.study, style="bold").append(f"  {table_text(result)}", style="not bold dim")
    parts: list[RenderableType] = [title]
    for values in simulation_tables(result):
        table = plain_table(values.headings[:1], values.headings[1:])
        for row in values.rows:
            table.add_row(*row)
        parts += [Text(values.title, style="dim"), table, Text()]
    return Group(*parts, *map(indented, note_lines(result)))


def simulation_tables(result: "RehearsalResult") -> tuple[ResultTable, ResultTable]:
    """The regret of every policy by computing, and what its searches came to with all of it."""
    shares = tuple(share_text(result, result.checkpoints[i]) for i in result.shown)
    regrets = [(outcome.name, *_regret_cells(result, outcome)) for outcome in result.outcomes]
    ends = [(outcome.name, *_end_cells(result, outcome)) for outcome in result.outcomes]
    return (
        ResultTable("Regret, by share of the full grid's epochs: median [quartiles]", ("policy", *shares), regrets),
        ResultTable(f"After {shares[-1]}", ("policy", *END_HEADINGS), ends),
    )


def table_text(result: "RehearsalResult") -> str:
    """The size of the searched grid, such as `352 networks x 3 seeds x 5 epochs = 5,280 epochs`."""
    networks, table = result.judge.values.shape[0], result.rehearsal.table
    return f"{networks:,} networks x {len(table.seeds)} seeds x {table.epochs} epochs = {grid_epochs(result):,} epochs"


def grid_epochs(result: "RehearsalResult") -> int:
    """Number of epochs of the full grid of the searched space."""
    return result.judge.values.size * result.rehearsal.table.epochs


def share_text(result: "RehearsalResult", epochs: int) -> str:
    """A number of epochs as a share of the full grid's: `20 %`."""
    return f"{100 * epochs / grid_epochs(result):.2g} %"


def _regret_cells(result: "RehearsalResult", outcome: "PolicyOutcome") -> Iterator[str]:
    for checkpoint in result.shown:
        low, median, high = (_amount(value, result.rehearsal.metric) for value in outcome.at(checkpoint))
        yield f"{median} [{low}, {high}]"


def _end_cells(result: "RehearsalResult", outcome: "PolicyOutcome") -> Iterator[str]:
    yield f"{outcome.wrong:.0%}"
    yield DASH if outcome is result.outcomes[0] else _difference(result, outcome)
    yield DASH if outcome.held_out_mean is None else _amount(outcome.held_out_mean, result.rehearsal.metric)
    yield f"{outcome.mean_of('trials'):.0f}"
    yield f"{outcome.mean_of('pruned'):.0f}"
    yield format_duration(outcome.mean_of("clock_s"))
    yield format_duration(outcome.wall_s)


def _difference(result: "RehearsalResult", outcome: "PolicyOutcome") -> str:
    sample, metric = result.difference(outcome), result.rehearsal.metric
    interval = sample.interval(_level())
    text = _amount(sample.mean, metric)
    return text if interval is None else f"{text} [{', '.join(_amount(end, metric) for end in interval)}]"


def _level() -> float:
    from harness.search.rehearsal import LEVEL

    return LEVEL


def _amount(value: float, metric: str) -> str:
    return f"{value:.{PLACES[metric]}f}"


def note_lines(result: "RehearsalResult") -> Iterator[str]:
    """What the columns mean, and how well the table can judge."""
    rehearsal, judge = result.rehearsal, result.judge
    metric, seeds = rehearsal.metric, plural(judge.values.shape[1], "seed")
    yield (
        f"Regret in {UNITS[metric]} of {metric}: the best mean of the table minus that of the recommended network, "
        f"after these shares of the full grid's epochs; median and quartiles of "
        f"{plural(result.repetitions, 'repetition')} with {plural(rehearsal.workers, 'simulated worker')}. Before its "
        f"first complete configuration, a search counts as a network that is drawn at random."
    )
    if judge.noise is not None and judge.optimism is not None:
        error, spread = _amount(judge.standard_error or 0, metric), _amount(judge.spread or 0, metric)
        yield (
            f"A mean over {seeds} has a standard error of {error}; networks differ by a standard deviation of "
            f"{spread}. The best mean is too high by at most about {_amount(judge.optimism, metric)}, and a search is "
            f"judged by values that it has seen. Held out: the mean regret on a seed that the search has not seen, "
            f"against the network that is best on the others."
        )
    else:
        yield "The table has one seed: its values hold the whole error of a single run, and regret cannot be corrected."
    if len(result.outcomes) > 1:
        yield (
            f"Over the first: mean regret minus that of {result.outcomes[0].name}, with all of the budget; 95 % "
            f"interval over the repetitions (paired t), for this table."
        )
    yield from _seed_lines(result)


def _seed_lines(result: "RehearsalResult") -> Iterator[str]:
    """Which policies need more seeds than the table has."""
    tight = [one.name for one in result.outcomes if not one.held_out and any(s.recommendations for s in one.searches)]
    if tight and result.judge.values.shape[1] > 1:
        yield (
            f"No seed is left to judge {', '.join(tight)}, which needs all that the table has: its screening runs, if "
            f"it has any, replay a seed that is in its means, so that its regret is optimistic."
        )
    repeats = {one.name: one.mean_of("repeated") for one in result.outcomes if one.mean_of("repeated") >= 1}
    if repeats:
        counts = ", ".join(f"{name} {count:.0f}" for name, count in repeats.items())
        yield (
            f"Runs that replayed a curve a second time, since the table has no further seed of their network (mean "
            f"number): {counts}. They cost their epochs, and repeat a value that is known."
        )


def simulation_values(result: "RehearsalResult") -> dict[str, Any]:
    """The comparison for JSON."""
    rehearsal, judge = result.rehearsal, result.judge
    return {
        "study": rehearsal.table.study,
        "recorded": rehearsal.table.recorded,
        "networks": judge.values.shape[0],
        "seeds": len(rehearsal.table.seeds),
        "epochs": rehearsal.table.epochs,
        "grid_epochs": grid_epochs(result),
        "metric": rehearsal.metric,
        "workers": rehearsal.workers,
        "repetitions": result.repetitions,
        "budget_epochs": rehearsal.budget,
        "standard_error": judge.standard_error,
        "spread": judge.spread,
        "optimism": judge.optimism,
        "policies": [_policy_values(result, outcome) for outcome in result.outcomes],
    }


def _policy_values(result: "RehearsalResult", outcome: "PolicyOutcome") -> dict[str, Any]:
    is_first = outcome is result.outcomes[0]
    difference = None if is_first else result.difference(outcome)
    return {
        "name": outcome.name,
        "seeds": outcome.seeds,
        "regret": [
            {"epochs": epochs, "share": epochs / grid_epochs(result), **outcome.at(i)._asdict()}
            for i, epochs in enumerate(result.checkpoints)
        ],
        "wrong_winners": outcome.wrong,
        "over_first": None if difference is None else difference.mean,
        "over_first_interval": None if difference is None else difference.interval(_level()),
        "held_out_regret": outcome.held_out_mean,
        **{name: outcome.mean_of(name) for name in ("epochs", "clock_s", "trials", "pruned", "repeated")},
        "wall_s": outcome.wall_s,
    }
