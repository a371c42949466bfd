"""A study with a claim, played by a script, and what its claims come to."""

from pathlib import Path
from typing import Any

from tiny_studies import SCRIPTED, Played

from harness.analysis.claims import ClaimResult, evaluate_claims
from harness.analysis.study_reader import open_space, open_study_reader

CLAIM: dict[str, Any] = {
    "name": "larger_is_better",
    "says": "K=13 is ahead of K=3",
    "contrast": {"K=13, reparam=5": 1, "K=3": -1},
    "expect": "> 0",
    "paper": "0.91 points (table 5)",
}
CLAIMED: dict[str, Any] = SCRIPTED | {"search": {"seeds": 3, "max_seeds": 6}, "claims": [CLAIM]}


def claimed(folder: Path, **overrides: Any) -> Played:
    """The scripted study with the claim and the seeds that it may ask for."""
    return Played(folder, **{key: CLAIMED[key] for key in ("search", "claims")} | overrides)


def claim_results(played: Played) -> tuple[ClaimResult, ...]:
    with open_study_reader(played.path, played.workspace) as reader:
        return evaluate_claims(played.file.study, open_space(played.file), reader.store)
