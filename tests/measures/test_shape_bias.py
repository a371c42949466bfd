"""Shape against texture: hand-made networks that see only one of the two, stimuli in folders, and the verb."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from tiny_runs import tiny_spec, with_
from tiny_studies import called
from torch import Tensor, nn

from harness.data.cue_conflict import SIXTEEN_CLASS_MEMBERS, SIXTEEN_CLASSES, find_stimuli
from harness.data.dataset import IMAGENET_MEAN, IMAGENET_STD, DataInfo, Dataset, Split
from harness.data.labels import IMAGENET_CLASSES
from harness.errors import DataError, UserError
from harness.measures.base import TrainedRun
from harness.measures.cue_conflict import CueConflictResult, classify_stimuli, to_sixteen
from harness.measures.shape_bias import count_decisions, shape_bias
from harness.models.build import build
from harness.models.spec.published import SHAPE_BIAS
from harness.models.weights import import_weights
from harness.report.shape_bias import format_share, interval_pct, shape_bias_line
from harness.storage.load_network import LoadedNetwork, WeightsOrigin

SIDE = 8
RECIPE = with_(rendering="textured", resolution=SIDE, measures=["shape_bias"])
SHAPE, TEXTURE = 0, 1

# On a data set: the upper half of each image tells the shape, the lower half the texture


class Reader(nn.Module):
    """Answers with the class that one half of the image tells, or always with a third."""

    def __init__(self, cue: int | None) -> None:
        super().__init__()
        self.cue = cue

    def forward(self, x: Tensor) -> Tensor:
        if self.cue is None:
            return nn.functional.one_hot(torch.full((len(x),), 3), 4).float()
        half = x.chunk(2, dim=2)[self.cue].mean(dim=(1, 2, 3))
        return nn.functional.one_hot((half * 255 / 10).round().long(), 4).float()


def halves(shapes: Sequence[int], textures: Sequence[int]) -> Split:
    images = np.zeros((len(shapes), 1, SIDE, SIDE), np.uint8)
    images[:, 0, : SIDE // 2] = 10 * np.array(shapes)[:, None, None]
    images[:, 0, SIDE // 2 :] = 10 * np.array(textures)[:, None, None]
    return Split(images, np.array(shapes, np.int64), cues=np.array(textures, np.int64))


def measured(model: nn.Module, conflict: Split) -> dict[str, float]:
    info = DataInfo(4, 1, ("disc", "ring", "star", "bar"))
    dataset = Dataset(info, conflict, conflict, mean=(0.0,), std=(1.0,), conflict=conflict)
    return dict(shape_bias(TrainedRun(model, dataset, RECIPE, torch.device("cpu"))))


CONFLICT = halves([0, 1, 2, 0, 1, 2], [1, 2, 0, 2, 0, 1])


@pytest.mark.parametrize(("cue", "bias"), [(SHAPE, 100.0), (TEXTURE, 0.0)])
def test_what_reads_one_cue_only_has_all_of_that_bias(cue: int, bias: float) -> None:
    metrics = measured(Reader(cue), CONFLICT)
    assert metrics["shape_bias_pct"] == bias
    assert (metrics["shape_decisions"], metrics["cue_decisions"]) == ((6, 0) if cue == SHAPE else (0, 6))
    assert [metrics[f"shape_bias_pct_{name}"] for name in ("disc", "ring", "star")] == [bias] * 3
    assert "shape_bias_pct_bar" not in metrics  # no image has that shape


def test_answers_of_a_third_class_are_no_decisions() -> None:
    metrics = measured(Reader(None), CONFLICT)
    assert metrics == {"shape_decisions": 0.0, "cue_decisions": 0.0}


def test_decisions_are_counted_by_hand() -> None:
    answers, shapes, cues = (np.array(labels) for labels in ([0, 1, 2, 1, 3], [0, 0, 0, 1, 2], [1, 1, 1, 1, 0]))
    decisions = count_decisions(answers, shapes, cues)
    assert (decisions.images, decisions.shape, decisions.cue, decisions.total) == (
        4,
        1,
        1,
        2,
    )  # the fourth has no conflict
    assert decisions.share_pct == 50.0


# The interval


def test_the_interval_is_wilsons() -> None:
    k, n, z = 43, 97, 1.959963984540054
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * (k * (n - k) / n + z**2 / 4) ** 0.5
    assert interval_pct(k, n) == pytest.approx((100 * (centre - half), 100 * (centre + half)))
    assert interval_pct(0, 0) is None and format_share(0, 0) == "-"


def test_a_runs_share_is_shown_with_its_interval() -> None:
    (line,) = shape_bias_line({"shape_decisions": 3.0, "cue_decisions": 1.0, "shape_bias_pct": 75.0})
    assert line == "75.0 % (30.1 to 95.4) of 4 decisions"
    assert not list(shape_bias_line({"latency_ms_p50": 3.0}))


# The sixteen classes


def test_the_members_belong_to_their_class() -> None:
    info = timm.data.ImageNetInfo()
    named = {name: [info.index_to_description(i) for i in members] for name, members in SIXTEEN_CLASS_MEMBERS.items()}
    words = {
        "airplane": "airliner",
        "bear": "bear",
        "bicycle": "bike|bicycle",
        "boat": "boat|canoe|yawl",
        "bottle": "bottle|jug",
        "car": "car|wagon|convertible",
        "cat": "cat",
        "chair": "chair|throne",
        "clock": "clock",
        "elephant": "elephant",
        "keyboard": "keyboard",
        "knife": "cleaver",
        "oven": "rotisserie",
        "truck": "truck|van|pickup",
    }
    for name, fit in words.items():
        assert all(any(word in output for word in fit.split("|")) for output in named[name]), (name, named[name])
    assert named["bird"][0].startswith("hen") and named["bird"][-1].startswith("king penguin")
    assert named["dog"][0].startswith("Japanese spaniel") and named["dog"][-1].startswith("Mexican hairless")


def test_no_class_of_imagenet_is_of_two_of_the_sixteen() -> None:
    members = [i for class_members in SIXTEEN_CLASS_MEMBERS.values() for i in class_members]
    assert len(members) == len(set(members)) == 207 and max(members) < IMAGENET_CLASSES
    assert len(SIXTEEN_CLASSES) == 16 and list(SIXTEEN_CLASSES) == sorted(SIXTEEN_CLASSES)
    assert [len(SIXTEEN_CLASS_MEMBERS[name]) for name in ("bird", "dog")] == [49, 109]


def test_the_probability_of_a_class_is_the_mean_over_its_members() -> None:
    probabilities = torch.zeros(1, IMAGENET_CLASSES)
    probabilities[0, 404], probabilities[0, 294] = 0.3, 0.7
    assert to_sixteen(probabilities)[0, :3].tolist() == pytest.approx([0.3, 0.175, 0.0])


# A folder of stimuli: red tells the shape, green the texture


class ColorReader(nn.Module):
    """For ImageNet-1K: answers with the class that the red or the green of an image tells."""

    def __init__(self, cue: int) -> None:
        super().__init__()
        self.cue = cue

    def forward(self, x: Tensor) -> Tensor:
        level = 255 * (x[:, self.cue].mean(dim=(1, 2)) * IMAGENET_STD[self.cue] + IMAGENET_MEAN[self.cue])
        members = torch.tensor([SIXTEEN_CLASS_MEMBERS[name][-1] for name in SIXTEEN_CLASSES])
        return 30.0 * nn.functional.one_hot(members[(level / 10).round().long()], IMAGENET_CLASSES).float()


def paint(folder: Path, name: str, shape: str, texture: str) -> None:
    color = (10 * SIXTEEN_CLASSES.index(shape), 10 * SIXTEEN_CLASSES.index(texture), 0)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), color).save(folder / name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five stimuli with a conflict, one without, one that is named otherwise, one that cannot be read."""
    root = tmp_path / "stimuli"
    paint(root, "cat/cat1-bicycle3.png", "cat", "bicycle")
    paint(root, "cat/cat2-truck10.png", "cat", "truck")
    paint(root, "0007_dog12-bird2.png", "dog", "bird")
    paint(root, "airplane1-oven1.png", "airplane", "oven")
    paint(root, "knife3-airplane1.png", "knife", "airplane")
    paint(root, "clock1-clock2.png", "clock", "clock")
    paint(root, "cat4_bicycle1.png", "cat", "bicycle")
    (root / "boat1-car1.png").write_bytes(b"no image")
    (root / "README.md").write_text("no stimulus")
    return root


