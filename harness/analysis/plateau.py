"""Whether a search has reached a plateau (`search.plateau`): the expected gain of a further trial, from its trials.

The answer follows from the finished trials alone, so it is the same after a resumption. `statistics.expected_gain` has
the computation.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.formatting import format_metric
from harness.analysis.proposal_origin import was_proposed
from harness.analysis.racing import RACE_ROUND
from harness.analysis.run_status import configuration_status, trial_status, trials_by_configuration
from harness.analysis.statistics.expected_gain import ExpectedGain, expected_gain
from harness.config.search_methods import PLATEAU_TRIALS
from harness.config.study import Study

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def plateau_gain(study: Study, trials: Sequence["FrozenTrial"]) -> ExpectedGain | None:
    """The expected gain of a further trial; None while fewer than `PLATEAU_TRIALS` configurations are complete.

    A further trial is taken to be like the last half of the proposals, which are at least `PLATEAU_TRIALS` complete
    ones: those that were pruned or failed gain nothing. Configurations that the file enqueues are no proposals.
    """
    sign = 1.0 if next(iter(study.objectives.values())) == "maximize" else -1.0
    groups = trials_by_configuration(trials)
    values = {fingerprint: _values(group) for fingerprint, group in groups.items()}
    proposed = [
        fingerprint
        for fingerprint, group in groups.items()
        if was_proposed(group[0]) and any(trial.state.is_finished() for trial in group)
    ]
    complete = [fingerprint for fingerprint in proposed if values[fingerprint]]
    if len(complete) < PLATEAU_TRIALS:
        return None
    last = complete[-max(PLATEAU_TRIALS, len(complete) // 2) :]
    share = len(last) / len(proposed[proposed.index(last[0]) :])
    seeds = sorted(set.intersection(*(set(values[fingerprint]) for fingerprint in last)))
    if len(seeds) < 2:
        return None
    table = sign * np.array([[values[fingerprint][seed] for seed in seeds] for fingerprint in last])
    rivals = [by_seed for by_seed in values.values() if set(seeds) <= by_seed.keys()]
    best = max(float(np.mean([sign * by_seed[seed] for seed in seeds])) for by_seed in rivals)
    return expected_gain(table, best, share=share)


def plateau_reason(study: Study, trials: Sequence["FrozenTrial"]) -> str | None:
    """Why the search has reached its plateau, as text; None if it has not, or if the study has no such rule."""
    limit = study.search.plateau
    result = None if limit is None else plateau_gain(study, trials)
    if limit is None or result is None or result.gain >= limit:
        return None
    metric = next(iter(study.objectives))
    return (
        f"a further trial is expected to gain at most {result.gain:.2g} over the best so far, less than "
        f"`search.plateau` ({limit:g}): the true values of the last trials have a standard deviation of at most "
        f"{format_metric(result.spread, metric)}, and a mean has a noise of {format_metric(result.noise, metric)}"
    )


def _values(group: Sequence["FrozenTrial"]) -> dict[str, float]:
    """The values of a configuration by seed; empty if it is not complete."""
    if configuration_status([trial_status(trial) for trial in group]).state != "complete":
        return {}
    by_seed: dict[str, float] = {}
    for trial in group:
        if RACE_ROUND in trial.user_attrs:  # its configuration was chosen by its results
            continue
        by_seed |= trial.user_attrs.get("values_by_seed", {})
    return by_seed
