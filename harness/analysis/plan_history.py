"""The history of a study file: which plan was in force for how many pairs, and which claims were added later.

Every change is stored with the seeds of each claim's pairs at that time, so that a later evaluation of the study has
the same verdicts. A file that differs from the stored one, because it was edited and not run since, counts as changed
now.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml

from harness.analysis.statistics import ExtendedPlan, Plan, plan_after
from harness.config.study import Study
from harness.config.study_growth import seeds_of
from harness.errors import NotFound
from harness.storage import Store
from harness.training.run import RunState


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
        values = {"added": self.added, "plan": self.plan, "seeds": self.seeds, "runs": self.runs, "claims": self.claims}
        return json.dumps(values)

    @classmethod
    def read(cls, text: str) -> "FileChange":
        """Parse a change from the store's JSON."""
        kept = json.loads(text)
        seeds = {name: tuple(each) for name, each in kept["seeds"].items()}
        return cls(tuple(kept["added"]), tuple(kept["plan"]), seeds, kept["runs"], tuple(kept["claims"]))


@dataclass(frozen=True, slots=True)
class FileHistory:
    """All changes of a study file until now."""

    plan: Plan
    """The plan that is in force now."""
    changes: tuple[FileChange, ...] = ()

    def plan_of(self, claim: str) -> Plan | ExtendedPlan:
        """The plans that were in force for a claim, in order."""
        plans = [Plan(*change.plan) for change in self.changes]
        pairs = [len(change.seeds.get(claim, ())) for change in self.changes]
        return plan_after([*plans, self.plan], _rising(pairs))

    def seeds_first(self, claim: str) -> tuple[int, ...]:
        """The seeds of a claim's pairs in the order in which they were complete, as recorded by the changes."""
        seeds: dict[int, None] = {}
        for change in self.changes:
            seeds |= dict.fromkeys(change.seeds.get(claim, ()))
        return tuple(seeds)

    def added_after(self, claim: str) -> int | None:
        """Number of complete runs of the study when the claim was added; None for a claim older than all runs."""
        runs = next((change.runs for change in self.changes if claim in change.claims), 0)
        return runs or None


def file_history(study: Study, store: Store, paired: Mapping[str, Sequence[int]]) -> FileHistory:
    """The history of a study file; `paired` has the seeds of the complete pairs now, by claim."""
    changes = tuple(map(FileChange.read, store.changes(study.study)))
    pending = pending_change(study, store, paired)
    return FileHistory(claim_plan(study), changes if pending is None else (*changes, pending))


def pending_change(
    study: Study, store: Store, paired: Mapping[str, Sequence[int]], added: tuple[str, ...] = ()
) -> FileChange | None:
    """The change of the file against the stored one, with `added` as its description; None if it has not changed."""
    try:
        kept = _stored_claims(store.study(study.study).resolved)
    except NotFound:
        return None
    new = tuple(claim.name for claim in study.claims if claim.name not in kept.claims)
    if not new and not added and kept.plan == seeds_of(study.search):
        return None
    seeds = {name: tuple(each) for name, each in paired.items() if name in kept.claims}
    return FileChange(added, kept.plan, seeds, _complete_runs(study, store), new)


@dataclass(frozen=True, slots=True)
class _StoredClaims:
    """The parts of the stored file that decide its verdicts."""

    plan: tuple[int, int]
    claims: frozenset[str]


def claim_plan(study: Study) -> Plan:
    """The plan of a study's looks at its claims: after the first seeds, and after each further seed."""
    first, most = seeds_of(study.search)
    return Plan(first, most)


@lru_cache(maxsize=16)
def _stored_claims(resolved: str) -> _StoredClaims:
    values: dict[str, Any] = yaml.safe_load(resolved) or {}
    search = values.get("search") or {}
    first = search.get("seeds", 3)
    names = frozenset(str(claim.get("name")) for claim in values.get("claims") or ())
    return _StoredClaims((first, max(first, search.get("max_seeds") or 0)), names)


def _complete_runs(study: Study, store: Store) -> int:
    links = store.trial_runs(study.study)
    runs = store.runs({run for ids in links.values() for run in ids})
    return sum(row.state == RunState.COMPLETE for row in runs.values())


def _rising(pairs: Sequence[int]) -> list[int]:
    """Running maximum of the pairs, since runs may be lost between two changes."""
    return [max(pairs[: i + 1]) for i in range(len(pairs))]
