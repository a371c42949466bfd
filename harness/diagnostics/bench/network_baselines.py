"""timm's networks that stand beside ours."""

from collections.abc import Sequence

from torch import nn

from harness.errors import UserError, did_you_mean


def peers_at(names: Sequence[str], resolution: int) -> tuple[str, ...]:
    """Those of the named networks that take images of that side. Raises `UserError` for a name that timm lacks."""
    import timm

    for name in names:
        if not timm.is_model(name):
            raise UserError(
                "a network beside ours must be one of timm's",
                value=name,
                remedy=did_you_mean(name, timm.list_models(), "timm's")[:400],
            )
    return tuple(name for name in names if _side(name) in (resolution, None))


def make_peer(name: str) -> nn.Module:
    """With fresh weights."""
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False)
    return network


def _side(name: str) -> int | None:
    """The only side of images that it takes; None for any."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return config.input_size[-1] if config is not None and config.fixed_input_size else None
