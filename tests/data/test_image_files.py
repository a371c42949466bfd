"""Image files of all kinds: what becomes of them, and the reason where nothing does."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from folder_data import pixels, write_folder, write_folder_study
from PIL import Image

from harness.cli import main
from harness.config.recipes.proxy import ProxyRecipe
from harness.data import image_file, load
from harness.data.image_file import Unreadable, ValueRange, decode_image, read_full_image, read_value_range
from harness.errors import DataError

RAMP = np.arange(256).reshape(16, 16)


def of(root: Path, **fields: object) -> ProxyRecipe:
    return ProxyRecipe.model_validate(
        {"dataset": "imagefolder", "root": str(root), "resolution": 16, "resample": "none", **fields}
    )


def shown(path: Path, levels: ValueRange | None = None) -> np.ndarray:
    """(H, W) of a grey picture."""
    image = np.asarray(decode_image(path, levels).image)
    assert (image == image[..., :1]).all()
    return image[..., 0]


# --- more than 8 bits


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_16_bit_files_are_scaled_by_the_bits_in_use(tmp_path: Path, bits: int) -> None:
    Image.fromarray((RAMP << (bits - 8)).astype(np.uint16)).save(tmp_path / "x.png")
    assert np.array_equal(shown(tmp_path / "x.png"), RAMP)
    assert np.array_equal(shown(tmp_path / "x.png", read_value_range([tmp_path / "x.png"])), RAMP)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((RAMP / 255).astype(np.float32), RAMP),
        (RAMP.astype(np.float32), RAMP),
        ((RAMP * 1e-4).astype(np.float32), RAMP),
        ((RAMP - 128.0).astype(np.float32), RAMP),
        (RAMP.astype(np.int32), RAMP),
        ((RAMP - 1000).astype(np.int32), RAMP),
        ((RAMP * 16).astype(np.int32), RAMP),
    ],
)
def test_float_and_integer_tiffs_are_scaled_by_their_range(
    tmp_path: Path, values: np.ndarray, expected: np.ndarray
) -> None:
    Image.fromarray(values).save(tmp_path / "x.tif")
    assert np.abs(shown(tmp_path / "x.tif").astype(int) - expected).max() <= 1


def test_the_range_is_that_of_the_whole_data_set_and_not_of_each_image(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set")
    for split, factor in (("train", 1), ("val", 4)):
        for path in (root / split).rglob("*.png"):
            grey = pixels(0, 3)[..., 0].astype(np.uint16) * factor
            Image.fromarray(grey).save(path)
    dataset = load(of(root), tmp_path / "cache", 0)
    assert dataset.val.images[:].mean() == pytest.approx(4 * dataset.train.images[:].mean(), rel=0.05)
    assert any("integer values from" in note and "whole data set" in note for note in dataset.notes)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_study_on_files_of_few_bits_sees_more_than_a_few_levels(tmp_path: Path, dtype: type) -> None:
    root = write_folder(tmp_path / "set", ending="tif")
    for path in root.rglob("*.tif"):
        with Image.open(path) as image:
            grey = np.asarray(image.convert("L"))
        Image.fromarray((grey / 255 if dtype is np.float32 else grey).astype(dtype)).save(path)
    assert len(np.unique(load(of(root), tmp_path / "cache", 0).train.images[:])) > 50


def test_values_that_are_not_finite_are_no_image(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(Unreadable, match="not finite"):
        decode_image(tmp_path / "x.tif")


def test_16_bit_colors_of_few_bits_are_refused(tmp_path: Path) -> None:
    """Pillow cannot write them: a PNG of one row, by hand."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def write(path: Path, most: int) -> None:
        row = np.linspace(0, most, 30).astype(">u2").tobytes()
        head = struct.pack(">IIBBBBB", 10, 1, 16, 2, 0, 0, 0)
        data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)

    write(tmp_path / "full.png", 65535)
    write(tmp_path / "dark.png", 4095)
    assert read_value_range([tmp_path / "full.png", tmp_path / "dark.png"]) == ValueRange()
    with pytest.raises(DataError, match=r"16-bit color images.*values below 4096.*dark\.png"):
        read_value_range([tmp_path / "dark.png"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_images_that_are_all_alike_are_refused_with_their_value(tmp_path: Path, split: str) -> None:
    root = write_folder(tmp_path / "set")
    for path in (root / split).rglob("*.png"):
        Image.new("RGBA", (20, 20), (7, 7, 7, 90)).save(path)
    with pytest.raises(DataError, match=r"more than one value, but got '7 in all pixels of channel 0 of 16 images'"):
        load(of(root), tmp_path / "cache", 0)
    assert not list((tmp_path / "cache").glob("imagefolder-*/"))


# --- what is left out of a file is noted


def test_frames_and_transparency_are_noted(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set")
    frames = [Image.fromarray(pixels(0, i)) for i in range(3)]
    frames[0].save(root / "train" / "a" / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(root / "train" / "a" / "pages.tif", save_all=True, append_images=frames[1:])
    clear = frames[0].convert("RGBA")
    clear.putalpha(100)
    clear.save(root / "val" / "b" / "clear.png")
    frames[0].convert("RGBA").save(root / "val" / "b" / "opaque.png")
    notes = load(of(root), tmp_path / "cache", 0).notes
    assert [
        note for note in notes if "2 of the training images have more than one frame" in note and "a/pages.tif" in note
    ]
    assert [
        note for note in notes if "1 of the validation images has transparent pixels" in note and "b/clear.png" in note
    ]
    assert len(notes) == 2


def test_a_damaged_exif_costs_no_image(tmp_path: Path) -> None:
    Image.fromarray(pixels(0, 0)).save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert read_full_image(tmp_path / "x.jpg") is not None


# --- why a file gives no image


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(0, 0, (64, 64))).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


REASONS: dict[str, bytes] = {
    "an empty file": b"",
    "not an image": b"<!DOCTYPE html><html>404</html>",
    "truncated": jpeg()[:900],
}


@pytest.mark.parametrize(("reason", "content"), REASONS.items())
def test_the_reason_is_named(tmp_path: Path, reason: str, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(Unreadable, match=reason):
        decode_image(tmp_path / "x.jpg")
    assert read_full_image(tmp_path / "x.jpg") is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "permission denied"),
        (OSError(5, "Input/output error"), r"not given out by the file system \(Input/output error\)"),
        (MemoryError(), "too large for the memory"),
        (OSError("broken data stream when reading image file"), "damaged"),
        (ValueError("conversion from LAB to RGB not supported"), "of an unsupported kind"),
    ],
)
def test_what_the_system_refuses_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def refusing(_: object) -> None:
        raise error

    monkeypatch.setattr(Image, "open", refusing)
    with pytest.raises(Unreadable, match=reason):
        decode_image(tmp_path / "x.jpg")


def test_large_images_are_read_without_a_warning_and_the_limit_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    Image.fromarray(pixels(0, 0)).save(tmp_path / "x.png")
    assert decode_image(tmp_path / "x.png").image.size == (20, 20)
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(image_file, "MAX_PIXELS", 300)
    with pytest.raises(Unreadable, match="too large"):
        decode_image(tmp_path / "x.png")
    assert Image.MAX_IMAGE_PIXELS == 100


# --- how much may be lost


def damage(root: Path, split: str, count: int) -> None:
    for path in sorted((root / split / "a").iterdir())[:count]:
        path.write_bytes(path.read_bytes()[:60])


def test_too_many_lost_images_are_an_error_with_the_reasons(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "set")
    damage(root, "val", 3)
    (root / "val" / "b" / "0.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"at most 10 % of the validation images.*4 of 16") as caught:
        load(of(root), tmp_path / "cache", 0)
    output = str(caught.value)
    assert "3 truncated (a/0.png, a/1.png, a/2.png)" in output and "1 an empty file (b/0.png)" in output


def test_a_result_states_how_many_images_it_is_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, results = write_folder(tmp_path / "set"), tmp_path / "r"
    damage(root, "val", 2)
    path = write_folder_study(tmp_path / "s.yaml", root)
    expected = (
        "16 training images and 14 validation images",
        "2 of the validation images could not be read",
        "a/0.png",
    )
    outputs: list[str] = []

    def append_output(command: list[str]) -> None:
        assert main(command) == 0
        outputs.append(" ".join(capsys.readouterr().out.split()))

    append_output(["run", str(path), "--results", str(results), "--executor", "inline"])
    for verb in (["show"], ["status"], ["show", "--json"], ["status", "--json"]):
        append_output([verb[0], str(path), "--results", str(results), *verb[1:]])
    outputs.append((results / "s" / "summary.json").read_text())
    outputs.append(" ".join((results / "s" / "summary.txt").read_text().split()))
    append_output(
        [
            "run",
            str(write_folder_study(tmp_path / "again.yaml", root)),
            "--results",
            str(results),
            "--executor",
            "inline",
        ]
    )
    for text in outputs:
        assert all(part in text for part in expected), text
    append_output(["show", str(path), "0", "--results", str(results)])
    assert "2 of the validation images could not be read" in outputs[-1] and "val_images 14" in outputs[-1]


def test_a_study_with_too_many_lost_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folder(tmp_path / "set")
    damage(root, "val", 5)
    path = write_folder_study(tmp_path / "s.yaml", root)
    assert main(["run", str(path), "--results", str(tmp_path / "r"), "--executor", "inline"]) == 2
    assert not (tmp_path / "r").exists()
    captured = capsys.readouterr()
    assert "5 of 16" in captured.out + captured.err and "truncated" in captured.out + captured.err
