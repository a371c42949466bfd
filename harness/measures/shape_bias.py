"""Whether a network goes by the shape or by the texture where the two stand for different classes.

Source: Geirhos et al., "ImageNet-trained CNNs are biased towards texture" (ICLR 2019, arXiv 1811.12231). A decision is
an image that is given to the class of its shape or to that of its texture, the cue; images that are given to a third
class count for neither. The shape bias is the share of shape decisions.

Shapes: N images; answers, shapes and cues are classes by number, (N,).
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
    """What a network made of some images whose shape and texture disagree."""

    images: int
    shape: int
    """Those given to the class of their shape."""
    cue: int
    """Those given to the class of their texture."""

    @property
    def total(self) -> int:
        """Decisions: the images that were not given to a third class."""
        return self.shape + self.cue

    @property
    def share_pct(self) -> float | None:
        """The shape bias in percent; None without decisions."""
        return 100 * self.shape / self.total if self.total else None


def shape_bias(trained: TrainedRun) -> Iterator[tuple[str, float]]:
    """The shape bias on the `conflict` images, with the numbers of decisions behind it, and by class of the shape.

    A share of no decisions is left out.
    """
    dataset = trained.dataset
    split = dataset.conflict
    assert split is not None and split.cues is not None, "a recipe without such images is refused when it is checked"
    logits = predict_logits(trained.model, split, dataset, trained.recipe, trained.device)
    answers = torch.cat([batch.argmax(1).cpu() for batch in logits]).numpy()
    whole = count_decisions(answers, split.labels, split.cues)
    yield "shape_decisions", float(whole.shape)
    yield "cue_decisions", float(whole.cue)
    named = {"shape_bias_pct": whole}
    each = decisions_by_class(answers, split.labels, split.cues, dataset.info.names)
    named |= {f"shape_bias_pct_{name}": decisions for name, decisions in each.items()}
    yield from ((name, share) for name, decisions in named.items() if (share := decisions.share_pct) is not None)


def count_decisions(answers: Classes, shapes: Classes, cues: Classes) -> Decisions:
    """Counted over all images; those whose texture is of the shape's own class are no conflict and don't count."""
    is_conflict = shapes != cues
    return Decisions(
        images=int(is_conflict.sum()),
        shape=int(((answers == shapes) & is_conflict).sum()),
        cue=int(((answers == cues) & is_conflict).sum()),
    )


def decisions_by_class(answers: Classes, shapes: Classes, cues: Classes, names: Sequence[str]) -> dict[str, Decisions]:
    """The same for the images of each class of the shape, by its name."""
    chosen = {name: shapes == label for label, name in enumerate(names)}
    return {name: count_decisions(answers[mask], shapes[mask], cues[mask]) for name, mask in chosen.items()}
