"""Decoding of an image file to 8-bit RGB, or the reason why it cannot be decoded.

Gray, palette, CMYK and transparent images become RGB as Pillow converts them (colors below transparency are kept), and
images are turned according to their EXIF. Images of more than 8 bits are scaled by the range of the whole data set
(`ValueRange`), because the mode of a file does not show how many of its bits are in use.
"""

import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.data.subsets import center_square
from harness.data.threads import map_in_threads
from harness.errors import DataError

MAX_PIXELS = 500_000_000
"""Above this an image is refused. Pillow's own limit (179 million) is meant for untrusted files."""
LARGE_PIXELS = 64_000_000
"""Above this, images are decoded one at a time, which bounds the memory."""
DEPTHS = (8, 10, 12, 14, 16, 24, 31)
"""Bits per value of cameras and scanners; the smallest one that holds all values of a data set is used."""
WHITE_VALUES = (1.0, 255.0, 65535.0)
"""Conventional values of white in floating-point images."""
SAMPLE = 256
"""Number of files of a large set that are read first."""
MIN_16BIT = 64
"""Minimum high byte of the brightest value of 16-bit color images, of which Pillow keeps only that byte."""

TURNED_SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

READ_ERRORS = (OSError, EOFError, ValueError, SyntaxError, struct.error, MemoryError, Image.DecompressionBombError)
"""Exceptions that Pillow raises for files that it cannot decode."""


class Unreadable(Exception):
    """A file that cannot be decoded; the text is a short reason, without the file's name."""


class UnreadableFile(NamedTuple):
    """A file that could not be read as an image, with the reason."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class ValueRange:
    """The range of the values of images with more than 8 bits, over a whole data set."""

    whole: tuple[int, int] | None = None
    """Minimum and maximum value of integer images; None if there are none."""
    real: tuple[float, float] | None = None
    """Minimum and maximum value of floating-point images; None if there are none."""

    @property
    def about(self) -> str | None:
        """The ranges as a note; None if all images have 8 bits."""
        named = (("integer", self.whole), ("floating-point", self.real))
        parts = [f"{kind} values from {ends[0]:g} to {ends[1]:g}" for kind, ends in named if ends is not None]
        return f"images of more than 8 bits are scaled over the whole data set: {', '.join(parts)}" if parts else None


NO_VALUE_RANGE = ValueRange()
"""The range of images of 8 bits."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image."""

    image: Image.Image
    """Mode RGB."""
    remarks: tuple[str, ...] = ()
    """Remarks on parts of the file that were left out."""
    orientation: int = 1
    """EXIF orientation by which the image was turned; 1 is upright."""
    stored_sides: tuple[int, int] | None = None
    """Width and height of the file, if the image was turned."""


def decode_image(path: Path, levels: ValueRange | None = None, *, turns: bool = True) -> DecodedImage:
    """Decode an image file at its full size. Raises `Unreadable`.

    Without `levels`, a file of more than 8 bits is scaled by its own range. With `turns` False, its EXIF is ignored.
    """
    with _opened(path) as image:
        frames = image.format != "MPO" and getattr(image, "is_animated", False)
        stored, orientation = image.size, _orientation(image) if turns else 1
        image.load()
        upright = image if orientation == 1 else ImageOps.exif_transpose(image)
        remarks = (*(["more than one frame, of which the first is taken"] if frames else []), *_transparency(upright))
        return DecodedImage(_as_rgb(upright, levels), remarks, orientation, None if orientation == 1 else stored)


def decode_stored(path: Path) -> Image.Image:
    """Decode an image file without EXIF rotation, in its own mode. Raises `Unreadable`."""
    with _opened(path) as image:
        image.load()
        return image.copy()


def sides_of(path: Path) -> tuple[tuple[int, int], int]:
    """Width and height as stored, and EXIF orientation (1 is upright), without decoding. Raises `Unreadable`."""
    with _opened(path) as image:
        return image.size, _orientation(image)


