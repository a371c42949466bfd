"""Segmentation with a network as the backbone, and the table of heads, from segmentation-models-pytorch.

Shapes: N batch, H W height and width of the image.
"""

from collections.abc import Callable

import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.deeplabv3.decoder import DeepLabV3PlusDecoder
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from harness.models.heads.encoder import FIRST_MAP, Encoder

ATROUS_RATES, ATROUS_SIDE = (6, 12, 18), 33
"""DeepLabv3's dilations, and the side of the map that they are for (arXiv 1706.05587: stride 16 of 513 pixels)."""
DROPOUT = 0.1
"""Dropout after the pyramid of DeepLabv3+, as in MMSegmentation, with which the paper's results were obtained."""


class DeepLabV3Plus(DeepLabV3PlusDecoder):  # type: ignore[misc]
    """The library's decoder for images of any size: the coarsest map is resized to the finest one."""

    def forward(self, features: list[Tensor]) -> Tensor:
        """Maps -> (N, channels, H', W'), in the size of the finest map."""
        skip = self.block1(features[FIRST_MAP])
        coarse = _resized(self.aspp(features[-1]), like=skip)
        y: Tensor = self.block2(torch.cat([coarse, skip], dim=1))
        return y


def deeplabv3plus(encoder: Encoder, *, channels: int, side: int) -> nn.Module:
    """Atrous pyramid on the coarsest map, then one skip from the finest (arXiv 1802.02611).

    Dilations are scaled with the map: unscaled, they would extend past the borders of a proxy's small maps.
    """
    shrunk = side / encoder.output_stride / ATROUS_SIDE
    decoder: nn.Module = DeepLabV3Plus(
        encoder_channels=encoder.out_channels,
        encoder_depth=len(encoder.out_channels) - 1,
        out_channels=channels,
        atrous_rates=[max(1, round(rate * shrunk)) for rate in ATROUS_RATES],
        output_stride=16,  # sets an upsampling that our `forward` replaces
        aspp_separable=True,
        aspp_dropout=DROPOUT,
    )
    return decoder


def upernet(encoder: Encoder, *, channels: int, side: int) -> nn.Module:  # noqa: ARG001 (the table's signature)
    """Pyramid pooling on the coarsest map and a feature pyramid over all (arXiv 1807.10221)."""
    decoder: nn.Module = UPerNetDecoder(
        encoder_channels=encoder.out_channels,
        encoder_depth=len(encoder.out_channels) - 1,
        decoder_channels=channels,
    )
    initialize_decoder(decoder)  # the library initializes this decoder only
    return decoder


SEGMENTATION_HEADS: dict[str, Callable[..., nn.Module]] = {
    "deeplabv3plus": deeplabv3plus,
    "upernet": upernet,
}
"""Builders (encoder, *, channels, side) of decoders, `channels` wide; `side` is that of the images."""


class AuxiliaryHead(nn.Module):
    """A small head on the second coarsest map, whose loss helps to train the layers before it.

    One 3x3 and one 1x1 convolution, as MMSegmentation's `FCNHead` for UPerNet and DeepLabv3+.
    """

    def __init__(self, encoder: Encoder, channels: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(encoder.out_channels[-2], channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            _dropout(dropout),
        )
        self.classifier = nn.Conv2d(channels, classes, 1)
        initialize_decoder(self.body)
        initialize_head(self.classifier)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """The encoder's maps -> logits (N, classes, H', W') from the second coarsest."""
        y: Tensor = self.classifier(self.body(maps[-2]))
        return y


class Segmenter(nn.Module):
    """Backbone, decoder, and a 1x1 convolution to classes; logits in the size of the image."""

    def __init__(
        self,
        encoder: Encoder,
        head: str,
        channels: int,
        *,
        classes: int,
        side: int,
        dropout: float = 0.0,
        auxiliary: int | None = None,
    ) -> None:
        """`head` is a key of `SEGMENTATION_HEADS`, `channels` its width; `classes` includes the background.

        `dropout` is applied before the last convolution. `auxiliary` is the width of a second head; None for none.
        """
        super().__init__()
        self.encoder = encoder
        self.decoder = SEGMENTATION_HEADS[head](encoder, channels=channels, side=side)
        self.dropout = _dropout(dropout)
        self.classifier = nn.Conv2d(channels, classes, 1)
        initialize_head(self.classifier)
        self.auxiliary = None if auxiliary is None else AuxiliaryHead(encoder, auxiliary, classes, dropout)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(N, in_channels, H, W) -> logits (N, classes, H, W); in training with a second head, also its logits."""
        maps = self.encoder(x)
        logits = _resized(self.classifier(self.dropout(self.decoder(maps))), like=x)
        if self.auxiliary is None or not self.training:
            return logits
        return logits, _resized(self.auxiliary(maps), like=x)


def _dropout(share: float) -> nn.Module:
    return nn.Dropout2d(share) if share else nn.Identity()


def _resized(maps: Tensor, *, like: Tensor) -> Tensor:
    return F.interpolate(maps, size=like.shape[-2:], mode="bilinear", align_corners=False)
