"""One network in detail, and all presets, with their published values."""

import json
from pathlib import Path

import pytest
import yaml
from tiny_studies import TINY, Played, called, text_of, write_study

from harness.config.network_file import dump_network_spec
from harness.models.spec.presets import PRESETS
from harness.models.spec.published import PUBLISHED, preset_of, published, resolutions
from harness.report.network import network_values, network_view, presets_view

# Published figures


def test_figures_belong_to_the_layers_whatever_the_stochastic_depth() -> None:
    assert {row.preset for row in PUBLISHED} <= set(PRESETS)
    spec = PRESETS["replknet_31b"].replace(drop_path=0.5)
    assert preset_of(spec) == "replknet_31b" and len(published(spec)) == 5
    assert published(spec.replace(classes=10)) == published(spec.replace(K=15)) == ()


# One network


def test_show_of_31b_has_both_forms_and_the_papers_figures(tmp_path: Path) -> None:
    result = called("show", "replknet_31b", "--resolution", "224", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["stage", "3", "14", "18", "512", "27+5", "54.3M", "54.1M", "10.6G", "10.6G", "9.60G", "12.5%"] in lines
    assert ["all", "79.9M", "79.5M", "15.4G", "15.4G", "14.0G", "15.9%"] in lines
    assert ["in", "training", "79,864,168", "15.431G"] in lines
    assert ["merged", "79,527,272", "15.354G"] in lines
    assert ["batch", "norms", "folded", "79,388,776", "15.354G"] in lines
    assert "arXiv 2203.06717, table 5       79.3M    15.3G    83.07  ImageNet-1K, 120 epochs" in result.stdout


def test_the_same_in_json_to_the_unit(tmp_path: Path) -> None:
    values = json.loads(called("show", "replknet_31b", "--resolution", "224", "--json", cwd=tmp_path).stdout)
    assert [values[form]["params"] for form in ("training", "merged")] == [79_864_168, 79_527_272]
    assert values["merged"]["params_folded"] == 79_388_776
    assert values["spec"] == PRESETS["replknet_31b"].canonical()
    kernels = [part["large_kernels"]["merged"] for part in values["parts"]]
    nominal, in_bounds = (sum(kernel[key] for kernel in kernels) for key in ("macs", "macs_in_bounds"))
    assert round(100 * in_bounds / nominal, 1) == 45.7
    assert {row["resolution"] for row in values["published"]} == {224, 384}


@pytest.mark.parametrize("name", PRESETS)
def test_parts_add_up_for_every_preset(name: str) -> None:
    spec = PRESETS[name]
    values = network_values(spec, resolutions(spec)[0])
    for form in ("training", "merged"):
        for key, total in values[form].items():
            assert sum(part[form][key] for part in values["parts"]) == total
    text = text_of(network_view(spec, resolutions(spec)[0]))
    assert f"{values['merged']['params']:,}" in text
    assert [f"stage {i + 1}" in text for i in range(len(spec.B) + 1)] == [True] * len(spec.B) + [False]


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("replknet")])
def test_the_tables_fit_80_columns(name: str) -> None:
    text = text_of(network_view(PRESETS[name], resolutions(PRESETS[name])[0]), width=80)
    assert "…" not in text and max(len(line) for line in text.splitlines()) <= 80


def test_a_spec_file_is_shown_like_the_preset_that_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(dump_network_spec(PRESETS["replknet_31l"]))
    (tmp_path / "dilated.yaml").write_text(
        "{B: 1, C: 8, K: [3, 5, 5, 3], dilation: [1, 1, 2, 1], reparam: [3, 3, null, 3]}"
    )
    assert called("show", "mine.yaml", cwd=tmp_path).stdout == called("show", "replknet_31l", cwd=tmp_path).stdout
    output = called("show", "dilated.yaml", cwd=tmp_path).stdout
    assert output.startswith("replknet at 224 px") and "5+3" in output and "5 d2" in output


def test_the_side_of_the_images_is_that_of_the_paper_or_of_the_stem(tmp_path: Path) -> None:
    sides = {name: resolutions(PRESETS[name]) for name in ("replknet_31b", "replknet_xl", "replknet_nano")}
    assert sides == {"replknet_31b": (224, 384), "replknet_xl": (320,), "replknet_nano": (64,)}
    assert "at 320 px" in called("show", "replknet_xl", cwd=tmp_path).stdout
    assert "published at 320 px, too" in called("show", "replknet_xl", "--resolution", "224", cwd=tmp_path).stdout


def test_a_study_is_distinguished_from_a_network_by_its_keys(played: Played, tmp_path: Path) -> None:
    folder = played.path.parent
    assert "3-3-3-3" in called("show", "study.yaml", cwd=folder).stdout
    trial = called("show", "study.yaml", "1", cwd=folder).stdout
    assert "replknet at 64 px" in trial and "batch norms folded" in trial and "seed 1: complete" in trial
    network = yaml.safe_load(called("best", "study.yaml", cwd=folder).stdout)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(network))
    assert called("show", "study.yaml", "--resolution", "16", cwd=tmp_path).stdout.startswith("replknet at 16 px")


# All presets


def test_presets_lists_all_with_the_values_of_the_paper(tmp_path: Path) -> None:
    result = called("presets", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert set(PRESETS) <= {line[0] for line in lines if line}
    assert ["replknet_31b", "224", "79.9M", "79.5M", "79.4M", "79.3M", "15.4G", "15.4G", "15.3G"] in lines
    assert ["replknet_31b", "384", "79.9M", "79.5M", "79.4M", "79M", "45.3G", "45.1G", "45.1G"] in lines
    text = text_of(presets_view(None), width=80)
    assert "…" not in text and max(len(line) for line in text.splitlines()) <= 80


def test_presets_at_one_side_and_in_json(tmp_path: Path) -> None:
    values = json.loads(called("presets", "--resolution", "384", "--json", cwd=tmp_path).stdout)
    assert [row["preset"] for row in values] == list(PRESETS)
    assert {row["resolution"] for row in values} == {384}


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "replknet_31"), ("replknet_31", "Did you mean `replknet_31", "Presets: ")),
        (("show", "nowhere.yaml"), ("must exist", "nowhere.yaml")),
        (("show", "."), ("must be that of a training",)),
        (("show", "replknet_31b", "--resolution", "0"), ("`--resolution` must be from 1 to 4096", "but got 0")),
        (("show", "replknet_31b", "--resolution", "4097"), ("but got 4097",)),
        (("show", "replknet_31b", "--resolution", "big"), ("invalid int value",)),
        (("show", "replknet_31b", "3"), ("TRIAL", "but got 3")),
        (("show", "convnext_t", "--resolution", "20"), ("32 pixels", "20")),
        (("show", "even.yaml"), ("even.yaml:3", "odd", "Try 3 or 5")),
        (("show", "short.yaml"), ("short.yaml", "one value per stage, 4 in all")),
        (("show", "half.yaml"), ("half.yaml", "`K` is required")),
        (("show", "study.yaml", "--resolution", "64"), ("`--resolution`", "but got 64")),
        (("presets", "--resolution", "-1"), ("but got -1",)),
    ],
)
def test_mistakes_are_one_message(tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    (tmp_path / "even.yaml").write_text("B: 1\nC: 8\nK: 4\n")
    (tmp_path / "short.yaml").write_text("B: [1, 1]\nC: 8\nK: 3\n")
    (tmp_path / "half.yaml").write_text("B: 1\nC: 8\n")
    write_study(tmp_path, TINY)
    result = called(*arguments, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr and all(word in result.stderr for word in words), result.stderr
