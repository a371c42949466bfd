"""How NETWORK of the command line is resolved, for all commands: a name, a path, or `best-of STUDY.yaml`.

| form                    | recognized by                                 | network from     | weights              |
| ----------------------- | --------------------------------------------- | ---------------- | -------------------- |
| a preset                | its name                                      | the presets      | random               |
| a network file          | .yaml, .yml or text, without a study's keys   | the file         | random               |
| best-of STUDY.yaml      | the word                                      | the database     | a run's checkpoint   |
| the checkpoint of a run | sixteen hexadecimal digits and .pt            | the database     | the file             |
| the folder of a training| its files network.yaml and recipe.yaml        | network.yaml     | best, or `--which`   |
| a weights file          | any other file                                | the file         | the file             |

A study file, and what `harness downstream` has written, are recognized too, so that a message can name them.
`resolve_network` imports no torch; `load_network` loads the weights of what it found.
"""

import codecs
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.analysis.configuration_result import ConfigurationResult
from harness.analysis.formatting import format_params
from harness.analysis.network_forms import ANY_NETWORK, BEST_OF, NetworkForm, NetworkUse
from harness.analysis.study_reader import open_study_reader
from harness.config.network_file import is_study_file, load_network_spec
from harness.config.recipe_axes import is_recipe_axis
from harness.config.recipes.loading import CLASSIFICATION, task_of
from harness.config.study_file import full_scale_network
from harness.config.yaml_file import read_document
from harness.errors import NotFound, UserError, did_you_mean
from harness.models.spec.network import NetworkSpec
from harness.models.spec.presets import PRESETS
from harness.storage.workspace import DEFAULT_RESULTS, Workspace, run_of, trial_of
from harness.system.fingerprint import short_id
from harness.training.full_scale.folder import NETWORK, RECIPE, WEIGHTS, require_training, weights_file
from harness.training.run import Run, RunState

if TYPE_CHECKING:
    from harness.storage.load_network import LoadedNetwork

RUN_FILE_NAME = re.compile(r"[0-9a-f]{16}\.pt")
YAML_SUFFIXES = (".yaml", ".yml")
WEIGHTS_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".index.json")
"""Endings of files that are not read as YAML even if they are text, such as a Git LFS pointer."""
HEAD_KEYS = {"spec", "recipe", "classes", "form"}
"""Keys in the metadata of weights that `harness downstream` has written; others have no recipe."""
MAX_HEADER = 100_000_000
"""Maximum size of a safetensors header in bytes, as the format has it."""


class NetworkQuery(NamedTuple):
    """Options of the command line that select a network, in addition to its name."""

    place: Workspace = Workspace(DEFAULT_RESULTS)
    is_quick: bool = False
    trial: int | None = None
    """Number of the trial of `best-of`; None for the best."""


DEFAULT_QUERY = NetworkQuery()


@dataclass(frozen=True)
class NetworkRef:
    """A network that was found, before its weights are loaded."""

    form: NetworkForm
    named: str
    """What the command line has for it."""
    name: str
    """Short name, for folders."""
    known_spec: NetworkSpec | None = None
    """The network; None for a training and for a file of weights, which are read when it is needed."""
    path: Path | None = None
    """The file or folder; of `best-of` the checkpoint of the run, None if no run is complete."""
    run: Run | None = None
    """The run that trained its weights."""
    recipe: str | None = None
    """Name of the full-scale recipe that its study requests."""
    study: str | None = None
    """The study that chose or trained it; None for any other network."""
    trial: int | None = None
    """The trial of that study."""
    proxy_choices: str | None = None
    """The choices of that trial on axes of the recipe, as text; None if there are none."""

    @cached_property
    def spec(self) -> NetworkSpec:
        """The network; reading that of a file of weights imports torch."""
        if self.known_spec is not None:
            return self.known_spec
        assert self.path is not None, "a network without a spec is a folder or a file of weights"
        if self.form == NetworkForm.TRAINING:
            return load_network_spec(self.path / NETWORK)
        from harness.models.weights import read_weights

        return read_weights(self.path).spec

    def weights_path(self, which: str | None = None) -> Path | None:
        """The file of its weights; None for random ones. `which` (a key of `WEIGHTS`) chooses those of a training.

        Raises `NotFound` if they are not there.
        """
        if self.form == NetworkForm.TRAINING and self.path is not None:
            return weights_file(self.path, which or "best")
        if which not in (None, "best"):
            rule = "`--which` must be used with the folder of a training at full scale"
            raise UserError(rule, value=which, place=self.named)
        if self.form in (NetworkForm.PRESET, NetworkForm.SPEC):
            return None
        if self.path is None:
            remedy = "Name a trial with a complete run: `--trial N`."
            raise NotFound("a configuration must have a complete run to have weights", place=self.named, remedy=remedy)
        if not self.path.is_file():
            raise NotFound(
                "the weights of a run must be there, in its checkpoint",
                value=str(self.path),
                place=self.named,
                remedy="Put the checkpoint back, or train the study again with `--fresh`.",
            )
        return self.path


