"""Weights in files: the checkpoints that RepLKNet's authors released, in and out, and ours, which know their network.

Released: a state dict as `torch.save` wrote it (.pth), with the names of arXiv 2203.06717's official code, which are
those of our modules; perhaps inside a mapping, under `model` or `state_dict`. Ours: safetensors with the same names,
and the network, the form and the origin in the metadata.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import nn

from harness import __version__
from harness.errors import SpecError, WeightsError
from harness.network import build
from harness.paper import preset_of
from harness.spec import NetworkSpec
from harness.weights.digest import DIGEST, content_digest
from harness.weights.files import Entries, read_file, write_file
from harness.weights.fit import classes_of, faults, is_merged_form, remedy, shapes

__all__ = [
    "Weights",
    "export_weights",
    "import_weights",
    "load_weights",
    "read_weights",
    "save_weights",
    "sha256",
    "write_weights",
]


class Weights(NamedTuple):
    """The entries of a network's state dict, in the network's order; nothing missing and nothing besides."""

    spec: NetworkSpec
    is_merged: bool
    entries: Entries
    about: Mapping[str, str] = MappingProxyType({})
    """What the file says of its origin: `source`, and of an imported file `source_sha256`."""

    @property
    def form(self) -> str:
        """The form of the network that has these entries."""
        return "merged" if self.is_merged else "training"

    def network(self) -> nn.Module:
        """The network with these entries, in their form and in evaluation mode."""
        model = build(self.spec, merged=self.is_merged, seed=0)
        model.load_state_dict(self.entries)
        return model.eval()


def load_weights(path: Path, spec: NetworkSpec | None = None) -> tuple[NetworkSpec, nn.Module]:
    """The network in a file, in the form and with the classes that the file has, in evaluation mode.

    `spec` may be left out for files that `import_weights` made. Raises `WeightsError`.
    """
    weights = read_weights(path, spec)
    return weights.spec, weights.network()


def import_weights(path: Path, output: Path, spec: NetworkSpec | None = None) -> Weights:
    """Read a released checkpoint, or any file that `read_weights` takes, and keep it as safetensors of ours."""
    _check_output(path, output, (".safetensors",))
    weights = read_weights(path, spec)
    weights = weights._replace(about={"source": path.name, "source_sha256": sha256(path)})
    write_weights(output, weights)
    return weights


def save_weights(output: Path, spec: NetworkSpec, model: nn.Module, source: str) -> None:
    """Keep a network's weights, in its training form, as safetensors of ours; `source` says what they come from."""
    entries = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_weights(output, Weights(spec, False, entries, {"source": source}))


def export_weights(path: Path, output: Path) -> Weights:
    """Write a file of ours as a plain state dict with the official names, to the bit."""
    _check_output(path, output, (".pth", ".pt"))
    weights = read_weights(path)
    write_file(output, lambda partial: torch.save(weights.entries, partial))
    return weights


def read_weights(path: Path, spec: NetworkSpec | None = None) -> Weights:
    """The weights in a file, checked against the network: that given, or that which the file names.

    The number of classes and the form, training or merged, are those of the file. Raises `WeightsError` with what is
    missing, unexpected or of another shape.
    """
    entries, metadata = read_file(path)
    spec = spec or _spec_in(metadata, path)
    name = preset_of(spec) or f"this {spec.family}"
    spec = spec.replace(classes=classes_of(spec, entries))
    is_merged = is_merged_form(spec, entries)
    expected = shapes(spec, is_merged)
    found = faults(expected, entries)
    if found:
        form = "merged" if is_merged else "training"
        raise WeightsError(
            f"The file must hold the {len(expected)} entries of {name} in its {form} form: {'; '.join(found)}",
            place=str(path),
            remedy=remedy(entries),
        )
    about = {name: text for name, text in metadata.items() if name.startswith("source")}
    return Weights(spec, is_merged, {name: entries[name] for name in expected}, about)


def write_weights(output: Path, weights: Weights) -> None:
    """Write weights as safetensors of ours, with what they say of their origin. Raises `WeightsError`."""
    known = {"format": "pt", "harness": __version__, "spec": json.dumps(weights.spec.canonical()), "form": weights.form}
    known[DIGEST] = content_digest(weights.entries)
    write_file(output, lambda partial: save_file(weights.entries, partial, {**known, **weights.about}))


def _spec_in(metadata: Mapping[str, str], path: Path) -> NetworkSpec:
    """The network that a file of ours names."""
    if "spec" not in metadata:
        raise WeightsError(
            "The network must be given for a file that does not name it",
            place=str(path),
            remedy="Import it: `harness weights import FILE --network replknet_31b --output OUT.safetensors`.",
        )
    try:
        return NetworkSpec.from_mapping(json.loads(metadata["spec"]))
    except (ValueError, TypeError, AttributeError, SpecError) as error:
        made = metadata.get("harness", "another version")
        raise WeightsError(
            f"The network that the file names must be one of this version's: {error}",
            place=str(path),
            remedy=f"It was made by harness {made}, and this is {__version__}.",
        ) from error


def _check_output(path: Path, output: Path, suffixes: tuple[str, ...]) -> None:
    if output.suffix not in suffixes:
        raise WeightsError(f"`--output` must end in {' or '.join(suffixes)}", value=str(output))
    if output.is_dir() or (output.exists() and path.exists() and output.samefile(path)):
        raise WeightsError("`--output` must be a file of its own", value=str(output))


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
