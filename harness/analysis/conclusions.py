"""Conclusions from the results of a study: which configuration is best, and whether the seeds support that."""

import statistics
from collections import Counter

from harness.analysis.configuration_result import ConfigurationResult, seeds_text
from harness.analysis.formatting import format_mean_and_spread, format_metric, format_params, join_words, plural, si
from harness.analysis.limits import AT
from harness.analysis.objective import COST_OBJECTIVES, LATENCY
from harness.analysis.pareto_conclusions import pareto_conclusions
from harness.analysis.racing import RaceResult
from harness.analysis.results import StudyResults, results_limit_sentence
from harness.analysis.reuse import other_environments_text
from harness.analysis.run_status import OPEN


def conclusions(results: StudyResults) -> list[str]:
    """The conclusions, and their limits, as sentences."""
    if results.limit is not None:
        return [results_limit_sentence(results)]
    best = results.best
    if best is None:
        states = Counter(row.state for row in results.rows)
        if not states or any(state in OPEN for state in states):
            return ["No configuration is complete yet, so there are no results."]
        counts = join_words([f"{n} {state}" for state, n in states.items()])
        return [f"No configuration is complete and within the budgets ({counts}), so there is no best one."]
    if results.pareto is not None:
        return [*pareto_conclusions(results.pareto, results.complete), *_at_limits(results)]
    ranked = _raced(results, best, results.race) if results.race is not None else _ranked(results, best)
    return [*ranked, *_at_limits(results)]


def _at_limits(results: StudyResults) -> list[str]:
    """The configurations that are at a limit where others are not."""
    lines = []
    for limit, name in AT.items():
        configurations = [configuration for configuration in results.complete if configuration.limit == limit]
        if configurations:
            names = join_words(format_params(configuration.params) for configuration in configurations[:3])
            more = f" and {len(configurations) - 3} more" if len(configurations) > 3 else ""
            lines.append(f"{name.capitalize()}, cannot be told apart: {names}{more}.")
    return lines


def _raced(results: StudyResults, best: ConfigurationResult, race: RaceResult) -> list[str]:
    """How a race chose the best, what it took, which configurations it did not rule out, and how often it is wrong."""
    if len(results.complete) == 1:
        return ["Only one configuration is complete: there is nothing to compare it with."]
    if best.bound is None:
        return [
            "No configuration has two seeds yet, so the noise is not known: the best one has the best mean, which may "
            "be chance."
        ]
    name, most = results.metric, race.rule.most
    side = "at least" if results.direction == "maximize" else "at most"
    state = "" if race.is_decided else " so far, since the race is not decided"
    estimate = format_metric(race.bounds[best.fingerprint].estimate, name)
    return [
        f"Chosen by racing{state}, on its pessimistic bound: {name} {side} {format_metric(best.bound, name)} "
        f"(one-sided {100 * race.rule.level:g} % bound of the estimate {estimate}, from "
        f"{plural(len(best.values), 'seed')}; the noise of a seed is {format_metric(race.noise, name)}).",
        f"Racing used {plural(race.runs, 'run')}; {most} seeds of every configuration would have taken "
        f"{race.runs_of_all}.",
        _not_ruled_out(results, race),
        *_simulated(results, race),
    ]


def _simulated(results: StudyResults, race: RaceResult) -> list[str]:
    """How often races like this one are wrong, as a sentence; empty if there is nothing to simulate."""
    rates, first = race.rates(), "one" if race.seeds == 1 else str(race.seeds)
    if rates is None:
        return []
    return [
        f"In {rates.studies} simulated studies like this one ({len(race.bounds)} configurations, true values with a "
        f"standard deviation of {format_metric(race.spread, results.metric)}), racing used {100 * rates.runs:.0f} % of "
        f"the runs and had another winner than {race.rule.most} seeds of every configuration in "
        f"{100 * rates.other_winner:.1f} % (standard error {100 * rates.standard_error:.1f}). The true value of its "
        f"winner was {rates.loss:.2g} from the best one on average, {rates.loss_of_all:.2g} with all seeds and "
        f"{rates.loss_of_first:.2g} with the first {first}; in {100 * rates.coverage:.0f} % it was not beyond the "
        "winner's bound, which is chosen as the best one."
    ]


def _not_ruled_out(results: StudyResults, race: RaceResult) -> str:
    """The configurations that may be better than the best, as a sentence."""
    rows = {row.fingerprint: row for row in results.complete}
    names = [format_params(rows[name].params) for name in race.rivals]
    if not names:
        return "All other configurations are ruled out: their optimistic bounds are worse than its pessimistic one."
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"Not ruled out as the best: {join_words(names[:3])}{more}."


