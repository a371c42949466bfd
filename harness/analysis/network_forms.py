"""The forms of NETWORK on the command line, and which of them a command accepts.

The parsers import this module, so it imports nothing that loads slowly. `analysis.networks` resolves a network.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from harness.errors import UserError

BEST_OF = "best-of"
"""The word before a study file that makes NETWORK the study's best network."""
NETWORK_HELP = (
    "a preset, such as replknet_31b, a network file, best-of STUDY.yaml (the best network of a study), the checkpoint "
    "of a run, the folder of a training, or a weights file"
)


class NetworkForm(StrEnum):
    """What a name or path can be; the values are used in messages."""

    PRESET = "a preset"
    SPEC = "a network file (.yaml)"
    BEST_OF = "best-of STUDY.yaml"
    RUN = "the checkpoint of a run"
    TRAINING = "the folder of a training"
    WEIGHTS = "a weights file"
    STUDY = "a study file"
    WITH_HEAD = "a network with a head, written by `harness downstream`"


NETWORKS = frozenset(form for form in NetworkForm if form not in (NetworkForm.STUDY, NetworkForm.WITH_HEAD))
"""The forms that are a network."""
REMEDIES: Mapping[NetworkForm, str] = {
    NetworkForm.STUDY: "Its best network is `best-of {0}`.",
    NetworkForm.WITH_HEAD: "Evaluate it with `harness downstream TASK {0} --evaluate-only`.",
}
"""What to give instead of a form that is not accepted; `{0}` is replaced by what was given."""


@dataclass(frozen=True, slots=True)
class NetworkUse:
    """Which forms of NETWORK a command accepts."""

    accepted: frozenset[NetworkForm] = NETWORKS
    remedies: Mapping[NetworkForm, str] = field(default_factory=dict)
    """What to give instead of a form that is not accepted, in addition to `REMEDIES`."""
    note: str = ""
    """What the command's help adds to `NETWORK_HELP`."""
    is_full_scale: bool = False
    """Whether `best-of` names the choices on the base of the study's `full_scale` section, instead of the trained
    network."""

    @property
    def help(self) -> str:
        """The help text of the command's argument."""
        return f"{NETWORK_HELP}; {self.note}" if self.note else NETWORK_HELP

    def require(self, form: NetworkForm, named: str) -> None:
        """Raise `UserError` for a form that is not accepted, with what it is and what to give instead."""
        if form in self.accepted:
            return
        *others, last = (accepted_form.value for accepted_form in NetworkForm if accepted_form in self.accepted)
        accepted = f"{', '.join(others)} or {last}" if others else last
        remedy = {**REMEDIES, **self.remedies}.get(form)
        rule = f"the network must be {accepted}; this is {form.value}"
        raise UserError(rule, place=named, remedy=None if remedy is None else remedy.format(named))


ANY_NETWORK = NetworkUse()
