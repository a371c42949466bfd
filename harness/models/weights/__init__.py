"""Weights in files: import and export of RepLKNet's released checkpoints, and our own safetensors files.

Released: a state dict written by `torch.save` (.pth), with the names of arXiv 2203.06717's official code, which are
also those of our modules; possibly inside a mapping, and with prefixes added by training scripts (see
`harness.models.weights.candidates`). Ours: safetensors with the same names; the metadata hold the network, the form,
the origin and, if available, the names of the classes.
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
from harness.models.build import build
from harness.models.finite import count_nonfinite, nonfinite_entries
from harness.models.spec.network import NetworkSpec
from harness.models.spec.published import preset_of
from harness.models.weights.candidates import all_entries, choose_candidate, find_candidates, stand_ins
from harness.models.weights.files import (
    DIGEST,
    Entries,
    WeightsContent,
    content_digest,
    contiguous_copies,
    files_of,
    read_content,
    shard_remedy,
    write_file,
)
from harness.models.weights.matching import (
    classes_of,
    classifier_of,
    is_merged_form,
    match_shapes,
    mismatch_remedy,
    mismatches,
    names_of,
    shapes,
)


class Weights(NamedTuple):
    """The entries of a network's state dict, in the network's order; exactly those of the network."""

    spec: NetworkSpec
    is_merged: bool
    entries: Entries
    about: Mapping[str, str] = MappingProxyType({})
    """The origin in the file's metadata: `source`, and for an imported file `source_sha256` and `source_entry`."""
    classes: tuple[str, ...] | None = None
    """The names of the classes in the order of the logits; None if the file does not have them."""
    notes: tuple[str, ...] = ()
    """Notes on choices and changes made when reading the file."""

    @property
    def form(self) -> str:
        """`merged` or `training`."""
        return "merged" if self.is_merged else "training"

    def network(self) -> nn.Module:
        """Build the network and load these entries, in their form and in evaluation mode."""
        model = build(self.spec, merged=self.is_merged, seed=0)
        model.load_state_dict(self.entries)
        return model.eval()


def load_weights(path: str | Path, spec: NetworkSpec | None = None) -> tuple[NetworkSpec, nn.Module]:
    """Load the network in a file, with the file's form and number of classes, in evaluation mode.

    `spec` may be left out for files written by `import_weights`. Raises `WeightsError`.
    """
    weights = read_weights(Path(path), spec)
    return weights.spec, weights.network()


def import_weights(path: Path, output: Path, spec: NetworkSpec | None = None, *, entry: str | None = None) -> Weights:
    """Read a released checkpoint, or any file that `read_weights` accepts, and write it as our safetensors."""
    _check_output(path, output, (".safetensors",))
    weights = read_weights(path, spec, entry=entry)
    taken = {name: text for name, text in weights.about.items() if name == "source_entry"}
    weights = weights._replace(about={"source": path.name, "source_sha256": sha256(path), **taken})
    write_weights(output, weights)
    return weights


def save_weights(
    output: Path, spec: NetworkSpec, model: nn.Module, source: str, *, classes: tuple[str, ...] | None = None
) -> None:
    """Save a network's weights, in its training form, as our safetensors; `source` describes their origin.

    `classes` are the names of its classes in the order of the logits.
    """
    write_weights(output, Weights(spec, False, entries_of(model), {"source": source}, classes))


