"""The candidates of `harness calibrate`: for each change of the proxy, a study of its own on the arms of the claims.

A candidate's study has one axis, `base`, with a network for each arm. Its seeds are a block that no claim uses, so that
its runs, and the images of generated data, are others than those that the claims are judged on.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.config.calibrate import (
    AT,
    Calibrate,
    RecipeChange,
    default_changes,
    listed_changes,
    own_recipe,
    scaled,
)
from harness.config.claim_arms import arm_choices, without_choices
from harness.config.quick_profile import merged, nested
from harness.config.recipe_axes import PREFIX, is_recipe_axis, recipe_changes
from harness.config.space import plain_fields
from harness.config.study_file import StudyFile, build_space, check_changes, check_document
from harness.config.study_growth import seeds_of
from harness.config.yaml_file import Document
from harness.errors import SpecError, StudyError
from harness.models.spec.network import NetworkSpec
from harness.system.fingerprint import fingerprint

FIRST_SEED = 1_000_000_000
"""The first seed of all calibrations."""
MOST_SEEDS = 1000
"""Number of seeds that are kept for calibrations; as many as a study can have."""
DIGEST_DIGITS, NAME_DIGITS = 8, 64


@dataclass(frozen=True, slots=True)
class CandidateRecipe:
    """A recipe with its networks: what is trained for each arm, under which study name."""

    name: str
    """Name of its study, `<study>_<digest>`."""
    change: RecipeChange
    document: Document
    """The study's file with the changed proxy."""
    networks: Mapping[str, NetworkSpec]
    """By arm, as written in a claim."""

    def study(self, seeds: int) -> StudyFile:
        """The study that trains all arms with this number of seeds."""
        file = self.document.data
        kept: dict[str, Any] = {key: file[key] for key in ("objectives", "resources", "proxy") if key in file}
        data: dict[str, Any] = {
            "study": self.name,
            "axes": {"base": list(self.networks)},
            "bases": {arm: plain_fields(network) for arm, network in self.networks.items()},
            "search": {"sampler": "grid", "seeds": seeds, "seed": FIRST_SEED},
            **kept,
        }
        return check_document(replace(self.document, data=data))


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """A study with the candidates for its proxy; the first is the proxy as written."""

    file: StudyFile
    settings: Calibrate
    candidates: tuple[CandidateRecipe, ...]
    arm_of: Mapping[str, str]
    """The arm whose network a claim's arm has, by its text: claims may write one network in several ways."""

    @property
    def stages(self) -> tuple[int, ...]:
        """The number of seeds after each stage: doubled, up to the largest."""
        seeds = [self.settings.seeds]
        while seeds[-1] < self.settings.max_seeds:
            seeds.append(min(2 * seeds[-1], self.settings.max_seeds))
        return tuple(seeds)


def plan_calibration(file: StudyFile) -> CalibrationPlan:
    """The candidates for the proxy of a study. Raises `StudyError` for a study that cannot be calibrated."""
    _require_claims(file)
    file = _with_arms_recipe(file)
    study, settings = file.study, file.study.calibrate or Calibrate()
    _require_other_seeds(file)
    networks = _claim_networks(file)
    first_texts = {spec: text for text, spec in reversed(networks.items())}
    arm_of = {text: first_texts[spec] for text, spec in networks.items()}
    arms = {text: spec for text, spec in networks.items() if arm_of[text] == text}
    changes = list(listed_changes(settings))
    if changes:
        check_changes(file.document, changes)  # a quick profile is not checked when its file is read
    unique: dict[str, CandidateRecipe] = {}
    for candidate in _candidates(file, arms, [own_recipe(), *(changes or default_changes(study.proxy))]):
        unique.setdefault(candidate.name, candidate)
    return CalibrationPlan(file, settings, tuple(unique.values()), arm_of)


