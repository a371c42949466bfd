"""What a run needs to be resumed after an interruption: written atomically each epoch, loaded without unpickling code.

A file carries a digest of its content, which is verified when it is read: `torch.load` does not compare the checksums
of the archive, and takes changed bytes for weights. A run's checkpoint also names its run and carries the records of
its epochs and what computed them, so that a database that lacks them gets them when the run is resumed. A file that
fails a check is not used.
"""

import math
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from harness.errors import StateNotWritten, UnusableState, UserError
from harness.models.weights.digest import DIGEST, content_digest
from harness.system.atomic_write import atomic_write
from harness.training.environment import Environment, describe_difference, differs
from harness.training.run import Epoch

MAX_NAMED = 3
"""Differences that a message lists."""


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a file of tensors and plain values; a reader sees the old file or the new one, never a part.

    Raises `StateNotWritten`, which leaves the old file as it is.
    """
    content = {**state, DIGEST: content_digest(state)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, partial=path.with_suffix(".partial")) as partial:
            torch.save(content, partial)  # whose archive has a folder of the name of this file, without its suffix
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError for a full disk
        reason = str(error).strip().partition("\n")[0]
        raise StateNotWritten(f"the checkpoint could not be written ({reason}): {path}") from error


def read_state(path: Path, *, is_digest_needed: bool = True) -> dict[str, Any] | None:
    """The content of such a file, on the CPU; None where there is no file.

    Raises `UnusableState` for a file that cannot be read, whose content is not as written, or that has no digest, as
    those of earlier versions; unless that is not needed: then the checksums of the archive are compared.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        is_signed = isinstance(state, dict) and DIGEST in state
        with zipfile.ZipFile(path) as archive:
            damaged = None if is_signed else archive.testzip()
    except Exception as error:  # any kind of error may come out of damaged bytes
        raise UnusableState(f"it cannot be read ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise UnusableState(f"it holds a {type(state).__name__}, not a state")
    if damaged is not None:
        raise UnusableState(f"its content is not what was written: the checksum of {damaged} differs")
    if not is_signed and is_digest_needed:
        raise UnusableState("it has no digest of its content, as those of earlier versions")
    if is_signed and state.pop(DIGEST) != content_digest(state):
        raise UnusableState("its content is not what was written: the digest differs")
    return state


@dataclass(slots=True, eq=False)
class Checkpoint:
    """The file that a run keeps its state in, and what of it is used now."""

    path: Path
    run_id: str
    epochs: list[Epoch] = field(default_factory=list)
    """The records of the epochs that are trained."""
    note: str | None = None
    """What a person should know of the file: why it is not used, or that another environment has written it."""
    environment: Environment | None = None
    """What computes from now on."""
    environments: list[tuple[int, Environment | None]] = field(default_factory=list)
    """The epoch from which each environment has computed, and the environment; None for an unknown one."""
    _state: dict[str, Any] | None = None

    @classmethod
    def open(
        cls, path: Path, run_id: str, *, epochs: int, model: nn.Module, environment: Environment | None = None
    ) -> Self:
        """Read the file and check it against the run, the number of its epochs, and its network.

        A file that fails a check counts as none; `note` then holds the reason.
        """
        try:
            state = read_state(path)
            if state is None:
                return cls(path, run_id, environment=environment)
            records, environments = _checked_records(state, run_id, epochs, model), _environments(state)
        except UnusableState as reason:
            note = f"checkpoint not used: {reason} ({path}). The run starts anew"
            return cls(path, run_id, note=note, environment=environment)
        found = cls(path, run_id, records, environment=environment, environments=environments, _state=state)
        if found.is_of_another_environment:
            found.note = f"resumed in another environment (before: {found.differences}), so that the result is of both"
        return found

    @property
    def earlier(self) -> tuple[Environment | None, ...]:
        """What has computed the epochs that are trained."""
        return tuple(environment for _, environment in self.environments)

    @property
    def is_of_another_environment(self) -> bool:
        """Whether any of them is of another environment than the one that computes now, or of an unknown one."""
        return self.environment is not None and any(
            differs(environment, self.environment) for environment in self.earlier
        )

    @property
    def differences(self) -> str:
        """What of these environments differs from the one that computes now, in words."""
        assert self.environment is not None, "environments are compared with the one that computes now"
        words = (describe_difference(environment, self.environment) for environment in self.earlier)
        return "; ".join(dict.fromkeys(each for each in words if each))

    def set_aside(self, place: Path) -> None:
        """Move the file to `place`, whose name gets its suffix, and have the run start anew."""
        kept = place.with_name(f"{place.name}{self.path.suffix}")
        kept.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(kept)
        self.note = (
            f"checkpoint not used: it is of another environment ({self.differences}). The run starts anew; the file is "
            f"now {kept}"
        )
        self.epochs, self.environments, self._state = [], [], None

    def restore(self, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> None:
        """Put everything where the file has it; nothing is changed where there is no file that can be used."""
        if self._state is None:
            return
        model.load_state_dict(self._state["model"])
        optimizer.load_state_dict(self._state["optimizer"])
        scaler.load_state_dict(self._state["scaler"])
        self._state = None

    def restore_model(self, model: nn.Module) -> None:
        """Put the weights into the model, where there is a file that can be used."""
        if self._state is not None:
            model.load_state_dict(self._state["model"])

    def save(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, record: Epoch
    ) -> None:
        """Write the state after an epoch, with the records of all epochs up to it."""
        self.epochs.append(record)
        if not self.environments or self.environments[-1][1] != self.environment:
            self.environments.append((record.epoch, self.environment))
        state = {
            "run": self.run_id,
            "epoch": record.epoch,
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "environments": [
                {"epoch": first, "environment": environment and environment.values()}
                for first, environment in self.environments
            ],
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scaler": scaler.state_dict(),
        }
        write_state(self.path, state)


def _checked_records(state: Mapping[str, Any], run_id: str, epochs: int, model: nn.Module) -> list[Epoch]:
    """The records in a run's state. Raises `UnusableState` for what cannot be of this run."""
    if state.get("run") != run_id:
        raise UnusableState(f"it is of the run {state.get('run')}, not of {run_id}")
    try:
        records = [Epoch(**values) for values in state["epochs"]]
        last, entries = state["epoch"], state["model"]
        require_shapes(entries, model)
        require_optimizer(state["optimizer"], model)
    except (KeyError, TypeError, AttributeError) as error:
        raise UnusableState(f"it lacks a part or has one of another kind ({error})") from error
    if not isinstance(last, int) or not 1 <= last <= epochs:
        raise UnusableState(f"it is of epoch {last}, and the run has {epochs}")
    if [record.epoch for record in records] != list(range(1, last + 1)):
        raise UnusableState(f"it is of epoch {last} and has the records of {len(records)}")
    if not all(math.isfinite(value) for record in records for value in (record.train_loss, record.val_loss)):
        raise UnusableState("the loss of one of its epochs is not finite")
    return records


def _environments(state: Mapping[str, Any]) -> list[tuple[int, Environment | None]]:
    """What computed the epochs in a run's state; of an earlier version's, an unknown environment did."""
    kept = state.get("environments", [{"epoch": 1, "environment": None}])
    try:
        return [(int(each["epoch"]), Environment.from_values(each["environment"])) for each in kept]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableState(f"it lacks a part or has one of another kind ({error})") from error


def require_shapes(entries: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raise `UnusableState` unless the entries are those of the model: by name, shape and type."""
    expected = model.state_dict()
    missing, unexpected = expected.keys() - entries.keys(), entries.keys() - expected.keys()
    faults = [f"`{name}` is missing" for name in sorted(missing)] + [f"`{name}` is unknown" for name in unexpected]
    faults += [
        f"`{name}` has the shape {_shape(entries[name])} and not {_shape(value)}"
        for name, value in expected.items()
        if name in entries and entries[name].shape != value.shape
    ]
    if faults:
        more = f", and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
        raise UnusableState(f"its weights are of another network: {'; '.join(faults[:MAX_NAMED])}{more}")


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "()"


def require_optimizer(state: Mapping[str, Any], model: nn.Module) -> None:
    """Raise `UnusableState` where the optimizer's state cannot be of the model's parameters."""
    shapes = {parameter.shape for parameter in model.parameters()}
    count = sum(len(group["params"]) for group in state["param_groups"])
    expected = sum(parameter.requires_grad for parameter in model.parameters())
    if count != expected:
        raise UnusableState(f"its optimizer has {count} parameters, and the network has {expected}")
    for values in state["state"].values():
        for value in values.values():
            if isinstance(value, Tensor) and value.ndim and value.shape not in shapes:
                raise UnusableState(f"its optimizer has a state of shape {_shape(value)}, as no parameter has")


def require_own_name(path: Path) -> None:
    """Raise `UserError` for a run's checkpoint under the name of another run, whose network and data it is not of.

    Those of earlier versions do not name their run, and are taken.
    """
    try:
        run_id = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("run")
    except Exception:  # any kind of error may come out of damaged bytes; who reads the weights says what is wrong
        return
    if isinstance(run_id, str) and run_id != path.stem:
        raise UserError(
            f"a run's checkpoint must have the name of its run ({run_id})",
            value=path.name,
            place=str(path),
            remedy=f"Name it {run_id}{path.suffix}, in the folder of its study.",
        )


def load_epoch(path: Path) -> int:
    """The last epoch that a run's checkpoint names; 0 where none can be read. For display: nothing is verified."""
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"])
    except Exception:  # any kind of error may come out of damaged bytes
        return 0
