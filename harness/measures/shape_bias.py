"""Whether a network classifies by shape or by texture where the two belong to different classes.

Source: Geirhos et al., "ImageNet-trained CNNs are biased towards texture" (ICLR 2019, arXiv 1811.12231). A decision is
an image that is classified as the class of its shape or of its texture, the cue; images that are classified as a third
class do not count. The shape bias is the share of shape decisions.

Shapes: N images; answers (the predictions), shapes and cues are class indices, (N,).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.measures.base import TrainedRun
from harness.training.fit import predict_logits

Classes = NDArray[np.int64]


class Decisions(NamedTuple):
    """Numbers of decisions on images whose shape and texture disagree."""

    images: int
    shape: int
    """Images classified by their shape."""
    cue: int
    """Images classified by their texture."""

    @property
    def total(self) -> int:
        """All decisions: the images that were not classified as a third class."""
        return self.shape + self.cue

    @property
    def share_pct(self) -> float | None:
        """The shape bias in percent; None without decisions."""
        return 100 * self.shape / self.total if self.total else None


def shape_bias(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """The shape bias on the `conflict` images, its numbers of decisions, and the bias by class of the shape.

    A bias without decisions is left out.
    """
    dataset = trained.dataset
    split = dataset.conflict
    assert split is not None and split.cues is not None, "a recipe without such images is refused when it is checked"
    logits = predict_logits(trained.model, split, dataset, trained.recipe, trained.device)
    answers = torch.cat([batch.argmax(1).cpu() for batch, _ in logits]).numpy()
    whole = count_decisions(answers, split.labels, split.cues)
    yield "shape_decisions", float(whole.shape)
    yield "cue_decisions", float(whole.cue)
    named = {"shape_bias_pct": whole}
    by_class = decisions_by_class(answers, split.labels, split.cues, dataset.info.names)
    named |= {f"shape_bias_pct_{name}": decisions for name, decisions in by_class.items()}
    yield from ((name, share) for name, decisions in named.items() if (share := decisions.share_pct) is not None)


def count_decisions(answers: Classes, shapes: Classes, cues: Classes) -> Decisions:
    """Count decisions over all images; an image whose texture is of its shape's class is no conflict and is ignored."""
    is_conflict = shapes != cues
    return Decisions(
        images=int(is_conflict.sum()),
        shape=int(((answers == shapes) & is_conflict).sum()),
        cue=int(((answers == cues) & is_conflict).sum()),
    )


def decisions_by_class(answers: Classes, shapes: Classes, cues: Classes, names: Sequence[str]) -> dict[str, Decisions]:
    """The decisions on the images of each class of the shape, by its name."""
    chosen = {name: shapes == label for label, name in enumerate(names)}
    return {name: count_decisions(answers[mask], shapes[mask], cues[mask]) for name, mask in chosen.items()}
