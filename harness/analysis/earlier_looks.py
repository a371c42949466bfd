"""Looks that another study has taken at the runs of a claim, before the study of the claim was started.

Runs are shared between studies. A claim that is made, or a plan that is made longer, after the values were judged under
another study's name comes after its data, as a claim that is added to a study with runs does; see
`analysis.plan_history`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import yaml

from harness.config.study import Claim, Study
from harness.config.study_growth import seeds_of
from harness.storage import RunRow, Store, StudyRow
from harness.storage.rows import CLAIMS_EVENT

DECISIVE_KEYS = ("metric", "contrast", "expect", "ignore")
"""Keys of a claim that decide its verdict, with the plan of its study."""
SeedRuns = Mapping[int, tuple[RunRow, ...]]
"""By seed, the complete runs of all arms of a claim."""


@dataclass(frozen=True, slots=True)
class _ForeignClaims:
    """What another study judges."""

    metrics: frozenset[str]
    claims: frozenset[str]
    """Each with the plan, as `_decisive` has it."""


@dataclass(frozen=True, slots=True)
class ForeignLooks:
    """The studies that had looked at their claims when a study was started."""

    started: datetime
    studies: tuple[tuple[str, _ForeignClaims, frozenset[str]], ...]
    """Name, claims, and ids of its runs."""

    def reason(self, claim: Claim, study: Study, pairs: SeedRuns) -> str | None:
        """Why a verdict of the claim has no error rate; None where no other study had looked at its pairs.

        A study that judges the same claim by the same plan has taken the same looks, which cost nothing again.
        """
        own = _decisive(claim.model_dump(mode="json"), seeds_of(study.search))
        for name, judged, ids in self.studies:
            if claim.metric not in judged.metrics or own in judged.claims:
                continue
            seen = [seed for seed, rows in pairs.items() if self._had(rows, ids)]
            if seen:
                return f"{len(seen)} of its {len(pairs)} pairs were looked at before by the study `{name}`"
        return None

    def _had(self, rows: Iterable[RunRow], ids: frozenset[str]) -> bool:
        return all(row.id in ids and row.finished is not None and row.finished <= self.started for row in rows)


def foreign_looks(study: Study, store: Store) -> ForeignLooks:
    """The looks of other studies before this one was started; before now, where it is not started yet."""
    known = {row.name: row for row in store.studies()}
    started = known[study.study].created if study.study in known else datetime.now(UTC)
    return ForeignLooks(started, tuple(_looked(store, known.values(), study.study, started)))


def _looked(
    store: Store, known: Iterable[StudyRow], own: str, started: datetime
) -> Iterator[tuple[str, _ForeignClaims, frozenset[str]]]:
    for row in known:
        judged = _foreign_claims(row.resolved) if row.name != own else None
        if judged is None or not judged.claims:
            continue
        first = store.first_event(row.name, CLAIMS_EVENT)
        if first is not None and first.time <= started:
            runs = (run_id for ids in store.trial_runs(row.name).values() for run_id in ids)
            yield row.name, judged, frozenset(runs)


@lru_cache(maxsize=64)
def _foreign_claims(resolved: str) -> _ForeignClaims:
    values: dict[str, Any] = yaml.safe_load(resolved) or {}
    claims, search = values.get("claims") or (), values.get("search") or {}
    first = search.get("seeds", 3)
    plan = first, max(first, search.get("max_seeds") or 0)
    return _ForeignClaims(
        frozenset(claim.get("metric", "top1") for claim in claims),
        frozenset(_decisive(claim, plan) for claim in claims),
    )


def _decisive(claim: Mapping[str, Any], plan: tuple[int, int]) -> str:
    return json.dumps([{key: claim.get(key) for key in DECISIVE_KEYS}, plan], sort_keys=True)
