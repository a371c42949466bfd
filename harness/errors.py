"""The errors of the harness and the form of their messages: rule, value, place, remedy.

HarnessError
├── UserError            an error that the user can correct; the command line prints it and exits with code 2
│   ├── SpecError        a network that cannot be built
│   ├── StudyError       a study file that is invalid or cannot be carried out
│   ├── WeightsError     a file of weights that cannot be read, or belongs to another network
│   ├── DataError        a data set that is missing or does not have the expected layout
│   ├── StoreError       a database that cannot be used: foreign, newer, locked, on the wrong file system
│   ├── ExecutorError    workers that cannot be started: no such cluster, too few processors
│   ├── StudyAborted     a study that ends early because its runs fail one after another
│   └── NotFound         a study, trial or run that is not in the records
├── UnusableState        a file of a training's state that must not be used; the training starts again
├── ExportFailure        an exported file that does not return the network's logits when it is loaded again
└── RunFailure           one run ended without a result; the study continues
    ├── Stopped          the driver ended it
    ├── Diverged         a loss or a metric is not finite
    ├── OutOfMemory      the device had too little memory
    ├── TimedOut         the run exceeded its time limit
    ├── StateNotWritten  its checkpoint could not be written
    └── WorkerLost       the process or node that trained it is gone
"""

import difflib
from collections.abc import Iterable, Sequence

MAX_CHARACTERS = 300
"""Maximum length of an error's text in a table."""


def did_you_mean(name: str, choices: Iterable[str], heading: str = "Known") -> str:
    """A remedy for an unknown name: the most similar known name, if there is one, and the list of all."""
    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(name[:100], names, n=1)
    hint = f"Did you mean `{near[0]}`? " if near else ""
    return f"{hint}{heading}: {', '.join(names)}."


def first_of(names: Sequence[object], most: int) -> str:
    """The first `most` names with commas between them, and `...` for further ones."""
    return ", ".join([*map(str, names[:most]), *(["..."] if len(names) > most else [])])


class HarnessError(Exception):
    """Base class of all errors that the harness raises on purpose."""


class UserError(HarnessError):
    """An error that the user can correct. Its text is "<rule>, but got <value> (<place>). <remedy>"."""

    def __init__(self, rule: str, *, value: object = None, place: str | None = None, remedy: str | None = None) -> None:
        self.rule = rule
        self.value = value
        self.place = place
        self.remedy = remedy
        super().__init__(rule)

    def __str__(self) -> str:
        got = "" if self.value is None else f", but got {self.value!r}"
        place = "" if self.place is None else f" ({self.place})"
        remedy = "" if self.remedy is None else f" {self.remedy}"
        return f"{self.rule}{got}{place}.{remedy}"


class SpecError(UserError):
    """A network that cannot be built; `field` is the invalid field of the spec, as `K` or `K[2]`."""

    def __init__(
        self, rule: str, *, field: str, value: object = None, place: str | None = None, remedy: str | None = None
    ) -> None:
        self.field = field
        super().__init__(rule, value=value, place=place, remedy=remedy)


class StudyError(UserError):
    """A study file that is invalid or cannot be carried out; `problems` holds one error for each fault."""

    def __init__(
        self,
        rule: str,
        *,
        value: object = None,
        place: str | None = None,
        remedy: str | None = None,
        problems: Sequence["UserError"] = (),
    ) -> None:
        super().__init__(rule, value=value, place=place, remedy=remedy)
        self.problems: tuple[UserError, ...] = tuple(problems) or (self,)

    def __str__(self) -> str:
        text = super().__str__()
        return text if self.problems == (self,) else "\n".join([text, *(f"  {problem}" for problem in self.problems)])


class WeightsError(UserError):
    """A file of weights that cannot be read, or belongs to another network."""


class DataError(UserError):
    """A data set that is missing or does not have the expected layout."""


class StoreError(UserError):
    """A database that cannot be used as it is."""


class ExecutorError(UserError):
    """Workers that cannot be started."""


class StudyAborted(UserError):
    """A study that ends early because its runs fail one after another."""


class NotFound(UserError):
    """A study, a trial or a run that is not in the records."""


class UnusableState(HarnessError):
    """A file of a training's state that must not be used; the text is the reason, without the file's name."""


class ExportFailure(HarnessError):
    """An exported file that does not return the network's logits when it is loaded again."""


class RunFailure(HarnessError):
    """One run ended without a result; the study records the cause and continues."""


class Stopped(RunFailure):
    """The driver asked the run to end: pruned, or the study was interrupted."""


class Diverged(RunFailure):
    """A loss or a metric is NaN or infinite."""


class OutOfMemory(RunFailure):
    """The device had too little memory for the batch."""


class TimedOut(RunFailure):
    """The run exceeded the time limit of `resources`."""


class StateNotWritten(RunFailure):
    """The checkpoint of a run could not be written: for example, the disk is full or the folder was removed."""


class WorkerLost(RunFailure):
    """The process or the node that trained the run is gone."""


def one_line(error: BaseException) -> str:
    """The first line of an error's text, cut to fit a table; `...` marks a cut."""
    text = (str(error).strip().splitlines() or [""])[0]
    return text if len(text) <= MAX_CHARACTERS else f"{text[: MAX_CHARACTERS - 4].rstrip()} ..."


def cause_of(error: BaseException) -> str:
    """The cause that is recorded of a run that an error ended, as one line; the class is named for errors of others."""
    kind = "" if isinstance(error, HarnessError | KeyboardInterrupt) else f"{type(error).__name__}: "
    return f"{kind}{one_line(error)}"