def subject(model: nn.Module, **fields: object) -> LoadedNetwork:
    return LoadedNetwork(
        "mine", tiny_spec(classes=IMAGENET_CLASSES, in_channels=3, **fields), model, WeightsOrigin.FILE
    )


def decided(cue: int, folder: Path) -> CueConflictResult:
    return classify_stimuli(subject(ColorReader(cue)), folder, SIDE)


def test_stimuli_are_found_by_their_names(folder: Path) -> None:
    stimuli = find_stimuli(folder)
    pairs = {(SIXTEEN_CLASSES[stimulus.shape], SIXTEEN_CLASSES[stimulus.texture]) for stimulus in stimuli.conflicts}
    assert len(stimuli.conflicts) == 6 and ("dog", "bird") in pairs and ("boat", "car") in pairs
    assert stimuli.agreeing == 1 and [path.name for path in stimuli.misnamed] == ["cat4_bicycle1.png"]


@pytest.mark.parametrize(("cue", "share"), [(SHAPE, 100.0), (TEXTURE, 0.0)])
def test_a_network_for_imagenet_decides_on_stimuli(cue: int, share: float, folder: Path) -> None:
    result = decided(cue, folder)
    assert (result.whole.images, result.whole.total, result.unreadable) == (5, 5, 1)
    assert result.whole.share_pct == result.class_mean_pct == share
    assert result.classes["cat"].images == 2 and result.classes["bear"].share_pct is None


