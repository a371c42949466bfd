"""Searches in memory: the proposals of a study, without a database, runs and workers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from tiny_studies import SCRIPTED, write_study

from harness.analysis.proposal_origin import PROPOSED_BY
from harness.analysis.study_reader import open_space
from harness.config.study_file import load_study
from harness.search.enqueue import enqueued_configurations
from harness.search.first_rung import first_rung_of
from harness.search.history import StudyHistory
from harness.search.proposals import Proposals
from harness.search.samplers import build_sampler
from harness.search.trial import OpenTrial


def _one(_: OpenTrial) -> float:
    return 1.0


class SearchInMemory:
    """A study whose trials are opened one after another; each ends with a value, 1 if no function is given."""

    def __init__(self, folder: Path, value: Callable[[OpenTrial], float] = _one, **keys: Any) -> None:
        self.file = load_study(write_study(folder, SCRIPTED, **({"when": {}} | keys)))
        self.study = self.file.study
        self.space = open_space(self.file)
        sampler = build_sampler(self.study.search, self.space, 0)
        self.in_optuna = optuna.create_study(direction="maximize", sampler=sampler)
        history = StudyHistory()
        self.proposals = Proposals(
            self.study,
            self.space,
            self.in_optuna,
            history,
            enqueued=enqueued_configurations(self.file, self.space, None),
            first_rung=first_rung_of(self.study, None, folder / "data"),
        )
        self.opened: list[OpenTrial] = []
        while (opened := self.proposals.open(in_progress=0)) is not None:
            self.opened.append(opened)
            history.end(self.in_optuna.tell(opened.trial, value(opened)))

    @property
    def trials(self) -> list[optuna.trial.FrozenTrial]:
        """All trials of Optuna, those of proposals that were not opened included."""
        return self.in_optuna.trials

    @property
    def origins(self) -> list[str]:
        """Who proposed each of the opened trials."""
        return [opened.trial.user_attrs[PROPOSED_BY] for opened in self.opened]
