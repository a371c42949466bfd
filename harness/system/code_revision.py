"""Digests of the code that computes a run, so that a change is detected without a version number to maintain.

A digest covers the syntax trees of the files, without comments, docstrings and positions: rewording does not change it,
and neither does another minor version of Python. Neither torch nor the code itself is imported.
"""

import ast
import functools
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from harness.system.atomic_write import read_json, write_cache

PACKAGE = Path(__file__).parent.parent
OPERATOR = ("ops",)
"""The algorithms of the depth-wise convolution, the rule that chooses one, and batch norm with its activation."""
TRAINING = (
    *("config/recipes/proxy.py", "data", "executors/run_job.py", "measures"),
    *("models/activation_checkpointing.py", "models/batchnorm_folding.py", "models/build.py", "models/convnext.py"),
    *("models/large_kernels", "models/layers.py", "models/mobilenet_v2.py", "models/replknet.py"),
    *("models/spec/family.py", "models/spec/kernel.py", "models/spec/network.py"),
    *("training/device.py", "training/fit.py", "training/optim.py"),
)
"""All other code that affects the outcome of a run: networks, defaults, images, training loop, seeding, measures.

Of a folder, all modules except those that another list names: a new data set or measure counts without a line here.
"""
DOWNSTREAM = (
    *("data/detection_transforms.py",),
    *("models/heads",),
    *("training/metrics/detection.py", "training/metrics/segmentation.py", "training/transfer.py"),
)
"""Further code that affects the outcome of a transfer."""
FULL_SCALE = (
    *("config/recipes/detection.py", "config/recipes/full_scale.py", "config/recipes/segmentation.py"),
    *("data/batching.py", "data/data_record.py", "data/detection.py", "data/image_sources.py", "data/loading.py"),
    *("data/preprocessing.py", "data/segmentation.py", "data/validation_images.py", "executors/full_scale.py"),
    *("training/accuracy.py", "training/accuracy_results.py", "training/full_scale", "training/tasks"),
    *("training/metrics/classification.py",),
)
"""Further code that affects the outcome of a full-scale training, in addition to all of the above."""
NOT_IN_RUNS = (
    "data/imagefolder.py",
    "measures/cue_conflict.py",
    "measures/erf_comparison.py",
    "measures/validation_sets.py",
)
"""Modules in the folders of `TRAINING` that no training imports: they examine networks that are trained already."""
DIGITS = 8
CACHE = PACKAGE / "__pycache__" / "revisions.json"
"""Cached digests by the files' exact content; parsing the files takes 0.1 s, reading them a few milliseconds."""
MAX_CACHED = 32


def operator_digest() -> str:
    """Digest of the code of the operators, `harness/ops`: eight hexadecimal digits."""
    return _digest(OPERATOR)


def code_digest(*, downstream: bool = False, full_scale: bool = False) -> str:
    """Digest of the code that trains and measures, without the operator: eight hexadecimal digits.

    With `downstream`, the code of a transfer is included; with `full_scale`, also all code of full-scale training.
    """
    if full_scale:
        return _digest((*TRAINING, *DOWNSTREAM, *FULL_SCALE))
    return _digest((*TRAINING, *DOWNSTREAM) if downstream else TRAINING)


def digest_files(files: Iterable[Path], root: Path) -> str:
    """Digest of the paths below `root` and the syntax trees of Python files: eight hexadecimal digits."""
    parts: list[str] = []
    for path in files:
        parts.append(path.relative_to(root).as_posix())
        _append_node(ast.parse(path.read_bytes()), parts.append)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:DIGITS]


@functools.cache
def _digest(names: Sequence[str]) -> str:
    files = sorted(path for name in names for path in _files(name))
    content = hashlib.sha256(b"\0".join(f"{path}".encode() + path.read_bytes() for path in files)).hexdigest()
    digests = _read_cache()
    if content not in digests:
        digests[content] = digest_files(files, PACKAGE)
        write_cache(CACHE, dict(list(digests.items())[-MAX_CACHED:]))
    return digests[content]


def _files(name: str) -> list[Path]:
    """The file of this name, or the modules of a folder that no list has by their own name."""
    path, listed_alone = PACKAGE / name, {*DOWNSTREAM, *FULL_SCALE, *NOT_IN_RUNS}
    if path.suffix:
        return [path]
    return [file for file in path.rglob("*.py") if file.relative_to(PACKAGE).as_posix() not in listed_alone]


def _append_node(node: ast.AST, append: Callable[[str], None]) -> None:
    """Append the node's type and its non-empty fields; empty fields differ between versions of Python."""
    append(type(node).__name__)
    for name in node._fields:
        value = getattr(node, name, None)
        if value is None or value == []:
            continue
        append(name)
        if isinstance(value, ast.AST):
            _append_node(value, append)
        elif isinstance(value, list):
            append("[")
            for item in value:
                if isinstance(item, ast.AST) and not _is_docstring(item):
                    _append_node(item, append)
                elif not isinstance(item, ast.AST):
                    append(repr(item))
            append("]")
        else:
            append(repr(value))


def _is_docstring(node: ast.AST) -> bool:
    """Whether a statement is a bare string: a docstring, or one that describes a constant or a field."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _read_cache() -> dict[str, str]:
    digests = read_json(CACHE)
    is_sound = isinstance(digests, dict) and all(isinstance(d, str) and len(d) == DIGITS for d in digests.values())
    return digests if is_sound else {}
