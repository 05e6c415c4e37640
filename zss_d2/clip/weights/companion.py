"""The configuration that the hub keeps beside a file of CLIP weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from zss_d2.clip.weights.file import weights_error
from zss_d2.clip.weights.formats import TRANSFORMERS, Weights

HUB_CONFIG = "open_clip_config.json"
# What the hub calls the weights; a file of another name may have nothing to do with its folder.
_OF_OPEN_CLIP = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
_OF_TRANSFORMERS = ("model.safetensors", "pytorch_model.bin")
_QUICK_GELU = {"quick_gelu": True, "gelu": False}


class Companion(NamedTuple):
    """What a configuration says of the weights beside it."""

    file: str
    quick_gelu: bool
    statistics: dict[str, Sequence[float]]  # "mean" and "std" of RGB in 0..1, or nothing


def find_companion(weights: Weights) -> Companion | None:
    """Read ``open_clip_config.json`` or ``config.json`` beside weights that bear the hub's name.

    A configuration of a model of another size is none of theirs.

    Raises:
        ZssError: the configuration names an activation that no CLIP here has.
    """
    name = weights.path.name
    if weights.origin == TRANSFORMERS:
        return _of_transformers(weights) if name in _OF_TRANSFORMERS else None
    return _of_open_clip(weights) if name in _OF_OPEN_CLIP else None


def _of_open_clip(weights: Weights) -> Companion | None:
    path = weights.path.with_name(HUB_CONFIG)
    config = _read_json(path)
    model, images = config.get("model_cfg", {}), config.get("preprocess_cfg", {})
    vision = model.get("vision_cfg", {})
    described = model.get("embed_dim"), vision.get("width", 768), vision.get("patch_size", 16)
    if described != _sizes(weights):
        return None
    statistics = _statistics(images.get("mean"), images.get("std"))
    return Companion(path.name, bool(model.get("quick_gelu")), statistics)


def _of_transformers(weights: Weights) -> Companion | None:
    path = weights.path.with_name("config.json")
    config = _read_json(path)
    vision, text = config.get("vision_config") or {}, config.get("text_config") or {}
    described = (
        *(config.get("projection_dim", 512), vision.get("hidden_size", 768)),
        vision.get("patch_size", 32),
    )
    if config.get("model_type") != "clip" or described != _sizes(weights):
        return None
    used = {tower.get("hidden_act", "quick_gelu") for tower in (vision, text)}
    if len(used) > 1 or not used <= _QUICK_GELU.keys():
        raise weights_error(
            weights.path,
            f"{path.name} beside it says {' and '.join(sorted(used))}; towers here have either "
            "quick_gelu or gelu, both the same",
        )
    images = _read_json(path.with_name("preprocessor_config.json"))
    statistics = _statistics(images.get("image_mean"), images.get("image_std"))
    return Companion(path.name, _QUICK_GELU[used.pop()], statistics)


def _sizes(weights: Weights) -> tuple[int, ...] | None:
    """Joint dimension, width and patch size of the image tower."""
    state = weights.state
    if not {"visual.proj", "visual.conv1.weight"} <= state.keys():
        return None
    convolution = state["visual.conv1.weight"]
    return state["visual.proj"].shape[1], convolution.shape[0], convolution.shape[-1]


def _statistics(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> dict[str, Sequence[float]]:
    return {"mean": tuple(mean), "std": tuple(std)} if mean and std else {}


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
