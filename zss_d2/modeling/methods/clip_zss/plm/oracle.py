"""Upper bounds that look at the hidden labels of unseen classes; never for results (see docs).

In a leaky training targets hold `UNLABELLED` - 1 - u where unseen class number u is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zss_d2.modeling.methods.clip_zss.plm.kmeans import count
from zss_d2.modeling.methods.clip_zss.plm.pseudo_labels import UNLABELLED, FusedLabels

# Of items of a leaky training: all labels of the image, (H, W).
ORACLE_LABELS = "leaky_oracle_sem_seg"


def hidden_code(unseen: int) -> int:
    """What stands in targets for unseen class number ``unseen``."""
    return UNLABELLED - 1 - unseen


def split_hidden(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Targets of a leaky training -> targets that may be seen, and hidden labels.

    Args:
        targets: seen ids, `UNLABELLED`, or `hidden_code`.

    Returns:
        Targets without hidden codes; numbers of unseen classes, `UNLABELLED` elsewhere.
    """
    hidden = UNLABELLED - 1 - targets
    return targets.clamp(min=UNLABELLED), hidden.where(hidden >= 0, UNLABELLED)


def named_by_truth(
    fused: FusedLabels, hidden: Tensor, num_seen: int, num_unseen: int
) -> FusedLabels:
    """F whose regions are named by the unseen class that most of their pixels are of.

    The regions of one class become one. Those without a pixel of an unseen class, such as clutter,
    give no labels.

    Args:
        fused: F; regions have ids from ``num_seen`` on.
        hidden: (B, H, W), see `split_hidden`.
    """
    number = fused.num_pseudo
    region = (fused.labels - num_seen).clamp(min=-1).flatten(1)  # -1: none
    truth = hidden.flatten(1)
    both = (region >= 0) & (truth >= 0)
    pair = (region * num_unseen + truth).where(both, number * num_unseen)
    votes = count(pair, number * num_unseen + 1)[:, :-1].unflatten(1, (number, num_unseen))
    most, majority = votes.max(dim=2)
    new = (num_seen + majority).where(most > 0, UNLABELLED)  # (B, number)
    # Ids of F and UNLABELLED -> new ids, seen ones stay.
    seen = torch.arange(-1, num_seen, device=new.device).expand(len(new), -1)
    table = torch.cat([seen, new], dim=1)

    def renamed(ids: Tensor) -> Tensor:
        return table.gather(1, ids.flatten(1) + 1).view_as(ids)

    return FusedLabels(
        renamed(fused.labels),
        renamed(fused.coarse),
        num_unseen,
        fused.regions,
        renamed(fused.names),
    )
