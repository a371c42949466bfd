"""NETWORK on the command line: every form with every command, accepted or refused with what to give instead."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from full_scale_cases import job_of, recipe_of, trained
from segmentation_cases import segmentation_job
from tiny_runs import tiny_spec
from tiny_studies import INLINE, TINY, called, write_study

from harness.analysis.network_forms import BEST_OF, NETWORKS, NetworkForm
from harness.analysis.networks import NetworkQuery, load_network, recognize, resolve_network, resolve_networks
from harness.config.network_file import dump_network_spec
from harness.errors import NotFound, UserError
from harness.models.build import build
from harness.models.weights import save_weights
from harness.storage import Store
from harness.storage.load_network import WeightsOrigin
from harness.storage.workspace import Workspace
from harness.training.full_scale.records import write_description

STUDY, SPEC, WEIGHTS = "study.yaml", "mine.yaml", "mine.safetensors"
TRAINING, WITH_HEAD = "results/full_scale/net", "results/downstream/net-segment"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained study of two configurations, two trainings at full scale, one with a head, a network and weights."""
    root = tmp_path_factory.mktemp("networks")
    write_study(root, TINY, search={"seeds": 1}, proxy=TINY["proxy"] | {"epochs": 4})
    result = called("run", STUDY, "--quiet", *INLINE, cwd=root)
    assert result.returncode == 0, result.stderr
    spec = tiny_spec(in_channels=3)
    (root / SPEC).write_text(dump_network_spec(spec))
    save_weights(root / WEIGHTS, spec, build(spec, seed=0), "a test")
    plain = job_of(root / TRAINING, recipe_of(epochs=1, schedule={"warmup_epochs": 0}))
    for job in (plain, segmentation_job(root / WITH_HEAD)):
        write_description(job)
        trained(job)
    return root


def checkpoint_of(root: Path) -> str:
    """The checkpoint of trial 0."""
    with Store.open(root / "results" / "studies.db", read_only=True) as store:
        return f"results/tiny/checkpoints/{store.trial_runs('tiny')[0][0]}.pt"


def words_of(form: NetworkForm, root: Path) -> list[str]:
    """A network of this form on the command line."""
    return {
        NetworkForm.PRESET: ["replknet_nano"],
        NetworkForm.SPEC: [SPEC],
        NetworkForm.BEST_OF: [BEST_OF, STUDY],
        NetworkForm.RUN: [checkpoint_of(root)],
        NetworkForm.TRAINING: [TRAINING],
        NetworkForm.WEIGHTS: [WEIGHTS],
        NetworkForm.STUDY: [STUDY],
        NetworkForm.WITH_HEAD: [f"{WITH_HEAD}/best.safetensors"],
    }[form]


@dataclass(frozen=True)
class Case:
    """A command, which ends soon after it has the network."""

    before: tuple[str, ...]
    after: tuple[str, ...] = ()
    reached: str | None = None
    """The error that follows once the network is there; None if the command succeeds."""
    accepted: frozenset[NetworkForm] = NETWORKS


UNTRAINED = {NetworkForm.PRESET, NetworkForm.SPEC}
COMMANDS = {
    "show": Case(("show",), accepted=NETWORKS | {NetworkForm.STUDY}),
    "bench": Case(("bench", "network"), ("--beside", "no_such"), "a baseline must be one of timm's networks"),
    "train": Case(
        ("train",), (), "`--recipe` must name a recipe", NETWORKS - {NetworkForm.TRAINING, NetworkForm.WEIGHTS}
    ),
    "downstream": Case(("downstream", "segment"), (), "`--recipe` must name a recipe"),
    "evaluate-only": Case(
        ("downstream", "detect"),
        ("--evaluate-only",),
        "the weights must be of a detection",
        frozenset({NetworkForm.WITH_HEAD}),
    ),
    "evaluate": Case(("evaluate",), ("--crop", "2"), "`--crop` must be above 0"),
    "erf": Case(("erf",), ("--resolution", "7"), "from 8 to 4096"),
    "kernels": Case(("kernels",)),
    "shape-bias": Case(
        ("shape-bias", "--stimuli", "nowhere"), (), "into the 1000 classes of ImageNet-1K", NETWORKS - UNTRAINED
    ),
    "export": Case(("export",), ("--to", STUDY), "a new or an empty folder"),
    "weights": Case(
        ("weights", "import", "none.pth", "--output", "out.safetensors", "--network"),
        (),
        "The file of weights must exist",
        NETWORKS - {NetworkForm.BEST_OF},
    ),
}
REMEDIES: dict[tuple[str, NetworkForm], str] = {
    ("train", NetworkForm.TRAINING): f"{TRAINING}/network.yaml --weights {TRAINING}/best.safetensors",
    ("train", NetworkForm.WEIGHTS): f"NETWORK --weights {WEIGHTS}",
    ("shape-bias", NetworkForm.PRESET): "harness weights import",
    ("shape-bias", NetworkForm.SPEC): "harness weights import",
    ("weights", NetworkForm.BEST_OF): "harness best STUDY.yaml > best.yaml",
    **{("evaluate-only", form): "Without `--evaluate-only`" for form in NETWORKS},
}


