"""An Optuna storage around another one, as the base of those that show its trials in another way.

This module imports Optuna; it is imported where a study is driven, not before.
"""

from collections.abc import Container

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from harness.storage.delegation import delegated

_delegated = delegated("source")


class StorageView(BaseStorage):
    """A storage all of whose methods call those of `source`."""

    def __init__(self, source: BaseStorage) -> None:
        self.source = source

    create_new_study = _delegated("create_new_study")
    delete_study = _delegated("delete_study")
    get_study_user_attrs = _delegated("get_study_user_attrs")
    get_study_system_attrs = _delegated("get_study_system_attrs")
    set_study_user_attr = _delegated("set_study_user_attr")
    set_study_system_attr = _delegated("set_study_system_attr")
    get_all_studies = _delegated("get_all_studies")
    get_study_id_from_name = _delegated("get_study_id_from_name")
    get_study_name_from_id = _delegated("get_study_name_from_id")
    get_study_directions = _delegated("get_study_directions")
    create_new_trial = _delegated("create_new_trial")
    set_trial_param = _delegated("set_trial_param")
    set_trial_state_values = _delegated("set_trial_state_values")
    set_trial_intermediate_value = _delegated("set_trial_intermediate_value")
    set_trial_user_attr = _delegated("set_trial_user_attr")
    set_trial_system_attr = _delegated("set_trial_system_attr")
    get_trial = _delegated("get_trial")

    def get_all_trials(  # noqa: D102
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self.source.get_all_trials(study_id, deepcopy, states)
