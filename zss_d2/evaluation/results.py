"""results.json: metrics of every test set with the provenance of the run."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import detectron2
import torch
from detectron2.config import CfgNode

from zss_d2.data.files import write_atomic
from zss_d2.evaluation.provenance import code_identity

_PACKAGE = Path(__file__).resolve().parent.parent


def write_results(
    path: Path, results: Mapping[str, Mapping[str, float]], provenance: Mapping[str, Any]
) -> None:
    """Write ``{data set: {metric: value}, "provenance": {...}}`` atomically; NaN becomes null."""
    content = {
        name: {key: None if math.isnan(value) else value for key, value in metrics.items()}
        for name, metrics in results.items()
    }
    content["provenance"] = dict(provenance)
    text = json.dumps(content, indent=2) + "\n"
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def read_results(path: Path) -> dict[str, Any]:
    """Read what `write_results` wrote; an undefined metric is None."""
    return json.loads(path.read_text(encoding="utf-8"))


def collect_provenance(cfg: CfgNode, checkpoint: str, iteration: int | None) -> dict[str, Any]:
    """What one needs to know to get the same numbers again.

    Args:
        cfg: the whole configuration.
        checkpoint: path of the evaluated weights, "" for those in memory.
        iteration: finished training iterations; None if unknown.
    """
    return {
        "method": cfg.MODEL.META_ARCHITECTURE,
        **code_identity(_PACKAGE),
        "detectron2": detectron2.__version__,
        "torch": torch.__version__,
        "device": _device_name(cfg.MODEL.DEVICE),
        "config_sha256": config_hash(cfg),
        "seed": cfg.SEED,
        "checkpoint": checkpoint,
        "checkpoint_sha256": _file_hash(checkpoint) if checkpoint else None,
        "iteration": iteration,
        "protocol": protocol_of(cfg),
    }


def protocol_of(cfg: CfgNode) -> dict[str, Any]:
    """The switches that change the numbers of one and the same model."""
    slide = cfg.TEST.SLIDE
    return {
        "setting": cfg.ZERO_SHOT.SETTING,
        "min_size": cfg.INPUT.MIN_SIZE_TEST,
        "max_size": cfg.INPUT.MAX_SIZE_TEST,
        "antialias": cfg.INPUT.ANTIALIAS,
        "slide": {"crop": slide.CROP, "stride": slide.STRIDE} if slide.ENABLED else None,
        "flip": cfg.TEST.FLIP,
        "scales": list(cfg.TEST.SCALES),
        "seen_bias": cfg.TEST.SEEN_BIAS,
        "vocabulary": "all classes of the test set, seen and unseen",
        "ignored": "pixels with the ignore label count nowhere, classes without ground truth "
        "in no mean",
    }


def describe_protocol(protocol: Mapping[str, Any]) -> str:
    """One line for the switches that are numbers, such as a heading needs."""
    slide = protocol["slide"]
    sizes = f"{protocol['min_size']}..{protocol['max_size']} px"
    parts = [
        protocol["setting"],
        f"short edge {sizes}" if protocol["min_size"] else "original size",
        f"windows {slide['crop']}/{slide['stride']} px" if slide else "whole image",
        "flip" if protocol["flip"] else "no flip",
        f"scales {', '.join(f'{scale:g}' for scale in protocol['scales'])}",
        f"seen bias {protocol['seen_bias']:g}",
        # Runs of earlier versions do not say it; they all had it.
        *([] if protocol.get("antialias", True) else ["no antialiasing"]),
    ]
    return ", ".join(parts)


def config_hash(cfg: CfgNode) -> str:
    """SHA-256 of the whole configuration."""
    return hashlib.sha256(cfg.dump().encode()).hexdigest()


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _file_hash(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
