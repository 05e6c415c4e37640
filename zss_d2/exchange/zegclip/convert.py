"""From a released checkpoint of ZegCLIP to a model of this project."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import open_clip
import yaml
from detectron2.config import CfgNode
from torch import Tensor

from zss_d2.clip.weights.file import require_usable, weights_error
from zss_d2.config.defaults import default_config, validate_config
from zss_d2.config.merge import merge_nested
from zss_d2.config.model_folder import sha256_of
from zss_d2.engine import ZeroShotTrainer
from zss_d2.engine.checkpoint import without_prefix
from zss_d2.errors import ZssError
from zss_d2.exchange.mmsegmentation import Released, read_checkpoint
from zss_d2.exchange.zegclip import facts
from zss_d2.exchange.zegclip.names import MARKS, POSITIONS, Renamed, released_name, rename
from zss_d2.predict.predictor import Predictor

KEY = "zss import zegclip"
_SETTINGS = Path(__file__).parent / "released.yaml"
# Subtracted from the scores of seen classes by the released code, in the inductive setting alone.
_SEEN_BIAS = 0.1
# A window of the released tests moves by so much of its side.
_STRIDE = 426 / 512
_HEAD_DIM = 64


def convert(
    path: Path,
    benchmark: str | None = None,
    setting: str | None = None,
    say: Callable[[str], object] = print,
) -> tuple[Predictor, str]:
    """Make the model of a released checkpoint, with its config.

    Args:
        path: ``{"meta", "state_dict"}`` of MMSegmentation, or the state dict alone.
        benchmark: one of `facts.BENCHMARKS`; None: as the file tells.
        setting: one of `facts.SETTINGS`; None: as the file tells.
        say: is told, line by line, what was found and what is left out.

    Returns:
        the model, ready for `save_pretrained`, and a sentence that says where it is from.

    Raises:
        ZssError: it is no such checkpoint, or one that lacks a tensor or has others; it does not
            tell what is not given.
    """
    if path.is_file():
        say(f"reading {path} ({path.stat().st_size / 1e6:.0f} MB)")
    released = read_checkpoint(path, KEY)
    tensors = without_prefix(released.state, dict.fromkeys(MARKS))
    if sum(name in tensors for name in MARKS) <= len(MARKS) // 2:
        what = facts.looks_like(released.entries, tensors)
        raise weights_error(path, f"no ZegCLIP, it looks like {what}", KEY)
    found = rename(tensors)
    try:
        sizes = facts.sizes_of(found.state, tensors)
        kind = facts.benchmark_of(released, sizes.classes, benchmark)
        model_config = released.config.get("model")
        quoted = model_config if isinstance(model_config, Mapping) else {}
        trained = facts.setting_of(quoted, kind, sizes.classes, setting)
    except KeyError as missing:
        name = released_name(str(missing.args[0]))
        raise weights_error(path, f"lacks {name}; fetch the file again", KEY) from None
    except ZssError as error:
        raise weights_error(path, str(error), KEY) from None
    cfg = config_of(released, quoted, sizes, kind.name, trained)
    say(
        f"ZegCLIP on CLIP {sizes.clip}: {sizes.prompts} prompts a layer, {sizes.decoder_layers} "
        f"decoder layers, images of {sizes.image} px; {kind.name}, {trained}, sentences "
        f"{cfg.MODEL.CLIP.TEMPLATE_SET}, seen bias {cfg.TEST.SEEN_BIAS:g}"
    )
    _say_what_is_left_out(say, released, found)
    say(
        f"position embedding: {_grid(found.state[POSITIONS])} brought back to "
        f"{_grid(sizes.positions)} patches, enlarged again it differs by {sizes.error:.0e} of its "
        "largest value"
    )
    state = {name: x.float() for name, x in found.state.items()} | {POSITIONS: sizes.positions}
    predictor = Predictor(
        cfg, _model(cfg, state, found, path), iteration=_before(released.iteration)
    )
    return predictor, (
        f"Converted from {path.name} (SHA-256 {sha256_of(path)}), a checkpoint of ZegCLIP's "
        "released code (github.com/ZiqinZhou66/ZegCLIP)."
    )


def _before(iterations: int | None) -> int | None:
    """The last of so many iterations, counted from 0."""
    return iterations - 1 if iterations else None


def _grid(positions: Tensor) -> str:
    side = round((len(positions) - 1) ** 0.5)
    return f"{side} x {side}"


def _say_what_is_left_out(say: Callable[[str], object], released: Released, found: Renamed) -> None:
    if found.unused:
        say(
            f"left out, as the released code does not use them either: {len(found.unused)} tensors "
            f"(self-attention of the decoder and its norm, empty_weight), such as {found.unused[0]}"
        )
    if released.others:
        say(f"left out, of no use for predictions: {', '.join(released.others)}")


def config_of(
    released: Released, quoted: Mapping[str, Any], sizes: facts.Sizes, data: str, setting: str
) -> CfgNode:
    """The config of a checkpoint: of the released training, with what the file says of itself.

    Args:
        quoted: the part ``model`` of the config that the file quotes.
        data: benchmark.

    Raises:
        ZssError: its windows are no squares.
    """
    settings = yaml.safe_load(_SETTINGS.read_text(encoding="utf-8"))
    cfg = default_config()
    merge_nested(cfg, settings["common"], str(_SETTINGS))
    merge_nested(cfg, settings[data], str(_SETTINGS))
    if setting == "transductive":
        merge_nested(cfg, settings[setting], str(_SETTINGS))
        cfg.SOLVER.MAX_ITER //= 2
    test, head = (_part(quoted, key) for key in ("test_cfg", "decode_head"))
    crop = facts.numbers(test.get("crop_size"), 2) or [sizes.image] * 2
    stride = facts.numbers(test.get("stride"), 2) or [round(sizes.image * _STRIDE)] * 2
    if crop[0] != crop[1] or stride[0] != stride[1]:
        raise ZssError(f"windows of {crop} px every {stride} px; here they are square")
    norm = _part(released.config, "img_norm_cfg")
    dim = open_clip.get_model_config(sizes.clip)["embed_dim"]
    heads = head.get("num_heads")
    own = {
        "MODEL": {
            "CLIP": {
                "NAME": sizes.clip,
                "PRETRAINED": "openai" if _has_tag(sizes.clip, "openai") else "",
                "TEMPLATE_SET": facts.template_set_of(quoted) or cfg.MODEL.CLIP.TEMPLATE_SET,
            },
            "VISUAL_PROMPTS": {"LENGTH": sizes.prompts},
            "ZEGCLIP": {
                "NUM_LAYERS": sizes.decoder_layers,
                "NUM_HEADS": heads if isinstance(heads, int) else max(1, dim // _HEAD_DIM),
                "FFN_DIM": sizes.ffn_dim,
            },
            "PIXEL_MEAN": facts.numbers(norm.get("mean"), 3) or cfg.MODEL.PIXEL_MEAN,
            "PIXEL_STD": facts.numbers(norm.get("std"), 3) or cfg.MODEL.PIXEL_STD,
        },
        "DATASETS": {"TRAIN": [f"zss_{data}_train"], "TEST": [f"zss_{data}_val"]},
        "ZERO_SHOT": {"SETTING": setting},
        "INPUT": {
            "RESIZE_BASE": [2048, sizes.image],
            "CROP": {"SIZE": [sizes.image] * 2},
            "MIN_SIZE_TEST": sizes.image,
        },
        "TEST": {
            "SLIDE": {"ENABLED": test.get("mode") != "whole"},
            "SEEN_BIAS": _SEEN_BIAS if setting == "inductive" else 0.0,
        },
    }
    if own["TEST"]["SLIDE"]["ENABLED"]:
        own["TEST"]["SLIDE"] |= {"CROP": int(crop[0]), "STRIDE": int(stride[0])}
    merge_nested(cfg, own, KEY)
    cfg.MODEL.DEVICE = "cpu"
    validate_config(cfg)
    return cfg


def _part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = config.get(key)
    return part if isinstance(part, Mapping) else {}


def _has_tag(name: str, tag: str) -> bool:
    return bool(open_clip.get_pretrained_cfg(name, tag))


def _model(cfg: CfgNode, state: Mapping[str, Tensor], found: Renamed, path: Path) -> Any:
    model = ZeroShotTrainer.build_model(cfg).eval()
    own = model.state_dict()
    missing = [released_name(name) for name in own if name not in state]
    unknown = [*found.unknown, *(released_name(name) for name in state if name not in own)]
    sized = [
        f"{released_name(name)}, {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and own[name].shape != state[name].shape
    ]
    for what, names in (
        ("is without", missing),
        ("has, beside those of ZegCLIP,", unknown),
        ("has, in another size,", sized),
    ):
        if names:
            many = f"{len(names)} tensors, such as " if len(names) > 1 else ""
            raise weights_error(path, f"{what} {many}{names[0]}; fetch the file again", KEY)
    require_usable(state, own, path, KEY)
    model.load_state_dict(state)
    return model
