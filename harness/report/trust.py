"""How far a proxy may be trusted, as tables and sentences."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.text import Text

from harness.analysis.formatting import DASH, format_metric, format_params, join_words, plural
from harness.analysis.pruned_decisions import COIN_TOSS, PrunedDecision
from harness.report.console import indented, plain_table

if TYPE_CHECKING:  # numpy comes with these
    from harness.analysis.statistics.rank_correlation import RankCorrelation
    from harness.analysis.trust import TrustResult
    from harness.analysis.trust_observations import Population
    from harness.analysis.trust_rungs import Rung

MOST_DECISIONS = 20
"""Number of coin tosses that are listed; all are in the JSON."""


def trust_view(result: "TrustResult", level: float = COIN_TOSS) -> list[RenderableType]:
    """The page of `harness trust`: rungs, larger trainings, the pruner's decisions, and scores."""
    title = Text(result.study, style="bold").append(
        f"  may its proxy be trusted?  ({result.metric})", style="not bold dim"
    )
    parts: list[RenderableType] = [title, Text()]
    parts += [Text("Rungs against the full budget", style="bold"), *_rung_parts(result), Text()]
    parts += [Text("Larger trainings of the same networks", style="bold"), *_larger_parts(result), Text()]
    if result.pruner != "none":
        parts += [Text("Configurations that the pruner stopped", style="bold"), *_pruned_parts(result, level), Text()]
    parts += [Text("Scores before training against the final values", style="bold"), *_score_parts(result), Text()]
    return [*parts, *(indented(line) for line in note_lines(result))]


def answer_view(result: "TrustResult") -> list[RenderableType]:
    """The part of a study's answer on its pruner and its scores."""
    lines = answer_lines(result)
    return [Text("Trust in the proxy", style="bold"), *(indented(line) for line in lines), Text()] if lines else []


def answer_lines(result: "TrustResult") -> list[str]:
    """The sentences of a study's answer: the last rung of the pruner, its coin tosses, and the scores."""
    lines = []
    if result.first_rung is not None:
        lines.append(
            f"The first rung chose among the sampler's proposals by {result.first_rung}, before any training; "
            "space-filling configurations are not chosen so."
        )
    decisions = [rung for rung in result.rungs.rungs if rung.is_decision]
    if decisions:
        lines.append(_decision_line(result, decisions[-1]))
    lines += ceiling_lines(result)
    if result.pruner != "none":
        lines += [_coin_toss_line(result, COIN_TOSS)]
    lines += [line for line in score_lines(result) if result.first_rung or len(result.scores) > 1]
    return lines


def ceiling_lines(result: "TrustResult") -> list[str]:
    """That the full budget itself does not order the configurations, if so: then no rung can be judged by it."""
    ceiling = _ceiling(result)
    if ceiling is None or ceiling.interval is None or ceiling.is_positive:
        return []
    return [
        f"The full budget does not order configurations: its tau with itself over other seeds, "
        f"{correlation_text(ceiling)}, may be 0. Train longer, on more images or with more seeds before a rung is "
        "judged by it."
    ]


def correlation_text(correlation: "RankCorrelation | None") -> str:
    """A correlation as text, such as `0.62 [0.41, 0.78]`; `0.62 (too few)` where no statement is made."""
    if correlation is None or correlation.tau is None:
        return DASH
    text = f"{correlation.tau:.2f}"
    return f"{text} {'(too few)' if correlation.interval is None else interval_text(correlation.interval)}"


def interval_text(interval: tuple[float, float] | None) -> str:
    """An interval as text; a dash without one."""
    return DASH if interval is None else f"[{interval[0]:.2f}, {interval[1]:.2f}]"


def _decision_line(result: "TrustResult", rung: "Rung") -> str:
    part = rung.by_population.get(result.population)
    if part is None or part.correlation.tau is None:
        return f"Nothing is known of the pruner's rung after {plural(rung.epochs, 'epoch')} yet."
    ceiling = _ceiling(result)
    among = (
        f", where the full budget reaches {correlation_text(ceiling)} with itself over other seeds" if ceiling else ""
    )
    few = _few_text(part.correlation)
    return (
        f"The pruner's rung after {rung.epochs} of {plural(result.epochs, 'epoch')} ranks configurations as the full "
        f"budget does with tau {correlation_text(part.correlation)}{among} "
        f"({_of_text(result.population, part.correlation.n)}){few}."
    )


def _few_text(correlation: "RankCorrelation") -> str:
    from harness.analysis.statistics.rank_correlation import LEAST_CONFIGURATIONS

    return "" if correlation.interval else f"; fewer than {LEAST_CONFIGURATIONS} allow no statement"


