"""The history of claims: which plan was in force for how many pairs, which claims were added later, and earlier looks.

Every change is stored with the seeds of each claim's pairs at that time, so that a later evaluation of the study has
the same verdicts. A file that differs from the stored one, because it was edited and not run since, counts as changed
now; what cannot change when it is run (`config.study_growth`), such as the pairing, leaves its claims exploratory
meanwhile. Earlier looks are those of other studies at the same runs, before the study was started.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from itertools import accumulate
from typing import Any

from harness.analysis.statistics import ExtendedPlan, Plan, plan_after
from harness.config.study import Claim, Study
from harness.config.study_growth import seeds_of
from harness.config.yaml_file import parse_stored
from harness.errors import NotFound
from harness.storage import RunRow, Store, StudyRow
from harness.storage.rows import CLAIMS_EVENT
from harness.training.run import RunState

DECISIVE_KEYS = ("metric", "contrast", "expect", "ignore")
"""Keys of a claim that decide its verdict, together with the plan of its study and with `search.pairing`."""
DEFAULTS = {"metric": "top1"}
"""Values of keys that a file of an earlier version may lack, if they are not null."""
SeedRuns = Mapping[int, tuple[RunRow, ...]]
"""The complete runs of all arms of a claim, by seed."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """One change of a study file."""

    added: tuple[str, ...]
    """Additions such as `search.seeds from 3 to 5`."""
    plan: tuple[int, int]
    """First and last look of the plan that was in force before it."""
    seeds: Mapping[str, tuple[int, ...]]
    """Seeds of the complete pairs at that time, by claim."""
    runs: int
    """Number of complete runs of the study at that time."""
    claims: tuple[str, ...]
    """Names of the added claims."""

    def text(self) -> str:
        """The change as JSON for the store."""
        return json.dumps(asdict(self))

    @classmethod
    def read(cls, text: str) -> "FileChange":
        """Parse a change from the store's JSON."""
        stored = json.loads(text)
        seeds = {name: tuple(claim_seeds) for name, claim_seeds in stored["seeds"].items()}
        return cls(tuple(stored["added"]), tuple(stored["plan"]), seeds, stored["runs"], tuple(stored["claims"]))


@dataclass(frozen=True, slots=True)
class FileHistory:
    """All changes of a study file until now."""

    plan: Plan
    """The plan that is in force now."""
    changes: tuple[FileChange, ...] = ()
    edited: Mapping[str, str] = field(default_factory=dict)
    """Reason by claim, for claims that would be judged otherwise than those that the study was started with."""

    def plan_of(self, claim: str) -> Plan | ExtendedPlan:
        """The plans that were in force for a claim, in order."""
        plans = [Plan(*change.plan) for change in self.changes]
        pairs = [len(change.seeds.get(claim, ())) for change in self.changes]
        rising = accumulate(pairs, max)  # runs may be lost between two changes
        return plan_after([*plans, self.plan], list(rising))

    def seeds_first(self, claim: str) -> tuple[int, ...]:
        """The seeds of a claim's pairs in the order in which they were complete, as recorded by the changes."""
        seeds: dict[int, None] = {}
        for change in self.changes:
            seeds |= dict.fromkeys(change.seeds.get(claim, ()))
        return tuple(seeds)

    def late_reason(self, claim: str) -> str | None:
        """Reason why a claim is newer than its data; None if it is as it was before the first run."""
        runs = next((change.runs for change in self.changes if claim in change.claims), 0)
        return f"the claim was added after {runs} runs" if runs else self.edited.get(claim)


def file_history(study: Study, store: Store, paired: Mapping[str, Sequence[int]]) -> FileHistory:
    """The history of a study file; `paired` has the seeds of the complete pairs now, by claim."""
    changes = tuple(map(FileChange.read, store.changes(study.study)))
    pending = pending_change(study, store, paired)
    edited = _edited_claims(study, store)
    return FileHistory(claim_plan(study), changes if pending is None else (*changes, pending), edited)


def _edited_claims(study: Study, store: Store) -> dict[str, str]:
    """The claims whose file was edited after runs and not run since, in what decides a verdict; each with a reason."""
    try:
        stored = _stored_claims(store.study(study.study).resolved)
    except NotFound:
        return {}
    edited = {}
    for claim in study.claims:
        if claim.name not in stored.names:
            continue
        before, now = stored.decisive[claim.name], _decisive(claim.model_dump(mode="json"), study.search.pairing)
        if changed := [f"`{key}`" for key in now if now[key] != before[key]]:
            edited[claim.name] = (
                f"the file has another {' and '.join(changed)} than the one that the study was run with"
            )
    return edited if edited and _complete_runs(study, store) else {}


