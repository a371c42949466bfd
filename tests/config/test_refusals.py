"""What no run can give is refused when the study is read: with rule, value, place and remedy, and nothing written."""

import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from folder_data import write_folder
from tiny_runs import tiny_run, with_
from tiny_studies import BRIEF, SCRIPTED, TINY, called, files_of, write_study

from harness.config.formula import Formula
from harness.config.measures import ALWAYS_MEASURED as ALWAYS_NAMES
from harness.config.measures import MEASURED_ON_DEMAND as ON_DEMAND_NAMES
from harness.config.measures import TRANSFER_METRICS, is_among, metrics_of
from harness.config.recipes.proxy import ProxyRecipe, Transfer
from harness.config.study import Study
from harness.config.study_file import load_study
from harness.data import load
from harness.errors import StudyError
from harness.measures import ALWAYS_MEASURES, ON_DEMAND_MEASURES
from harness.measures.base import TrainedRun
from harness.models.build import build

CLAIM: dict[str, Any] = {"name": "c", "says": "s", "contrast": {"K=[5,5,3,3]": 1, "K=3": -1}, "expect": "> 0"}
PROXY = TINY["proxy"]
MIOU = {"miou": "maximize"}
BROKEN: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("objective", {"objectives": {"latency_ms_p5": "minimize"}}, ("objectives.latency_ms_p5", "latency_ms_p50")),
    ("direction", {"objectives": {"top1": "minimize"}}, ("must be maximize", "minimize")),
    ("unasked measure", {"objectives": {"erf_log_r50_pct": "maximize"}}, ("measures: [erf]",)),
    ("unasked transfer", {"objectives": {"miou": "maximize"}}, ("transfer: {head: deeplabv3plus}",)),
    ("metric", {"claims": [CLAIM | {"metric": "top2"}]}, ("claims[0].metric", "top2", "Did you mean `top1`?")),
    ("formula", {"claims": [CLAIM | {"metric": "ap - top1"}]}, ("claims[0].metric", "transfer: {head: fcos}")),
    ("endless", {"claims": [CLAIM | {"metric": "top1 + 0*3999999**3999999"}]}, ("no finite value",)),
    ("constant", {"claims": [CLAIM | {"metric": "0*top1"}]}, ("does not depend on any metric",)),
    ("gpus", {"resources": {"gpus": 2}}, ("resources.gpus", "2", "one device")),
    ("float16", {"proxy": PROXY | {"precision": "float16"}}, ("proxy.precision", "float16", "bfloat16")),
    ("gpu metric", {"objectives": {"peak_gpu_memory_bytes": "minimize"}}, ("peak_gpu_memory_bytes", "CPU")),
    ("quick", {"quick": {"proxy": {"epochs": "few"}}}, ("In the profile `quick`", "epochs")),
    ("quick key", {"quick": {"proxi": {}}}, ("In the profile `quick`", "proxi")),
    ("batch", {"proxy": PROXY | {"batch_size": 512}}, ("proxy.batch_size", "512", "train_size")),
    ("all batch", {"proxy": PROXY | {"batch_size": 4096, "train_size": None}}, ("proxy.batch_size", "4096", "2,000")),
    (
        "transfer batch",
        {"proxy": PROXY | {"train_size": 12, "transfer": {"batch_size": 13}}},
        ("proxy.transfer.batch_size", "13", "`proxy.train_size` (12)", "Lower it."),
    ),
    (
        "untrained transfer batch",
        {"proxy": PROXY | {"epochs": 0, "train_size": None, "transfer": {"batch_size": 2001}}, "objectives": MIOU},
        ("proxy.transfer.batch_size", "2001", "2,000 training images"),
    ),
    (
        "cues",
        {"proxy": PROXY | {"rendering": "contours", "cue_correlation": 0.5}},
        ("proxy.cue_correlation", "textured"),
    ),
    ("root", {"proxy": PROXY | {"root": "images"}}, ("proxy.root", "generated")),
    ("pruner", {"proxy": PROXY | {"epochs": 1}, "search": {"pruner": "median"}}, ("search.pruner", "median")),
    ("processors", {"resources": {"cpus": 4000}}, ("resources.cpus", "4000", "processors")),
    ("trials", {"search": {"trials": 3}}, ("search.trials", "grid")),
    ("class", {"proxy": PROXY | {"transfer": {}}, "objectives": {"iou_cat": "maximize"}}, ("iou_cat", "Classes: ")),
]


