"""The answer in sentences: what is best, and what the seeds allow to say about it."""

from harness.analysis.environments import other_environments_text
from harness.analysis.formatting import format_mean_and_spread, format_metric, format_params, join_words, plural, si
from harness.analysis.objective import COST_OBJECTIVES
from harness.analysis.results import AT, ConfigurationResult, StudyResults, results_limit_sentence
from harness.analysis.seeds import seeds_text


def conclusions(answer: StudyResults) -> list[str]:
    """What can be said, and what cannot; a sentence or two."""
    if answer.limit is not None:
        return [results_limit_sentence(answer)]
    best = answer.best
    if best is None:
        return ["No configuration is complete yet, so there is no answer."]
    return [*_ranked(answer, best), *_at_limits(answer)]


def _at_limits(answer: StudyResults) -> list[str]:
    """The configurations that are at a limit where others are not."""
    lines = []
    for limit, name in AT.items():
        rows = [row for row in answer.complete if row.limit == limit]
        if rows:
            names = join_words(format_params(row.params) for row in rows[:3])
            more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
            lines.append(f"{name.capitalize()}, not to be told apart: {names}{more}.")
    return lines


def _ranked(answer: StudyResults, best: ConfigurationResult) -> list[str]:
    """How far the best is ahead, and what the seeds allow to say about that."""
    if len(answer.complete) == 1:
        return ["Only one configuration is complete: there is nothing to compare it with."]
    second = answer.complete[1]
    gap = answer.dominated_rows(second)
    lead = f"{format_metric(gap, answer.metric)} ahead of" if gap else "level with"
    ahead = f"{lead} the second, {format_params(second.params)}"
    if answer.metric in COST_OBJECTIVES:
        return [f"The best is {ahead}; {answer.metric} follow from the network alone, so chance has no part in it."]
    few = [row for row in (best, second) if len(row.values) < 2]
    if few:
        what = f"{'both were' if len(few) == 2 else f'{format_params(few[0].params)} was'} {_done(answer).lower()}"
        return [
            f"The best is {ahead}, but {what} with one seed: without a spread, this may be chance.",
            "Raise `search.seeds` to 3 or more to know.",
        ]
    same = answer.unseparated()
    if second not in same:
        widest = format_metric(max(best.spread or 0.0, second.spread or 0.0), answer.metric)
        spread = f"the spread between seeds (standard deviation {widest}, {_seeds(best, second)})"
        said = f"The best is {ahead}; more than {spread}."
        return [said, *_also_unseparated(same), *_too_few(best, second)]
    said = (
        f"Not separated by {_seeds(best, second)}: the best is {ahead}, "
        f"within the spread between seeds (standard deviations {format_metric(best.spread, answer.metric)} "
        f"and {format_metric(second.spread, answer.metric)})."
    )
    return [said, _cheapest(best, same), *_too_few(best, second)]


def configuration_line(row: ConfigurationResult, metric: str) -> str:
    """One configuration in a line: choices, value, n, cost."""
    parts = [f"{format_mean_and_spread(row.mean, row.spread, metric)} (n = {seeds_text(len(row.values), row.missing)})"]
    parts += [f"{si(row.params_count)} params", f"{si(row.macs)} MACs"]
    if row.latency is not None:
        measured = "" if row.latency.n is None else f" (n = {row.latency.n})"
        parts.append(f"{row.latency.text} ms{measured}")
    if row.limit is not None:
        parts.append(AT[row.limit])
    return f"{format_params(row.params)}: {', '.join(parts)}"


def conditions_text(answer: StudyResults) -> str:
    """Under which conditions the figures hold: devices, versions, seeds."""
    if not answer.devices:
        return "Nothing has been trained yet."
    versions = [f"{name} {'/'.join(found)}" for name, found in answer.versions.items()]
    seeds = ", ".join(str(seed) for seed in answer.seeds) or "none"
    mixed = "" if len(answer.devices) == 1 else " Latencies of different devices must not be compared."
    origin = "".join(f" {sentence}" for sentence in environment_notes(answer))
    return f"{_done(answer)} on {join_words(answer.devices)}; {', '.join(versions)}; seeds {seeds}.{mixed}{origin}"


def environment_notes(answer: StudyResults) -> list[str]:
    """Which runs are of another environment than this one, and which times are left out for it."""
    return [*other_environments_text(answer.origins), *answer.time_notes]


def _done(answer: StudyResults) -> str:
    return "Trained" if answer.is_training else "Measured untrained"


def _seeds(best: ConfigurationResult, second: ConfigurationResult) -> str:
    n, m = len(best.values), len(second.values)
    return plural(n, "seed") if n == m else f"{n} and {m} seeds"


def _too_few(best: ConfigurationResult, second: ConfigurationResult) -> list[str]:
    return ["Two seeds hardly show a spread; 3 or more do."] if min(len(best.values), len(second.values)) < 3 else []


def _cheapest(best: ConfigurationResult, same: tuple[ConfigurationResult, ...]) -> str:
    """Which of those that cannot be told apart costs least."""
    cheapest = min((best, *same), key=lambda row: row.macs)
    them = f"Of the {len(same) + 1} configurations that cannot be told apart"
    if cheapest is best:
        return f"{them}, the best has the fewest MACs ({si(best.macs)})."
    return f"{them}, {format_params(cheapest.params)} has the fewest MACs ({si(cheapest.macs)}, not {si(best.macs)})."


def _also_unseparated(same: tuple[ConfigurationResult, ...]) -> list[str]:
    """Rows further down whose own spread reaches up to the best."""
    if not same:
        return []
    names = join_words(format_params(row.params) for row in same[:3])
    more = f" and {len(same) - 3} more" if len(same) > 3 else ""
    return [f"Not separated from the best, for their own spread: {names}{more}."]
