"""The picture of a study's claims: drawn from its summary alone, legible, and never at the cost of the answer."""

import json
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from tiny_studies import INLINE, TINY, Played, called, gains, write_study

from harness.analysis.results import StudyResults, study_results
from harness.analysis.statistics import Verdict
from harness.analysis.study_reader import open_study_reader
from harness.analysis.summary import CLAIMS_PLOT_FILE, SUMMARY_FILES, remove_summary
from harness.report.claims import ClaimsSummary, read_claims_summary, summarize_claims
from harness.report.plots import claims as claims_plot
from harness.report.plots.claims import VERDICT_MARKS, draw_claims_figure, plot_claims
from harness.report.study import write_summary

ARMS = {"K=13, reparam=5": 1, "K=3": -1}
CLAIMS: list[dict[str, Any]] = [
    {
        "name": "larger",
        "says": "K=13 is ahead",
        "contrast": ARMS,
        "expect": "> 0",
        "ignore": 1,
        "paper": "1 in $2 (5 %)",
    },
    {"name": "alike", "says": "By no more than $2", "contrast": ARMS, "expect": "within 2"},
    {"name": "cheap", "says": "It costs less than twice", "metric": "log2(macs)", "contrast": ARMS, "expect": "< 1"},
    {"name": "unmeasured", "says": "It segments better", "metric": "latency_ms_p90", "contrast": ARMS, "expect": "> 0"},
]
MOST_BYTES = 120_000