@pytest.mark.parametrize("flags", [["--dry-run"], []], ids=["dry run", "run"])
@pytest.mark.parametrize(("keys", "messages"), [case[1:] for case in BROKEN], ids=[case[0] for case in BROKEN])
def test_run_and_dry_run_refuse_alike(
    tmp_path: Path, keys: dict[str, Any], messages: tuple[str, ...], flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.cli.study_run.has_gpu", lambda: False)
    path = write_study(tmp_path, TINY, **keys)
    before = files_of(tmp_path)
    start = time.monotonic()
    result = called("run", path, *flags, cwd=tmp_path)
    assert result.returncode == 2, result.stderr
    assert all(text in result.stderr for text in messages), result.stderr
    assert "study.yaml:" in result.stderr and "Traceback" not in result.stderr
    assert files_of(tmp_path) == before and not result.stdout
    assert time.monotonic() - start < 30


@pytest.mark.parametrize("flags", [["--dry-run"], []], ids=["dry run", "run"])
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("batch_size", "must be at most the 12 training images of the data set"),
        ("train_size", "must be at most the 12 training images of the data set"),
        ("val_size", "must be at most the 12 validation images of the data set"),
        ("final_val_size", "must be at most the 12 validation images of the data set"),
    ],
)
def test_more_images_than_a_folder_has_are_refused_alike(
    tmp_path: Path, key: str, message: str, flags: list[str]
) -> None:
    write_folder(tmp_path / "pets", count=6)
    proxy = {"dataset": "imagefolder", "root": "pets", "resolution": 16, "epochs": 2, "batch_size": 4} | {key: 13}
    write_study(tmp_path, TINY, proxy=proxy)
    before = files_of(tmp_path)
    result = called("run", "study.yaml", *flags, "--executor", "inline", cwd=tmp_path)
    assert result.returncode == 2 and f"`proxy.{key}` {message}" in result.stderr and "13" in result.stderr, (
        result.stderr
    )
    assert "study.yaml:" in result.stderr and files_of(tmp_path) == before and not result.stdout


def test_a_study_that_changed_is_refused_by_a_dry_run_too(tmp_path: Path) -> None:
    write_study(tmp_path, TINY, proxy=BRIEF)
    assert called("run", "study.yaml", "--executor", "inline", "--quiet", cwd=tmp_path).returncode == 0
    write_study(tmp_path, TINY, proxy=BRIEF | {"epochs": 3})
    results = [
        called("run", "study.yaml", *flags, "--executor", "inline", cwd=tmp_path) for flags in ([], ["--dry-run"])
    ]
    assert results[0].returncode == results[1].returncode == 2
    assert results[0].stderr == results[1].stderr and "`proxy.epochs` from 2 to 3" in results[0].stderr


@pytest.mark.long
def test_a_dry_run_tells_the_price_of_growth(tmp_path: Path) -> None:
    write_study(tmp_path, TINY, claims=[CLAIM], proxy=BRIEF)
    assert called("run", "study.yaml", "--executor", "inline", "--quiet", cwd=tmp_path).returncode == 0
    write_study(tmp_path, TINY, claims=[CLAIM, CLAIM | {"name": "new"}], search={"seeds": 4}, proxy=BRIEF)
    result = called("run", "study.yaml", "--dry-run", "--executor", "inline", cwd=tmp_path)
    text = " ".join(result.stdout.split())
    assert "2 configurations, 8 runs, of which the store has 4; 4 to train" in text
    assert "the study grows: `search.seeds` from 2 to 4" in text and "the claim `new`" in text
    assert "c: its verdict would be exploratory, since the plan was stretched after its last look, at 2 seeds" in text
    assert "new: its verdict would be exploratory, since the claim was added after 4 runs" in text
    assert called("status", "study.yaml", cwd=tmp_path).returncode == 0


# The names that a recipe yields