def resolve_network(
    named: str | Sequence[str], query: NetworkQuery = DEFAULT_QUERY, use: NetworkUse = ANY_NETWORK
) -> NetworkRef:
    """The network of one name or path, or of the words `best-of STUDY.yaml`.

    Raises `UserError`s if there is no such network, or if `use` does not accept its form.
    """
    words = [named] if isinstance(named, str) else named
    if len(list(_split(words))) != 1:
        raise UserError("one network must be named", value=" ".join(words), remedy=f"Or write `{BEST_OF} STUDY.yaml`.")
    return resolve_networks(words, query, use)[0]


def resolve_networks(words: Sequence[str], query: NetworkQuery, use: NetworkUse = ANY_NETWORK) -> list[NetworkRef]:
    """Several networks, as `resolve_network`; the query's trial is that of every `best-of`."""
    if query.trial is not None and BEST_OF not in words:
        raise UserError(f"`--trial` must be used with `{BEST_OF} STUDY.yaml`", value=query.trial)
    return [_resolve(group, query, use) for group in _split(words)]


def load_network(
    network: NetworkRef | str | Sequence[str], storage: str | None = None, *, which: str | None = None
) -> "LoadedNetwork":
    """Load a network with its weights; a preset and a network file have random ones.

    `network` is what `resolve_network` returns or takes; `storage` is the URL of the database of a run or study, by
    default the one in its results folder. `which` (a key of `WEIGHTS`, by default the best) chooses the weights of a
    training. Raises `UserError`s for files that are missing or of another kind.
    """
    from harness.storage.load_network import load_random, load_run, load_weights_file

    query = NetworkQuery(Workspace(DEFAULT_RESULTS, storage))
    ref = network if isinstance(network, NetworkRef) else resolve_network(network, query)
    path = ref.weights_path(which)
    if path is None:
        return load_random(ref.name, ref.spec)
    return load_weights_file(path) if ref.run is None else load_run(path, ref.run)


def recognize(named: str) -> NetworkForm:
    """The form of a name or path. Raises `NotFound` for one that is none."""
    path = Path(named)
    if named in PRESETS:
        return NetworkForm.PRESET
    if path.is_dir():
        require_training(path)
        is_classifier = task_of(read_document(path / RECIPE)) == CLASSIFICATION
        return NetworkForm.TRAINING if is_classifier else NetworkForm.WITH_HEAD
    if RUN_FILE_NAME.fullmatch(path.name):
        return NetworkForm.RUN
    if path.suffix in YAML_SUFFIXES or _is_other_text(path):
        return NetworkForm.STUDY if is_study_file(path) else NetworkForm.SPEC
    if path.is_file():
        return NetworkForm.WITH_HEAD if _metadata_keys(path) >= HEAD_KEYS else NetworkForm.WEIGHTS
    raise NotFound(
        "the network must be a preset, a network file (.yaml), the checkpoint of a run (.pt), the folder of a training "
        f"at full scale, a weights file, or `{BEST_OF}` and a study file",
        value=named,
        remedy=did_you_mean(named, PRESETS, "Presets"),
    )