def pending_change(
    study: Study, store: Store, paired: Mapping[str, Sequence[int]], added: tuple[str, ...] = ()
) -> FileChange | None:
    """The change of the file against the stored one, with `added` as its description; None if it has not changed."""
    try:
        stored = _stored_claims(store.study(study.study).resolved)
    except NotFound:
        return None
    new = tuple(claim.name for claim in study.claims if claim.name not in stored.names)
    if not new and not added and stored.plan == seeds_of(study.search):
        return None
    seeds = {name: tuple(claim_seeds) for name, claim_seeds in paired.items() if name in stored.names}
    return FileChange(added, stored.plan, seeds, _complete_runs(study, store), new)


def claim_plan(study: Study) -> Plan:
    """The plan of a study's looks at its claims: after the first seeds, and after each further seed."""
    first, most = seeds_of(study.search)
    return Plan(first, most)


def _complete_runs(study: Study, store: Store) -> int:
    links = store.trial_runs(study.study)
    runs = store.runs({run for ids in links.values() for run in ids})
    return sum(row.state == RunState.COMPLETE for row in runs.values())


@dataclass(frozen=True, slots=True)
class _StoredClaims:
    """The parts of a stored study file that decide its verdicts."""

    plan: tuple[int, int]
    decisive: Mapping[str, Mapping[str, Any]]
    """What decides the verdict of each claim, apart from the plan, by name."""

    @property
    def names(self) -> frozenset[str]:
        """Names of the claims."""
        return frozenset(self.decisive)

    @property
    def metrics(self) -> frozenset[str]:
        """Metrics of the claims."""
        return frozenset(keys["metric"] for keys in self.decisive.values())


@lru_cache(maxsize=64)
def _stored_claims(resolved: str) -> _StoredClaims:
    values: dict[str, Any] = parse_stored(resolved) or {}
    claims, search = values.get("claims") or (), values.get("search") or {}
    first = search.get("seeds", 3)
    plan = first, max(first, search.get("max_seeds") or 0)
    pairing = search.get("pairing", "seed")
    return _StoredClaims(plan, {str(claim.get("name")): _decisive(claim, pairing) for claim in claims})


def _decisive(claim: Mapping[str, Any], pairing: str) -> dict[str, Any]:
    keys = {key: claim.get(key, DEFAULTS.get(key)) for key in DECISIVE_KEYS}
    return keys | {"search.pairing": pairing}


@dataclass(frozen=True, slots=True)
class ForeignLooks:
    """The studies that had evaluated their claims when a study was started."""

    started: datetime
    studies: tuple[tuple[str, _StoredClaims, frozenset[str]], ...]
    """Name, claims, and run ids of each study."""

    def reason(self, claim: Claim, study: Study, pairs: SeedRuns) -> str | None:
        """Reason why a verdict of the claim has no error rate; None if no other study had looked at its pairs.

        A study with the same claim, plan and pairing has taken the same looks, which add no error.
        """
        decisive = _decisive(claim.model_dump(mode="json"), study.search.pairing)
        for name, claims, ids in self.studies:
            is_same = claims.plan == seeds_of(study.search) and decisive in claims.decisive.values()
            if claim.metric not in claims.metrics or is_same:
                continue
            earlier_seeds = [seed for seed, rows in pairs.items() if self._had(rows, ids)]
            if earlier_seeds:
                return f"{len(earlier_seeds)} of its {len(pairs)} pairs were looked at before by the study `{name}`"
        return None

    def _had(self, rows: Iterable[RunRow], ids: frozenset[str]) -> bool:
        return all(row.id in ids and row.finished is not None and row.finished <= self.started for row in rows)


def foreign_looks(study: Study, store: Store) -> ForeignLooks:
    """The looks of other studies before this one was started, or before now if it is not started yet.

    Runs are shared between studies. If a claim is made, or a plan is extended, after another study has evaluated the
    same values, the claim is newer than its data, like a claim that is added to a study with runs.
    """
    studies = {row.name: row for row in store.studies()}
    started = studies[study.study].created if study.study in studies else datetime.now(UTC)
    return ForeignLooks(started, tuple(_looked(store, studies.values(), study.study, started)))


def _looked(
    store: Store, studies: Iterable[StudyRow], study: str, started: datetime
) -> Iterator[tuple[str, _StoredClaims, frozenset[str]]]:
    for row in studies:
        claims = _stored_claims(row.resolved)
        if row.name == study or not claims.decisive:
            continue
        first = store.first_event(row.name, CLAIMS_EVENT)
        if first is not None and first.time <= started:
            runs = (run_id for ids in store.trial_runs(row.name).values() for run_id in ids)
            yield row.name, claims, frozenset(runs)
