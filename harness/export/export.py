"""Export of a network: each format is written, loaded back, and compared with the original network.

The folder is written atomically: all files appear together or not at all.
"""

import json
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from harness.analysis.formatting import json_text
from harness.errors import ExportFailure, UserError
from harness.export.comparison import TOLERANCE, Comparison, ExampleInputs, FormatResult, compare, example_inputs
from harness.export.exportable import Exportable, exportable
from harness.export.formats import Format, chosen_formats
from harness.export.model_card import model_card
from harness.models.weights import sha256
from harness.storage.load_network import LoadedNetwork
from harness.system.atomic_write import partial_folder
from harness.system.device_slot import computing, yield_slot
from harness.training.device import process_environment
from harness.training.environment import Environment, describe_environment

RECORD_FILE = "export.json"
"""Record of what an export has written; it is the last file written, and the first removed."""
CARD = "README.md"
PACKAGES = ("large-kernel-harness", "torch", "timm", "safetensors", "onnx", "onnxscript", "onnxruntime")


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Create a temporary folder next to `folder`, to write into and then to `commit`; it is removed at the end.

    Raises `UserError` if `folder` contains files that no export has written, or if it is not writable.
    """
    is_ours = (folder / RECORD_FILE).is_file()
    if folder.exists() and not (folder.is_dir() and (is_ours or not any(folder.iterdir()))):
        rule = "`--to` must be a new or an empty folder, or one that `harness export` has written"
        raise UserError(rule, value=str(folder), remedy="Choose another.")
    try:
        with partial_folder(folder) as fresh:
            yield fresh
    except OSError as error:
        rule = f"the folder must be writable ({error.strerror or error})"
        raise UserError(rule, place=str(folder), remedy="Free space there, or choose another with `--to`.") from error


def commit(fresh: Path, folder: Path) -> None:
    """Move the files into `folder`, the record last; those of an earlier export are removed."""
    if not folder.exists():
        fresh.rename(folder)
        return
    for name in reversed(_written(folder)):
        (folder / name).unlink(missing_ok=True)
    for file in sorted(fresh.iterdir(), key=lambda file: file.name == RECORD_FILE):
        file.replace(folder / file.name)


def _written(folder: Path) -> list[str]:
    """The files of an earlier export in a folder, its record last; entries that are not plain names are ignored."""
    try:
        names = [str(name) for name in json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))["files"]]
    except (OSError, ValueError, TypeError, LookupError):
        names = []
    return [*(name for name in names if Path(name).name == name and name != RECORD_FILE), RECORD_FILE]


def export_network(
    network: LoadedNetwork,
    folder: str | Path,
    formats: Sequence[str] | None = None,
    *,
    resolution: int | None = None,
    merged: bool = True,
    storage: str | None = None,
) -> list[FormatResult]:
    """Export a network into a new or empty folder, with a model card; `harness export` writes the same files.

    `formats` are names of `FORMATS`, by default all that the network supports. `resolution` is the side of the images
    in pixels, by default that of its training; `storage` the database with its runs, if it is not next to their study.
    Raises `UserError` for a format or folder that cannot be used, and `ExportFailure`, with nothing written, if a file
    does not return the network's logits when it is loaded again.
    """
    product = exportable(network, storage, resolution, is_merged=merged)
    chosen, _ = chosen_formats(product, formats)
    results = write_formats(product, chosen, Path(folder))
    faults = [f"{result.format} of {network.name} {result.error}" for result in results if result.error]
    if faults:
        raise ExportFailure("; ".join(faults))
    return results


@computing()
def write_formats(
    exportable: Exportable, formats: Mapping[str, Format], folder: Path, *, tell: Callable[[str], None] = lambda _: None
) -> list[FormatResult]:
    """Write a network in these formats into a folder. If a format has an error, no file is written."""
    with staged(folder) as fresh:
        examples = example_inputs(exportable)
        rows = []
        for name, file_format in formats.items():
            tell(f"{name}: writing, loading back, comparing")
            rows.append(_row(name, file_format, exportable, fresh, examples))
        if not any(row.error for row in rows):
            versions, environment = _versions(), process_environment(torch.device("cpu"))
            conditions = versions | {"compared by": describe_environment(environment)}
            (fresh / CARD).write_text(model_card(exportable, formats, rows, conditions), encoding="utf-8")
            (fresh / RECORD_FILE).write_text(
                f"{_record(exportable, rows, fresh, versions, environment)}\n", encoding="utf-8"
            )
            commit(fresh, folder)
    return rows


def _row(name: str, file_format: Format, exportable: Exportable, folder: Path, examples: ExampleInputs) -> FormatResult:
    yield_slot()
    start, before = time.monotonic(), set(folder.iterdir())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # exporters warn about their own internals; their files are compared below
        file_format.write(exportable, folder)
        yield_slot()
        comparison, fault = _loaded_back(file_format, exportable, folder, examples)
    sizes = {file.name: file.stat().st_size for file in sorted(set(folder.iterdir()) - before)}
    return FormatResult(name, sizes, comparison, time.monotonic() - start, fault)


def _loaded_back(
    file_format: Format, exportable: Exportable, folder: Path, examples: ExampleInputs
) -> tuple[Comparison | None, str | None]:
    try:
        comparison = compare(file_format.load(exportable, folder), examples)
    except ExportFailure as failure:
        return None, str(failure)
    except Exception as error:  # any error that a parser or a runtime raises for a file
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        return None, f"cannot be loaded back: {type(error).__name__}: {reason}"
    fault = f"logits are off by {comparison.relative:.2g} of what images change, and {TOLERANCE:g} is allowed"
    return comparison, None if comparison.is_close else fault


def _record(
    exportable: Exportable,
    results: list[FormatResult],
    folder: Path,
    versions: Mapping[str, str],
    environment: Environment,
) -> str:
    """JSON record of the files, of their comparison with the network, and of the environment."""
    return json_text(
        {
            "network": exportable.network.name,
            **exportable.training_facts,
            "files": {
                file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in sorted(folder.iterdir())
            },
            "tolerance": TOLERANCE,
            "verified": {
                result.format: {
                    "difference": result.comparison.difference,
                    "relative": result.comparison.relative,
                    "wall_s": result.wall_s,
                }
                for result in results
                if result.comparison is not None
            },
            "versions": versions,
            "environment": environment.values(),
        }
    )


def _versions() -> dict[str, str]:
    """Versions of Python and of those of `PACKAGES` that are installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