def _claim_networks(file: StudyFile) -> dict[str, NetworkSpec]:
    """The network of every arm of every claim, by the arm's text."""
    space = build_space(file, classes=file.base.classes, channels=file.base.in_channels)
    networks: dict[str, NetworkSpec] = {}
    for text in (text for claim in file.study.claims for text in claim.contrast):
        spec = space.candidate(arm_choices(text, space)).spec
        assert spec is not None, "an arm is a network"
        networks[text] = spec
    return networks


def _with_arms_recipe(file: StudyFile) -> StudyFile:
    """The study without axes of the recipe; its proxy is the recipe of the arms. Raises `StudyError` if they differ."""
    axes = [name for name in file.study.axes if is_recipe_axis(name)]
    if not axes:
        return file
    space = build_space(file, classes=file.base.classes, channels=file.base.in_channels)
    recipes = [
        recipe_changes(space.candidate(arm_choices(text, space)).trained[1], file.study.proxy)
        for claim in file.study.claims
        for text in claim.contrast
    ]
    if any(recipe != recipes[0] for recipe in recipes):
        rule = (
            "all arms of the claims must have one recipe for the proxy to be calibrated, which would be changed for all"
        )
        remedy = f"Calibrate a study without {' and '.join(f'`{name}`' for name in axes)} for each of these recipes."
        raise StudyError(rule, value=", ".join(axes), place=file.place(("claims",)), remedy=remedy)
    data, proxy = file.document.data, nested({name.removeprefix(PREFIX): v for name, v in recipes[0].items()})
    changed: dict[str, Any] = {
        "axes": {name: values for name, values in data["axes"].items() if name not in axes},
        "when": {name: text for name, text in (data.get("when") or {}).items() if name not in axes},
        "claims": [
            claim | {"contrast": {without_choices(arm, axes): weight for arm, weight in claim["contrast"].items()}}
            for claim in data["claims"]
        ],
        "proxy": merged(data.get("proxy") or {}, proxy),
    }
    return check_document(replace(file.document, data=data | changed))


def _candidates(
    file: StudyFile, arms: Mapping[str, NetworkSpec], changes: Sequence[RecipeChange]
) -> Iterator[CandidateRecipe]:
    """A candidate for each change; of the default changes, those that are possible."""
    for change in changes:
        try:
            yield _candidate(file, arms, change)
        except (SpecError, StudyError) as error:
            if change.lines or not change.values:
                error.place = error.place or file.place(next(iter(change.lines.values()), AT))
                raise


def _candidate(file: StudyFile, arms: Mapping[str, NetworkSpec], change: RecipeChange) -> CandidateRecipe:
    document = change.apply(file.document)
    networks = {arm: scaled(spec, change.width) for arm, spec in arms.items()}
    recipe = CandidateRecipe("calibration", change, document, networks).study(1).study.proxy
    parts = [recipe.fingerprint(), *sorted(spec.fingerprint() for spec in networks.values())]
    digest = fingerprint(parts)[:DIGEST_DIGITS]
    name = f"{file.study.study[: NAME_DIGITS - DIGEST_DIGITS - 1]}_{digest}"
    return CandidateRecipe(name, change, document, networks)


def _require_claims(file: StudyFile) -> None:
    study = file.study
    if not study.claims:
        rule = "the study must have claims: what a proxy must decide is their contrasts"
        raise StudyError(rule, place=str(file.path), remedy="Add them under `claims:`.")
    if study.proxy.epochs == 0:
        rule = "`proxy.epochs` must be at least 1 to be calibrated, since nothing is trained otherwise"
        raise StudyError(rule, value=0, place=file.place(("proxy", "epochs")))


def _require_other_seeds(file: StudyFile) -> None:
    """Raise `StudyError` if a claim may use a seed of calibrations."""
    first, most = file.study.search.seed, seeds_of(file.study.search)[1]
    last = FIRST_SEED + MOST_SEEDS - 1
    if first <= last and first + most > FIRST_SEED:
        rule = f"the seeds of the study must not be those of calibrations, {FIRST_SEED:,} to {last:,}"
        value, place = f"{first} to {first + most - 1}", file.place(("search", "seed"))
        raise StudyError(rule, value=value, place=place, remedy="Lower `seed`.")
