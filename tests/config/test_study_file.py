"""Study files: the content of valid ones, network files next to them, the resolved copy, and the schema for editors."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from properties import examples
from random_specs import specs
from study_texts import FULL, PLAIN, loaded, written

from harness.config.axes import Choice, Range
from harness.config.json_schema import json_schema
from harness.config.network_file import dump_network_spec, load_network_spec
from harness.config.recipes.proxy import Optimizer, ProxyRecipe
from harness.config.study import Resources, Search, Study
from harness.config.study_file import build_space, load_study, resolved_yaml
from harness.config.yaml_file import read_document, write_yaml
from harness.errors import StudyError
from harness.models.spec.network import FIELDS, NetworkSpec
from harness.models.spec.presets import PRESETS

SHIPPED = sorted((Path(__file__).parents[2] / "search_spaces").glob("*.yaml"))

# The content of a valid file


def test_a_plain_file_takes_the_defaults(tmp_path: Path) -> None:
    file = loaded(tmp_path, PLAIN)
    assert file.study == Study(study="plain", base="replknet_nano", axes={"K": [[3, 3, 3, 3], [7, 7, 7, 7]]})
    assert file.study.objectives == {"top1": "maximize"}
    assert file.study.search == Search(sampler="grid", trials=None, seeds=3, seed=0, pruner="none")
    assert file.study.resources == Resources(cpus=1, gpus=0.0, minutes_per_run=60.0)
    assert file.study.proxy == ProxyRecipe()
    assert file.base == PRESETS["replknet_nano"]
    assert file.full_scale_base is None
    assert file.text == PLAIN
    assert file.place(("axes", "K", 1)) == f"{tmp_path}/study.yaml:4"


def test_a_full_file_is_read_completely(tmp_path: Path) -> None:
    file = loaded(tmp_path, FULL)
    study = file.study
    assert study.search == Search(sampler="tpe", trials=40, seeds=2, seed=7, pruner="hyperband")
    assert study.proxy == ProxyRecipe(resolution=32, epochs=4, optimizer=Optimizer(name="adamw", lr=1e-3))
    assert study.budgets.latency_ms == 50
    assert file.full_scale_base == PRESETS["replknet_31b"]
    space = build_space(file, classes=8, channels=1)
    assert space.axes == {
        "K[3]": Range(3, 31, 4),
        "C": Choice(((16, 32, 64, 128), (24, 48, 96, 192))),
        "B[2]": Range(1, 3, 1),
        "reparam": Choice((None, 5)),
        "shortcut": Choice((True, False)),
        "drop_path": Range(0.0, 0.2, 0.1),
    }
    assert space.budgets == {"params": 3e6, "macs": 4e8}
    assert space.recipe.resolution == 32
    assert (space.base.classes, space.base.in_channels) == (8, 1)
    assert [rule.place for rule in space.rules] == [f"{tmp_path}/study.yaml:11"] * 2


@pytest.mark.parametrize(
    ("listed", "axis"),
    [
        ("[3, 7, 11]", Range(3, 11, 4)),
        ("[3, 7, 13]", Choice((3, 7, 13))),
        ("[11, 7, 3]", Choice((11, 7, 3))),
        ("[3, 7]", Choice((3, 7))),
        ("[3]", Choice((3,))),
        ("[3, [3, 3, 3, 5]]", Choice((3, (3, 3, 3, 5)))),
        ("{low: 3, high: 7, step: 2}", Range(3, 7, 2)),
        ("{low: 3.0, high: 7.0, step: 2.0}", Range(3, 7, 2)),
    ],
)
def test_evenly_rising_whole_numbers_are_ordinal(tmp_path: Path, listed: str, axis: Choice | Range) -> None:
    file = loaded(tmp_path, f"study: x\nbase: replknet_nano\naxes:\n  K: {listed}\n")
    space = build_space(file, classes=8, channels=1)
    assert space.axes["K"] == axis
    assert all(isinstance(value, int | tuple) for value in space.axes["K"].values)


def test_anchors_and_merge_keys_work(tmp_path: Path) -> None:
    text = PLAIN + "proxy: &proxy {epochs: 3, resolution: 32}\n"
    with pytest.raises(StudyError, match=r"`resource` is no key of a study file .*:6\). Did you mean `resources`?"):
        loaded(tmp_path, text + "resource: {<<: *proxy}\n")
    pattern = PLAIN.replace("[[3, 3, 3, 3], [7, 7, 7, 7]]", "[&small [3, 3, 3, 3], [7, 7, 7, 7]]")
    assert loaded(tmp_path, pattern + "rules: [K != [1, 1, 1, 1]]\n".replace("[K", "['K").replace("1]]", "1]']"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files(path: Path) -> None:
    file = load_study(path)
    assert file.study.study == path.stem
    assert any(candidate.is_feasible for candidate in build_space(file, classes=8, channels=3).grid())
    jsonschema.Draft202012Validator(json_schema()).validate(file.document.data)
    assert f"python run_study.py search_spaces/{path.name}" in file.text, "the header says how to run it"
    if file.study.quick:
        assert load_study(path, is_quick=True).study.study == f"{path.stem}_quick"


# Whole networks as alternatives

BESIDE = """\
study: beside
bases: {mine: nets/mine.yaml, other: {family: convnext, B: 1, C: 8, K: 7, stem_stride: 2}}
axes:
  K: [3, 13]
  base: [replknet_nano, mine, mobilenet_v2_nano, other]
