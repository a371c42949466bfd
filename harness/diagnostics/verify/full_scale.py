"""Checks of the shipped study files and their full-scale networks.

A full-scale network is the full-scale base of a file with the choices of a configuration. Torch is imported only where
a network is built; the commands that list the files do not need it.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import harness
from harness.config.axes import BASE, Value, random_sampler
from harness.config.space import Candidate, Space
from harness.config.study_file import StudyFile, build_space, load_study
from harness.config.yaml_file import read_document
from harness.diagnostics.verify.findings import Finding
from harness.errors import StudyError, UserError
from harness.models.cost import network_cost
from harness.models.spec.network import NetworkSpec

STUDIES_FOLDER = Path(harness.__file__).parent.parent / "search_spaces"
"""Folder of the shipped study files in a clone of the repository; an installed package has none."""
MAX_CONFIGURATIONS = 200
"""Number of configurations that are checked per study: all of a smaller space, else random ones."""
SIDE = 224
"""Side of the images for which the cost of full-scale networks is computed."""
READ, FITS = "read", "fits"


def study_files() -> list[Path]:
    """The paths of the shipped study files, sorted by name."""
    return sorted(STUDIES_FOLDER.glob("*.yaml"))


def claim_studies() -> list[Path]:
    """The shipped study files that have claims."""
    return [path for path in study_files() if _has_claims(path)]


def _has_claims(path: Path) -> bool:
    try:
        return bool(read_document(path).data.get("claims"))
    except StudyError:  # reported by the check that reads all files
        return False


def files() -> Iterator[Finding]:
    """Every shipped study file can be read."""
    for path in study_files():
        file = _read(path)
        yield Finding(path.name, READ, file if isinstance(file, str) else READ, "the rules of study files")


def bases() -> Iterator[Finding]:
    """Every `full_scale.base` can be built, and has the parameters of the closed form."""
    import torch

    from harness.diagnostics.verify.costs import params_of
    from harness.models.build import build

    for path, _, large in _full_scale():
        with torch.device("meta"):
            params = params_of(build(large))
        expected = network_cost(large, SIDE, merged=False).params
        yield Finding(f"{path.name}: params of `full_scale.base`", expected, params, "closed form")


def configurations() -> Iterator[Finding]:
    """The choices of every configuration fit onto the full-scale base."""
    for path, file, large in _full_scale():
        small = build_space(file, classes=file.base.classes, channels=file.base.in_channels)
        full = small.with_base(large)
        for candidate in _candidates(small):
            choices = {name: value for name, value in candidate.params.items() if name != BASE}
            output = " ".join(f"{name}={value}" for name, value in choices.items())
            yield Finding(f"{path.name}: {output}", FITS, _fit(full, choices), f"{path.name}, `full_scale.base`")


def _full_scale() -> Iterator[tuple[Path, StudyFile, NetworkSpec]]:
    """The valid study files that name a full-scale network."""
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
    """Configurations that satisfy the rules and budgets."""
    if space.size <= MAX_CONFIGURATIONS:
        drawn = space.grid()
    else:
        choose = random_sampler(0)
        drawn = (space.sample(choose) for _ in range(MAX_CONFIGURATIONS))
    yield from (candidate for candidate in islice(drawn, MAX_CONFIGURATIONS) if candidate.is_feasible)


def _fit(space: Space, choices: dict[str, Value]) -> str:
    """`FITS` if the choices make a valid network of the space's base, else the reason."""
    try:
        network_cost(space.network(choices), SIDE)
    except UserError as error:
        return str(error)
    return FITS
