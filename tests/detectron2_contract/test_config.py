"""Configuration: defaults, yaml files with a base, and objects built from a config."""

from __future__ import annotations

from pathlib import Path

import detectron2
import pytest
import yaml
from detectron2.config import CfgNode, configurable, get_cfg
from torch import nn

IS_LITE = "lite" in detectron2.__version__

DEFAULTS = {
    "VERSION": 2,
    "MODEL.DEVICE": "cuda",
    "MODEL.WEIGHTS": "",
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "INPUT.MIN_SIZE_TRAIN": (800,),
    "INPUT.CROP.ENABLED": False,
    "INPUT.FORMAT": "BGR",
    "DATASETS.TRAIN": (),
    "DATALOADER.SAMPLER_TRAIN": "TrainingSampler",
    "SOLVER.MAX_ITER": 40000,
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.WARMUP_FACTOR": 0.001,
    "SOLVER.CLIP_GRADIENTS.CLIP_TYPE": "value",
    "SOLVER.AMP.ENABLED": False,
    "TEST.EVAL_PERIOD": 0,
    "OUTPUT_DIR": "./output",
    "SEED": -1,
}


@pytest.mark.parametrize(("key", "value"), DEFAULTS.items())
def test_defaults(key: str, value: object) -> None:
    node = get_cfg()
    for part in key.split("."):
        node = node[part]
    assert node == value


def test_each_get_cfg_is_independent() -> None:
    changed = get_cfg()
    changed.SOLVER.MAX_ITER = 7
    assert get_cfg().SOLVER.MAX_ITER == 40000
    clone = changed.clone()
    clone.SOLVER.MAX_ITER = 8
    assert changed.SOLVER.MAX_ITER == 7


def test_file_with_base_and_overrides(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("SOLVER:\n  MAX_ITER: 10\n  BASE_LR: 0.5\n")
    sub = tmp_path / "sub"
    sub.mkdir()
    (sub / "leaf.yaml").write_text("_BASE_: ../base.yaml\nVERSION: 2\nSOLVER:\n  BASE_LR: 0.25\n")
    cfg = get_cfg()
    cfg.merge_from_file(str(sub / "leaf.yaml"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (10, 0.25)
    cfg.merge_from_list(["SOLVER.STEPS", "(3, 5)", "MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", "1.0"])
    assert (cfg.SOLVER.STEPS, cfg.MODEL.DEVICE, cfg.SOLVER.BASE_LR) == ((3, 5), "cpu", 1.0)


def test_dump_is_a_file_that_merges_back(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.merge_from_list(["OUTPUT_DIR", "elsewhere", "DATASETS.TRAIN", "('a', 'b')"])
    path = tmp_path / "config.yaml"
    path.write_text(cfg.dump())
    merged = get_cfg()
    merged.merge_from_file(str(path))
    # As data: the text also depends on which values are one object.
    assert yaml.safe_load(merged.dump()) == yaml.safe_load(cfg.dump())
    assert merged.OUTPUT_DIR == "elsewhere"
    assert tuple(merged.DATASETS.TRAIN) == ("a", "b")


def test_unknown_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "typo.yaml"
    path.write_text("VERSION: 2\nSOLVER:\n  MAX_ITERS: 10\n")
    with pytest.raises(KeyError, match="SOLVER.MAX_ITERS"):
        get_cfg().merge_from_file(str(path))
    with pytest.raises(AssertionError, match="SOLVER.MAX_ITERS"):
        get_cfg().merge_from_list(["SOLVER.MAX_ITERS", "10"])


def test_value_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match="MAX_ITER"):
        get_cfg().merge_from_list(["SOLVER.MAX_ITER", "many"])


def test_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="absent.yaml"):
        get_cfg().merge_from_file(str(tmp_path / "absent.yaml"))


def test_python_tags_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "unsafe.yaml"
    path.write_text('VERSION: 2\nSEED: !!python/object/apply:eval ["40 + 2"]\n')
    with pytest.raises(yaml.constructor.ConstructorError):
        get_cfg().merge_from_file(str(path), allow_unsafe=False)
    cfg = get_cfg()
    cfg.merge_from_file(str(path), allow_unsafe=True)
    assert cfg.SEED == 42
    if IS_LITE:
        with pytest.raises(yaml.constructor.ConstructorError):
            get_cfg().merge_from_file(str(path))


def test_frozen_config_cannot_change() -> None:
    cfg = get_cfg()
    cfg.freeze()
    with pytest.raises(AttributeError):
        cfg.SEED = 3
    assert cfg.is_frozen()
    cfg.defrost()
    cfg.SEED = 3
    assert cfg.SEED == 3


def test_new_nodes_can_be_added() -> None:
    cfg = get_cfg()
    cfg.ZERO_SHOT = CfgNode({"BIAS": 0.1})
    cfg.merge_from_list(["ZERO_SHOT.BIAS", 0.2])
    assert cfg.ZERO_SHOT.BIAS == 0.2


class Block(nn.Module):
    """Explicit arguments, or a config."""

    @configurable
    def __init__(self, *, width: int, depth: int = 1, name: str = "plain") -> None:
        super().__init__()
        self.made = (width, depth, name)

    @classmethod
    def from_config(cls, cfg: CfgNode, scale: int = 1) -> dict[str, object]:
        return {"width": cfg.WIDTH * scale, "depth": cfg.DEPTH}


class DeepBlock(Block):
    """Extends the parent's ``from_config``."""

    @configurable
    def __init__(self, *, extra: int, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.extra = extra

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, object]:
        return {**super().from_config(cfg), "extra": 9}


@pytest.fixture
def cfg() -> CfgNode:
    return CfgNode({"WIDTH": 4, "DEPTH": 2})


def test_configurable_constructor(cfg: CfgNode) -> None:
    assert Block(width=1).made == (1, 1, "plain")
    assert Block(cfg).made == (4, 2, "plain")
    assert Block(cfg=cfg).made == (4, 2, "plain")
    assert Block(cfg, 3).made == (12, 2, "plain")
    assert Block(cfg, scale=3).made == (12, 2, "plain")
    assert Block(cfg, depth=7, name="x").made == (4, 7, "x")
    deep = DeepBlock(cfg)
    assert (deep.made, deep.extra) == ((4, 2, "plain"), 9)


def test_configurable_keeps_the_signature() -> None:
    assert Block.__init__.__name__ == "__init__"
    assert Block.__init__.__annotations__["width"] == "int"


def test_configurable_function(cfg: CfgNode) -> None:
    @configurable(from_config=lambda cfg, scale=1: {"width": cfg.WIDTH * scale})
    def area(width: int, height: int = 10) -> int:
        return width * height

    assert area(2) == 20
    assert area(cfg) == 40
    assert area(cfg, scale=2, height=1) == 8
    assert area.from_config(cfg) == {"width": 4}


def test_configurable_misuse(cfg: CfgNode) -> None:
    class NoFromConfig:
        @configurable
        def __init__(self, a: int = 1) -> None:
            self.a = a

    class NoClassMethod(NoFromConfig):
        def from_config(self, cfg: CfgNode) -> dict[str, object]:
            return {}

    class WrongName(NoFromConfig):
        @classmethod
        def from_config(cls, config: CfgNode) -> dict[str, object]:
            return {}

    with pytest.raises(AttributeError, match="from_config"):
        NoFromConfig(a=1)
    with pytest.raises(TypeError, match="classmethod"):
        NoClassMethod(a=1)
    with pytest.raises(TypeError, match="cfg"):
        WrongName(cfg)
    with pytest.raises(TypeError):
        Block(cfg, unknown=1)
