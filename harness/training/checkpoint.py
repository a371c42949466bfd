"""Checkpoints, from which a run is resumed: written atomically each epoch, loaded without unpickling code.

A file contains a digest of its content, which is verified when it is read: `torch.load` does not compare the checksums
of the archive, and would load changed bytes as weights. A run's checkpoint also contains the run's id, the records of
its epochs and the environments that computed them, so that a database that lacks them gets them when the run is
resumed. A file that fails a check is not used.
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
from harness.models.weights.files import DIGEST, content_digest
from harness.system.atomic_write import atomic_write
from harness.training.environment import Environment, describe_difference, differs
from harness.training.run import Epoch

MAX_NAMED = 3
"""Maximum number of differences that a message lists."""


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a file of tensors and plain values atomically: a reader sees the old file or the new one, never a part.

    Raises `StateNotWritten`; the old file is then unchanged.
    """
    content = {**state, DIGEST: content_digest(state)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, partial=path.with_suffix(".partial")) as partial:
            torch.save(content, partial)  # the folder in the archive is named after this file, without its suffix
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError for a full disk
        reason = str(error).strip().partition("\n")[0]
        raise StateNotWritten(f"the checkpoint could not be written ({reason}): {path}") from error


def read_state(path: Path, *, is_digest_needed: bool = True) -> dict[str, Any] | None:
    """The content of a file of `write_state`, on the CPU; None if there is no file.

    Raises `UnusableState` for a file that cannot be read, that was changed, or that has no digest, like those of
    earlier versions. Without `is_digest_needed`, a file without a digest is checked by the checksums of the archive.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        is_signed = isinstance(state, dict) and DIGEST in state
        with zipfile.ZipFile(path) as archive:
            damaged = None if is_signed else archive.testzip()
    except Exception as error:  # damaged bytes can raise any error
        raise UnusableState(f"it cannot be read ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise UnusableState(f"it contains a {type(state).__name__}, not a state")
    if damaged is not None:
        raise UnusableState(f"its content is not what was written: the checksum of {damaged} differs")
    if not is_signed and is_digest_needed:
        raise UnusableState("it has no digest of its content, as those of earlier versions")
    if is_signed and state.pop(DIGEST) != content_digest(state):
        raise UnusableState("its content is not what was written: the digest differs")
    return state


@dataclass(slots=True, eq=False)
class Checkpoint:
    """Checkpoint of a run: its file, and the records and state that were loaded from it."""

    path: Path
    run_id: str
    epochs: list[Epoch] = field(default_factory=list)
    """Records of the epochs that are complete."""
    note: str | None = None
    """Message for the user: why the file is not used, or that another environment has written it."""
    environment: Environment | None = None
    """The environment that computes from now on."""
    environments: list[tuple[int, Environment | None]] = field(default_factory=list)
    """Each environment with the first epoch that it computed; None for an unknown environment."""
    _state: dict[str, Any] | None = None

    @classmethod
    def open(
        cls, path: Path, run_id: str, *, epochs: int, model: nn.Module, environment: Environment | None = None
    ) -> Self:
        """Read the file and check that it matches the run, the number of its epochs, and its network.

        A file that fails a check is treated as missing; `note` then contains the reason.
        """
        try:
            state = read_state(path)
            if state is None:
                return cls(path, run_id, environment=environment)
            records, environments = _checked_records(state, run_id, epochs, model), _environments(state)
        except UnusableState as reason:
            note = f"checkpoint not used: {reason} ({path}). The run starts again"
            return cls(path, run_id, note=note, environment=environment)
        opened = cls(path, run_id, records, environment=environment, environments=environments, _state=state)
        if opened.is_of_another_environment:
            opened.note = f"resumed in another environment (before: {opened.differences}); the result comes from both"
        return opened

    @property
    def earlier(self) -> tuple[Environment | None, ...]:
        """The environments that computed the complete epochs."""
        return tuple(environment for _, environment in self.environments)

    @property
    def is_of_another_environment(self) -> bool:
        """Whether another environment than the current one, or an unknown one, computed any of the epochs."""
        return self.environment is not None and any(
            differs(environment, self.environment) for environment in self.earlier
        )

    @property
    def differences(self) -> str:
        """The differences of the earlier environments from the current one, as text."""
        assert self.environment is not None, "environments are compared with the current one"
        descriptions = (describe_difference(environment, self.environment) for environment in self.earlier)
        return "; ".join(dict.fromkeys(description for description in descriptions if description))

    def set_aside(self, place: Path) -> None:
        """Move the file to `place`, plus the file's suffix, and let the run start again."""
        target = place.with_name(f"{place.name}{self.path.suffix}")
        target.parent.mkdir(parents=True, exist_ok=True)
        self.path.replace(target)
        self.note = (
            f"checkpoint not used: it is of another environment ({self.differences}). The run starts again; the file "
            f"is now {target}"
        )
        self.epochs, self.environments, self._state = [], [], None

    def restore(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        ema: nn.Module | None = None,
    ) -> None:
        """Load the state of the file into the objects; they are unchanged if there is no usable file."""
        if self._state is None:
            return
        if ema is not None:
            ema.load_state_dict(self._state["ema"])
        model.load_state_dict(self._state["model"])
        optimizer.load_state_dict(self._state["optimizer"])
        scaler.load_state_dict(self._state["scaler"])
        self._state = None

    def restore_model(self, model: nn.Module) -> None:
        """Load the weights of the file into the model, if there is a usable file."""
        if self._state is not None:
            model.load_state_dict(self._state["model"])

    def save(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        record: Epoch,
        ema: nn.Module | None = None,
    ) -> None:
        """Write the state after an epoch, with the records of all epochs so far."""
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
        if ema is not None:
            state["ema"] = ema.state_dict()
        write_state(self.path, state)


def _checked_records(state: Mapping[str, Any], run_id: str, epochs: int, model: nn.Module) -> list[Epoch]:
    """The records in a run's state. Raises `UnusableState` if the state cannot be of this run."""
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
    """The environments in a run's state, with their first epochs; unknown in a state of an earlier version."""
    entries = state.get("environments", [{"epoch": 1, "environment": None}])
    try:
        return [(int(entry["epoch"]), Environment.from_values(entry["environment"])) for entry in entries]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableState(f"it lacks a part or has one of another kind ({error})") from error


def require_shapes(entries: Mapping[str, Tensor], model: nn.Module) -> None:
    """Raise `UnusableState` unless names and shapes of the entries are those of the model."""
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
    """Raise `UnusableState` if the optimizer's state cannot be of the model's parameters."""
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
    """Raise `UserError` if the name of a run's checkpoint is that of another run, with another network and data.

    Checkpoints of earlier versions do not contain the run's id, and are accepted.
    """
    try:
        run_id = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get("run")
    except Exception:  # damaged bytes can raise any error; it is reported when the weights are read
        return
    if isinstance(run_id, str) and run_id != path.stem:
        rule = f"a run's checkpoint must have the name of its run ({run_id})"
        remedy = f"Name it {run_id}{path.suffix}, in the folder of its study."
        raise UserError(rule, value=path.name, place=str(path), remedy=remedy)


def load_epoch(path: Path) -> int:
    """The last epoch of a run's checkpoint; 0 if it cannot be read. For display only: nothing is verified."""
    try:
        return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["epoch"])
    except Exception:  # damaged bytes can raise any error
        return 0
