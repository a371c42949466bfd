"""Preprocessing of images for a network, as in its training: size, crop, normalization, precision."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from timm.data import create_transform

from harness.config.recipes.full_scale import ClassificationRecipe
from harness.config.recipes.proxy import ProxyRecipe
from harness.data.dataset import IMAGENET_MEAN, IMAGENET_STD, Dataset
from harness.models.spec.network import NetworkSpec
from harness.models.spec.published import preset_of

DEFAULT_CROP = 0.875
"""Default side of the crop relative to that of the resized image."""
WHOLE_FROM_RESOLUTION = 384
"""Side from which on RepLKNet's code uses the whole image, squashed to a square."""

Mode = Literal["center", "squash", "border"]
Interpolation = Literal["bilinear", "bicubic"]
DEFAULT_MODE: Mode = "center"
WHOLE_MODE: Mode = "squash"


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The transform from an image to a network's input, as in timm, and the settings of the evaluation."""

    resolution: int
    """Side of the square images in pixels."""
    crop: float = DEFAULT_CROP
    mode: Mode = DEFAULT_MODE
    """See `harness.config.recipes.full_scale.ClassificationEvaluation`."""
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Mean per channel; with a single one the images are converted to gray."""
    std: tuple[float, ...] = IMAGENET_STD
    batch_size: int = 64
    """Images per batch."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    channels_last: bool = True
    known_from: str = field(default="", compare=False)
    """Source of the values, as text."""

    @classmethod
    def of(cls, recipe: ClassificationRecipe) -> Self:
        """The preprocessing of a full-scale training's validation."""
        how = recipe.augmentation.interpolation
        return cls(
            resolution=recipe.resolution,
            crop=recipe.evaluation.crop,
            mode=recipe.evaluation.mode,
            interpolation="bicubic" if how == "random" else how,
            mean=tuple(recipe.data.mean),
            std=tuple(recipe.data.std),
            batch_size=recipe.evaluation.batch_size,
            precision=recipe.precision,
            channels_last=recipe.channels_last,
            known_from="the recipe of its training",
        )

    @classmethod
    def of_run(cls, recipe: ProxyRecipe, dataset: Dataset) -> Self:
        """The preprocessing of a run's validation: the center square, normalized by the run's training images."""
        return cls(
            resolution=recipe.resolution,
            crop=1.0,
            mean=dataset.mean,
            std=dataset.std,
            precision=recipe.precision,
            channels_last=recipe.channels_last,
            known_from=f"the training images of its run ({recipe.dataset})",
        )

    @classmethod
    def published(cls, spec: NetworkSpec, resolution: int) -> Self:
        """The preprocessing of RepLKNet's code: at 384 pixels the whole image, squashed; below that a center crop.

        (Its `main.py`: resize to R / 0.875 and crop; from 384 on, resize to R x R.) Presets for small images use the
        whole image.
        """
        crop, mode = DEFAULT_CROP, DEFAULT_MODE
        cfg = _timm_cfg(preset_of(spec))
        if resolution >= WHOLE_FROM_RESOLUTION:
            crop, mode = 1.0, WHOLE_MODE
        elif cfg is not None and cfg.input_size[-1] == resolution:
            crop = cfg.crop_pct
        mean, std = published_normalization(spec)
        return cls(resolution, crop, mode, mean=mean, std=std, known_from="RepLKNet's code")

    @classmethod
    def of_preset(cls, spec: NetworkSpec, resolution: int) -> Self | None:
        """The preprocessing of a preset in timm, for any number of classes; None for other networks."""
        name = preset_of(spec) or preset_of(spec.replace(classes=1000))
        if name is None or (cfg := _timm_cfg(name)) is None:
            return None
        return cls(
            resolution,
            cfg.crop_pct,
            cfg.crop_mode,
            cfg.interpolation,
            tuple(cfg.mean),
            tuple(cfg.std),
            known_from=f"what is published of {name}",
        )

    @classmethod
    def assumed(cls, spec: NetworkSpec, resolution: int) -> Self:
        """The usual preprocessing for ImageNet, for a network without a record of its own."""
        gray = (0.5,) * spec.in_channels
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if spec.in_channels == 3 else (gray, gray)
        return cls(resolution, mean=mean, std=std, known_from="an assumption: it is not recorded")

    @property
    def about(self) -> str:
        """Resolution, crop, interpolation and precision as text."""
        cuts = {"center": "the middle", "squash": "squashed", "border": "with a border"}
        return f"{self.resolution} px, crop {self.crop:g} ({cuts[self.mode]}), {self.interpolation}, {self.precision}"

    def values(self) -> dict[str, Any]:
        """Plain values for JSON, without their source."""
        return {name: value for name, value in asdict(self).items() if name != "known_from"}

    def for_timm(self) -> dict[str, Any]:
        """The values by timm's names."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "crop_pct": self.crop,
            "crop_mode": self.mode,
            "interpolation": self.interpolation,
        }

    def transform(self) -> Any:
        """The transform from an image to a float32 tensor (C, R, R), resized, cropped and normalized."""
        return create_transform(
            self.resolution,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
            crop_pct=self.crop,
            crop_mode=self.mode,
        )


def published_normalization(spec: NetworkSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the images that a preset was trained on, or ImageNet's."""
    cfg = _timm_cfg(preset_of(spec))
    return (IMAGENET_MEAN, IMAGENET_STD) if cfg is None else (tuple(cfg.mean), tuple(cfg.std))


def _timm_cfg(preset: str | None) -> Any:
    """timm's configuration of a preset; None if there is none."""
    from harness.models.timm.replknet import default_cfgs

    return default_cfgs[preset].default if preset in default_cfgs else None
