"""Parameters and multiply-adds of methods, by fvcore."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from fvcore.nn import FlopCountAnalysis
from tabulate import tabulate
from torch import nn

from zss_d2.analysis.names import check_different, config_names
from zss_d2.engine import load_config
from zss_d2.errors import ZssError
from zss_d2.modeling.inference import FixedClasses


def attention_multiply_adds(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Q K^T and its product with V, of ``scaled_dot_product_attention``, unknown to fvcore.

    Queries (..., N, E), keys (..., M, E) and values (..., M, D).
    """
    query, key, value = (x.type().sizes() for x in inputs[:3])
    rows = torch.Size(query[:-1]).numel()
    return rows * key[-2] * (query[-1] + value[-1])


@torch.no_grad()
def count(model: nn.Module, size: int) -> dict[str, float]:
    """Millions of parameters and billions of multiply-adds of a model for one image.

    Returns:
        ``trained`` and ``parameters``; ``encoder``, the multiply-adds of the image tower (0 if the
        model has none), and ``total``.
    """
    model.eval()
    wrapped = FixedClasses(model, model.classes)
    images = torch.zeros(1, 3, size, size)
    wrapped(images)  # the class embeddings are cached from here on
    analysis = FlopCountAnalysis(wrapped, images)
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention_multiply_adds)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_module = analysis.by_module()
    return {
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6,
        "parameters": sum(p.numel() for p in model.parameters()) / 1e6,
        "encoder": by_module["model.image_encoder"] / 1e9,
        "total": by_module[""] / 1e9,
    }


def row(config: Path, name: str, opts: Sequence[str], size: int) -> list[object]:
    """One line of the table, for a config that is called ``name`` there.

    Raises:
        ZssError: images of that size would be padded.
    """
    overrides = ["MODEL.CLIP.PRETRAINED", "", "MODEL.DEVICE", "cpu", *opts]
    cfg: CfgNode = load_config(config, overrides)
    cfg.defrost()
    student = cfg.MODEL.CLIP_ZSS.ENCODER
    student.PRETRAINED, student.WEIGHTS = False, ""
    model = build_model(cfg)
    if size % model.size_divisibility:
        raise ZssError(
            f"--size {size}: {name} takes images of multiples of {model.size_divisibility} px"
        )
    numbers = count(model, size)
    ratio = numbers["total"] / numbers["encoder"] if numbers["encoder"] else float("nan")
    return [name, len(model.classes), *numbers.values(), ratio]


def table(configs: Sequence[Path], opts: Sequence[str], size: int) -> str:
    """Markdown with a row for every config.

    Args:
        opts: config keys and values, in turn.
        size: side of the image, px.

    Raises:
        ZssError: a config is wrong or given twice, or images of that size would be padded.
    """
    check_different(configs)
    headers = ["config", "classes", "trained M", "params M", "tower G", "total G", "total / tower"]
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # random weights are meant here
    try:
        rows = [
            row(config, name, opts, size)
            for config, name in zip(configs, config_names(configs), strict=True)
        ]
    finally:
        logging.disable(before)
    # Names stay text, also one such as 007.yaml.
    options = {"tablefmt": "github", "disable_numparse": [0]}
    return tabulate(rows, headers, floatfmt=("", "", *[".2f"] * 4, ".3f"), **options)
