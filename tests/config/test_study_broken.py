"""Broken study files: the message for each mistake, with its line; no file raises anything but a `StudyError`."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from study_texts import FULL, PLAIN, loaded, written

from harness.config.study_file import build_space, load_study
from harness.errors import StudyError

HEAD = "study: x\nbase: replknet_nano\n"
BROKEN: dict[str, tuple[str, list[tuple[int, str]]]] = {
    "unknown keys": (
        PLAIN + "serch: {sampler: grid}\nsearch: {trails: 3}\n",
        [
            (5, "`serch` is no key of a study file"),
            (5, "Did you mean `search`? Keys: study, base, axes,"),
            (6, "`trails` is no key of `search`"),
            (6, "Did you mean `trials`? Keys: sampler, trials"),
        ],
    ),
    "missing keys": (
        "base: replknet_nano\n",
        [(1, "`study` is required"), (1, "`axes` is required"), (1, "Values by axis: a field of the network")],
    ),
    "wrong kinds": (
        PLAIN
        + "search: {seeds: three, seed: 1.5}\n"
        + "resources: {cpus: yes, gpus: 1.5, minutes_per_run: '20'}\n"
        + "proxy:\n  epochs: -1\n  batch_size: 2.5\n  channels_last: on\n  rendering: contour\n"
        + "  optimizer: {name: adam, lr: -1, clip: 1}\n  resolution: [64]\n"
        + "budgets: {params: -1, macs: [1], flops: 3}\n",
        [
            (5, '`search.seeds` must be a whole number, but got "three"'),
            (5, "`search.seed` must be a whole number, but got 1.5"),
            (6, '`resources.cpus` must be a whole number, but got "yes"'),
            (6, "`resources.gpus` must be a share of at most 1 or a whole number"),
            (6, '`resources.minutes_per_run` must be a number, but got "20"'),
            (6, "Write it without quotes."),
            (8, "`proxy.epochs` must be at least 0, but got -1"),
            (9, "`proxy.batch_size` must be a whole number, but got 2.5"),
            (10, '`proxy.channels_last` must be true or false, but got "on"'),
            (11, "`proxy.rendering` must be one of 'contours' or 'textured', but got \"contour\""),
            (12, "`proxy.optimizer.name` must be one of 'sgd' or 'adamw', but got \"adam\""),
            (12, "Did you mean `adamw`?"),
            (12, "`proxy.optimizer.lr` must be above 0, but got -1"),
            (12, "`clip` is no key of `proxy.optimizer`"),
            (12, "Did you mean `clip_norm`?"),
            (13, "`proxy.resolution` must be a whole number, but got [64]"),
            (14, "`budgets.params` must be above 0, but got -1"),
            (14, "`budgets.macs` must be a number, but got [1]"),
            (14, "`flops` is no key of `budgets`"),
        ],
    ),
    "warm-up as long as the run": (
        PLAIN + "proxy:\n  epochs: 1\n  schedule: {warmup_epochs: 2}\n",
        [(7, "`proxy.schedule.warmup_epochs` must be below `epochs` (1), but got 2")],
    ),
    "no trials": (PLAIN + "search:\n  sampler: tpe\n", [(5, "`search.trials` must be given for the sampler tpe")]),
    "trials of a grid": (
        PLAIN + "search:\n  trials: 4\n",
        [(6, "`search.trials` must be left out for the sampler grid")],
    ),
    "two objectives and a race": (
        PLAIN + "objectives: {top1: maximize, macs: minimize}\nsearch: {seeds: 1, racing: {most: 3}}\n",
        [(6, "`search.racing` must be left out for 2 objectives")],
    ),
    "no objective": (PLAIN + "objectives: {}\n", [(5, "must hold 1 to 6 objectives")]),
    "no direction": (PLAIN + "objectives: {top1: max}\n", [(5, "`objectives.top1` must be one of 'maximize' or")]),
    "a pruner without a curve": (
        PLAIN + "objectives: {macs: minimize}\nsearch: {pruner: median}\n",
        [(6, "`search.pruner` must be none for the objective macs")],
    ),
    "a measure twice": (
        PLAIN + "proxy:\n  measures: [erf, throughput, erf]\n",
        [(6, "`proxy.measures` must name each measure once, but got erf, throughput, erf")],
    ),
    "shape bias without cues": (
        PLAIN + "proxy:\n  rendering: contours\n  measures: [shape_bias]\n",
        [(7, "`proxy.measures` must leave shape_bias out"), (7, "`rendering: textured` has such")],
    ),
    "an unknown measure": (
        PLAIN + "proxy:\n  measures: [trougput]\n",
        [(6, "`proxy.measures[0]` must be one of"), (6, "Did you mean `throughput`?")],
    ),
    "untrained networks by their accuracy": (
        PLAIN + "objectives: {val_loss: minimize}\nproxy: {epochs: 0}\n",
        [(5, "`objectives` must hold a cost or a measure where `proxy.epochs` is 0"), (5, "but got val_loss; take")],
    ),
    "untrained networks by the default": (
        PLAIN + "proxy: {epochs: 0}\n",
        [(1, "`objectives` must hold a cost or a measure"), (1, "but got top1")],
    ),
    "empty section": (PLAIN + "search:\n", [(5, "`search` must be a mapping, but got null"), (5, "or leave it out")]),
    "unknown preset": (
        PLAIN.replace("replknet_nano", "replknet_nan"),
        [
            (2, "`base` must be a preset, the path of a spec file (.yaml), or a mapping of fields"),
            (2, 'but got "replknet_nan"'),
            (2, "Did you mean `replknet_nano`? Presets: replknet_3, "),
        ],
    ),
    "missing base file": (
        PLAIN.replace("replknet_nano", "winner.yaml"),
        [(2, '`base` must lead from this file\'s folder to a spec file, but got "winner.yaml"')],
    ),
    "number as base": (PLAIN.replace("replknet_nano", "31"), [(2, "`base` must be text, but got 31")]),
    "base with an even kernel": (
        PLAIN.replace("replknet_nano", "\n  B: 1\n  C: 8\n  K:\n    [3, 3, 8, 3]"),
        [(6, "`K[2]` must be odd, so that the kernel has a center, but got 8"), (6, "Try 7 or 9.")],
    ),
    "base without channels": (
        PLAIN.replace("replknet_nano", "{B: 1, Q: 2}"),
        [(2, "`base.C` is required"), (2, "`base.K` is required"), (2, "`Q` is no field of a network")],
    ),
    "null in base": (
        PLAIN.replace("replknet_nano", "{B: null, C: 8, K: 3}"),
        [(2, "`B[0]` must be a whole number"), (2, "but got null")],
    ),
    "name with a path": (
        PLAIN.replace("plain", "../x"),
        [(1, "`study` must be 1 to 64 letters"), (1, 'but got "../x"')],
    ),
    "name of a folder of ours": (PLAIN.replace("plain", "Bench"), [(1, "`study` must not be `Bench`")]),
    "name that is a number": (PLAIN.replace("plain", "3"), [(1, "`study` must be text, but got 3")]),
    "name with a line end": (PLAIN.replace("plain", '"x\\n"'), [(1, "`study` must be 1 to 64 letters")]),
    "even kernels": (
        HEAD + "axes:\n  K:\n    - [3, 3, 3, 3]\n    - [7, 7,\n       8, 7]\n    - 4\n",
        [
            (7, "`K[2]` must be odd, so that the kernel has a center, but got 8"),
            (7, "Try 7 or 9."),
            (8, "`K[0]` must be odd, so that the kernel has a center, but got 4"),
        ],
    ),
    "axes of all bad kinds": (
        HEAD
        + "axes:\n  Kernel: [3]\n  K[4]: [3]\n  classes: [3]\n  stem_stride[0]: [2]\n  B: 3\n  C: []\n"
        + "  reparam: [5, 5]\n  dw_ratio: [{a: 3}]\n  K[x]: [3]\n  drop_path: {lo: 3}\n  ffn_ratio: [[[1]]]\n"
        + "  depthwise: [yes]\n",
        [
            (4, "`Kernel` must be a field of the network"),
            (5, '`K` has the stages 0 to 3, but got "K[4]"'),
            (6, "`classes` cannot be an axis: the data set decides it"),
            (7, "`stem_stride` has one value for all stages"),
            (8, "`axes.B` must be a list, but got 3"),
            (8, "Put it in brackets"),
            (9, "`axes.C` must have at least one value"),
            (10, "`axes.reparam` must name each value once, but got 5"),
            (10, "`[[3, 3, 3, 3]]`"),
            (11, "`axes.dw_ratio[0]` must be a value, null, or a list"),
            (12, "`K[x]` must be a field of the network"),
            (13, "`axes.drop_path.low` is required"),
            (13, "`lo` is no key of `axes.drop_path`"),
            (13, "Did you mean `low`? Keys: low, high, step, log."),
            (14, "`axes.ffn_ratio[0]` must be a value, null, or a list"),
            (15, '`depthwise` must be true or false, but got "yes"'),
        ],
    ),
    "ranges": (
        HEAD
        + "axes:\n  K:\n    low: 3\n    high: 30\n    step: 4\n  C[0]: {low: 0, high: 4}\n  B: {low: 1.5, high: 4.5}\n"
        + "  drop_path: {low: 0, high: 0.3, step: 0}\n  C[1]: {low: 64, high: 16}\n"
        + "  C[2]: {low: 16, high: 64, step: 2, log: true}\n  K[1]: {low: 2, high: 6, step: 2}\n",
        [
            (6, "`axes.K.high` must be `low` (3) plus a whole number of steps of 4, but got 30"),
            (6, "Try 27 or 31."),
            (8, "`C[0]` must be a whole number from 1"),
            (9, "`B[0]` must be a whole number from 1"),
            (10, "`axes.drop_path.step` must be above 0, but got 0"),
            (11, "`axes.C[1].high` must be at least `low` (64), but got 16"),
            (12, "`axes.C[2].log` needs whole numbers from 1 on"),
            (13, "`K[1]` must be odd, so that the kernel has a center, but got 2"),
        ],
    ),
    "a list for four scalars": (
        HEAD + "axes:\n  K: [31, 29, 27, 13, 13]\n",
        [(4, "must name each value once, but got 13")],
    ),
    "a list too short": (HEAD + "axes:\n  K: [[3, 3, 3]]\n", [(4, "`K` must have one value per stage")]),
    "true for a kernel": (
        HEAD + "axes:\n  K: [true, 3]\n",
        [(4, "`K[0]` must be a whole number"), (4, "but got true")],
    ),
    "null for a kernel": (
        HEAD + "axes:\n  K: [null, 3]\n",
        [(4, "`K[0]` must be a whole number"), (4, "but got null")],
    ),
    "kernel whole and by stage": (
        HEAD + "axes:\n  K: [3, 7]\n  K[3]: [3, 7]\n",
        [(3, "The axes `K` and `K[3]` must not decide the same stage")],
    ),
    "a value that never fits": (
        "study: x\nbase: replknet_3\naxes:\n  reparam: [null,\n            5]\n",
        [(5, "`reparam[0]` must be at most the large kernel's side 3, but got 5")],
    ),
    "ratios": (
        HEAD + "axes: {dw_ratio: [0.3, 1.5]}\n",
        [(3, "`dw_ratio` must be positive and give every stage a whole")],
    ),
    "no axes": (HEAD + "axes:\n", [(3, "`axes` must be a mapping, but got null")]),
    "empty axes": (HEAD + "axes: {}\n", [(3, "`axes` must have at least 1 entry")]),
    "conditions": (
        PLAIN + "when:\n  Kernel: max(K) > 5\n",
        [(6, "`when.Kernel` must name an axis"), (6, "Axes: K.")],
    ),
    "a condition on itself": (PLAIN + "when: {K: max(K) > 5}\n", [(5, "Conditions must not go in a circle")]),
    "a condition that is a truth": (PLAIN + "when: {K: true}\n", [(5, "`when.K` must be text, but got true")]),
    "expressions": (
        PLAIN + "rules:\n  - C[9] > 3\n  - max(K)\n  - mx(K) > 3\n  - max(reparam) > 3\n  - K == 3\n  - K[0] > Q\n",
        [
            (6, "`rules[0]` must be true or false for every network, but got 'C[9] > 3'"),
            (7, "`rules[1]` must be true or false, but got 'max(K)'"),
            (8, "`rules[2]` calls `mx`"),
            (9, "`rules[3]` must be true or false for every network"),
            (9, "null has no size"),
            (10, "`rules[4]` must be true or false for every network"),
            (11, "`rules[5]` names `Q`, which is no field of a network"),
        ],
    ),
    "a condition that fails for some": (
        HEAD + "axes:\n  reparam: [null, 5]\n  B: [1, 2]\nwhen:\n  B: reparam[0] > 3\n",
        [(7, "`when.B` must be true or false for every network"), (7, "null is neither more nor less")],
    ),
    "rules that are no text": (PLAIN + "rules: [3]\n", [(5, "`rules[0]` must be text, but got 3")]),
    "one rule not in a list": (PLAIN + "rules: max(K) > 3\n", [(5, '`rules` must be a list, but got "max(K) > 3"')]),
    "too many combinations": (
        HEAD + "axes:\n  B[0]: {low: 1, high: 1000}\n  B[1]: {low: 1, high: 1000}\n",
        [(3, "A grid must have at most 20000 combinations, but these axes have 1,000,000")],
    ),
    "full scale": (
        PLAIN + "full_scale:\n  base: replknet_31\n  recipe: a b\n  epochs: 3\n",
        [(7, "`full_scale.recipe` must be"), (8, "`epochs` is no key of `full_scale`")],
    ),
    "full-scale preset": (
        PLAIN + "full_scale:\n  base: replknet_31\n",
        [(6, "`full_scale.base` must be a preset"), (6, "Did you mean `replknet_31l`?")],
    ),
    "text for full scale": (PLAIN + "full_scale: big\n", [(5, '`full_scale` must be a mapping, but got "big"')]),
    "no base": ("study: x\naxes: {K: [3, 5]}\n", [(1, "`base` is required")]),
    "bases without their axis": (
        PLAIN + "bases:\n  mine: replknet_nano\n",
        [(6, "`bases` must be listed by an axis `base`")],
    ),
    "base as key and as axis": (
        HEAD + "axes: {base: [replknet_nano]}\n",
        [(2, "`base` must be left out where it is an axis")],
    ),
    "bases that are none": (
        "study: x\nbases:\n  mine: replknet_tin\naxes:\n  base:\n    - mine\n    - convnext_nan\n",
        [(3, "`bases.mine` must be a preset"), (7, "`axes.base[1]` must be a preset")],
    ),
    "a range of bases": ("study: x\naxes:\n  base: {low: 1, high: 3}\n", [(3, "must be a list of names of networks")]),
    "numbers as bases": ("study: x\naxes:\n  base: [3, 5]\n", [(3, "a list of names of networks, but got [3, 5]")]),
    "no bases": ("study: x\naxes:\n  base: []\n", [(3, "must be a list of names of networks, but got []")]),
    "a base twice": (
        "study: x\naxes:\n  base: [convnext_nano, convnext_nano]\n",
        [(3, "`axes.base` must name each value once")],
    ),
    "a list that suits none of the bases": (
        "study: x\naxes:\n  base: [replknet_nano, mobilenet_v2_nano]\n  K:\n    - [3, 3, 3, 3]\n    - [3, 3, 3]\n",
        [(6, "`K` must have one value per stage, 4 in all, but got [3, 3, 3]")],
    ),
    "a stage that none of the bases has": (
        "study: x\naxes:\n  base: [replknet_nano, mobilenet_v2_nano]\n  K[7]: [3, 5]\n",
        [(4, "`K` has the stages 0 to 6")],
    ),
    "a condition on the base": (
        "study: x\naxes:\n  base: [replknet_nano]\n  K: [3, 5]\nwhen:\n  base: max(K) > 3\n",
        [(6, "The axis `base` cannot have a condition")],
    ),
    "everything at once": (
        "study: x y\nbase: replknet_nan\naxes: {K: [4]}\nrules: [Q > 3]\nsearch: {seeds: 0}\n",
        [(1, "`study` must be"), (2, "`base` must be a preset"), (5, "`search.seeds` must be at least 1")],
    ),
    "values beside broken keys": (
        "study: x y\nbase: replknet_nano\naxes: {K: [4], B: 3}\nrules: [Q > 3]\nsearch: {seeds: 0}\n",
        [
            (1, "`study` must be"),
            (3, "`K[0]` must be odd"),
            (3, "`axes.B` must be a list"),
            (4, "`rules[0]` names `Q`"),
            (5, "`search.seeds` must be at least 1"),
        ],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files(tmp_path: Path, name: str) -> None:
    text, expected = BROKEN[name]
    with pytest.raises(StudyError) as caught:
        loaded(tmp_path, text)
    lines = [str(problem) for problem in caught.value.problems]
    for line, words in expected:
        place = f"({tmp_path}/study.yaml:{line})"
        assert any(place in message and words in message for message in lines), (
            f"line {line}: {words}\nin:\n" + "\n".join(lines)
        )
    for message in lines:
        assert any(f":{line})" in message for line, _ in expected), f"not expected: {message}"
        assert str(caught.value).count(message) == 1


@pytest.mark.parametrize(
    ("tail", "line", "words"),
    [
        ('rules: ["K[0] > 100"]\n', 5, "Of 2, 2 break `rules[0]`."),
        ("budgets: {params: 10}\n", 5, "Of 2, 2 break `budgets.params`. The least is 282,840 params."),
        ("rules:\n  - max(K) < 5\nbudgets:\n  macs: 1e3\n", 8, "2 break `budgets.macs`, 1 break `rules[0]`"),
    ],
)
def test_a_space_without_a_configuration_within_budget(tmp_path: Path, tail: str, line: int, words: str) -> None:
    file = loaded(tmp_path, PLAIN + tail)
    with pytest.raises(StudyError) as caught:
        build_space(file, classes=8, channels=1)
    assert "At least one configuration must be within rules and budgets" in str(caught.value)
    assert words in str(caught.value)
    assert f"study.yaml:{line})" in str(caught.value)


def test_classes_count_in_the_budget(tmp_path: Path) -> None:
    """The head belongs to the network, so the data set decides what fits."""
    file = loaded(tmp_path, PLAIN + "budgets: {params: 290000}\n")
    assert build_space(file, classes=8, channels=1).base.classes == 8
    with pytest.raises(StudyError, match=r"2 break `budgets\.params`"):
        build_space(file, classes=1000, channels=1)


# Hostile input

HOSTILE = [
    "null",
    "[]",
    "{}",
    "-1",
    "1e308",
    "''",
    "[[[3]]]",
    "{low: 3, high: 1e15, step: 1e-9}",
    "*x",
    "!!python/none x",
]
HOSTILE += ["[3, 3]", "{a: {b: {c: 1}}}", "__import__('os')", "9" * 400, "true", "'" + "x" * 5000 + "'", "[null, null]"]
KEYS = re.findall(r"(?m)(?:^|[{,] ?)([A-Za-z_][\w\[\]]*):", FULL)


@examples(120)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused_with_its_place(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    lines = FULL.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["value", "character", "drop", "twice", "indent", "key"]))
        if kind == "value":
            lines[at] = lines[at].split(":")[0] + ": " + data.draw(st.sampled_from(HOSTILE)) + "\n"
        elif kind == "key":
            lines[at] = lines[at].replace(data.draw(st.sampled_from(KEYS)), data.draw(st.sampled_from(KEYS)), 1)
        elif kind == "character" and lines[at]:
            spot = data.draw(st.integers(0, len(lines[at]) - 1))
            lines[at] = lines[at][:spot] + data.draw(st.characters(codec="utf-8")) + lines[at][spot + 1 :]
        else:
            lines[at] = {"drop": "", "twice": lines[at] * 2}.get(kind, "  " + lines[at])
    path = written(tmp_path_factory.getbasetemp(), "".join(lines))
    try:
        build_space(load_study(path), classes=8, channels=1)
    except StudyError as error:
        assert all(problem.place and "study.yaml" in problem.place for problem in error.problems)
        assert all(len(str(problem)) < 1500 for problem in error.problems)
