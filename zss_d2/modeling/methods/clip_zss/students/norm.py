"""Normalisation of feature maps (B, C, H, W)."""

from __future__ import annotations

import logging
import math

from detectron2.utils import comm
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from zss_d2.errors import ZssError

logger = logging.getLogger(__name__)

NORMS = ("BN", "SyncBN", "GN")


def build_norm(name: str, channels: int) -> nn.Module:
    """One of `NORMS`; GN has 32 groups, or as many as divide the channels.

    GN does not look at other images, so it also suits small batches and several processes.

    Raises:
        ValueError: another name.
    """
    if name == "BN":
        return nn.BatchNorm2d(channels)
    if name == "SyncBN":
        return nn.SyncBatchNorm(channels)
    if name == "GN":
        return nn.GroupNorm(math.gcd(32, channels), channels)
    raise ValueError(f"norm is {name!r}; use one of {', '.join(NORMS)}")


def synchronised(student: nn.Module, wanted: str, device: str) -> nn.Module:
    """The student, whose batch norms look at the images of all processes, if that is wanted.

    Names and shapes of weights stay. In evaluation nothing is exchanged.

    Args:
        student: any model; with timm's layers, whose activations lie in their norms, too.
        wanted: ``MODEL.CLIP_ZSS.SYNC_BN``; "auto" is "true" for several processes on GPUs.
        device: ``MODEL.DEVICE``.

    Raises:
        ZssError: wanted, or built with it by ``ENCODER.NORM``, for several processes on a CPU.
    """
    norms = [module for module in student.modules() if isinstance(module, _BatchNorm)]
    processes = comm.get_world_size()
    if not norms or processes == 1:
        if wanted == "true":
            why = "there is one process" if norms else "the student has no batch norm"
            logger.warning("MODEL.CLIP_ZSS.SYNC_BN true has no effect: %s", why)
        return student
    if not device.startswith("cuda"):
        built = any(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
        if wanted == "true" or built:
            key = "SYNC_BN is true" if wanted == "true" else "ENCODER.NORM is SyncBN"
            raise ZssError(
                f"MODEL.CLIP_ZSS.{key}, which {processes} processes can have on GPUs only; use "
                "ENCODER.NORM GN, or BN with SYNC_BN auto"
            )
        if wanted == "auto":
            logger.info("Batch norm: statistics of each process's own images, as on a CPU always")
        return student
    if wanted == "false":
        if any(isinstance(norm, nn.SyncBatchNorm) for norm in norms):
            raise ZssError(
                "MODEL.CLIP_ZSS.SYNC_BN is false, and ENCODER.NORM is SyncBN; set NORM BN, or "
                "leave SYNC_BN at auto"
            )
        return student
    logger.info("Batch norm: statistics of the images of all %d processes (SyncBN)", processes)
    return convert_sync_batchnorm(student)