def read_sampled_value_range(paths: Sequence[Path]) -> ValueRange:
    """As `read_value_range`, for many files: if none of a sample has more than 8 bits, the others are not opened."""
    step = max(1, len(paths) // SAMPLE)
    return NO_VALUE_RANGE if read_value_range(paths[::step]) == NO_VALUE_RANGE else read_value_range(paths)


def read_value_range(paths: Iterable[Path], *, until: float | None = None) -> ValueRange:
    """The ranges over all files of more than 8 bits; others are not decoded, and unreadable ones are skipped.

    With `until`, a time of `time.monotonic`, files are opened only until then. Raises `DataError` if the values of
    16-bit color files are so small that they are nearly black when reduced to 8 bits.
    """
    listed = list(paths)
    ranges = list(map_in_threads(_range_of, listed, until=until))
    ends: dict[str, tuple[float, float]] = {}
    for measured in ranges:
        if measured is not None:
            kind, low, high = measured
            before = ends.get(kind, (low, high))
            ends[kind] = min(before[0], low), max(before[1], high)
    if "wide" in ends and ends["wide"][1] < MIN_16BIT:
        first = min(path for path, measured in zip(listed, ranges, strict=False) if measured is not None)
        raise DataError(
            "16-bit color images must use their range, because 8 bits of 16 are kept",
            value=f"values below {256 * (int(ends['wide'][1]) + 1)}",
            place=f"{first}, and others",
            remedy="Scale them to 8 bits per color first.",
        )
    whole = ends.get("whole")
    return ValueRange(None if whole is None else (int(whole[0]), int(whole[1])), ends.get("real"))


def _range_of(path: Path) -> tuple[str, float, float] | None:
    """The kind of a file of more than 8 bits, with its minimum and maximum value; None for other files."""
    try:
        with _opened(path) as image:
            if image.mode[0] in "IF":
                values = np.asarray(image)
                values = values[np.isfinite(values)]
                if not values.size:
                    return None
                return "real" if image.mode == "F" else "whole", float(values.min()), float(values.max())
            if ";16" in str(getattr(image, "tile", "")):  # 16 bits per color, of which Pillow returns 8
                bands = image.convert("RGB").getextrema()
                return "wide", 0.0, float(max(high for _, high in bands))  # type: ignore[misc]
    except Unreadable:
        pass
    return None


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open the file without Pillow's size limit; errors of decoding inside the block are raised as `Unreadable`."""
    try:
        with _trusting(), Image.open(path) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise Unreadable(f"too large (more than {MAX_PIXELS // 1_000_000} megapixels)")
            with _ONE_LARGE if width * height > LARGE_PIXELS else nullcontext():
                yield image
    except READ_ERRORS as error:
        raise Unreadable(_reason(path, error)) from error


def _reason(path: Path, error: BaseException) -> str:
    text = str(error).lower()
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, OSError) and error.errno is not None:
        return f"not given out by the file system ({error.strerror or type(error).__name__})"
    if isinstance(error, MemoryError | Image.DecompressionBombError):
        return "too large for the memory"
    if isinstance(error, UnidentifiedImageError):
        return "an empty file" if _is_empty(path) else "not an image"
    if isinstance(error, EOFError) or "truncated" in text or "unexpected end" in text:
        return "truncated"
    if "conversion" in text or "mode" in text:
        return "of an unsupported kind"
    return "damaged"


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:
        return False


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except READ_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _transparency(image: Image.Image) -> list[str]:
    """A remark if the image has transparent pixels."""
    if not image.has_transparency_data:
        return []
    is_clear = image.convert("RGBA").getchannel("A").point(lambda alpha: 255 * (alpha < 255)).getbbox() is not None
    return ["transparent pixels, whose colors are taken as if they were opaque"] if is_clear else []


def _as_rgb(image: Image.Image, levels: ValueRange | None) -> Image.Image:
    if image.mode[0] in "IF":
        return Image.fromarray(_scaled(np.asarray(image), levels)).convert("RGB")
    if image.mode == "P":  # may be transparent, for which Pillow warns in a direct conversion
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _scaled(values: NDArray[Any], levels: ValueRange | None) -> NDArray[np.uint8]:
    """Scale values of more than 8 bits to 0 to 255."""
    is_whole = np.issubdtype(values.dtype, np.integer)
    ends = None if levels is None else levels.whole if is_whole else levels.real
    if not is_whole and not np.isfinite(values).all():
        raise Unreadable("of values that are not finite")
    low, high = ends or (values.min().item(), values.max().item())
    if is_whole and low >= 0:
        depth = next(depth for depth in DEPTHS if high < 1 << depth)
        return (values.astype(np.int64) >> (depth - 8)).clip(0, 255).astype(np.uint8)
    bottom = low if is_whole else min(0.0, low)
    top = high if is_whole else _white(bottom, high)
    scaled = (values.astype(np.float64) - bottom) * (255 / max(top - bottom, np.finfo(np.float64).tiny))
    return scaled.clip(0, 255).round().astype(np.uint8)


def _white(bottom: float, high: float) -> float:
    """The white value for the brightest value `high`: a conventional value, if 5 of its 8 bits are in use."""
    usual = (white for white in WHITE_VALUES if bottom == 0 and white / 8 < high <= white)
    return next(usual, high)


_ONE_LARGE = threading.Lock()
_LIMIT = threading.Lock()
_trusted: list[int | None] = []
"""Pillow's own limit, once for each open block of `_trusting`."""


@contextmanager
def _trusting() -> Iterator[None]:
    """Lift Pillow's size limit, which is a global variable, while any thread is inside the block."""
    with _LIMIT:
        _trusted.append(Image.MAX_IMAGE_PIXELS if not _trusted else _trusted[0])
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _LIMIT:
            limit = _trusted.pop()
            if not _trusted:
                Image.MAX_IMAGE_PIXELS = limit


class CroppedImage(NamedTuple):
    """The center square of an image."""

    pixels: NDArray[np.uint8]
    """(3, side, side)."""
    remarks: tuple[str, ...]


def decode_square(path: Path, side: int, levels: ValueRange | None = None) -> CroppedImage | UnreadableFile:
    """The image's center square as RGB, or the reason why there is none."""
    try:
        picture = decode_image(path, levels)
    except Unreadable as error:
        return UnreadableFile(path, str(error))
    return CroppedImage(center_square(picture.image, side), picture.remarks)


def image_or_failure_of(path: Path, levels: ValueRange | None = None) -> Image.Image | UnreadableFile:
    """The whole image of a file as RGB, or the reason why it cannot be read."""
    try:
        return decode_image(path, levels).image
    except Unreadable as error:
        return UnreadableFile(path, str(error))


def read_full_image(path: Path, levels: ValueRange | None = None) -> Image.Image | None:
    """The whole image as RGB, turned according to its EXIF; None for a file that cannot be read."""
    image = image_or_failure_of(path, levels)
    return None if isinstance(image, UnreadableFile) else image
