"""Named networks: the paper's, related ones, and proxies of the same shape that a small machine trains in minutes.

Source: arXiv 2203.06717, section 4.2 and table 6 for RepLKNet-3 to -31 and XL; the released code for XL's K and
`dw_ratio`. RepLKNet-3 has no small kernel (a 5x5 one would exceed it). MobileNetV2: arXiv 1801.04381, table 2; with one
kernel size everywhere, as in guidelines 2 and 3. ConvNeXt: arXiv 2201.03545, section 2.1; and with RepLKNet-31's K.
"""

from harness.errors import SpecError
from harness.models.spec.network import NetworkSpec

_BASE = NetworkSpec(B=(2, 2, 18, 2), C=(128, 256, 512, 1024), K=(31, 29, 27, 13), reparam=(5, 5, 5, 5), drop_path=0.3)
_MOBILENET = NetworkSpec(
    family="mobilenet_v2",
    B=(1, 2, 3, 4, 3, 3, 1),
    C=(16, 24, 32, 64, 96, 160, 320),
    K=(3,) * 7,
    ffn_ratio=6,
    stem_stride=2,
)
_CONVNEXT = NetworkSpec(family="convnext", B=(3, 3, 9, 3), C=(96, 192, 384, 768), K=(7,) * 4, drop_path=0.1)

PRESETS: dict[str, NetworkSpec] = {
    "replknet_3": _BASE.replace(K=3, reparam=None),
    "replknet_7": _BASE.replace(K=7),
    "replknet_13": _BASE.replace(K=13),
    "replknet_25": _BASE.replace(K=(25, 25, 25, 13)),
    "replknet_31b": _BASE,
    "replknet_31l": _BASE.replace(C=(192, 384, 768, 1536)),
    "replknet_xl": _BASE.replace(C=(256, 512, 1024, 2048), K=(27, 27, 27, 13), reparam=None, dw_ratio=1.5),
    "replknet_tiny": NetworkSpec(
        B=(1, 1, 4, 1), C=(32, 64, 128, 256), K=(31, 29, 27, 13), reparam=(5, 5, 5, 5), stem_stride=2, classes=10
    ),
    "replknet_nano": NetworkSpec(
        B=(1, 1, 2, 1), C=(16, 32, 64, 128), K=(31, 29, 27, 13), reparam=(5, 5, 5, 5), stem_stride=2, classes=10
    ),
    "mobilenet_v2": _MOBILENET,
    "mobilenet_v2_9": _MOBILENET.replace(K=9),
    "mobilenet_v2_13": _MOBILENET.replace(K=13),
    "mobilenet_v2_nano": _MOBILENET.replace(
        B=(1, 1, 2, 2, 1, 1, 1), C=(8, 12, 16, 24, 32, 48, 64), stem_stride=1, classes=10
    ),
    "mobilenet_v2_slim": _MOBILENET.replace(C=(8, 12, 16, 24, 32, 48, 64), stem_stride=1, classes=10),
    "convnext_t": _CONVNEXT,
    "convnext_s": _CONVNEXT.replace(B=(3, 3, 27, 3), drop_path=0.4),
    "convnext_t_31": _CONVNEXT.replace(K=(31, 29, 27, 13), reparam=5),
    "convnext_nano": _CONVNEXT.replace(B=(1, 1, 2, 1), C=(16, 32, 64, 128), drop_path=0, stem_stride=2, classes=10),
}


def preset(name: str) -> NetworkSpec:
    """The preset called `name`. Raises `SpecError`, listing the names, if there is none."""
    if name not in PRESETS:
        rule = "`base` must be a preset or the path of a spec file"
        raise SpecError(rule, field="base", value=name, remedy=f"Presets: {', '.join(PRESETS)}.")
    return PRESETS[name]
