"""Global learning module (GLM): CLIP's CLS token is predicted from the student's dense features."""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.modeling.measured import measure


def predict_cls(cls: Tensor, features: Tensor) -> Tensor:
    """W = softmax(S R / sqrt(C)), S_hat = W R^T.

    Args:
        cls: S, (B, C).
        features: R, (B, C, L).

    Returns:
        S_hat (B, C), a mean of each image's features.
    """
    scores = torch.einsum("bc,bcl->bl", cls, features) / cls.shape[1] ** 0.5
    return torch.einsum("bl,bcl->bc", scores.softmax(dim=1), features)


def info_nce(predicted: Tensor, keys: Tensor, own: Tensor, temperature: float) -> Tensor:
    """Mean of -log softmax(cos(predicted, keys) / temperature) at the own key.

    Args:
        predicted: (B, C).
        keys: (N, C), unit norm.
        own: (B,), index of the right key.

    Returns:
        scalar.
    """
    logits = F.normalize(predicted.float(), dim=1) @ keys.T / temperature
    return F.cross_entropy(logits, own)


@torch.no_grad()
def retrieval(predicted: Tensor, keys: Tensor, own: Tensor) -> Tensor:
    """Percent of the predictions that are nearer to their own key than to any other, by cosine.

    A tie is a miss, so that predictions that are all the same find nothing.

    Args:
        predicted: (B, C).
        keys: (N, C), unit norm, at least two.
        own: (B,), index of the right key.

    Returns:
        scalar in 0..100.
    """
    cosine = F.normalize(predicted.float(), dim=1) @ keys.T  # (B, N)
    right = cosine.gather(1, own[:, None])
    others = cosine.scatter(1, own[:, None], float("-inf"))
    return 100 * (right[:, 0] > others.amax(dim=1)).float().mean()


class GLM(nn.Module):
    """InfoNCE of predicted against CLIP's CLS tokens.

    Negatives are the CLS tokens of the other images of the batch, on all ranks, and a bank of the
    last ones before. Only CLIP's tokens are gathered, so no gradient crosses ranks: the mean of the
    ranks' losses is the loss of the whole batch. Every rank puts the same tokens into its bank in
    the same order. It is part of the state of a run, not of its weights.

    How often the prediction is nearest to the own token is a curve: ``glm_retrieval`` among the
    batch on all ranks, ``glm_retrieval_bank`` with the bank's tokens as well, both in percent.
    """

    def __init__(self, dim: int, bank_size: int, temperature: float):
        super().__init__()
        self.bank_size = bank_size
        self.temperature = temperature
        self.register_buffer("bank", torch.zeros(0, dim), persistent=False)  # newest first

    def forward(self, cls: Tensor, features: Tensor) -> Tensor:
        """CLS tokens (B, C) and the student's features (B, C, h, w) -> the loss, a scalar."""
        predicted = predict_cls(cls, features.flatten(2))
        keys = gather_rows(F.normalize(cls.float(), dim=1))
        own = torch.arange(len(cls), device=cls.device) + comm.get_rank() * len(cls)
        everything = torch.cat([keys, self.bank])
        if len(keys) > 1:
            measure("glm_retrieval", retrieval(predicted, keys, own))
        if len(self.bank):
            measure("glm_retrieval_bank", retrieval(predicted, everything, own))
        self.bank = everything[: self.bank_size].detach()
        return info_nce(predicted, everything, own, self.temperature)

    def memory(self) -> dict[str, Tensor]:
        """The bank, for checkpoints of a training."""
        return {"bank": self.bank}

    def restore_memory(self, memory: dict[str, Tensor]) -> None:
        """Inverse of `memory`."""
        self.bank = memory["bank"].to(self.bank)[: self.bank_size]


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (B, C) of all ranks, in rank order, without gradient (ranks x B, C)."""
    if comm.get_world_size() == 1:
        return rows.detach()
    gathered = [torch.empty_like(rows) for _ in range(comm.get_world_size())]
    torch.distributed.all_gather(gathered, rows.detach().contiguous())
    return torch.cat(gathered)
