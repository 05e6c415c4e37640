"""A value out of range is named; a key that is set and has no effect is an error."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg

from tests.conftest import ROOT, TINY_CONFIG
from zss_d2.config import default_config, validate_config
from zss_d2.config_checks import ALWAYS, WITH_EFFECT, within
from zss_d2.config_rules import check_effects, check_values, load_rules
from zss_d2.config_values import flatten, value_of
from zss_d2.engine import load_config
from zss_d2.errors import ZssError
from zss_d2.modeling.attention import CrossAttention
from zss_d2.modeling.methods.ldvc.route_attention import RouteAttention

BATCH_NORM = ("ENABLED", "NUM_ITER")


def load(*opts: object, config: Path = TINY_CONFIG) -> CfgNode:
    return load_config(argparse.Namespace(config_file=str(config), opts=list(opts)))


@pytest.mark.parametrize(
    ("value", "interval", "expected"),
    [
        (0, "[0, 1)", True),
        (1, "[0, 1)", False),
        (0, "(0, 1]", False),
        (1, "(0, 1]", True),
        (1e9, "(0, inf)", True),
        (math.inf, "(0, inf)", False),
        (math.nan, "(-inf, inf)", False),
        (-3.5, "(-inf, inf)", True),
        (True, "[0, 1]", False),
        ("1", "[0, 1]", False),
    ],
)
def test_intervals(value, interval, expected):
    assert within(value, interval) is expected


def test_every_rule_is_about_keys_that_exist_and_defaults_keep_it():
    cfg, rules = default_config(), load_rules()
    known = set(flatten(cfg))
    later = {"FLOAT32_PRECISION", "DATALOADER.RANDOM_SUBSET_RATIO"}  # not in every version
    # Detectron2's own config has more keys than that of the stand-in.
    lite = set() if "RESNETS" in cfg.MODEL else {f"TEST.PRECISE_BN.{k}" for k in BATCH_NORM}
    for rule in rules.rules:
        others = {key for demand in rule.demands for key in demand.others}
        assert {rule.key, *rule.needs, *rule.needs_any, *others} <= known | later | lite, rule
        assert {demand.check for demand in rule.demands} <= {*ALWAYS, *WITH_EFFECT}, rule
    nodes = {".".join(key.split(".")[:i]) for key in known for i in range(1, 6)}
    assert {key for keys in rules.ignores.values() for key in keys} <= nodes
    if not lite:
        assert set(rules.used) | set(rules.instead) <= nodes | later
    cfg.INPUT.FORMAT, cfg.SOLVER.LR_SCHEDULER_NAME = "RGB", "WarmupPolyLR"
    check_values(cfg)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("MODEL.LDVC.ROUTE_TOPK", 0, "is 0; use 1 or more"),
        ("MODEL.LDVC.ROUTE_WINDOWS", 0, "is 0; use 1 or more"),
        ("MODEL.LDVC.DROPOUT", 1.0, "is 1.0; use 0 to less than 1"),
        ("MODEL.LDVC.MASK_HEAD", "cos", "use one of 'cosine', 'attention', 'dot'"),
        ("MODEL.LDVC.INIT_TEMPERATURE", 0.0, "use more than 0"),
        ("SOLVER.BASE_LR", 0.0, "use more than 0"),
        ("SOLVER.IMS_PER_BATCH", 0, "use 1 or more"),
        ("SOLVER.CHECKPOINT_PERIOD", 0, "use 1 or more"),
        ("MODEL.PIXEL_STD", [0.0, 1.0, 1.0], "use more than 0"),
        ("MODEL.PIXEL_MEAN", [120.0], "give three values for each"),
        ("INPUT.CROP.SIZE", [96.5, 96.5], "give whole px"),
        ("INPUT.SCALE_RANGE", [2.0, 0.5], "give the smaller one first"),
        ("INPUT.RESIZE_BASE", [512], "give 2 values"),
        ("INPUT.RANDOM_FLIP", "up", "use one of 'none', 'horizontal', 'vertical'"),
        ("SOLVER.MIN_LR", 1.0, "above SOLVER.BASE_LR, 0.001"),
        ("MODEL.CLIP_ZSS.WINDOWS", [], "1 or more values"),
        ("MODEL.CLIP_ZSS.ALPHA", 0.0, "use more than 0"),
        ("MODEL.ZEGCLIP.NUM_LAYERS", 0, "use 1 or more"),
    ],
)
def test_impossible_values_are_named(make_cfg, key, value, message):
    with pytest.raises(ZssError, match=message) as error:
        validate_config(make_cfg(key, value))
    assert key in str(error.value)


@pytest.mark.parametrize("module", [CrossAttention, lambda *a: RouteAttention(*a, 2, 2)])
def test_heads_that_do_not_divide_the_channels_are_named(module):
    with pytest.raises(ZssError, match="NUM_HEADS is 7.* 64 channels; use one of 1, 2, 4, 8, 16"):
        module(64, 7)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("INPUT.MIN_SIZE_TRAIN", (640,)), "INPUT.MIN_SIZE_TRAIN .* use INPUT.RESIZE_BASE"),
        (("SOLVER.STEPS", (3,)), "SOLVER.STEPS .* use SOLVER.POLY_POWER"),
        (("SOLVER.MOMENTUM", 0.5), "SOLVER.MOMENTUM .* AdamW"),
        (("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3), "no effect here; use MODEL.META_ARCHITECTURE"),
        (("TEST.SLIDE.CROP", 600), "no effect: TEST.SLIDE.ENABLED is False"),
        (("INPUT.MIN_SIZE_TEST", 0, "INPUT.MAX_SIZE_TEST", 9), "INPUT.MIN_SIZE_TEST is 0"),
        (("MODEL.ZEGCLIP.NUM_HEADS", 4), "META_ARCHITECTURE is 'LDVC'"),
        (("MODEL.CLIP_ZSS.ENCODER.NAME", "T"), "META_ARCHITECTURE is 'LDVC'"),
        (("MODEL.LOSS.CE_WEIGHT", 2.0), "MODEL.LOSS.NAME is 'nel'"),
        (
            ("MODEL.LOSS.NAME", "softmax", "MODEL.LOSS.IGNORED", "negatives"),
            "LOSS.IGNORED .* MODEL.LOSS.NAME is 'softmax'",
        ),
        (("MODEL.TEXT_PROMPTS.INIT", "a"), "MODEL.TEXT_PROMPTS.LENGTH is 0"),
        (
            ("MODEL.TEXT_PROMPTS.LENGTH", 2, "MODEL.CLIP.TEMPLATE_SET", "coco15"),
            "TEMPLATE_SET .* MODEL.TEXT_PROMPTS.LENGTH is 2",
        ),
        (("MODEL.LDVC.ORDER", ["cross"], "MODEL.LDVC.ROUTE_TOPK", 2), "LDVC.ORDER is"),
        (("MODEL.LDVC.MASK_HEAD", "dot", "MODEL.LDVC.INIT_BIAS", 1.0), "MASK_HEAD is 'dot'"),
        (
            ("MODEL.META_ARCHITECTURE", "MaskCLIP", "MODEL.LOSS.NAME", "softmax"),
            "META_ARCHITECTURE is 'MaskCLIP'",
        ),
    ],
)
def test_a_key_that_is_given_without_effect_is_refused(opts, message):
    with pytest.raises(ZssError, match=message):
        load(*opts)


def test_turning_a_feature_off_keeps_its_settings_of_the_base_config(tmp_path):
    """Nobody has to undo what a base config says; in a file of one's own it is an error."""
    assert not load("TEST.SLIDE.ENABLED", False, config=ROOT / "configs/ldvc_voc.yaml").TEST.FLIP
    load("TEST.SLIDE.ENABLED", False, config=ROOT / "configs/ldvc_context.yaml")
    load("SOLVER.WARMUP_ITERS", 0)  # this file itself has WARMUP_FACTOR
    own = tmp_path / "own.yaml"
    base = ROOT / "configs/ldvc_context.yaml"
    own.write_text(f"_BASE_: {base}\nTEST:\n  SLIDE:\n    ENABLED: False\n    CROP: 320\n")
    with pytest.raises(ZssError, match="TEST.SLIDE.CROP is set to 320"):
        load(config=own)