@pytest.fixture(scope="module")
def claimed(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """The answer of a study with every kind of claim."""
    played = Played(tmp_path_factory.mktemp("claimed"), claims=CLAIMS, search={"seeds": 4})
    played.answer(gains(K13=6))
    with open_study_reader(played.path, played.workspace) as reader:
        return study_results(reader.file.study, reader.store, reader.trials, {}, reader.claims())


@pytest.fixture
def kept(claimed: StudyResults) -> ClaimsSummary:
    return summarize_claims(claimed)


def pixels(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def has_color(path: Path, color: str) -> bool:
    """Whether enough of a picture is of that colour to be more than the edge of something."""
    distance = np.abs(pixels(path).astype(int) - np.round(255 * np.array(to_rgb(color)))).max(axis=2)
    return int((distance <= 6).sum()) > 30


def texts(figure: Figure) -> dict[str, Any]:
    """The bounding box of each text on the page."""
    figure.canvas.draw()
    shown = [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_visible() and text.get_text()]
    return {f"{i}: {text.get_text()}": text.get_window_extent() for i, text in enumerate(shown)}


# From the summary alone


@pytest.mark.long
def test_a_summary_is_drawn_next_to_its_file(claimed: StudyResults, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_summary(tmp_path / name, claimed)
    result = called("plot", "one", "two/summary.json", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "") and result.stderr.count("written: ") == 2
    first, second = (tmp_path / name / CLAIMS_PLOT_FILE for name in ("one", "two"))
    drawn = pixels(first)
    assert min(drawn.shape[:2]) > 400 and len(np.unique(drawn.reshape(-1, 3), axis=0)) > 30
    assert first.stat().st_size < MOST_BYTES and np.array_equal(drawn, pixels(second))


def test_what_is_read_back_is_what_was_judged(claimed: StudyResults, kept: ClaimsSummary, tmp_path: Path) -> None:
    write_summary(tmp_path, claimed)
    assert read_claims_summary(tmp_path / SUMMARY_FILES[0]) == kept
    assert [claim.verdict for claim in kept.claims] == [result.verdict for result in claimed.claims]
    assert kept.claims[0].arms[0].values == tuple(claimed.claims[0].arm_values[0].values())
    assert "seeds 0, 1, 2, 3" in kept.conditions


# Legible


def test_the_page_has_all_texts_and_none_overlap(kept: ClaimsSummary) -> None:
    figure = draw_claims_figure(kept)
    boxes = texts(figure)
    page = figure.bbox
    for words in ("question: 4 claims", "cpu (test, 1 thread)", "torch 2.15.0", "K=13-13-13-13 reparam=5", "n = 4"):
        assert any(words in text for text in boxes), words
    for claim in kept.claims:
        assert any(text.endswith(f": {claim.name}") for text in boxes)
        assert any(claim.says in text.replace("\n", " ") for text in boxes)
    assert any("1 in $2 (5 %)" in text.replace("\n", " ") for text in boxes)
    for text, box in boxes.items():
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1, f"cut: {text}"
    for (one, a), (other, b) in combinations(boxes.items(), 2):
        assert not a.padded(-1).overlaps(b.padded(-1)), f"{one} | {other}"


def test_claims_without_pairing_are_named(kept: ClaimsSummary) -> None:
    unpaired = kept.model_copy(
        update={"claims": tuple(claim.model_copy(update={"pairing": "none"}) for claim in kept.claims)}
    )
    assert any(
        "expected > 0, unpaired (Welch)" in text.replace("\n", " ") for text in texts(draw_claims_figure(unpaired))
    )
    assert not any("paired" in text for text in texts(draw_claims_figure(kept)))


def test_every_scale_shows_zero_the_bound_and_all_values(kept: ClaimsSummary) -> None:
    panels = draw_claims_figure(kept).axes[-len(kept.claims) :]
    for axes, claim in zip(panels, kept.claims, strict=True):
        low, high = axes.get_xlim()
        for value in (0, *claim.expected.bounds, *claim.values, *(claim.interval or ())):
            assert low < value < high, claim.name


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_a_word_and_a_colour(kept: ClaimsSummary, verdict: Verdict, tmp_path: Path) -> None:
    one = kept.claims[0].model_copy(update={"verdict": verdict})
    shown = kept.model_copy(update={"claims": (one,)})
    plot_claims(tmp_path / "one.png", shown)
    assert has_color(tmp_path / "one.png", VERDICT_MARKS[verdict][0])
    others = [
        VERDICT_MARKS[other_verdict][0]
        for other_verdict in Verdict
        if other_verdict not in (verdict, Verdict.UNDECIDED)
    ]  # words are grey, too
    assert not any(has_color(tmp_path / "one.png", other) for other in others)
    assert any(text.endswith(f": {verdict}") for text in texts(draw_claims_figure(shown)))


def test_verdicts_differ_without_colour_too() -> None:
    assert (
        len({style[1:] for style in VERDICT_MARKS.values()})
        == len({style[0] for style in VERDICT_MARKS.values()})
        == len(Verdict)
    )


def test_claims_without_any_run_are_drawn_as_such(kept: ClaimsSummary) -> None:
    empty = {"effect": None, "interval": None, "p": None, "n": 0, "values": (), "missing": None}
    claims = tuple(
        claim.model_copy(update=empty | {"arms": tuple(arm.model_copy(update={"values": ()}) for arm in claim.arms)})
        for claim in kept.claims
    )
    figure = draw_claims_figure(kept.model_copy(update={"claims": claims}))
    assert len(figure.axes) == len(claims)
    assert sum("no seed that all arms have completed" in text for text in texts(figure)) == len(claims)


# With the answer


@pytest.fixture
def counted_study(tmp_path: Path) -> Path:
    """A study file that needs no training and has a claim."""
    claim = {"name": "dearer", "says": "Taps cost", "metric": "macs", "contrast": {"K=[5,5,3,3]": 1, "K=3": -1}}
    untrained = TINY["proxy"] | {"epochs": 0}
    claims = [claim | {"expect": "> 0"}]
    return write_study(
        tmp_path, TINY, proxy=untrained, objectives={"params": "minimize"}, claims=claims, search={"seeds": 1}
    )


def test_a_picture_that_fails_keeps_the_answer_and_is_drawn_the_next_time(
    counted_study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no room for\nthe axes")

    folder = counted_study.parent
    with monkeypatch.context() as broken:
        broken.setattr(claims_plot, "plot_claims", fails)
        result = called("run", "study.yaml", *INLINE, "--quiet", cwd=folder)
    assert result.returncode == 0 and "supported" in result.stdout and "Best network" in result.stdout
    assert result.stderr.strip() == "The claims could not be drawn: no room for the axes"
    results = folder / "results" / "tiny"
    assert {path.name for path in results.iterdir()} >= {*SUMMARY_FILES} and not (results / CLAIMS_PLOT_FILE).exists()
    again = called("run", "study.yaml", *INLINE, "--quiet", cwd=folder)
    assert again.stderr == "" and "The claims as a picture: results/tiny/claims.png" in again.stdout
    assert has_color(results / CLAIMS_PLOT_FILE, VERDICT_MARKS[Verdict.SUPPORTED][0])
    remove_summary(results)
    assert not {path.name for path in results.iterdir()} & {*SUMMARY_FILES, CLAIMS_PLOT_FILE}


def test_a_study_without_claims_has_no_picture(tmp_path: Path) -> None:
    proxy = TINY["proxy"] | {"epochs": 0}
    write_study(tmp_path, TINY, proxy=proxy, objectives={"params": "minimize"}, search={"seeds": 1})
    result = called("run", "study.yaml", *INLINE, "--quiet", cwd=tmp_path)
    assert result.returncode == 0 and "picture" not in result.stdout
    assert not (tmp_path / "results" / "tiny" / CLAIMS_PLOT_FILE).exists()


# Mistakes


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("nowhere/summary.json", ("can be read", "nowhere/summary.json")),
        ("empty", ("can be read", "empty/summary.json")),
        ("text.json", ("as this version writes it", "text.json", "harness show STUDY --json")),
        ("older", ("claims.0.arms: Field required", "Write it again")),
        ("odd", ("claims.0.expect", "must be `>`, `<` or `within`")),
        ("none", ("must have claims", "question")),
    ],
)
def test_mistakes_are_one_message(claimed: StudyResults, tmp_path: Path, named: str, words: tuple[str, ...]) -> None:
    for name in ("empty", "older", "odd", "none"):
        (tmp_path / name).mkdir()
    write_summary(tmp_path, claimed)
    values = json.loads((tmp_path / SUMMARY_FILES[0]).read_text())
    (tmp_path / "none" / SUMMARY_FILES[0]).write_text(json.dumps(values | {"claims": []}))
    values["claims"][0]["expect"] = "bigger"
    (tmp_path / "odd" / SUMMARY_FILES[0]).write_text(json.dumps(values))
    del values["claims"][0]["arms"], values["claims"][0]["expect"]
    values["claims"][0]["expect"] = "> 0"
    (tmp_path / "older" / SUMMARY_FILES[0]).write_text(json.dumps(values))
    shutil.copy(tmp_path / SUMMARY_FILES[1], tmp_path / "text.json")
    result = called("plot", named, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert "Traceback" not in result.stderr and all(word in result.stderr for word in words), result.stderr