@pytest.mark.parametrize("measure", [*ALWAYS_MEASURES, *ON_DEMAND_MEASURES])
def test_the_table_of_metrics_has_what_each_measure_yields(tmp_path: Path, measure: str) -> None:
    rendering = "textured" if measure == "shape_bias" else "contours"
    recipe = with_(measures=[measure] if measure in ON_DEMAND_MEASURES else [], rendering=rendering)
    run = tiny_run(recipe=recipe)
    dataset = load(recipe, tmp_path, 0)
    model = build(run.spec.replace(in_channels=dataset.info.channels, classes=dataset.info.classes)).eval()
    metrics = {**ALWAYS_MEASURES, **ON_DEMAND_MEASURES}[measure](
        TrainedRun(model, dataset, recipe, torch.device("cpu"))
    )
    names = {name for name, _ in metrics}
    listed = {**ALWAYS_NAMES, **ON_DEMAND_NAMES}[measure]
    assert names and all(is_among(name, listed, dataset.info.names) for name in names)
    assert all(is_among(name, metrics_of(recipe, device="cpu")) for name in names)


def test_the_tables_of_metrics_have_every_measure_and_transfer() -> None:
    from harness.training.transfer import TRANSFER_TASKS

    assert list(ALWAYS_NAMES) == list(ALWAYS_MEASURES) and list(ON_DEMAND_NAMES) == list(ON_DEMAND_MEASURES)
    assert list(TRANSFER_METRICS) == list(TRANSFER_TASKS)


def test_what_a_recipe_yields_follows_from_it() -> None:
    assert "top1" in metrics_of(ProxyRecipe()) and "top1" not in metrics_of(ProxyRecipe(epochs=0))
    assert is_among("ap_star", metrics_of(ProxyRecipe(transfer=Transfer(head="fcos"))))
    assert not is_among("ap_star", metrics_of(ProxyRecipe(transfer=Transfer())))
    assert not is_among("iou_cat", metrics_of(ProxyRecipe(transfer=Transfer())), ("star",))
    assert "peak_gpu_memory_bytes" not in metrics_of(ProxyRecipe(), device="cpu")


# Formulas


@pytest.mark.parametrize(
    "text",
    ["top1 + 0*3999999**3999999", "9**9**9**9 * top1", "log(-1) + top1", "top1 / 0", "top1 - top1", "macs ** 999999"],
)
def test_a_formula_without_a_value_is_refused_at_once(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(StudyError, match=r"no finite value|does not depend"):
        Formula(text).require_value()
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "text", ["top1", "-log(latency_ms_p50 / macs)", "sqrt(top1 - 90)", "log2(top1) ** 2", "1 / (1 - top1)"]
)
def test_a_formula_with_a_value_is_taken(text: str) -> None:
    Formula(text).require_value()


# The quick profile


def test_the_documented_quick_profile_is_accepted(tmp_path: Path) -> None:
    description = Study.model_fields["quick"].description or ""
    match = re.search(r"`(\{.*\})`", description)
    assert match is not None
    base = {"study": "first", "base": "replknet_nano", "axes": {"K": [3, 7]}, "quick": yaml.safe_load(match[1])}
    assert load_study(write_study(tmp_path, base), is_quick=True).study.study == "first_quick"
    with pytest.raises(StudyError) as refusal:
        load_study(write_study(tmp_path, {key: value for key, value in base.items() if key != "quick"}), is_quick=True)
    example = re.search(r"quick: (\{.*\})`", str(refusal.value))
    assert example is not None and yaml.safe_load(example[1]) == base["quick"]


def test_the_place_of_a_broken_quick_profile_is_its_own(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        "study: a\nbase: replknet_nano\naxes: {K: [3, 7]}\nproxy: {epochs: 4}\n"
        "quick:\n  proxy:\n    schedule: {warmup_epochs: 4}\n"
    )
    with pytest.raises(StudyError, match=r"In the profile `quick`: .*study\.yaml:[67]\)"):
        load_study(path)


def test_a_key_at_fault_brings_no_other_error(tmp_path: Path) -> None:
    proxy = PROXY | {"measures": ["erf"], "epochs": "few"}
    with pytest.raises(StudyError) as refusal:
        load_study(write_study(tmp_path, TINY, proxy=proxy, objectives={"erf_log_r50_pct": "maximize"}))
    assert "`proxy.epochs` must be a whole number" in str(refusal.value)
    assert "objectives" not in str(refusal.value)


def test_scripted_studies_are_sound(tmp_path: Path) -> None:
    load_study(write_study(tmp_path, SCRIPTED))
