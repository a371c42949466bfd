"""Small image folders and studies on them, made in the tests."""

from pathlib import Path

import numpy as np
from PIL import Image

STUDY = """\
study: {name}
base: {{B: [1, 1, 1, 1], C: [4, 4, 8, 8], K: [3, 3, 3, 3], stem_stride: 2, ffn_ratio: 2}}
axes: {{K: [[3, 3, 3, 3]]}}
search: {{seeds: {seeds}}}
proxy:
  {{dataset: imagefolder, root: {root}, resample: none, resolution: 16, epochs: 1, batch_size: 8,
    schedule: {{warmup_epochs: 0}}}}
resources: {{cpus: 1, minutes_per_run: 5}}
"""


def pixels(label: int, seed: int, side: tuple[int, int] = (20, 20)) -> np.ndarray:
    """Noise around a brightness that tells the class, uint8 (H, W, 3)."""
    rng = np.random.default_rng(1000 * label + seed)
    noisy = 40 + 50 * label + rng.integers(-30, 30, (side[1], side[0], 3))
    return noisy.clip(0, 255).astype(np.uint8)


def write_folder(root: Path, classes: tuple[str, ...] = ("a", "b"), count: int = 8, ending: str = "png") -> Path:
    """`root/{train,val}/<class>/<number>.<ending>`, as many in `val` as in `train`."""
    for offset, split in enumerate(("train", "val")):
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(pixels(label, 100 * offset + i)).save(folder / f"{i}.{ending}")
    return root


def write_folder_study(path: Path, root: Path | str, *, seeds: int = 1) -> Path:
    """A study file of one configuration on that folder, named after the file."""
    path.write_text(STUDY.format(name=path.stem, root=root, seeds=seeds), encoding="utf-8")
    return path
