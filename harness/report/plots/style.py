"""Shared by all plots: figures without a window, PNG files, and their names."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.system.atomic_write import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI, COLORS = 130, 256


def new_figure(width: float, height: float) -> "Figure":
    """A matplotlib figure of this size in inches; matplotlib's global state is not changed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a PNG atomically, creating its folder; a palette of 256 colors makes the file a quarter as large."""
    from PIL import Image

    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=DPI, format="png")
    picture = Image.open(drawn).convert("RGB").quantize(COLORS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path, is_shared=True) as partial:
            picture.save(partial, format="png", optimize=True)
    except OSError as error:
        rule = f"the folder of a plot must be writable ({error.strerror or error})"
        raise UserError(rule, value=str(path.parent)) from error


def file_names(kind: str, subjects: Sequence[str]) -> list[str]:
    """A unique file name for each subject, such as erf_replknet_nano.png; equal names are numbered."""
    slugs = [re.sub(r"[^\w-]+", "_", name).strip("_") for name in subjects]
    names: list[str] = []
    for slug in slugs:
        tries = (f"{kind}_{slug}{suffix}.png" for suffix in ("", *(f"_{n}" for n in range(2, len(slugs) + 2))))
        names.append(next(name for name in tries if name not in names))
    return names