def test_keys_of_a_file_count_for_what_the_command_line_makes_of_it(tmp_path):
    """Neither a base config nor a switch in the file is needed for them to have an effect."""
    own = tmp_path / "own.yaml"
    base = f"_BASE_: {ROOT / 'configs/ldvc_mini.yaml'}\n"
    own.write_text(f"{base}TEST:\n  SLIDE:\n    CROP: 64\n    STRIDE: 48\n")
    load("TEST.SLIDE.ENABLED", True, config=own)
    with pytest.raises(ZssError, match="TEST.SLIDE.CROP is set to 64"):
        load(config=own)
    cfg = load(config=TINY_CONFIG)
    alone = tmp_path / "alone.yaml"
    alone.write_text(
        "VERSION: 2\nMODEL:\n  META_ARCHITECTURE: LDVC\n  ZEGCLIP:\n    NUM_LAYERS: 7\n"
        f"INPUT:\n  FORMAT: RGB\nSOLVER:\n  LR_SCHEDULER_NAME: {cfg.SOLVER.LR_SCHEDULER_NAME}\n"
    )
    with pytest.raises(ZssError, match="MODEL.ZEGCLIP.NUM_LAYERS is set to 7 but has no effect"):
        load(config=alone)


def test_statistics_of_pixels_in_0_to_1_are_named(make_cfg):
    mean, std = ("MODEL.PIXEL_MEAN", [0.485, 0.456, 0.406]), ("MODEL.PIXEL_STD", [0.2, 0.2, 0.2])
    with pytest.raises(ZssError, match="pixels are 0..255; multiply"):
        validate_config(make_cfg(*mean, *std))
    validate_config(make_cfg("MODEL.PIXEL_MEAN", [0.0] * 3, "MODEL.PIXEL_STD", [255.0] * 3))


