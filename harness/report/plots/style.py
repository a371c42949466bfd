"""What all pictures share: a figure without a window, and PNG files with names of their own."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.system.atomic_write import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI, COLOURS = 130, 256


def new_figure(width: float, height: float) -> "Figure":
    """A figure of that many inches; nothing of matplotlib's global state is touched."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a PNG in one piece, and the folder where it is missing; 256 colours make it a quarter as large."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI, format="png")
    picture = Image.open(drawn).convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, is_shared=True) as partial:
            picture.save(partial, format="png", optimize=True)
    except OSError as error:
        raise UserError(
            f"the folder of a picture must be one that can be written ({error.strerror or error})",
            value=str(path.parent),
        ) from error


def file_names(kind: str, subjects: Sequence[str]) -> list[str]:
    """A file for each subject, as erf_replknet_nano.png; numbered where two would be one."""
    slugs = [re.sub(r"[^\w-]+", "_", name).strip("_") for name in subjects]
    names: list[str] = []
    for slug in slugs:
        tries = (f"{kind}_{slug}{suffix}.png" for suffix in ("", *(f"_{n}" for n in range(2, len(slugs) + 2))))
        names.append(next(name for name in tries if name not in names))
    return names
