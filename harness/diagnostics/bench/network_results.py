"""A row of the bench of whole networks, and its columns.

network                    a preset, a spec file, or a network of timm's
kernels                    `harness`: our operator; `conv2d`: the same network with `nn.Conv2d`; `timm`: theirs
layout                     of images and weights: `default` or `channels_last`
device, precision          what was computed on, and in what; half precision by autocast
resolution, batch          side of the images, and images at once
mode                       `inference` (merged, nothing recorded) or `training` (forward, loss, backward, SGD step)
n                          samples; 0 where the memory did not suffice, and the figures are left empty
images_per_s               batch over the median time
slow_images_per_s,         the same at the third and the first quartile of the time
fast_images_per_s
gain                       images_per_s over that of the same network with `conv2d` in its better layout
depthwise_share            time in depth-wise convolutions of more than 5x5 taps, of the whole; of ours,
                               in the better layout
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkRow:
    """One network in one form and layout; see above."""

    network: str
    kernels: str
    layout: str
    device: str
    precision: str
    resolution: int
    batch: int
    mode: str
    n: int
    images_per_s: float | None
    slow_images_per_s: float | None
    fast_images_per_s: float | None
    gain: float | None
    depthwise_share: float | None


COLUMNS = tuple(NetworkRow.__slots__)
