"""Policies of a search: a sampler, a pruner and a number of seeds, as `tpe+successive_halving+1`.

With a range of seeds, as `tpe+none+1-3`, the configurations that may be the best race for the further ones.

`harness simulate` compares them on recorded curves. Each is the study file with other keys under `search`, so what a
sampler cannot take is refused as when the file is read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from harness.config.search_methods import traits_of
from harness.config.study import Search, Study
from harness.config.study_file import StudyFile, check_document
from harness.errors import StudyError, UserError, did_you_mean

FIRST_EPOCH = "first_epoch"
"""The baseline that trains many networks for one epoch, then the best of them to the end."""
FILE = "file"
"""The name of the policy of the study file itself."""
DEFAULT = "tpe+successive_halving+1"
"""The policy of a file that trains a grid, and so has none."""
BASELINES = ("random+none+1", FIRST_EPOCH)
"""What is compared with it by default."""
PRUNERS: tuple[str, ...] = get_args(Search.model_fields["pruner"].annotation)
FORM = "SAMPLER+PRUNER+SEEDS[-MOST]"


@dataclass(frozen=True, slots=True)
class Policy:
    """A way to search."""

    name: str
    file: StudyFile | None
    """The study file with the policy's keys under `search`; None for the baseline `first_epoch`."""

    @property
    def study(self) -> Study:
        """The study of a policy that the driver runs."""
        assert self.file is not None, "the driver does not run the baseline"
        return self.file.study

    @property
    def seeds(self) -> int:
        """Number of seeds with which it trains a configuration at first."""
        return 1 if self.file is None else self.study.search.seeds


def default_policies(file: StudyFile) -> tuple[str, ...]:
    """The names of the policies that are compared if the user names none; the first is the default policy."""
    own = DEFAULT if file.study.search.sampler == "grid" else FILE
    return (own, *BASELINES)


def read_policies(file: StudyFile, names: Sequence[str], budget: int) -> tuple[Policy, ...]:
    """The policies with these names, for `budget` epochs each. Raises `UserError` for one that cannot be.

    A trial takes an epoch at least, so each may have as many trials. A policy with a race keeps a share of the epochs
    for it.
    """
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise UserError("`--policies` must be different ones", value=doubled, remedy="Name each once.")
    return tuple(_policy(file, name, budget) for name in names)


def _policy(file: StudyFile, name: str, budget: int) -> Policy:
    if name == FIRST_EPOCH:
        return Policy(name, None)
    if name == FILE:
        search = file.document.data.get("search") or {}
        return Policy(name, _changed(file, name, search, budget))
    return Policy(name, _changed(file, name, _search(name), budget))


def _search(name: str) -> dict[str, Any]:
    """The keys under `search` of a policy's name."""
    parts = name.split("+")
    if len(parts) == 2:
        parts.append("1")
    if len(parts) != 3 or not re.fullmatch("[1-9][0-9]{0,2}(-[1-9][0-9]{0,2})?", parts[2]):
        rule = f"a policy must have the form {FORM}, or be `{FILE}` or `{FIRST_EPOCH}`"
        raise UserError(rule, value=name, remedy=f"For example {DEFAULT}.")
    sampler, pruner, seeds = parts
    if pruner not in PRUNERS:
        rule = "the pruner of a policy must be one of a study's"
        raise UserError(rule, value=name, remedy=did_you_mean(pruner, PRUNERS, "Pruners"))
    first, _, most = seeds.partition("-")
    search = {"sampler": sampler, "pruner": pruner, "seeds": int(first)}
    return search | ({"racing": {"most": int(most)}} if most else {})


def _changed(file: StudyFile, name: str, search: dict[str, Any], budget: int) -> StudyFile:
    """The study file with these keys under `search`, and without what only a grid of claims can have."""
    sampler = str(search.get("sampler", "grid"))
    traits = traits_of(sampler)
    kept = {key: value for key, value in search.items() if key not in ("max_seeds", "trials", "pairing", "budget")}
    if sampler != "grid":
        kept["trials"] = min(max(budget, traits.least_trials), traits.most_trials or budget)
    if kept.get("racing") is not None:
        kept["budget"] = {"epochs": budget}
    dropped = ("search", "claims", "quick", "calibrate", "effects", "full_scale")
    data = {key: value for key, value in file.document.data.items() if key not in dropped}
    try:
        return check_document(replace(file.document, data={**data, "search": kept}))
    except StudyError as error:
        for problem in error.problems:
            problem.rule = f"In the policy {name}: {problem.rule}"
        raise
