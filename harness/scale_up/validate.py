"""Top-1, top-5 and loss on the validation images, shared among the workers.

Shapes: N images, R the recipe's resolution.
"""

import torch
from torch import nn
from torch.nn import functional as F

from harness.full_recipe import FullRecipe
from harness.scale_up.images import Images
from harness.scale_up.loading import validation_batches
from harness.scale_up.records import Scores
from harness.scale_up.team import Team
from harness.training import autocast

TOP = 5


@torch.no_grad()
def scores(model: nn.Module, images: Images, recipe: FullRecipe, team: Team, *, loaders: int) -> Scores:
    """The network in evaluation mode on all images that can be read; it is left in that mode."""
    model.eval()
    memory_format = torch.channels_last if recipe.channels_last else torch.contiguous_format
    sums = torch.zeros(5, dtype=torch.float64, device=team.device)  # loss, first, among five, seen, not readable
    for batch, labels, passed in validation_batches(images, recipe, rank=team.rank, size=team.size, loaders=loaders):
        readable = passed == 0
        sums[4] += (~readable).sum()
        if not readable.any():
            continue
        shown = batch[readable].to(team.device, non_blocking=True).contiguous(memory_format=memory_format)
        targets = labels[readable].to(team.device, non_blocking=True)
        with autocast(recipe, team.device):
            logits = model(shown)
        logits = logits.float()
        hits = logits.topk(min(TOP, logits.shape[1]), 1).indices == targets[:, None]
        sums[0] += F.cross_entropy(logits, targets, reduction="sum")
        sums[1] += hits[:, 0].sum()
        sums[2] += hits.sum()
        sums[3] += len(targets)
    loss, first, among, count, unreadable = team.total(sums).tolist()
    seen = max(1.0, count)
    return Scores(loss / seen, 100 * first / seen, 100 * among / seen, int(unreadable))
