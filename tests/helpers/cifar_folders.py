"""Small copies of CIFAR as it is distributed."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np


def as_python_2(content: object) -> bytes:
    """A pickle as Python 2 wrote it: numpy's old module name, numbers for booleans in the dtype."""
    data = pickle.dumps(content, protocol=2)
    assert b"numpy._core.multiarray" in data and b"\x89\x88\x87" in data
    return data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray").replace(b"\x89\x88\x87", b"K\x00K\x01\x87")


def batch(seed: int, count: int, classes: int) -> dict[str, Any]:
    data = np.random.default_rng(seed).integers(0, 256, (count, 3072)).astype(np.uint8)
    labels = [i % classes for i in range(count)]
    names = [f"{i}.png" for i in range(count)]
    key = "labels" if classes == 10 else "fine_labels"
    return {"data": data, key: labels, "filenames": names, "batch_label": "a batch"}


def write_cifar10(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for i in range(1, 6):
        (folder / f"data_batch_{i}").write_bytes(as_python_2(batch(i, 20, 10)))
    (folder / "test_batch").write_bytes(as_python_2(batch(6, 30, 10)))
    meta = {"label_names": [f"kind {i}" for i in range(10)], "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return root


def write_cifar100(root: Path) -> Path:
    folder = root / "cifar-100-python"
    folder.mkdir()
    (folder / "train").write_bytes(as_python_2(batch(0, 200, 100) | {"coarse_labels": [0] * 200}))
    (folder / "test").write_bytes(pickle.dumps(batch(1, 100, 100), protocol=2))
    meta = {"fine_label_names": [f"kind {i}" for i in range(100)], "coarse_label_names": ["all"]}
    (folder / "meta").write_bytes(pickle.dumps(meta, protocol=2))
    return root
