"""A value out of range is named; a key that is set and has no effect is an error."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg

from tests.conftest import ROOT, TINY_CONFIG
from zss_d2.config.checks import ALWAYS, WITH_EFFECT, within
from zss_d2.config.defaults import default_config, validate_config
from zss_d2.config.merge import set_value
from zss_d2.config.rules import check_effects, check_values, load_rules, resume_changes
from zss_d2.config.values import flatten, value_of
from zss_d2.engine import load_config
from zss_d2.errors import ZssError

BATCH_NORM = ("ENABLED", "NUM_ITER")


def load(*opts: object, config: Path = TINY_CONFIG) -> CfgNode:
    return load_config(config, opts)


@pytest.mark.parametrize(
    ("value", "interval", "expected"),
    [
        (0, "[0, 1)", True),
        (1, "[0, 1)", False),
        (0, "(0, 1]", False),
        (1, "(0, 1]", True),
        (1e9, "(0, inf)", True),
        (10**400, "(0, inf)", True),
        (math.inf, "(0, inf]", True),
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
        ("MODEL.LDVC.MASK_HEAD", "cos", "use one of 'cosine', 'attention'"),
        ("MODEL.LDVC.INIT_TEMPERATURE", 0.0, "use more than 0"),
        ("SOLVER.BASE_LR", 0.0, "use more than 0"),
        ("SOLVER.IMS_PER_BATCH", 0, "use 1 to 1000000"),
        ("SOLVER.CHECKPOINT_PERIOD", 0, "use 1 or more"),
        ("MODEL.PIXEL_STD", [0.0, 1.0, 1.0], "use more than 0"),
        ("MODEL.PIXEL_MEAN", [120.0], "give three values for each"),
        ("INPUT.CROP.SIZE", [96.5, 96.5], "give whole px"),
        ("INPUT.SCALE_RANGE", [2.0, 0.5], "give the smaller one first"),
        ("INPUT.RESIZE_BASE", [512], "give 2 values"),
        ("INPUT.RANDOM_FLIP", "up", "use one of 'none', 'horizontal', 'vertical'"),
        ("SOLVER.MIN_LR", 1.0, "above SOLVER.BASE_LR, 0.001"),
        ("MODEL.CLIP_ZSS.WINDOWS", [], "1 or more values"),
        ("SEED", 5_000_000_000, "use 4294900000 or less"),
        ("OUTPUT_DIR", "", "use a folder"),
        ("MODEL.DEVICE", "gpu", "use 'cpu', 'cuda', or one GPU, such as 'cuda:0'"),
        ("MODEL.LDVC.ROUTE_TOPK", 17, "above MODEL.LDVC.ROUTE_WINDOWS .*, 16 = 4 x 4; lower it"),
        ("MODEL.LDVC.ORDER", [], "give 1 or more values"),
        ("MODEL.LDVC.ORDER", ["ffn", "ffn"], "name 'ffn' once"),
        ("MODEL.CLIP.FEATURE_LAYERS", ["a"], "give whole numbers"),
        ("MODEL.CLIP.FEATURE_LAYERS", [-1, -1], "name -1 once"),
        ("MODEL.CLIP.TEMPLATES", [3], "give a list of texts"),
        ("SOLVER.LR_FACTORS", ["decoder", 10.0], r"give a list of lists \[text, more than 0\]"),
        ("SOLVER.LR_FACTORS", [["decoder"]], r"give a list of lists \[text, more than 0\]"),
        ("SOLVER.LR_FACTORS", [["decoder", -1.0]], r"give a list of lists \[text, more than 0\]"),
        ("SOLVER.LR_FACTORS", [["a", 1.0], ["a", 2.0]], "name 'a' once"),
        ("SOLVER.REFERENCE_WORLD_SIZE", 3, "IMS_PER_BATCH is 4; give a multiple of SOLVER.REF"),
        ("SOLVER.CHECKPOINT_MINUTES", -1.0, "use 0 or more"),
        ("SOLVER.CHECKPOINT_KEEP", -1, "use 0 or more"),
        ("SOLVER.CHECKPOINT_BEST", "hIOU", "use 'hIoU', 'mIoU'"),
        ("TEST.EXPECTED_RESULTS", [["sem_seg", "mIoU", 1.0]], "give a list of lists"),
        ("TEST.SCALES", [1.0, 1.0], "name 1.0 once"),
        ("DATASETS.TEST", ["a", "a"], "name 'a' once"),
        ("DATALOADER.NUM_WORKERS", 100000, "use 0 to 512"),
        ("MODEL.CLIP_ZSS.ALPHA", 0.0, "use more than 0"),
        ("MODEL.ZEGCLIP.NUM_LAYERS", 0, "use 1 to 1000"),
    ],
)
def test_impossible_values_are_named(make_cfg, key, value, message):
    with pytest.raises(ZssError, match=message) as error:
        validate_config(make_cfg(key, value))
    assert key in str(error.value)


NORMS = ("SOLVER.CLIP_GRADIENTS.NORM_TYPE",)  # of which infinity is one
NONSENSE = (-1, 0.5, math.nan, math.inf, "x" * 400, [], ["a"], [[]], {"b": 1}, [math.nan], None)


@pytest.mark.parametrize("key", sorted(flatten(default_config())))
def test_nonsense_is_named_with_its_key_on_a_short_line(key, make_cfg):
    """Whatever somebody writes: nothing but a `ZssError`, and no NaN or infinity that is read."""
    cfg = make_cfg()
    default = value_of(cfg, key)
    parent, _, name = key.rpartition(".")
    nodes = [node for node in load_rules().used if f"{key}.".startswith(f"{node}.")]
    read = nodes or key not in flatten(get_cfg())
    for value in (*NONSENSE, [True, True], "((((", 10**400):
        try:
            set_value(cfg, key, value, "command line")
            check_values(cfg)
        except ZssError as error:
            assert key in str(error)
            assert len(str(error)) < 300
        else:
            number = isinstance(value_of(cfg, key), float) and key not in NORMS
            assert not (number and read) or math.isfinite(value_of(cfg, key))
        finally:
            (value_of(cfg, parent) if parent else cfg)[name] = default


@pytest.mark.parametrize(
    "opts",
    [
        ("TEST.SLIDE.STRIDE", 600),  # windows are off
        ("INPUT.MAX_SIZE_TEST", 100, "INPUT.MIN_SIZE_TEST", 0),
        ("INPUT.CROP.ENABLED", False, "INPUT.CROP.SIZE", [0.9, 0.9]),  # as Detectron2 has it
        ("MODEL.LDVC.NUM_LAYERS", 0, "MODEL.LDVC.ROUTE_TOPK", 99),
        (
            "MODEL.LOSS.NAME",
            "softmax",
            "MODEL.LOSS.FOCAL_WEIGHT",
            0.0,
            "MODEL.LOSS.DICE_WEIGHT",
            0.0,
        ),
        ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", math.inf),
        ("SOLVER.CHECKPOINT_BEST", "IoU-traffic light"),
        ("TEST.EXPECTED_RESULTS", [["sem_seg", "mIoU", 1.0, 0.5]]),
        ("SOLVER.LR_FACTORS", [("decoder", 10), ["image_encoder", 0.1]]),
    ],
)
def test_relations_hold_only_between_values_that_are_read(opts, make_cfg):
    check_values(make_cfg(*opts))


def test_a_stride_must_not_leave_gaps(make_cfg):
    sliding = ("TEST.SLIDE.ENABLED", True, "TEST.SLIDE.CROP", 512, "TEST.SLIDE.STRIDE")
    validate_config(make_cfg(*sliding, 512))
    with pytest.raises(ZssError, match="STRIDE is 513, above TEST.SLIDE.CROP, 512; lower it"):
        validate_config(make_cfg(*sliding, 513))


@pytest.mark.parametrize(
    ("method", "opts", "message"),
    [
        ("clip_zss", ("LOSS_STRIDE", 1000), "LOSS_STRIDE is 1000, above INPUT.CROP.SIZE, 512"),
        ("clip_zss", ("CE_WEIGHT", 0.0, "NEL_WEIGHT", 0.0), "nothing would be learnt"),
        ("clip_zss", ("NEL_WEIGHT", 0.0, "MODEL.LOSS.DICE_WEIGHT", 3.0), "NEL_WEIGHT is 0.0"),
        ("clip_zss", ("NEL_WEIGHT", 0.0, "MODEL.LOSS.FOCAL_GAMMA", 3.0), "NEL_WEIGHT is 0.0"),
        ("clip_zss", ("TEACHER", False, "TEACHER_SIZE", 224), "TEACHER is False; leave it out"),
        ("clip_zss", ("TEACHER", False, "WINDOWS", [4]), "CLIP_ZSS.TEACHER is False"),
        ("clip_zss", ("TEACHER", False, "ENCODER.WEIGHTS", "a.pth"), "CLIP_ZSS.TEACHER is False"),
        ("clip_zss", ("TEACHER", False, "SYNTHESIZER.NUM_HEADS", 4), "CLIP_ZSS.TEACHER is False"),
        (
            "clip_zss",
            ("GLOBAL_WEIGHT", 0.0, "PSEUDO_WEIGHT", 0.0, "TEACHER_SIZE", 224),
            "TEACHER_SIZE is set to 224 but has no effect: .*GLOBAL_WEIGHT is 0.0",
        ),
        (
            "clip_zss",
            ("PSEUDO_WEIGHT", 0.0, "MODEL.CLIP.DENSE_TOKENS", "value_residual"),
            "DENSE_TOKENS .* no effect: MODEL.CLIP_ZSS.PSEUDO_WEIGHT is 0.0",
        ),
        (
            "clip_zss",
            ("MODEL.PIXEL_MEAN", [1.0] * 3, "MODEL.PIXEL_STD", [9.0] * 3, "STATISTICS", "clip"),
            "STATISTICS .* or set MODEL.PIXEL_MEAN \\[\\]",
        ),
        ("clip_zss", ("REGIONS", "latent"), "use one of 'all', 'unannotated'"),
        ("clip_zss", ("LOCAL.FILL", "black"), "LOCAL.FILL .* no effect: .*LOCAL_WEIGHT is 0.0"),
        ("clip_zss", ("LOCAL.TEMPERATURE", 0.1), "no effect: MODEL.CLIP_ZSS.LOCAL_WEIGHT is 0.0"),
        (
            "clip_to_seg",
            ("LOCAL.CLS", "attention", "LOCAL.SIZE", 112),
            "LOCAL.SIZE .* no effect: MODEL.CLIP_ZSS.LOCAL.CLS is 'attention'",
        ),
        ("clip_to_seg", ("LOCAL.BLOCKS", 3), "LOCAL.BLOCKS .*LOCAL.CLS is 'passes'"),
        ("clip_to_seg", ("LOCAL.MAX_REGIONS", 0), "LOCAL.MAX_REGIONS is 0; use 1 or more"),
        (
            "clip_zss",
            ("PROTOTYPES", "teacher", "SYNTHESIZER.MEMORY", "global_local"),
            "MEMORY .* no effect: MODEL.CLIP_ZSS.PROTOTYPES is 'teacher'",
        ),
        (
            "clip_zss",
            ("ZERO_SHOT.LEAKY_ORACLE", ["regions"], "REGIONS", "unannotated"),
            "REGIONS .* no effect: ZERO_SHOT.LEAKY_ORACLE is",
        ),
        (
            "clip_to_seg",
            ("ZERO_SHOT.LEAKY_ORACLE", ["embeddings"], "PROTOTYPES", "student"),
            "PROTOTYPES .* no effect: ZERO_SHOT.LEAKY_ORACLE is",
        ),
        ("clip_to_seg", ("ZERO_SHOT.LEAKY_ORACLE", ["masks"]), "'regions', 'embeddings'"),
        (
            "clip_zss",
            ("ZERO_SHOT.LEAKY_ORACLE", ["embeddings"], "PSEUDO_WEIGHT", 0.0),
            "LEAKY_ORACLE .* no effect: MODEL.CLIP_ZSS.PSEUDO_WEIGHT is 0.0",
        ),
        ("ldvc", ("ZERO_SHOT.LEAKY_ORACLE", ["regions"]), "META_ARCHITECTURE is 'LDVC'"),
        ("ldvc", ("NUM_LAYERS", 0, "NUM_HEADS", 4), "LDVC.NUM_LAYERS is 0"),
        ("ldvc", ("NUM_LAYERS", 1, "MODEL.LOSS.AUX_WEIGHT", 0.4), "to 2 or more"),
        ("zegclip", ("NUM_LAYERS", 1, "MODEL.LOSS.AUX_WEIGHT", 0.4), "to 2 or more"),
        ("zegclip", ("MODEL.CLIP.FEATURE_LAYERS", [3, -1]), "FEATURE_LAYERS .* give 1 values"),
    ],
)
def test_rules_of_methods(method, opts, message):
    """Their own keys, and shared keys whose effect depends on them."""
    pairs = zip(opts[::2], opts[1::2], strict=True)
    node = "MODEL." + {"clip_to_seg": "CLIP_ZSS"}.get(method, method.upper())
    absolute = [
        part
        for key, value in pairs
        for part in (key if key.startswith(("MODEL.", "ZERO_SHOT.")) else f"{node}.{key}", value)
    ]
    with pytest.raises(ZssError, match=message):
        load(*absolute, config=ROOT / f"configs/{method}_voc.yaml")


def test_heads_of_a_mask_head_are_read_without_layers():
    opts = ("MODEL.LDVC.NUM_LAYERS", 0, "MODEL.LDVC.MASK_HEAD", "attention")
    assert load(*opts, "MODEL.LDVC.NUM_HEADS", 2).MODEL.LDVC.NUM_HEADS == 2


def test_the_remedy_for_a_key_without_effect_works():
    opts = ("MODEL.CLIP.TEMPLATE_SET", "coco15", "MODEL.CLIP.TEMPLATES", ["a {}."])
    with pytest.raises(ZssError, match="or set MODEL.CLIP.TEMPLATE_SET ''"):
        load(*opts)
    load(*opts, "MODEL.CLIP.TEMPLATE_SET", "")
    best = ("SOLVER.CHECKPOINT_BEST", "hIoU")
    with pytest.raises(ZssError, match="TEST.EVAL_PERIOD is 0; .* set TEST.EVAL_PERIOD to 1 or"):
        load(*best)
    load(*best, "TEST.EVAL_PERIOD", 5)


def changes(*opts: object, old: dict | None = None) -> dict[str, set[str]]:
    """Names of the keys that another run has otherwise, by what that means for resuming."""
    before = flatten(load()) if old is None else old
    found = resume_changes(before, load(*opts), default_config())
    return {kind: set(keys) for kind, keys in vars(found).items() if keys}


@pytest.mark.parametrize(
    ("kind", "opts"),
    [
        ("free", ("OUTPUT_DIR", "x")),
        ("free", ("MODEL.WEIGHTS", "x.pth")),
        ("free", ("DATALOADER.NUM_WORKERS", 3)),
        ("free", ("SOLVER.CHECKPOINT_PERIOD", 7)),
        ("free", ("SOLVER.CHECKPOINT_MINUTES", 7)),
        ("free", ("TEST.SCALES", (2.0,))),
        ("free", ("INPUT.MIN_SIZE_TEST", 100)),
        ("adjustable", ("SOLVER.BASE_LR", 0.5)),
        ("adjustable", ("SOLVER.MAX_ITER", 99)),
        ("adjustable", ("SOLVER.CLIP_GRADIENTS.ENABLED", True)),
        ("adjustable", ("MODEL.AUTOCAST", "bfloat16")),
        ("fixed", ("SEED", 5)),
        ("fixed", ("SOLVER.IMS_PER_BATCH", 8)),
        ("fixed", ("MODEL.LDVC.NUM_HEADS", 2)),
        ("fixed", ("MODEL.LOSS.DICE_WEIGHT", 2.0)),
        ("fixed", ("DATASETS.TRAIN", ("zss_voc_val",))),
        ("fixed", ("INPUT.SCALE_RANGE", (1.0, 1.0))),
        ("fixed", ("MODEL.CLIP.NAME", "ViT-B-32")),
    ],
)
def test_what_a_change_means_to_a_run_that_is_resumed(kind, opts):
    assert changes(*opts) == {kind: {opts[0]}}


def test_values_of_a_resumed_run_are_compared_as_they_are_read():
    cfg = load()
    assert changes(old=json.loads(json.dumps(cfg))) == {}  # nested, lists for tuples
    before = flatten(cfg) | {"SOLVER.MIN_LR": 1e-6, "TEST.SCALES": [1], "SOLVER.GAMMA": 0.3}
    assert changes(old=before) == {"free": {"SOLVER.GAMMA"}}  # which nothing here reads
    # A key that an earlier version lacked had its default; one that is unknown is not compared.
    del before["SOLVER.GAMMA"], before["SOLVER.CHECKPOINT_KEEP"], before["INPUT.ANTIALIAS"]
    assert changes(old=before | {"MODEL.NEW": 1}) == {}
    assert changes("INPUT.ANTIALIAS", False, old=before) == {"fixed": {"INPUT.ANTIALIAS"}}
    values = resume_changes(before, load("SOLVER.BASE_LR", 0.5), default_config())
    assert values.adjustable == {"SOLVER.BASE_LR": (0.001, 0.5)}


def test_keys_without_effect_in_a_run_do_not_matter_to_it():
    before = flatten(load()) | {"MODEL.ZEGCLIP.NUM_LAYERS": 9, "TEST.SLIDE.CROP": 9}
    before |= {"MODEL.LOSS.CE_WEIGHT": 9.0, "MODEL.LDVC.FFN_DIM": 9}
    assert changes(old=before)["fixed"] == {"MODEL.LDVC.FFN_DIM"}


def test_methods_say_what_their_keys_mean_to_a_resumed_run():
    cfg = load(config=ROOT / "configs/clip_zss_voc.yaml")
    before = flatten(cfg) | {"MODEL.CLIP_ZSS.ENCODER.WEIGHTS": "b.pth", "MODEL.CLIP_ZSS.ALPHA": 9.0}
    found = resume_changes(before, cfg, default_config())
    assert set(found.free) == {"MODEL.CLIP_ZSS.ENCODER.WEIGHTS"}
    assert set(found.fixed) == {"MODEL.CLIP_ZSS.ALPHA"}


def test_rules_for_resuming_are_about_keys_that_exist():
    known = set(flatten(default_config()))
    nodes = {".".join(key.split(".")[:i]) for key in known for i in range(1, 6)}
    later = {"FLOAT32_PRECISION", "TEST.PRECISE_BN"}  # not in every Detectron2
    rules = load_rules()
    assert {*rules.free, *rules.adjustable} <= nodes | later
    assert not set(rules.free) & set(rules.adjustable)
    assert rules.earlier.keys() <= known


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
        (("MODEL.LDVC.MASK_HEAD", "attention", "MODEL.LDVC.INIT_BIAS", 1.0), "is 'attention'"),
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