def _of_text(population: "Population", n: int) -> str:
    """Which configurations a number is of; a number of survivors alone is biased."""
    notes = {"survivors": " of survivors alone, which biases it", "visited": " that the sampler chose"}
    return f"n = {n}{notes.get(str(population), ' space-filling')}"


def _ceiling(result: "TrustResult") -> "RankCorrelation | None":
    full = result.rungs.full
    part = None if full is None else full.by_population.get(result.population)
    return None if part is None else part.correlation


def _rung_parts(result: "TrustResult") -> Iterator[RenderableType]:
    rungs = result.rungs
    if rungs.reason is not None or not result.finished:
        yield indented(f"None: {rungs.reason or 'no configuration has a final value with all of its seeds yet'}.")
        return
    first, *others = [result.population, *(name for name in result.finished if name != result.population)]
    has_screening = any(rung.screening is not None for rung in rungs.rungs)
    headings = ["tau", "95 % interval", "n", "below the ceiling", *(f"{name} alone" for name in others)]
    table = plain_table(("epochs", ""), [*headings, *(["screening run"] if has_screening else [])])
    for rung in rungs.rungs:
        part = rung.by_population[first]
        correlation, is_full = part.correlation, rung is rungs.rungs[-1]
        kind = "rung" if rung.is_decision else "the ceiling" if is_full and rungs.seeds > 1 else ""
        below = "" if part.below_ceiling is None else f"{part.below_ceiling:.2f} {interval_text(part.below_interval)}"
        cells = [DASH if correlation.tau is None else f"{correlation.tau:.2f}", interval_text(correlation.interval)]
        cells += [str(correlation.n), below]
        cells += [correlation_text(rung.by_population[name].correlation) for name in others]
        cells += [correlation_text(rung.screening) if rung.screening else ""] if has_screening else []
        table.add_row(str(rung.epochs), kind, *cells)
    yield table
    yield from map(indented, ceiling_lines(result))


def _larger_parts(result: "TrustResult") -> Iterator[RenderableType]:
    if not result.larger.trainings:
        yield indented(f"None: {result.larger.reason or 'the database has none of two or more of these networks'}.")
        return
    names = list(dict.fromkeys(name for row in result.larger.trainings for name in row.by_population))
    columns = [f"tau, {name}" for name in names]
    table = plain_table(("trainings",), ("computing", *columns, "n", "ceiling"))
    for row in result.larger.trainings:
        taus = [correlation_text(row.by_population.get(name)) for name in names]
        n = ", ".join(str(row.by_population[name].n) if name in row.by_population else "0" for name in names)
        ratio = DASH if row.ratio is None else f"{row.ratio:.3g} x"
        table.add_row(Text(row.title), ratio, *taus, n, correlation_text(row.ceiling))
    yield table
    if any(row.shares_seeds for row in result.larger.trainings):
        yield indented("Some have a seed of the proxy, and so its initial weights or images: their noise is in both.")


def _pruned_parts(result: "TrustResult", level: float) -> Iterator[RenderableType]:
    yield indented(_coin_toss_line(result, level))
    tosses = result.pruned.coin_tosses(level)
    if not tosses:
        return
    headings = ("after", result.metric, "needed", "probability")
    table = plain_table(("trial", "configuration"), headings)
    for toss in tosses[:MOST_DECISIONS]:
        table.add_row(f"#{toss.trial}", Text(format_params(toss.params)), *_toss_cells(toss, result.metric))
    yield table
    if len(tosses) > MOST_DECISIONS:
        yield indented(f"and {len(tosses) - MOST_DECISIONS} more, which `--json` has")


def _toss_cells(toss: PrunedDecision, metric: str) -> tuple[str, ...]:
    value, needed = format_metric(toss.value, metric), format_metric(toss.needed, metric)
    return plural(toss.epochs, "epoch"), value, needed, f"{100 * toss.probability:.0f} %"


def _coin_toss_line(result: "TrustResult", level: float) -> str:
    """How many decisions were coin tosses, and what is not known."""
    pruned = result.pruned
    if not pruned.pruned:
        return f"The pruner {result.pruner} stopped no configuration{f': {pruned.reason}' if pruned.reason else ''}."
    if pruned.reason is not None:
        return f"Which of {pruned.pruned} decisions were coin tosses is not known: {pruned.reason}."
    tosses = len(pruned.coin_tosses(level))
    spreads = (
        join_words(
            f"{format_metric(spread, result.metric)} after {plural(epochs, 'epoch')} (df = {degrees})"
            for epochs, (spread, degrees) in (pruned.spreads or {}).items()
        )
        if pruned.spreads
        else DASH
    )
    rest = pruned.pruned - len(pruned.decisions)
    unknown = f" Of {rest} others, it is not known." if rest else ""
    return (
        f"Coin tosses: {tosses} of {plural(len(pruned.decisions), 'decision')}, in which another screening run would "
        f"have passed with a probability of {100 * level:.0f} % or more. Standard deviation between seeds: {spreads}."
        f"{unknown}"
    )