def test_the_mean_of_classes_weighs_them_alike(folder: Path) -> None:
    class Both(ColorReader):
        def forward(self, x: Tensor) -> Tensor:
            shape, texture = ColorReader(SHAPE)(x), ColorReader(TEXTURE)(x)
            is_cat = shape.argmax(1) == SIXTEEN_CLASS_MEMBERS["cat"][-1]
            return torch.where(is_cat[:, None], shape, texture)

    result = classify_stimuli(subject(Both(SHAPE)), folder, SIDE)
    assert result.whole.share_pct == 40.0  # two of five images
    assert result.class_mean_pct == 25.0  # one of four classes


@pytest.mark.parametrize("content", ["nothing", "misnamed", "agreeing", "no folder"])
def test_a_folder_without_stimuli_is_refused(content: str, tmp_path: Path) -> None:
    root = tmp_path / "stimuli"
    if content != "no folder":
        root.mkdir()
    if content == "misnamed":
        paint(root, "cat.png", "cat", "cat")
    if content == "agreeing":
        paint(root, "cat1-cat2.png", "cat", "cat")
    with pytest.raises(DataError, match=r"cat1-bicycle3\.png") as refused:
        find_stimuli(root)
    assert ("1 images are named otherwise, cat.png first" in str(refused.value)) == (content == "misnamed")


def test_stimuli_that_all_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "boat1-car1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="can be read"):
        decided(SHAPE, tmp_path)


def test_networks_that_have_no_such_bias_are_refused(folder: Path) -> None:
    with pytest.raises(UserError, match="1000 classes"):
        classify_stimuli(LoadedNetwork("mine", tiny_spec(), build(tiny_spec()), WeightsOrigin.RUN), folder, SIDE)
    with pytest.raises(UserError, match="random weights"):
        classify_stimuli(LoadedNetwork("mine", tiny_spec(), build(tiny_spec()), WeightsOrigin.RANDOM), folder, SIDE)


# The verb


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    spec = tiny_spec(classes=IMAGENET_CLASSES, in_channels=3)
    torch.save(build(spec, seed=0).state_dict(), tmp_path / "net.pth")
    import_weights(tmp_path / "net.pth", tmp_path / "net.safetensors", spec)
    return tmp_path / "net.safetensors"


def test_the_verb_prints_a_table_and_json(weights: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ("shape-bias", weights, "--stimuli", folder, "--resolution", "32")
    result = called(*arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "Shape bias of net" in result.stdout and "RepLKNet-31B, ImageNet-22K" in result.stdout
    assert "41.1 %" in result.stdout and "humans" in result.stdout and "figure 5" in result.stdout
    assert "left out: 1 image not named like cat1-bicycle3.png (the first is cat4_bicycle1.png)" in result.stdout
    values = json.loads(called(*arguments, "--json", cwd=tmp_path).stdout)
    assert values["left_out"] == {"misnamed": 1, "without_conflict": 1, "unreadable": 1}
    assert values["images"] == 5 and list(values["classes"]) == list(SIXTEEN_CLASSES)
    assert values["shape_decisions"] == sum(
        class_result["shape_decisions"] for class_result in values["classes"].values()
    )
    assert len(values["published"]) == len(SHAPE_BIAS) == 7
    assert values["environment"]["operator"] and values["environment"]["operator"] in result.stdout


def test_the_command_refuses_with_a_message(weights: Path, folder: Path, tmp_path: Path) -> None:
    nowhere = called("shape-bias", weights, "--stimuli", tmp_path / "nowhere", cwd=tmp_path)
    assert nowhere.returncode == 2 and "existing folder" in nowhere.stderr
    untrained = called("shape-bias", "replknet_31b", "--stimuli", folder, cwd=tmp_path)
    assert untrained.returncode == 2 and "harness weights import" in untrained.stderr
