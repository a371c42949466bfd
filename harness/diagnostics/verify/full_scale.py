"""The study files that come with the harness, and the networks that they end with.

Such a network is a file's full-scale base, with what is searched put onto it. Torch is imported where one is built: the
commands that list the files run without.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import harness
from harness.config.axes import BASE, Value
from harness.config.full_scale_network import with_base
from harness.config.space import Candidate, Space, random_sampler
from harness.config.study_file import StudyFile, build_space, load_study
from harness.config.yaml_file import read_document
from harness.diagnostics.verify.findings import Finding
from harness.errors import StudyError, UserError
from harness.models.cost import network_cost
from harness.models.spec.network import NetworkSpec

STUDIES_FOLDER = Path(harness.__file__).parent.parent / "search_spaces"
"""In a clone of the repository; an installed package has none."""
MAX_CONFIGURATIONS = 200
"""Configurations of one study that are tried: all of a smaller space, else so many at random."""
SIDE = 224
"""Of the images that full-scale networks are priced for."""
READ, FITS = "read", "fits"


def study_files() -> list[Path]:
    """All of them, by name."""
    return sorted(STUDIES_FOLDER.glob("*.yaml"))


def claim_studies() -> list[Path]:
    """Those that claim something."""
    return [path for path in study_files() if _has_claims(path)]


def _has_claims(path: Path) -> bool:
    try:
        return bool(read_document(path).data.get("claims"))
    except StudyError:  # said by the check that reads all files
        return False


def files() -> Iterator[Finding]:
    """Every shipped study file says what can be done."""
    for path in study_files():
        file = _read(path)
        yield Finding(path.name, READ, file if isinstance(file, str) else READ, "the rules of study files")


def bases() -> Iterator[Finding]:
    """Every `full_scale.base` builds, with the parameters that it is priced at."""
    import torch

    from harness.diagnostics.verify.costs import params_of
    from harness.models.build import build

    for path, _, large in _full_scale():
        with torch.device("meta"):
            found = params_of(build(large))
        expected = network_cost(large, SIDE, merged=False).params
        yield Finding(f"{path.name}: params of `full_scale.base`", expected, found, "closed form")


def configurations() -> Iterator[Finding]:
    """Whatever wins a study, its choices make a network of the full-scale base."""
    for path, file, large in _full_scale():
        small = build_space(file, classes=file.base.classes, channels=file.base.in_channels)
        full = with_base(small, large)
        for candidate in _candidates(small):
            choices = {name: value for name, value in candidate.params.items() if name != BASE}
            output = " ".join(f"{name}={value}" for name, value in choices.items())
            yield Finding(f"{path.name}: {output}", FITS, _fit(full, choices), f"{path.name}, `full_scale.base`")


def _full_scale() -> Iterator[tuple[Path, StudyFile, NetworkSpec]]:
    """The sound study files that name a full-scale network."""
    for path in study_files():
        file = _read(path)
        if isinstance(file, StudyFile) and file.full_scale_base is not None:
            yield path, file, file.full_scale_base


def _read(path: Path) -> StudyFile | str:
    """The file, or why it cannot be read."""
    try:
        return load_study(path)
    except UserError as error:
        return str(error)


def _candidates(space: Space) -> Iterator[Candidate]:
    """Configurations within rules and budgets."""
    if space.size <= MAX_CONFIGURATIONS:
        drawn = space.grid()
    else:
        choose = random_sampler(0)
        drawn = (space.sample(choose) for _ in range(MAX_CONFIGURATIONS))
    yield from (candidate for candidate in islice(drawn, MAX_CONFIGURATIONS) if candidate.is_feasible)


def _fit(space: Space, choices: dict[str, Value]) -> str:
    """That the choices make a network of the space's base, or why not."""
    try:
        network_cost(space.network(choices), SIDE)
    except UserError as error:
        return str(error)
    return FITS