"""


def test_whole_networks_can_be_an_axis(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    written(tmp_path / "nets", dump_network_spec(PRESETS["convnext_nano"]), "mine.yaml")
    file = loaded(tmp_path, BESIDE)
    jsonschema.Draft202012Validator(json_schema()).validate(file.document.data)
    assert file.base == PRESETS["replknet_nano"]
    space = build_space(file, classes=8, channels=1)
    assert list(space.axes) == ["base", "K"]
    cells = list(space.grid())
    assert [cell.params for cell in cells[:3]] == [
        {"base": "replknet_nano", "K": 3},
        {"base": "replknet_nano", "K": 13},
        {"base": "mine", "K": 3},
    ]
    specs = [cell.spec for cell in cells if cell.spec is not None]
    assert [spec.family for spec in specs[::2]] == ["replknet", "convnext", "mobilenet_v2", "convnext"]
    assert {(spec.classes, spec.in_channels, set(spec.K) == {3} or set(spec.K) == {13}) for spec in specs} == {
        (8, 1, True)
    }


def test_the_resolved_copy_keeps_the_networks_themselves(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    written(tmp_path / "nets", dump_network_spec(PRESETS["convnext_nano"]), "mine.yaml")
    file = loaded(tmp_path, BESIDE)
    (tmp_path / "elsewhere").mkdir()
    again = loaded(tmp_path / "elsewhere", resolved_yaml(file))
    spaces = [build_space(study_file, classes=8, channels=3) for study_file in (file, again)]
    assert spaces[0] == spaces[1]
    assert resolved_yaml(again) == resolved_yaml(file)


# Specs in files


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_spec_file(tmp_path: Path, name: str) -> None:
    text = dump_network_spec(PRESETS[name], f"{name}\nsecond line")
    assert text.startswith(f"# {name}\n# second line\n")
    assert load_network_spec(written(tmp_path, text)) == PRESETS[name]


@examples(60)
@given(spec=specs())
def test_any_spec_survives_a_spec_file(tmp_path_factory: pytest.TempPathFactory, spec: NetworkSpec) -> None:
    path = written(tmp_path_factory.getbasetemp(), dump_network_spec(spec, "best of kernel_size"))
    assert load_network_spec(path) == spec
    assert set(read_document(path).data) == set(FIELDS)


def test_a_base_may_be_a_file_next_to_the_study(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    written(tmp_path / "bases", dump_network_spec(PRESETS["replknet_tiny"]), "winner.yaml")
    study = PLAIN.replace("replknet_nano", "bases/winner.yaml") + "full_scale: {base: ./bases/winner.yaml}\n"
    file = loaded(tmp_path, study)
    assert file.base == file.full_scale_base == PRESETS["replknet_tiny"]


def test_a_broken_base_file_is_named_with_its_own_lines(tmp_path: Path) -> None:
    written(tmp_path, "B: 1\nC: 8\nK: [3, 4, 3, 3]\n", "winner.yaml")
    with pytest.raises(StudyError, match=r"`K\[1\]` must be odd.* but got 4 \(.*winner.yaml:3\). Try 3 or 5."):
        loaded(tmp_path, PLAIN.replace("replknet_nano", "winner.yaml"))


# The resolved copy


@pytest.mark.parametrize("text", [PLAIN, FULL], ids=["plain", "full"])
def test_the_resolved_copy_is_the_same_study_anywhere(tmp_path: Path, text: str) -> None:
    file = loaded(tmp_path, text)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    again = loaded(elsewhere, resolved_yaml(file))
    assert again.base == file.base
    assert again.full_scale_base == file.full_scale_base
    assert build_space(again, classes=8, channels=1) == build_space(file, classes=8, channels=1)
    for key in ("study", "objectives", "search", "proxy", "resources", "budgets"):
        assert getattr(again.study, key) == getattr(file.study, key)
    assert resolved_yaml(again) == resolved_yaml(file)
    assert set(read_document(again.path).data) >= set(Study.model_fields) - {"full_scale"}


# The schema


def test_the_schema_is_one_and_describes_every_key() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema
    axes = schema["properties"]["axes"]["properties"]
    assert {"K", "K[0]", "K[6]", "reparam[2]", "shortcut", "dw_ratio"} <= set(axes)
    assert not {"classes", "in_channels", "K[7]", "shortcut[7]", "drop_path[0]"} & set(axes)
    assert "Side of the large kernel" in axes["K"]["description"]
    undescribed = [name for name, key in schema["properties"].items() if not described(key, schema)]
    assert undescribed == []


def described(key: dict[str, Any], schema: dict[str, Any]) -> bool:
    refs = re.findall(r"#/\$defs/(\w+)", json.dumps(key))
    return "description" in key or any(schema["$defs"][ref].get("description") for ref in refs)


@pytest.mark.parametrize("text", [PLAIN, FULL], ids=["plain", "full"])
def test_the_schema_accepts_what_can_be_loaded(tmp_path: Path, text: str) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(read_document(written(tmp_path, text)).data)
    validator.validate(read_document(written(tmp_path, resolved_yaml(loaded(tmp_path, text)))).data)


@pytest.mark.parametrize(
    "change",
    [
        {"serch": {}},
        {"axes": {}},
        {"axes": {"Kernel": [3]}},
        {"axes": {"K": 3}},
        {"axes": {"K": ["3"]}},
        {"axes": {"K": {"low": 3}}},
        {"axes": {"shortcut": {"low": 0, "high": 1}}},
        {"axes": {"shortcut": [1]}},
        {"when": {"Kernel": "true"}},
        {"base": "replknet_nan"},
        {"base": {"Kernel": 3}},
        {"search": {"sampler": "tp"}},
        {"proxy": {"epochs": -1}},
        {"study": "../x"},
    ],
    ids=json.dumps,
)
def test_the_schema_marks_slips(tmp_path: Path, change: dict[str, Any]) -> None:
    data = read_document(written(tmp_path, PLAIN)).data | change
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(data)
    with pytest.raises(StudyError):
        loaded(tmp_path, write_yaml(data))