def _score_parts(result: "TrustResult") -> Iterator[RenderableType]:
    names = list(dict.fromkeys(name for score in result.scores for name in score.by_population))
    if not names:
        yield indented("None: no configuration has a final value with all of its seeds yet.")
        return
    table = plain_table(("score",), [f"tau, {name}" for name in names] + ["n"])
    for score in result.scores:
        taus = [correlation_text(score.by_population.get(name)) for name in names]
        n = ", ".join(str(score.by_population[name].n) if name in score.by_population else "0" for name in names)
        table.add_row(score.name, *taus, n)
    yield table
    yield from (indented(line) for line in score_lines(result))


def score_lines(result: "TrustResult") -> Iterator[str]:
    """Which scores order configurations as their training does, and which are not shown to do so."""
    by_name = {score.name: score.by_population.get(result.population) for score in result.scores}
    known = {name: one for name, one in by_name.items() if one is not None and one.interval is not None}
    texts = {name: f"{name} {correlation_text(one)}" for name, one in known.items()}
    useful = [texts[name] for name, one in known.items() if one.is_positive]
    opposite = [texts[name] for name, one in known.items() if one.is_negative]
    unclear = [texts[name] for name in known if texts[name] not in (*useful, *opposite)]
    of = "" if not known else f" ({_of_text(result.population, max(one.n for one in known.values()))})"
    if useful:
        yield f"Scores that order configurations as their training does{of}: {join_words(useful)}."
    if opposite:
        yield f"Scores that order configurations the other way round{of}: {join_words(opposite)}."
    if unclear:
        yield f"Not shown to be worth anything here, because the interval of tau contains 0{of}: {join_words(unclear)}."
    if len(known) < len(by_name):
        few = [name for name in by_name if name not in known]
        yield f"Too few configurations for a statement, or equal scores or results: {join_words(few)}."
    if "synflow_log10" not in by_name:
        yield "With `measures: [zero_cost]` below `proxy`, runs record SynFlow, gradient norm, NASWOT and their field."


def note_lines(result: "TrustResult") -> Iterator[str]:
    """What the numbers are of, what their intervals contain, and which are biased."""
    from harness.analysis.statistics.rank_correlation import LEAST_CONFIGURATIONS

    yield (
        "Tau: Kendall's tau-b, 1 for the same order, 0 for no relation. The interval (bootstrap, 95 %) contains what "
        "another choice of configurations would change; seeds and images are those of the study. None is given below "
        f"{LEAST_CONFIGURATIONS} configurations, about which no statement is made."
    )
    if result.rungs.rungs and result.rungs.seeds > 1:
        yield (
            "A rung is one seed after its epochs, against the mean of the other seeds at the end, averaged over the "
            f"{result.rungs.seeds} seeds. The ceiling is the same after all epochs: the noise of seeds lets no rung do "
            "better."
        )
    elif result.rungs.rungs:
        yield (
            "With one seed, a rung is compared with the end of the same run, whose noise is in both: tau is too large, "
            "and its ceiling is not known. Raise `search.seeds` to 2 or more."
        )
    yield from _selection_lines(result)


def _selection_lines(result: "TrustResult") -> Iterator[str]:
    from harness.analysis.statistics.rank_correlation import MOST_CONFIGURATIONS

    finished: Mapping[str, int] = {str(name): n for name, n in result.finished.items()}
    if "survivors" in finished:
        yield (
            f"Of survivors ({finished['survivors']}): configurations that the pruner stopped have no final value, and "
            "those that it kept are more alike, so these numbers are biased, mostly towards 0. `search.space_filling` "
            "trains configurations to the end that nothing selected."
        )
    if "visited" in finished:
        yield (
            f"Visited ({finished['visited']}): the sampler chose these by their results, or they are the first part of "
            "a grid, so the numbers are those of the region that was visited, and not of the space."
        )
    if max(result.finished.values(), default=0) > MOST_CONFIGURATIONS:
        yield f"Of each column, the first {MOST_CONFIGURATIONS} configurations count."
    if result.lost:
        states = join_words(
            f"{n} {'without all of its seeds' if state == 'complete' else state}" for state, n in result.lost.items()
        )
        yield f"Space-filling configurations that ended without a final value are missing here: {states}."