def _split(words: Sequence[str]) -> Iterator[list[str]]:
    """The words of each network: one, or `best-of` and the next."""
    waiting = iter(words)
    for word in waiting:
        yield [word, *islice(waiting, 1)] if word == BEST_OF else [word]


def _resolve(words: Sequence[str], query: NetworkQuery, use: NetworkUse) -> NetworkRef:
    """The network of the words of one."""
    if words[0] == BEST_OF:
        use.require(NetworkForm.BEST_OF, " ".join(words))
        if len(words) == 1:
            raise UserError(f"`{BEST_OF}` must be followed by one study file")
        return _best_of(words[1], query, is_full_scale=use.is_full_scale)
    named, path = words[0], Path(words[0])
    form = recognize(named)
    use.require(form, named)
    match form:
        case NetworkForm.PRESET:
            return NetworkRef(form, named, path.stem, PRESETS[named])
        case NetworkForm.SPEC:
            return NetworkRef(form, named, path.stem, load_network_spec(path), path)
        case NetworkForm.RUN:
            return _run(named, query.place.storage)
        case NetworkForm.TRAINING:
            return NetworkRef(form, named, path.absolute().name, path=path)
        case _:
            is_best = path.name == WEIGHTS["best"]
            return NetworkRef(form, named, path.absolute().parent.name if is_best else path.stem, path=path)


def _run(named: str, storage: str | None) -> NetworkRef:
    """The network of a run's checkpoint, which is known to the database in its results folder, or to `storage`."""
    path = Path(named)
    study = path.absolute().parent.parent
    workspace = Workspace(study.parent, storage)
    run = run_of(path, workspace)
    trial = trial_of(path, study.name, workspace)
    name = f"{study.name}-{short_id(path.stem)}"
    return NetworkRef(NetworkForm.RUN, named, name, run.spec, path, run, study=study.name, trial=trial)


def _best_of(file: str, query: NetworkQuery, *, is_full_scale: bool) -> NetworkRef:
    """The best or another configuration of a study, with its first complete run.

    At full scale, its choices on the base and recipe of the study's `full_scale` section, without weights; without
    such a section, its network unchanged.
    """
    with open_study_reader(Path(file), query.place, is_quick=query.is_quick) as reader:
        configuration, results = reader.find_winner(query.trial)
        full = reader.file.study.full_scale
        large = full_scale_network(reader.file, configuration.params) if is_full_scale else None
    trial = configuration.trials[0]
    proxy_choices = {name: value for name, value in configuration.params.items() if is_recipe_axis(name)}
    path, run = (None, None) if is_full_scale else _trained_run(configuration)
    return NetworkRef(
        NetworkForm.BEST_OF,
        f"{BEST_OF} {file}",
        results.study if query.trial is None else f"{results.study}-{trial}",
        large or (configuration.spec if run is None else run.spec),
        path,
        run,
        full.recipe if full else None,
        results.study,
        trial,
        format_params(proxy_choices) if proxy_choices else None,
    )


def _trained_run(configuration: ConfigurationResult) -> tuple[Path | None, Run | None]:
    """The checkpoint and the run of the first seed that is complete; None if there is none."""
    rows = (result.row for result in configuration.runs if result.row.state == RunState.COMPLETE)
    row = min(rows, key=lambda row: row.run.seed, default=None)
    if row is None or row.folder is None:
        return None, None
    return row.folder / "checkpoints" / f"{row.id}.pt", row.run


def _is_other_text(path: Path) -> bool:
    """Whether a file is text, with an ending that weights do not have."""
    if path.name.endswith(WEIGHTS_ENDINGS) or not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(4096)
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return bool(text) and "\0" not in text


def _metadata_keys(path: Path) -> set[str]:
    """The keys of the metadata of a safetensors file; empty for any other file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size <= MAX_HEADER else {}
    except (OSError, ValueError):
        return set()
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    return set(metadata) if isinstance(metadata, dict) else set()
