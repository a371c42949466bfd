"""A table of recorded learning curves: every configuration of a search space, with every seed, to the last epoch.

A table file is gzipped JSON with the keys of `CurveTable`; `digest` is over all others, so that a changed file is
refused. `harness simulate` replays the curves; it writes a table from a finished study with `--record`.

Shapes: N configurations, S seeds, E epochs.
"""

import gzip
import hashlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from harness.errors import DataError, NotFound, UserError
from harness.system.atomic_write import atomic_write

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = "harness curve table"
VERSION = 1
SUFFIX = ".json.gz"
TABLES_FOLDER = "tables"
"""Subfolder of a results folder with the tables, one file each."""
DECIMALS = {"top1": 4, "val_loss": 5, "seconds": 4}
"""Decimals that a file keeps, by curve."""
MOST_BYTES = 64 << 20
"""Maximum size of the text of a table, so that a damaged file cannot fill the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedConfiguration:
    """One configuration of a table, with its curves; each curve is (S, E)."""

    params: Mapping[str, Any]
    """Its choices on the active axes."""
    fingerprint: str
    parameters: int
    macs: int
    top1: Sequence[Sequence[float]]
    """Validation accuracy after each epoch, percent."""
    val_loss: Sequence[Sequence[float]]
    seconds: Sequence[Sequence[float]]
    """Wall time of each epoch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveTable:
    """All learning curves of a search space."""

    study: str
    question: str
    study_file: str
    """The resolved file of the study that was recorded."""
    recipe: str
    """Fingerprint of the study's proxy."""
    axes: tuple[str, ...]
    classes: int
    channels: int
    data: str | None
    """Digest of the data set; None for generated data."""
    seeds: tuple[int, ...]
    epochs: int
    environments: tuple[Mapping[str, Any], ...]
    """The environments that trained the runs, with the number of runs of each under `runs`."""
    recorded: str
    """Date on which the last run ended."""
    configurations: tuple[RecordedConfiguration, ...]

    @property
    def total_epochs(self) -> int:
        """Number of epochs of the full grid, N x S x E."""
        return len(self.configurations) * len(self.seeds) * self.epochs

    @property
    def size(self) -> str:
        """Text such as `352 networks x 3 seeds x 5 epochs`."""
        return f"{len(self.configurations):,} networks x {len(self.seeds)} seeds x {self.epochs} epochs"

    def curves(self, name: str) -> "NDArray[np.float64]":
        """The curves `top1`, `val_loss` or `seconds`, as an array (N, S, E)."""
        import numpy as np

        return np.array([getattr(configuration, name) for configuration in self.configurations], dtype=np.float64)


def table_path(results: Path, study: str) -> Path:
    """Where a results folder has the table of a study."""
    return results / TABLES_FOLDER / f"{study}{SUFFIX}"


def write_table(table: CurveTable, path: Path) -> int:
    """Write a table, atomically; returns its size in bytes. The same table gives the same bytes.

    Raises `UserError` if the folder cannot be written.
    """
    values = _values(table)
    text = _canonical({"format": FORMAT, "version": VERSION, "digest": _digest(values), **values})
    packed = gzip.compress(text.encode(), compresslevel=9, mtime=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, is_shared=True) as partial:
            partial.write_bytes(packed)
    except OSError as error:
        rule = f"the folder of a table must be writable ({error.strerror or error})"
        raise UserError(rule, value=str(path.parent)) from error
    return len(packed)


def read_table(path: Path) -> CurveTable:
    """Read and check a table. Raises `NotFound` if there is no such file, and `DataError` for one that is not whole."""
    values = _read_json(path)
    if values.get("format") != FORMAT:
        _refuse(path, "The file must be a table of curves", "Write one with `harness simulate FILE --record TABLE`.")
    if values.get("version") != VERSION:
        remedy = "Upgrade the harness, or record the table again."
        _refuse(path, f"The table must have version {VERSION}", remedy, values.get("version"))
    content = {key: value for key, value in values.items() if key not in ("format", "version", "digest")}
    if values.get("digest") != _digest(content):
        remedy = "The file was changed or damaged; fetch or record it again."
        _refuse(path, "The digest of the table must be that of its content", remedy, values.get("digest"))
    table = _table(content, path)
    _check(table, path)
    return table


def _values(table: CurveTable) -> dict[str, Any]:
    values = {field.name: getattr(table, field.name) for field in fields(table) if field.name != "configurations"}
    values["configurations"] = [
        {field.name: getattr(rounded, field.name) for field in fields(rounded)}
        for rounded in map(rounded_curves, table.configurations)
    ]
    result: dict[str, Any] = json.loads(_canonical(values))
    return result


def rounded_curves(configuration: RecordedConfiguration) -> RecordedConfiguration:
    """The configuration with the decimals that a file keeps."""
    curves: dict[str, Any] = {
        name: [[round(value, decimals) for value in curve] for curve in getattr(configuration, name)]
        for name, decimals in DECIMALS.items()
    }
    return replace(configuration, **curves)


def _canonical(values: Mapping[str, Any]) -> str:
    return json.dumps(values, separators=(",", ":"), ensure_ascii=False)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(content).encode()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with gzip.open(path) as file:
            text = file.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            _refuse(
                path, f"A table must have at most {MOST_BYTES >> 20} MiB of text", "Take the file that was written."
            )
        values = json.loads(text)
    except FileNotFoundError as error:
        raise NotFound("the table must exist", value=str(path)) from error
    except (OSError, EOFError, zlib.error, ValueError) as error:
        remedy = f"Take the file that `harness simulate FILE --record TABLE{SUFFIX}` wrote."
        raise DataError(f"A table must be gzipped JSON ({error})", place=str(path), remedy=remedy) from error
    return values if isinstance(values, dict) else {}


def _table(content: Mapping[str, Any], path: Path) -> CurveTable:
    try:
        configurations = tuple(RecordedConfiguration(**values) for values in content["configurations"])
        others: dict[str, Any] = {
            key: tuple(value) if key in ("axes", "seeds", "environments") else value
            for key, value in content.items()
            if key != "configurations"
        }
        return CurveTable(**others, configurations=configurations)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"The keys of a table must be those of its format ({error})", place=str(path)) from error


def _check(table: CurveTable, path: Path) -> None:
    """Raise `DataError` for a table that is not complete, or whose values cannot be."""
    known: set[str] = set()
    for configuration in table.configurations:
        if configuration.fingerprint in known:
            _refuse(
                path, "A configuration must be in a table once", "Record the table again.", dict(configuration.params)
            )
        known.add(configuration.fingerprint)
        for name in DECIMALS:
            curves = getattr(configuration, name)
            if [len(curve) for curve in curves] != [table.epochs] * len(table.seeds):
                rule = f"`{name}` must have {table.epochs} values for each of {len(table.seeds)} seeds"
                _refuse(path, rule, "Record the table again.", dict(configuration.params))
            most = 100.0 if name == "top1" else math.inf
            if not all(0 <= value <= most and math.isfinite(value) for curve in curves for value in curve):
                _refuse(path, f"`{name}` must be finite, and possible", "Record the table again.", curves)
    if not table.configurations or not table.seeds or table.epochs < 1:
        _refuse(path, "A table must have configurations, seeds and epochs", "Record the table again.")


def _refuse(path: Path, rule: str, remedy: str, value: object = None) -> NoReturn:
    raise DataError(rule, value=value, place=str(path), remedy=remedy)
