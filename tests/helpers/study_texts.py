"""Two sound study files, one with the least and one with all that a study can say, for tests to read and to damage."""

from pathlib import Path

from harness.config.study_file import StudyFile, load_study

PLAIN = """\
study: plain
base: replknet_nano
axes:
  K: [[3, 3, 3, 3], [7, 7, 7, 7]]
"""

FULL = """\
study: full
base: {B: [1, 1, 2, 1], C: [16, 32, 64, 128], K: 31, reparam: 5, stem_stride: 2}
axes:
  K[3]: {low: 3, high: 31, step: 4}
  C: [[16, 32, 64, 128], [24, 48, 96, 192]]
  B[2]: [1, 2, 3]
  reparam: [null, 5]
  shortcut: [true, false]
  drop_path: {low: 0, high: 0.2, step: 0.1}
when: {reparam: "max(K) > 5", drop_path: "B[2] > 1"}
rules: ["C[3] <= 8 * C[0]", "K[3] <= K[0]"]
budgets: {params: 3.0e+6, macs: 4e8, latency_ms: 50}
objectives: {val_loss: minimize}
search: {sampler: tpe, trials: 40, seeds: 2, seed: 7, pruner: hyperband}
proxy: {dataset: shapes, resolution: 32, epochs: 4, optimizer: {name: adamw, lr: 1e-3}}
resources: {cpus: 2, gpus: 0.25, minutes_per_run: 20}
full_scale: {base: replknet_31b, recipe: imagenet_300}
"""


def written(folder: Path, text: str, name: str = "study.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def loaded(folder: Path, text: str) -> StudyFile:
    return load_study(written(folder, text))