def test_a_loss_of_nothing_is_refused(make_cfg):
    weights = ("MODEL.LOSS.FOCAL_WEIGHT", 0.0, "MODEL.LOSS.DICE_WEIGHT", 0.0)
    with pytest.raises(ZssError, match="nothing would be learnt"):
        validate_config(make_cfg(*weights))


def test_the_config_of_a_run_can_be_read_again(tmp_path):
    """It has every key, also those whose feature was turned off."""
    cfg = load("TEST.SLIDE.ENABLED", False, config=ROOT / "configs/ldvc_context.yaml")
    (tmp_path / "config.yaml").write_text(cfg.dump())
    again = load(config=tmp_path / "config.yaml")
    assert (again.TEST.SLIDE, again.MODEL.LDVC) == (cfg.TEST.SLIDE, cfg.MODEL.LDVC)


def test_methods_and_backbones_of_others_read_keys_that_are_unknown_here():
    upstream = get_cfg()
    key = "MODEL.RESNETS.DEPTH" if "RESNETS" in upstream.MODEL else "MODEL.SEM_SEG_HEAD.NAME"
    cfg = default_config()
    cfg.merge_from_list(["MODEL.META_ARCHITECTURE", "TheirMethod", key, value_of(cfg, key) * 2])
    check_effects(cfg, default_config(), {key})
    cfg.MODEL.META_ARCHITECTURE = "LDVC"
    with pytest.raises(ZssError, match=f"{key} .* has no effect here"):
        check_effects(cfg, default_config(), {key})


def test_two_ways_to_half_precision_are_refused(make_cfg):
    amp = ("SOLVER.AMP.ENABLED", True)
    with pytest.raises(ZssError, match="only one of them can choose the precision"):
        validate_config(make_cfg(*amp, "MODEL.AUTOCAST", "bfloat16", "MODEL.DEVICE", "cuda"))
    with pytest.raises(ZssError, match="MODEL.DEVICE is 'cpu'; use MODEL.AUTOCAST bfloat16"):
        validate_config(make_cfg(*amp))
    validate_config(make_cfg(*amp, "MODEL.DEVICE", "cuda"))
