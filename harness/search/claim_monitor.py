"""Looks at a study's claims while it runs: which configurations need another seed, and the events to emit."""

from harness.analysis.claims import arms_needing_seeds, evaluate_claims
from harness.analysis.reuse import ReuseRule
from harness.config.space import Candidate, Space
from harness.search.events import ClaimsEvaluated
from harness.search.history import StudyHistory
from harness.storage.rows import CLAIMS_EVENT


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
        self._pending = ClaimsEvaluated({result.claim.name: result.verdict_text for result in results}, len(candidates))
        output = ", ".join(f"{name} {verdict}" for name, verdict in self._pending.verdicts.items())
        before = [event.message for event in self._store.events(self._study.study) if event.kind == CLAIMS_EVENT]
        if before[-1:] != [output]:
            self._store.event(self._study.study, CLAIMS_EVENT, output)
        return candidates
