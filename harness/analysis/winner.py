"""The best configuration of a study, or that of another trial."""

from collections.abc import Sequence

from harness.analysis.configuration_result import ConfigurationResult
from harness.analysis.results import StudyResults, results_limit_sentence, study_results
from harness.analysis.study_reader import StudyReader
from harness.errors import NotFound, UserError
from harness.system.command_line import command_line


def find_winner(
    reader: StudyReader, trial: int | None, options: Sequence[str] = ()
) -> tuple[ConfigurationResult, StudyResults]:
    """The best configuration of a study, or that of the given trial; and all results of the study.

    `options` are the command-line options that select the study, for commands in messages. Raises `NotFound` if there
    is no such configuration, and `UserError` if all configurations are at one limit.
    """
    results = study_results(reader.file.study, reader.store, reader.trials, {})
    configuration = results.best if trial is None else results.row_of(trial)
    if configuration is not None:
        return configuration, results
    if trial is None and results.limit is not None:
        rule = "a study must tell its configurations apart to have a best one"
        remedy = f"{results_limit_sentence(results)} Or name one: `--trial N`."
        raise UserError(rule, value=f"all at {results.limit}", place=str(reader.file.path), remedy=remedy)
    look = f"See its status: `{command_line('status', reader.file.path, options)}`."
    if trial is not None:
        raise NotFound("the trial must be one of the study's that were trained", value=trial, remedy=look)
    raise NotFound(
        "a study must have a complete configuration to have a best one", place=str(reader.file.path), remedy=look
    )