def entries_of(model: nn.Module) -> Entries:
    """The entries of a model's state dict, in memory of the CPU."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def export_weights(path: Path, output: Path) -> Weights:
    """Write a file of ours as a plain state dict with the official names; values are bitwise equal."""
    _check_output(path, output, (".pth", ".pt"))
    weights = read_weights(path)
    write_file(output, lambda partial: torch.save(weights.entries, partial))
    return weights


def read_weights(path: Path, spec: NetworkSpec | None = None, *, entry: str | None = None) -> Weights:
    """Read the weights in a file, and check them against the network: `spec`, or the one in the file's metadata.

    The number of classes and the form, training or merged, are those of the file. If a file has several networks,
    `entry` selects one; without it, the moving average is preferred to its raw weights, and any other ambiguity is an
    error. Raises `WeightsError` with the entries that are missing, unexpected, of another shape, or not finite.
    """
    content = read_content(path)
    named = spec or _spec_in(content.metadata, path)
    entries, about, notes = _network_in(content, named, entry, path)
    spec = named.replace(classes=classes_of(named, entries))
    is_merged = is_merged_form(spec, entries)
    expected = shapes(spec, is_merged)
    entries, changes = match_shapes(expected, entries)
    faults = mismatches(expected, entries)
    if faults:
        form = "merged" if is_merged else "training"
        name = preset_of(named) or f"this {named.family}"
        raise WeightsError(
            f"The file must hold the {len(expected)} entries of {name} in its {form} form: {'; '.join(faults)}",
            place=str(path),
            remedy=shard_remedy(path) or " ".join([*_sentences(notes), mismatch_remedy(entries, expected)]),
        )
    _require_finite(entries, path, notes)
    if spec.classes != named.classes:
        changes.append(
            f"the classifier is for {spec.classes:,} classes, and the network as named for {named.classes:,}"
        )
    other_dtypes = {value.dtype for value in entries.values() if value.is_floating_point()} - {torch.float32}
    if other_dtypes:
        dtypes = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in other_dtypes))
        changes.append(f"entries are {dtypes}, and the network computes in float32")
    about |= {name: text for name, text in content.metadata.items() if name.startswith("source")}
    ordered = contiguous_copies({name: entries[name] for name in expected})
    names = read_names(content.metadata.get("classes", "null"), spec.classes)
    return Weights(spec, is_merged, ordered, about, names, (*notes, *changes))


def write_weights(output: Path, weights: Weights) -> None:
    """Write weights as our safetensors, with their origin in the metadata. Raises `WeightsError`."""
    classes = {} if weights.classes is None else {"classes": json.dumps(weights.classes, ensure_ascii=False)}
    write_entries(output, weights.entries, weights.spec, weights.form, classes | dict(weights.about))


def write_entries(output: Path, entries: Entries, spec: NetworkSpec, form: str, metadata: Mapping[str, str]) -> None:
    """Write entries as safetensors; `metadata` are in addition to the network, the form and the digest."""
    common = {"format": "pt", "harness": __version__, "spec": json.dumps(spec.canonical()), "form": form}
    common[DIGEST] = content_digest(entries)
    write_file(output, lambda partial: save_file(entries, partial, {**common, **metadata}))


def _network_in(
    content: WeightsContent, spec: NetworkSpec, entry: str | None, path: Path
) -> tuple[Entries, dict[str, str], list[str]]:
    """The entries of the network by its own names, their place in the file, and notes."""
    if "spec" in content.metadata and entry is None:
        return all_entries(content.tree), {}, []
    least = len(shapes(spec, True)) // 4
    names = names_of(spec)
    candidates = find_candidates(content.tree, names, classifier_of(spec), least)
    if candidates:
        taken, notes = choose_candidate(candidates, names, entry, path)
        return taken.entries, {"source_entry": taken.label} if notes else {}, notes
    entries = all_entries(content.tree)
    if not entries:
        raise _no_weights(content.tree, path)
    if entry is not None:
        rule = "`--entry` must name a network in the file, and the file holds none with these names of entries"
        raise WeightsError(rule, value=entry, place=str(path), remedy=mismatch_remedy(entries, shapes(spec, False)))
    return entries, {}, []


def _no_weights(tree: object, path: Path) -> WeightsError:
    """The error for a file that is no state dict; it describes the content."""
    rule = "The file must hold a state dict, plain tensors by name"
    objects = list(stand_ins(tree))
    if objects:
        key, kind = objects[0]
        where = f" under `{key}`" if key else ""
        return WeightsError(
            f"{rule}; it holds{where} a pickled object of the class {kind}, not weights",
            place=str(path),
            remedy="If you trust it, load it with PyTorch and save only its weights: "
            "`torch.save(model.state_dict(), FILE)`.",
        )
    if not isinstance(tree, Mapping) or not tree:
        content = "nothing" if isinstance(tree, Mapping) else f"a {type(tree).__name__}"
        return WeightsError(f"{rule}; it holds {content}", place=str(path))
    name, value = next(iter(tree.items()))
    return WeightsError(f"{rule}; `{name!s:.60}` ({type(value).__name__}) is none", place=str(path))


def _require_finite(entries: Entries, path: Path, notes: list[str]) -> None:
    counts = nonfinite_entries(entries)
    if counts:
        raise WeightsError(
            f"Weights must be finite numbers; {count_nonfinite(counts)}",
            place=str(path),
            remedy=" ".join(
                [*_sentences(notes), "The training that made them diverged, or the file is damaged: use other weights."]
            ),
        )


def read_names(text: str, classes: int) -> tuple[str, ...] | None:
    """The names of the classes in a JSON text; None unless there is one for each class."""
    try:
        names = json.loads(text)
    except ValueError:
        return None
    is_whole = isinstance(names, list) and len(names) == classes and all(isinstance(name, str) for name in names)
    return tuple(names) if is_whole else None


def _sentences(notes: list[str]) -> list[str]:
    return [f"{note[:1].upper()}{note[1:]}." for note in notes]


def _spec_in(metadata: Mapping[str, str], path: Path) -> NetworkSpec:
    """The network in the metadata of a file of ours."""
    if "spec" not in metadata:
        rule = "The network must be given for a file that does not name it"
        remedy = "Import it: `harness weights import FILE --network replknet_31b --output OUT.safetensors`."
        raise WeightsError(rule, place=str(path), remedy=remedy)
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
    """The SHA-256 of a file's content; for an index, of the digests of the index and all its shards."""
    digests = []
    for part in files_of(path):
        with part.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
