"""Where configurations come from: trials parked by an earlier driver, the cells of a grid, or a sampler's proposals."""

import json
from collections.abc import Callable, Container, Iterator
from typing import TYPE_CHECKING, Any

from harness.run import Run
from harness.search.ledger import Ledger
from harness.search.trial import OpenTrial, chooser, stored_params
from harness.space import Candidate, Space
from harness.store import park_trial, together
from harness.study import Study

if TYPE_CHECKING:
    import optuna

PROPOSALS_PER_TRIAL = 20
"""How many proposals against the rules or over budget a sampler may make for each trial that it was granted."""


class Proposals:
    """Opens one trial after another until a grid is exhausted, or a sampler has had its trials.

    When all of a grid is trained, `more` is asked for configurations that are to get one seed more.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        trials: "optuna.Study",
        ledger: Ledger,
        more: Callable[[], list[Candidate]] = list,
    ) -> None:
        self._study = study
        self._space = space
        self._trials = trials
        self._ledger = ledger
        self._more = more
        self._parked = 0
        self._cells: Iterator[Candidate] | None = None
        self._cells_left = 0
        self._are_more = False

    def take_stock(self, lost: Container[int] = ()) -> None:
        """Read what was done, put back what a driver left open, and list the cells of the grid that are still to do.

        `lost` are the numbers of complete trials that do not count: the store no longer has their runs.
        """
        from optuna.trial import TrialState

        self.park()
        trials = [trial for trial in self._trials.get_trials(deepcopy=False) if trial.number not in lost]
        self._ledger.read(trials)
        parked = [trial for trial in trials if trial.state == TrialState.WAITING]
        self._parked = len(parked)
        if self._study.search.sampler == "grid":
            taken = self._ledger.settled | {trial.user_attrs.get("fingerprint") for trial in parked}
            cells = [cell for cell in self._space.grid() if cell.is_feasible and cell.fingerprint not in taken]
            self._cells, self._cells_left = iter(cells), len(cells)

    def park(self) -> None:
        """Put every trial that is open back into Optuna's queue; it comes out again with the parameters it has."""
        from optuna.trial import TrialState

        for trial in self._trials.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            park_trial(self._trials, trial._trial_id)

    def runs_left(self, *, in_progress: int) -> int:
        """Runs of the trials that may still be opened: exact for a grid without pruning, else at most so many."""
        return self._trials_left(in_progress) * (1 if self._are_more else self._study.search.seeds)

    def open(self, *, in_progress: int) -> OpenTrial | None:
        """The next configuration; None when there is none. Proposals that cannot be are told and passed over."""
        if self._cells is not None and in_progress == 0 and self._trials_left(0) == 0:
            more = self._more()
            self._cells, self._cells_left, self._are_more = iter(more), len(more), True
        while self._trials_left(in_progress) > 0:
            if self._parked > 0:
                self._parked -= 1
            elif self._cells is not None:
                self._enqueue(next(self._cells))
            with together(self._trials):
                trial = self._trials.ask()
                candidate = self._space.sample(chooser(trial))
                if candidate.is_feasible:
                    return self._opened(trial, candidate)
                self._reject(trial, candidate)
        return None

    def _trials_left(self, in_progress: int) -> int:
        if self._cells is not None:
            return self._parked + self._cells_left
        limit = self._study.search.trials or 0
        if self._ledger.rejected >= PROPOSALS_PER_TRIAL * limit:
            return self._parked
        return max(self._parked, limit - self._ledger.trials - in_progress)

    def _enqueue(self, cell: Candidate) -> None:
        self._cells_left -= 1
        self._trials.enqueue_trial(stored_params(cell.params, self._space.axes), user_attrs=self._facts(cell))

    def _opened(self, trial: "optuna.Trial", candidate: Candidate) -> OpenTrial:
        """The trial with its runs; the seeds that a parked trial had are its own again."""
        assert candidate.spec is not None
        facts: dict[str, Any] = trial.user_attrs if "seeds" in trial.user_attrs else self._facts(candidate)
        for key in facts.keys() - trial.user_attrs.keys():
            trial.set_user_attr(key, facts[key])
        runs = [Run(candidate.spec, self._study.proxy, seed) for seed in facts["seeds"]]
        steps = set(trial.study._storage.get_trial(trial._trial_id).intermediate_values)
        return OpenTrial(trial, dict(candidate.params), candidate.spec, runs, steps=steps)

    def _facts(self, candidate: Candidate) -> dict[str, Any]:
        """What a trial says of itself from the start."""
        assert candidate.spec is not None and candidate.cost is not None
        fingerprint = candidate.spec.fingerprint()
        first = self._study.search.seed
        seeds = [first + i for i in self._ledger.next_seeds(fingerprint, self._study.search.seeds)]
        return {
            "fingerprint": fingerprint,
            "spec": json.dumps(candidate.spec.canonical()),
            "params": candidate.cost.params,
            "macs": candidate.cost.macs,
            "seeds": seeds,
            "runs": [Run(candidate.spec, self._study.proxy, seed).id for seed in seeds],
        }

    def _reject(self, trial: "optuna.Trial", candidate: Candidate) -> None:
        """Tell the sampler by how much a proposal breaks the rules, so that it learns to stay away."""
        from optuna.trial import TrialState

        for name, violation in candidate.violations.items():
            trial.set_constraint(name, violation)
        trial.set_user_attr("rejected", candidate.reason)
        self._trials.tell(trial, state=TrialState.PRUNED)
        self._ledger.rejected += 1
