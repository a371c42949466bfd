"""Looks of other studies at the runs of a claim, before the study of the claim was started.

Runs are shared between studies. If a claim is made, or a plan is extended, after another study has evaluated the same
values, the claim is newer than its data, like a claim that is added to a study with runs; see `analysis.plan_history`.
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
"""Keys of a claim that decide its verdict, together with the plan of its study."""
SeedRuns = Mapping[int, tuple[RunRow, ...]]
"""The complete runs of all arms of a claim, by seed."""


@dataclass(frozen=True, slots=True)
class _ForeignClaims:
    """The metrics and claims of another study."""

    metrics: frozenset[str]
    claims: frozenset[str]
    """Claims with their plan, as text from `_decisive`."""


@dataclass(frozen=True, slots=True)
class ForeignLooks:
    """The studies that had evaluated their claims when a study was started."""

    started: datetime
    studies: tuple[tuple[str, _ForeignClaims, frozenset[str]], ...]
    """Name, claims, and run ids of each study."""

    def reason(self, claim: Claim, study: Study, pairs: SeedRuns) -> str | None:
        """Reason why a verdict of the claim has no error rate; None if no other study had looked at its pairs.

        A study with the same claim and the same plan has taken the same looks, which add no error.
        """
        decisive = _decisive(claim.model_dump(mode="json"), seeds_of(study.search))
        for name, claims, ids in self.studies:
            if claim.metric not in claims.metrics or decisive in claims.claims:
                continue
            earlier_seeds = [seed for seed, rows in pairs.items() if self._had(rows, ids)]
            if earlier_seeds:
                return f"{len(earlier_seeds)} of its {len(pairs)} pairs were looked at before by the study `{name}`"
        return None

    def _had(self, rows: Iterable[RunRow], ids: frozenset[str]) -> bool:
        return all(row.id in ids and row.finished is not None and row.finished <= self.started for row in rows)


def foreign_looks(study: Study, store: Store) -> ForeignLooks:
    """The looks of other studies before this one was started, or before now if it is not started yet."""
    studies = {row.name: row for row in store.studies()}
    started = studies[study.study].created if study.study in studies else datetime.now(UTC)
    return ForeignLooks(started, tuple(_looked(store, studies.values(), study.study, started)))


def _looked(
    store: Store, studies: Iterable[StudyRow], study: str, started: datetime
) -> Iterator[tuple[str, _ForeignClaims, frozenset[str]]]:
    for row in studies:
        claims = _foreign_claims(row.resolved) if row.name != study else None
        if claims is None or not claims.claims:
            continue
        first = store.first_event(row.name, CLAIMS_EVENT)
        if first is not None and first.time <= started:
            runs = (run_id for ids in store.trial_runs(row.name).values() for run_id in ids)
            yield row.name, claims, frozenset(runs)


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
