"""What a search is worth: regret of the default policy and of its baselines, on the curves of `replknet_small.yaml`."""

import statistics

from harness.analysis.curve_table import read_table, table_path
from harness.analysis.table_recording import require_replayable
from harness.config.policies import default_policies, read_policies
from harness.config.study_file import build_space, load_study
from harness.diagnostics.bench.base import ROOT, BenchResult
from harness.errors import NotFound
from harness.search.rehearsal import RehearsalResult, rehearse
from harness.search.simulation import Rehearsal

SEARCH_STUDY = ROOT / "search_spaces" / "replknet_small.yaml"
SEARCH_TABLE = table_path(ROOT / "results", SEARCH_STUDY.stem)
WORKERS, REPETITIONS, QUICK_REPETITIONS, SHARE = 4, 50, 5, 0.2
MOST_POINTS, MOST_S = 0.5, 60.0
"""Targets: the median regret of the default policy, and the seconds of all simulations on one core."""
LEAST_POINTS = 1e-9
"""Regret of a baseline that always finds the best network, as the denominator of a ratio."""


def simulate_searches(*, is_quick: bool) -> RehearsalResult:
    """Simulate the default policies on the table. Raises `NotFound` if it was not recorded."""
    file = load_study(SEARCH_STUDY)
    try:
        table = read_table(SEARCH_TABLE)
    except NotFound as error:
        error.remedy = (
            f"Record it: `python run_study.py {SEARCH_STUDY}`, then `harness simulate {SEARCH_STUDY} --record "
            f"{SEARCH_TABLE}`."
        )
        raise
    space = build_space(file, classes=table.classes, channels=table.channels, data=table.data)
    require_replayable(file, table, space, str(SEARCH_TABLE))
    rehearsal = Rehearsal.of(table, space, file.study.objectives, workers=WORKERS, share=SHARE)
    policies = read_policies(file, default_policies(file), rehearsal.budget)
    return rehearse(rehearsal, policies, QUICK_REPETITIONS if is_quick else REPETITIONS)


def search_results(result: RehearsalResult) -> list[BenchResult]:
    """The targets: regret of the default policy, also against that of each baseline, and the time."""
    default, *baselines = result.outcomes
    mean = statistics.fmean(regrets[-1] for regrets in default.regrets)
    comparisons = [
        BenchResult(
            name=f"mean, against {baseline.name}",
            unit="points",
            values=(mean,),
            at_most=max(LEAST_POINTS, mean + result.difference(baseline).mean),
            is_part=True,
        )
        for baseline in baselines
    ]
    regrets = tuple(regrets[-1] for regrets in default.regrets)
    return [
        BenchResult(name=f"regret of {default.name}", unit="points", values=regrets, at_most=MOST_POINTS),
        *comparisons,
        BenchResult(
            name="all simulations, one core",
            unit="s",
            values=(sum(outcome.wall_s for outcome in result.outcomes),),
            at_most=MOST_S,
        ),
    ]
