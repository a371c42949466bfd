"""Sources of configurations: trials that an earlier driver left open, grid cells, uniform draws, a sampler's proposals.

In a space where few networks satisfy rules and budgets, a sampler might never propose one of them. There all feasible
networks are listed (`harness.config.census`), and each rejected proposal is replaced by the nearest untried one.

A study's claims are evaluated while it runs (`ClaimMonitor`): they decide which configurations need another seed.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.analysis.claims import evaluate_claims
from harness.analysis.configuration_result import trial_recipe, trial_spec
from harness.analysis.formatting import plural
from harness.analysis.proposal_origin import ENQUEUED_AS, FIRST_RUNG, ProposedBy
from harness.analysis.prospects import arms_needing_seeds, distances_to_verdicts
from harness.analysis.racing import RACE_ROUND
from harness.analysis.reuse import ReuseRule
from harness.analysis.run_status import OVER_BUDGET, configuration_status, trial_status, trials_by_configuration
from harness.config.axes import Value, random_sampler
from harness.config.census import take_census
from harness.config.recipe_axes import recipe_changes
from harness.config.recipes.proxy import ProxyRecipe
from harness.config.space import Candidate, Space
from harness.config.study import Study, screening_epochs
from harness.search.enqueue import Enqueued
from harness.search.events import ClaimsEvaluated
from harness.search.first_rung import FirstRung, Proposal
from harness.search.history import FURTHER_SEEDS, StudyHistory
from harness.search.pareto_pruner import was_stopped
from harness.search.prior_draws import PriorDraws
from harness.search.promotion import Promoter
from harness.search.race import RaceMonitor
from harness.search.samplers import SCREENING_SEEDS
from harness.search.space_filling import MAX_DRAWS, SpaceFilling
from harness.search.trial import OpenTrial, recorded_params, stored_params, suggest
from harness.search.wilcoxon import JUDGED
from harness.storage import batched_writes, requeue_trial
from harness.storage.rows import CLAIMS_EVENT
from harness.training.run import Run

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from harness.search.lag import ProposalLag

REPEATS = "repeats"
"""Attribute of a trial whose network the sampler had proposed before, and which trains a further seed of it."""
DRAWN = 100
"""Number of random configurations whose mean work is that of an unknown one."""
MAX_REJECTED_IN_A_ROW = 20
"""Number of rejected proposals in a row after which the feasible networks are listed."""


def _one(_: ProxyRecipe) -> float:
    return 1.0


class PlannedRuns(NamedTuple):
    """The runs of a trial that is not open yet."""

    seeds: list[Run]
    screening: Run | None = None

    @property
    def all(self) -> list[Run]:
        """The screening run, if there is one, and a run for each seed."""
        return [*([] if self.screening is None else [self.screening]), *self.seeds]


class ClaimMonitor:
    """Evaluates the claims on the stored runs. Each look is emitted once, and stored if the verdicts changed."""

    def __init__(self, rule: ReuseRule, space: Space, history: StudyHistory) -> None:
        self._study = rule.study
        self._space = space
        self._store = rule.store
        self._environment = rule.environment
        self._history = history
        self._seen: tuple[int, list[Candidate]] | None = None
        """Number of finished runs at the last look, and the configurations that needed another seed then."""
        self._pending: ClaimsEvaluated | None = None

    def configurations_needing_seeds(self) -> list[Candidate]:
        """The configurations that need another seed to decide a claim."""
        if not self._study.claims:
            return []
        if self._seen is None or self._seen[0] != self._history.runs_done:
            self._seen = self._history.runs_done, self._evaluate()
        return self._seen[1]

    def pending_event(self) -> ClaimsEvaluated | None:
        """The last look, if it has not been returned yet."""
        event, self._pending = self._pending, None
        return event

    def _evaluate(self) -> list[Candidate]:
        results = evaluate_claims(self._study, self._space, self._store, self._environment)
        candidates = arms_needing_seeds(self._study, results, self._history.seeds_used)
        verdicts = {result.claim.name: result.verdict_text for result in results}
        distances = distances_to_verdicts(self._study, results)
        self._pending = ClaimsEvaluated(verdicts, len(candidates), distances)
        output = ", ".join(f"{name} {verdict}" for name, verdict in self._pending.verdicts.items())
        before = [event.message for event in self._store.events(self._study.study) if event.kind == CLAIMS_EVENT]
        if before[-1:] != [output]:
            self._store.event(self._study.study, CLAIMS_EVENT, output)
        return candidates


def _lag_of(study: Study, history: StudyHistory) -> "ProposalLag | None":
    if not study.search.deterministic:
        return None
    from harness.search.lag import ProposalLag

    return ProposalLag(history)


class Proposals:
    """Opens one trial after another until a grid is exhausted, or a sampler has used all of its trials.

    Configurations with fewer seeds than the study now has come first. When a whole grid is trained, `more` returns the
    configurations that get one more seed; when any search has ended, `race` does.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        trials: "optuna.Study",
        history: StudyHistory,
        more: Callable[[], list[Candidate]] = list,
        enqueued: Sequence[Enqueued] = (),
        first_rung: FirstRung | None = None,
        race: RaceMonitor | None = None,
        promoter: Promoter | None = None,
    ) -> None:
        self._study = study
        self._space = space
        self._trials = trials
        self._history = history
        self._more = more
        self._first_rung = first_rung
        self._race = race
        self._promoter = promoter
        self._rounds: dict[str, int] = {}
        """The round of the race of queued configurations, by fingerprint."""
        self._is_grid = study.search.sampler == "grid"
        self._space_filling = SpaceFilling(study, space)
        self._prior = PriorDraws(study, space)
        self._screening_epochs = screening_epochs(study.search.pruner, study.proxy.epochs)
        self._parked = 0
        self._queue: deque[Candidate] = deque()
        """Configurations that need no proposal: grid cells, and configurations that get further seeds."""
        self._enqueued = deque(enqueued)
        """Configurations that the file lists, which are tried before any other is proposed."""
        self._in_vain = 0
        """Number of rejected proposals since the last feasible one."""
        self._lag = _lag_of(study, history)
        self._is_scarce = False
        """Whether so few networks are feasible that a rejected proposal is replaced by the nearest of them."""
        self._is_exhausted = False
        """Whether all feasible networks are tried."""
        self._opened_here: set[str] = set()
        self._repeats = 0
        self._drawn: list[Candidate] | None = None
        self._works: dict[Callable[[ProxyRecipe], float], dict[int, float]] = {}
        """The work of the recipes of the space, by function and by identity of the recipe, which the space keeps."""

    def load_history(self) -> None:
        """Read the history, requeue trials that a driver left open, and queue the configurations that follow."""
        from optuna.trial import TrialState

        self.requeue()
        trials = self._trials.get_trials(deepcopy=False)
        if self._lag is None:
            self._history.read(trials)
        else:
            self._lag.read(trials)
        self._repeats = sum(REPEATS in trial.user_attrs for trial in trials)
        self._space_filling.read(trials)
        self._prior.read(trials)
        parked = [trial for trial in trials if trial.state == TrialState.WAITING]
        self._parked = len(parked)
        self._queue.extend(self._lacking_seeds())
        taken = self._history.finished | {trial.user_attrs.get("fingerprint") for trial in parked}
        self._enqueued = deque(each for each in self._enqueued if each.candidate.fingerprint not in taken)
        if self._is_grid:
            taken |= {each.candidate.fingerprint for each in self._enqueued}
            cells = (cell for cell in self._space.grid() if cell.is_feasible)
            self._queue.extend(cell for cell in cells if cell.fingerprint not in taken)
        elif self._history.rejected >= MAX_REJECTED_IN_A_ROW:
            self._is_scarce = take_census(self._space).is_scarce

    def requeue(self) -> None:
        """Put every open trial back into Optuna's queue, with its parameters.

        Proposals of a first rung that was interrupted before it had chosen one are ended.
        """
        from optuna.trial import TrialState

        for trial in self._trials.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if self._first_rung is not None and "fingerprint" not in trial.user_attrs:
                self._trials.tell(trial.number, state=TrialState.FAIL)
            else:
                requeue_trial(self._trials, trial._trial_id)

    def runs_left(self, *, in_progress: int) -> int:
        """Number of runs of trials that may still be opened: exact for a grid without pruning, else an upper bound."""
        return round(self.work_left(_one, in_progress=in_progress))

    def work_left(self, work_of: Callable[[ProxyRecipe], float], *, in_progress: int) -> float:
        """The sum of `work_of` over the recipes of these runs; a trial that is not queued counts as the mean one."""
        seeds, screens = self._study.search.seeds, self._screening_epochs > 0
        queued = sum(
            self._work(cell, work_of)
            * (self._history.seeds_due(cell.fingerprint, seeds) + (screens and self._history.is_new(cell.fingerprint)))
            for cell in (*self._queue, *(each.candidate for each in self._enqueued if self._is_grid))
        )
        further = 0 if self._is_grid else self._trials_left(in_progress) - len(self._queue)
        return queued + (further * (seeds + screens) * self._mean_work(work_of) if further else 0.0)

    def _mean_work(self, work_of: Callable[[ProxyRecipe], float]) -> float:
        """The mean of `work_of` over configurations that a sampler may propose."""
        if not self._space.has_recipe_axes:
            return work_of(self._study.proxy)
        if self._drawn is None:
            choose = random_sampler(0)
            drawn = (self._space.sample(choose) for _ in range(DRAWN))
            self._drawn = [candidate for candidate in drawn if candidate.is_feasible]
        works = [self._work(candidate, work_of) for candidate in self._drawn]
        return fmean(works) if works else work_of(self._study.proxy)

    def _work(self, cell: Candidate, work_of: Callable[[ProxyRecipe], float]) -> float:
        """`work_of` the recipe of a configuration of the space, which keeps all of its recipes."""
        recipe = cell.trained[1]
        works = self._works.setdefault(work_of, {})
        if id(recipe) not in works:
            works[id(recipe)] = work_of(recipe)
        return works[id(recipe)]

    def has_next(self, *, in_progress: int) -> bool:
        """Whether a further trial may be opened; queues the configurations that need further seeds first."""
        if in_progress == 0 and self._trials_left(0) == 0:
            self._queue.extend(self._lacking_seeds() or (self._more() if self._is_grid else ()))
            if not self._queue:
                self.queue_race()
        return self._trials_left(in_progress) > 0

    @property
    def has_parked(self) -> bool:
        """Whether trials that an earlier driver left open are still to be opened."""
        return self._parked > 0

    def may_open(self, running: Iterable[int]) -> bool:
        """Whether the results are there that the next proposal uses; `running` are the open trials."""
        return self._lag is None or self._lag.may_open(running)

    def visible(self, trials: "Sequence[FrozenTrial]") -> "Sequence[FrozenTrial]":
        """The trials whose results the next proposal may use."""
        return trials if self._lag is None else self._lag.visible(trials)

    def queue_race(self) -> bool:
        """Queue the configurations that get another seed in the next round of the race; whether there are any."""
        due = [] if self._race is None else self._race.configurations_needing_seeds()
        if self._race is not None:
            self._rounds |= {candidate.fingerprint: self._race.round for candidate in due}
        self._queue.extend(due)
        return bool(due)

    @property
    def is_racing(self) -> bool:
        """Whether configurations wait for a further seed in the race."""
        return bool(self._rounds)

    def next_runs(self) -> PlannedRuns | None:
        """The runs of the next trial; None if a sampler, or a uniform draw, has yet to propose it."""
        from optuna.trial import TrialState

        if self._parked > 0:
            parked = self._trials.get_trials(deepcopy=False, states=(TrialState.WAITING,))
            return self._parked_runs(parked[0]) if parked else None
        if self._enqueued and (self._is_grid or not self._queue):
            return self._runs_of(self._enqueued[0].candidate)
        return self._runs_of(self._queue[0]) if self._queue else None

    def take_stored_first(self, settled: Callable[[Iterable[str]], set[str]]) -> None:
        """Put the queued configurations first whose runs are all settled, since they cost a study nothing."""
        ids = [[run.id for run in self._runs_of(cell).all] for cell in self._queue]
        stored = settled(run_id for of_cell in ids for run_id in of_cell)
        ordered = sorted(range(len(ids)), key=lambda i: not stored.issuperset(ids[i]))
        cells = list(self._queue)
        self._queue = deque(cells[i] for i in ordered)

    def _runs_of(self, cell: Candidate) -> PlannedRuns:
        (spec, recipe), search = cell.trained, self._study.search
        seeds = self._history.free_seeds(cell.fingerprint, search.seed, search.seeds)
        is_screened = self._screening_epochs > 0 and self._history.is_new(cell.fingerprint)
        screening = Run(spec, recipe, search.seed + SCREENING_SEEDS, self._space.data) if is_screened else None
        return PlannedRuns([Run(spec, recipe, seed, self._space.data) for seed in seeds], screening)

    def _parked_runs(self, trial: "FrozenTrial") -> PlannedRuns | None:
        if "seeds" not in trial.user_attrs:
            return None
        spec, recipe, data = trial_spec(trial), trial_recipe(trial, self._study), self._space.data
        screening, steps = trial.user_attrs.get("screening"), max(trial.intermediate_values, default=0)
        is_to_screen = screening is not None and steps < self._screening_epochs
        return PlannedRuns(
            [Run(spec, recipe, seed, data) for seed in trial.user_attrs["seeds"]],
            Run(spec, recipe, int(screening), data) if is_to_screen and screening is not None else None,
        )

    def open(self, *, in_progress: int) -> OpenTrial | None:
        """Open the next feasible configuration; None if there is none. Reports rejected proposals to the sampler."""
        if not self.has_next(in_progress=in_progress):
            return None
        while self._trials_left(in_progress) > 0:
            is_proposed = False
            if self._parked > 0:
                self._parked -= 1
            elif self._enqueued and (self._is_grid or not self._queue):
                listed = self._enqueued.popleft()
                self._enqueue(listed.candidate, ProposedBy.ENQUEUED, {ENQUEUED_AS: listed.named})
            elif self._queue:
                by = ProposedBy.GRID if self._is_grid else ProposedBy.NEAREST
                self._enqueue(self._queue.popleft(), by)
            elif (drawn := self._space_filling.next_draw()) is not None:
                self._enqueue(drawn, ProposedBy.SPACE_FILLING)
            elif (drawn := self._prior.next_draw(self._history.finished | self._opened_here)) is not None:
                self._enqueue(drawn, ProposedBy.PRIOR)
            elif self._is_scarce and self._nearest_untried({}) is None:
                self._is_exhausted = True
                return None
            else:
                is_proposed = True
            with batched_writes(self._trials):
                trial = self._trials.ask()
                candidate = self._space.sample(suggest(trial))
                if candidate.is_feasible:
                    self._in_vain = 0
                    if self._first_rung is not None and is_proposed:
                        return self._best_of_several(self._first_rung, (trial, candidate))
                    return self._opened(trial, candidate)
                self._reject(trial, candidate)
            if self._is_scarce or self._in_vain >= MAX_REJECTED_IN_A_ROW:
                self._replace(candidate)
        return None

    def _best_of_several(self, rung: FirstRung, first: Proposal) -> OpenTrial:
        """Ask for further proposals, and open the best of them by the score of the study's first rung.

        Proposals that are not feasible are rejected as always; where they are many, the best of fewer is opened.
        """
        proposals = [first]
        for _ in range(2 * rung.size):
            if len(proposals) == rung.size:
                break
            trial = self._trials.ask()
            candidate = self._space.sample(suggest(trial))
            if candidate.is_feasible:
                proposals.append((trial, candidate))
            else:
                self._reject(trial, candidate)
        self._in_vain = 0
        chosen, record = rung.choose(proposals, lambda name: name in self._history.finished | self._opened_here)
        rung.end_others(self._trials, proposals, chosen)
        chosen[0].set_user_attr(FIRST_RUNG, record)
        return self._opened(*chosen, ProposedBy.FIRST_RUNG)

    def why_ended(self) -> str | None:
        """Why a sampler ended before it used all trials, or how many proposals were repeated; None if neither.

        Also how many enqueued configurations were not tried, because all trials are used.
        """
        if self._enqueued and not self._is_grid and self._trials_left(0) == 0:
            left = plural(len(self._enqueued), "configuration")
            return f"{left} of `search.enqueue` not tried, since all {self._study.search.trials} `trials` are used"
        if self._space_filling.is_exhausted:
            return f"{MAX_DRAWS:,} uniform draws had no network within rules and budgets, so no trial was drawn so"
        if self._prior.is_exhausted:
            return "draws from the prior had no further network within rules and budgets, so the sampler proposed alone"
        if self._is_exhausted:
            census = take_census(self._space)
            tried = "and all are tried" if census.is_complete else f"and the {len(census.feasible)} found are tried"
            granted = self._study.search.trials or 0
            return f"{census.text()}, {tried}: {granted - self._history.trials} of {granted} trials are left"
        if self._repeats:
            repeats = f"{self._repeats} proposal{'s' if self._repeats > 1 else ''}"
            what = "configuration" if self._space.has_recipe_axes else "network"
            return f"{repeats} repeated a known {what}, for a further seed of it"
        return None

    def _replace(self, proposal: Candidate) -> None:
        """Queue the untried feasible network that is nearest to a rejected proposal."""
        self._in_vain = 0
        self._is_scarce = take_census(self._space).is_scarce
        nearest = self._nearest_untried(proposal.params)
        if nearest is not None:
            self._queue.append(nearest)

    def _nearest_untried(self, params: dict[str, Value]) -> Candidate | None:
        tried = self._history.finished | self._opened_here
        return take_census(self._space).nearest_to(params, self._space.axes, tried)

    def _lacking_seeds(self) -> list[Candidate]:
        """The complete configurations that have fewer seeds than the study now has."""
        trials = (trial for trial in self._trials.get_trials(deepcopy=False) if trial.state.name != "FAIL")
        return [
            self._space.sample(recorded_params(group[0].params))
            for fingerprint, group in trials_by_configuration(trials).items()
            if self._history.lacks_seeds(fingerprint, self._study.search.seeds)
            and all(trial.state.is_finished() for trial in group)
            and configuration_status([trial_status(trial) for trial in group]).state in ("complete", OVER_BUDGET)
        ]

    def _trials_left(self, in_progress: int) -> int:
        if self._is_grid or self._is_exhausted:
            return self._parked + len(self._queue) + (len(self._enqueued) if self._is_grid else 0)
        granted = (self._study.search.trials or 0) - self._history.trials - in_progress
        return len(self._queue) + max(self._parked, granted)

    def _enqueue(self, cell: Candidate, by: ProposedBy, more: Mapping[str, str] | None = None) -> None:
        facts = self._facts(cell, by) | dict(more or {})
        self._trials.enqueue_trial(stored_params(cell.params, self._space.axes), user_attrs=facts)
        self._space_filling.count(facts)
        self._prior.count(facts)

    def _opened(self, trial: "optuna.Trial", candidate: Candidate, by: ProposedBy = ProposedBy.SAMPLER) -> OpenTrial:
        """The open trial with its runs; a trial from the queue keeps its seeds."""
        spec, recipe = candidate.trained
        is_proposed = "seeds" not in trial.user_attrs  # and neither parked nor enqueued
        is_repeated = is_proposed and bool(self._history.used_seeds.get(candidate.fingerprint))
        self._repeats += is_repeated
        facts: dict[str, Any] = trial.user_attrs
        if is_proposed:
            facts = self._facts(candidate, by) | ({REPEATS: True} if is_repeated else {})
            self._space_filling.count(facts)
            self._prior.count(facts)
        self._opened_here.add(candidate.fingerprint)
        if self._lag is not None:
            self._lag.add(trial.number)
        for key in facts.keys() - trial.user_attrs.keys():
            trial.set_user_attr(key, facts[key])
        runs = [Run(spec, recipe, seed, self._space.data) for seed in facts["seeds"]]
        steps = set(trial.study._storage.get_trial(trial._trial_id).intermediate_values)
        opened = OpenTrial(trial, dict(candidate.params), spec, candidate.fingerprint, runs, steps=steps)
        opened.others = {name: {} for name in list(self._study.objectives)[1:]}
        opened.is_judged = JUDGED in facts
        opened.is_raced = RACE_ROUND in facts
        if "screening" in facts:
            opened.screening = Run(spec, recipe, facts["screening"], self._space.data)
            opened.screening_epochs = self._screening_epochs
            opened.is_screened = max(steps, default=0) >= opened.screening_epochs and not was_stopped(facts)
            if self._promoter is not None:
                self._promoter.restore(opened)
        return opened

    def _facts(self, candidate: Candidate, by: ProposedBy) -> dict[str, Any]:
        """User attributes of a new trial. A uniform draw is trained to its end, since a pruner must not select it."""
        assert candidate.cost is not None
        (spec, recipe), fingerprint, search = candidate.trained, candidate.fingerprint, self._study.search
        is_drawn = by == ProposedBy.SPACE_FILLING
        is_selected = self._history.is_new(fingerprint) and not is_drawn
        of_race = self._rounds.pop(fingerprint, None)
        is_further = of_race is not None or (self._history.lacks_seeds(fingerprint, search.seeds) and not is_drawn)
        seeds = self._history.next_seeds(fingerprint, search.seed, search.seeds)
        return {
            **({"screening": search.seed + SCREENING_SEEDS} if is_selected and self._screening_epochs > 0 else {}),
            **({JUDGED: True} if is_selected and search.pruner == "wilcoxon" else {}),
            "fingerprint": fingerprint,
            "spec": json.dumps(spec.canonical()),
            **({"recipe": json.dumps(recipe_changes(recipe, self._study.proxy))} if candidate.has_own_recipe else {}),
            "params": candidate.cost.params,
            "macs": candidate.cost.macs,
            "seeds": seeds,
            "runs": [Run(spec, recipe, seed, self._space.data).id for seed in seeds],
            **({FURTHER_SEEDS: True} if is_further else self._space_filling.facts(by)),
            **({} if of_race is None else {RACE_ROUND: of_race}),
        }

    def _reject(self, trial: "optuna.Trial", candidate: Candidate) -> None:
        """Tell the sampler by how much a proposal violates the rules, so that it learns to avoid such proposals."""
        from optuna.trial import TrialState

        for name, violation in candidate.violations.items():
            trial.set_constraint(name, violation)
        trial.set_user_attr("rejected", candidate.reason)
        self._trials.tell(trial, state=TrialState.PRUNED)
        self._history.rejected += 1
        self._in_vain += 1