def _ranked(results: StudyResults, best: ConfigurationResult) -> list[str]:
    """How far the best is ahead of the second, and whether the seeds support that."""
    if len(results.complete) == 1:
        return ["Only one configuration is complete: there is nothing to compare it with."]
    second = results.complete[1]
    gap = results.gap_to_best(second)
    lead = f"{format_metric(gap, results.metric)} ahead of" if gap else "level with"
    ahead = f"{lead} the second, {format_params(second.params)}"
    if results.metric in COST_OBJECTIVES:
        return [f"The best is {ahead}; {results.metric} follow from the network alone, so chance plays no role."]
    few = [configuration for configuration in (best, second) if len(configuration.values) < 2]
    if few:
        clause = f"{'both were' if len(few) == 2 else f'{format_params(few[0].params)} was'} {_done(results).lower()}"
        return [
            f"The best is {ahead}, but {clause} with one seed: without a spread, this may be chance.",
            "Raise `search.seeds` to 3 or more to find out.",
        ]
    same = results.unseparated()
    if second not in same:
        widest = format_metric(max(best.spread or 0.0, second.spread or 0.0), results.metric)
        spread = f"the spread between seeds (standard deviation {widest}, {_seeds(best, second)})"
        output = f"The best is {ahead}; more than {spread}."
        return [output, *_also_unseparated(same), *_too_few(best, second)]
    output = (
        f"Not separated by {_seeds(best, second)}: the best is {ahead}, "
        f"within the spread between seeds (standard deviations {format_metric(best.spread, results.metric)} "
        f"and {format_metric(second.spread, results.metric)})."
    )
    return [output, _cheapest(best, same), *_too_few(best, second)]


def best_title(results: StudyResults) -> str:
    """What the best configuration is: the knee of the front, if there is one."""
    if results.pareto is None:
        return "Best network"
    return "Best network: the knee of the front" if results.pareto.knee is not None else "Best network of the front"


def configuration_line(configuration: ConfigurationResult, metric: str) -> str:
    """One configuration as one line: choices, value, n and cost."""
    parts = [
        f"{format_mean_and_spread(configuration.mean, configuration.spread, metric)} (n = "
        f"{seeds_text(len(configuration.values), configuration.missing)})"
    ]
    shown = ("params", "macs", *((LATENCY,) if configuration.latency is not None else ()))  # below
    for (name, values), spread in zip(configuration.further.items(), configuration.spreads[1:], strict=True):
        if values and name not in shown:
            parts.append(f"{name} {format_mean_and_spread(statistics.fmean(values), spread, name)}")
    if configuration.bound is not None:
        parts.append(f"bound {format_metric(configuration.bound, metric)}")
    parts += [f"{si(configuration.params_count)} params", f"{si(configuration.macs)} MACs"]
    if configuration.latency is not None:
        measured = "" if configuration.latency.n is None else f" (n = {configuration.latency.n})"
        parts.append(f"{configuration.latency.text} ms{measured}")
    if configuration.limit is not None:
        parts.append(AT[configuration.limit])
    return f"{format_params(configuration.params)}: {', '.join(parts)}"


def conditions_text(results: StudyResults) -> str:
    """The conditions of the results: devices, versions and seeds, as text."""
    if not results.devices:
        return "Nothing has been trained yet."
    versions = [f"{name} {'/'.join(numbers)}" for name, numbers in results.versions.items()]
    seeds = ", ".join(str(seed) for seed in results.seeds) or "none"
    mixed = "" if len(results.devices) == 1 else " Latencies of different devices must not be compared."
    origin = "".join(f" {sentence}" for sentence in environment_notes(results))
    return f"{_done(results)} on {join_words(results.devices)}; {', '.join(versions)}; seeds {seeds}.{mixed}{origin}"


def environment_notes(results: StudyResults) -> list[str]:
    """Notes on runs of other environments, and on times that are omitted for that reason."""
    return [*other_environments_text(results.origins), *results.time_notes]


def _done(results: StudyResults) -> str:
    return "Trained" if results.is_training else "Measured untrained"


def _seeds(best: ConfigurationResult, second: ConfigurationResult) -> str:
    n, m = len(best.values), len(second.values)
    return plural(n, "seed") if n == m else f"{n} and {m} seeds"


def _too_few(best: ConfigurationResult, second: ConfigurationResult) -> list[str]:
    return ["Two seeds hardly show a spread; 3 or more do."] if min(len(best.values), len(second.values)) < 3 else []


def _cheapest(best: ConfigurationResult, same: tuple[ConfigurationResult, ...]) -> str:
    """The cheapest of the configurations that cannot be distinguished, as a sentence."""
    cheapest = min((best, *same), key=lambda configuration: configuration.macs)
    among = f"Of the {len(same) + 1} configurations that cannot be told apart"
    if cheapest is best:
        return f"{among}, the best has the fewest MACs ({si(best.macs)})."
    return f"{among}, {format_params(cheapest.params)} has the fewest MACs ({si(cheapest.macs)}, not {si(best.macs)})."


def _also_unseparated(same: tuple[ConfigurationResult, ...]) -> list[str]:
    """Sentence about lower-ranked configurations whose own spread reaches the best; empty without any."""
    if not same:
        return []
    names = join_words(format_params(configuration.params) for configuration in same[:3])
    more = f" and {len(same) - 3} more" if len(same) > 3 else ""
    return [f"Not separated from the best, because of their own spread: {names}{more}."]