@pytest.mark.long
@pytest.mark.parametrize("form", NetworkForm, ids=lambda form: form.name.lower())
@pytest.mark.parametrize("name", COMMANDS)
def test_every_form_with_every_command(folder: Path, name: str, form: NetworkForm) -> None:
    case, words = COMMANDS[name], words_of(form, folder)
    if name == "weights" and form == NetworkForm.BEST_OF:
        words = [BEST_OF]
    result = called(*case.before, *words, *case.after, cwd=folder)
    assert "Traceback" not in result.stderr
    if form not in case.accepted:
        remedy = REMEDIES.get((name, form)) or {
            NetworkForm.STUDY: f"Its best network is `best-of {STUDY}`.",
            NetworkForm.WITH_HEAD: "--evaluate-only`.",
        }.get(form, "")
        assert (result.returncode, result.stdout) == (2, "")
        assert f"; this is {form.value} ({' '.join(words)})" in result.stderr and remedy in result.stderr
        assert remedy, "there is something to give instead"
    elif case.reached is None:
        assert (result.returncode, result.stderr) == (0, "") and result.stdout
    else:
        assert result.returncode == 2 and case.reached in result.stderr, result.stderr


def test_the_help_of_every_command_names_the_same_forms() -> None:
    texts = []
    for case in COMMANDS.values():
        command = [word for word in case.before if not word.startswith("-") and "." not in word and word != "nowhere"]
        texts.append(" ".join(called(*command, "--help", cwd=Path.cwd()).stdout.split()))
    for text in texts:
        words = text.replace("- ", "-")  # argparse breaks lines at hyphens
        assert "a preset, such as replknet_31b, a network file, best-of STUDY.yaml" in words


# What is found


@pytest.mark.long
def test_best_of_has_the_weights_of_its_run(folder: Path) -> None:
    query = NetworkQuery(Workspace(folder / "results"))
    best = resolve_network([BEST_OF, str(folder / STUDY)], query)
    other = resolve_network([BEST_OF, str(folder / STUDY)], query._replace(trial=1 - (best.trial or 0)))
    assert {best.trial, other.trial} == {0, 1} and best.name == "tiny" and other.name == f"tiny-{other.trial}"
    for ref in (best, other):
        network, run = load_network(ref), load_network(str(ref.path))
        assert network.origin == run.origin == WeightsOrigin.RUN and network.name == run.name
        assert network.spec == ref.spec == run.spec and network.seed == run.seed == 0
        assert all(map(torch.equal, network.model.state_dict().values(), run.model.state_dict().values()))
    assert best.path != other.path


def test_a_trial_is_shown_and_evaluated_as_its_run(folder: Path) -> None:
    run = checkpoint_of(folder)
    for command in ("show", "evaluate", "kernels"):
        named = called(command, BEST_OF, STUDY, "--trial", "0", "--json", cwd=folder)
        assert (named.returncode, named.stderr) == (0, "")
        by_trial, by_file = json.loads(named.stdout), json.loads(called(command, run, "--json", cwd=folder).stdout)
        if command == "evaluate":
            by_trial, by_file = (
                {key: evaluation["forms"]["training"][key] for key in ("loss", "top1")}
                for evaluation in (by_trial, by_file)
            )
        assert by_trial == by_file


def test_several_networks_have_words_of_their_own(folder: Path) -> None:
    query = NetworkQuery(Workspace(folder / "results"))
    study = str(folder / STUDY)
    refs = resolve_networks([BEST_OF, study, "replknet_nano", BEST_OF, study], query)
    assert [ref.form for ref in refs] == [NetworkForm.BEST_OF, NetworkForm.PRESET, NetworkForm.BEST_OF]
    with pytest.raises(UserError, match="`best-of` must be followed by one study file"):
        resolve_networks(["replknet_nano", BEST_OF], query)
    with pytest.raises(UserError, match=r"`--trial` must be used with `best-of STUDY.yaml`"):
        resolve_networks(["replknet_nano", "convnext_nano"], query._replace(trial=1))


def test_a_checkpoint_that_is_gone_leaves_the_network(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / STUDY, tmp_path / STUDY)
    shutil.copytree(folder / "results", tmp_path / "results")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        ref = resolve_network([BEST_OF, STUDY])
        assert ref.path is not None and ref.path.is_file()
        moved = ref.path.rename(ref.path.with_suffix(".moved"))
        try:
            assert resolve_network([BEST_OF, STUDY]).spec == ref.spec
            with pytest.raises(NotFound, match=r"the weights of a run must be there.*Put the checkpoint back"):
                load_network(ref)
        finally:
            moved.rename(ref.path)


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("network", "B: 1\nC: 4\nK: 3\n", NetworkForm.SPEC),
        ("network.json", '{"B": 1, "C": 4, "K": 3}', NetworkForm.SPEC),
        ("study.txt", "study: x\n", NetworkForm.STUDY),
        ("pointer.safetensors", "version https://git-lfs.github.com/spec/v1\n", NetworkForm.WEIGHTS),
        ("model.safetensors.index.json", "{}", NetworkForm.WEIGHTS),
        ("epoch.pt", "\0", NetworkForm.WEIGHTS),
        ("weights", "\x80\x02\0", NetworkForm.WEIGHTS),
        ("0123456789abcdef.pt", "", NetworkForm.RUN),
        ("0123456789ABCDEF.pt", "", NetworkForm.WEIGHTS),
    ],
)
def test_files_are_recognized_by_their_names_and_content(
    tmp_path: Path, name: str, text: str, form: NetworkForm
) -> None:
    (tmp_path / name).write_text(text, encoding="latin-1")
    assert recognize(str(tmp_path / name)) == form


def test_the_weights_of_a_training_and_its_folder(folder: Path) -> None:
    assert recognize(str(folder / WITH_HEAD)) == NetworkForm.WITH_HEAD
    assert recognize(str(folder / TRAINING)) == NetworkForm.TRAINING
    by_folder, by_file = (
        resolve_network(str(folder / TRAINING)),
        resolve_network(str(folder / TRAINING / "best.safetensors")),
    )
    assert by_folder.name == by_file.name == "net" and by_folder.spec == by_file.spec
    assert load_network(by_folder).name == load_network(by_file).name == "net/best"
