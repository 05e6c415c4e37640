import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from tests.conftest import ROOT
from zss_d2.config.defaults import add_zss_config, validate_config
from zss_d2.engine import load_config
from zss_d2.engine.optimizer import build_optimizer

CONFIGS = sorted(ROOT.glob("configs/**/*.yaml"))
# tests/config/test_training_free.py makes models of these.
TRAINING_FREE = [
    path for path in CONFIGS if "Base-TrainingFree" in path.stem + path.read_text(encoding="utf-8")
]
# Their models are those of their bases, which a test holds.
TRANSDUCTIVE = [path for path in CONFIGS if "transductive" in path.stem]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_merges_and_is_valid(path: Path):
    cfg = get_cfg()
    add_zss_config(cfg)
    cfg.merge_from_file(str(path))
    validate_config(cfg)


@pytest.fixture
def no_model_left() -> Iterator[None]:
    """Hooks make circles of models, which left to themselves fill gigabytes before they go."""
    yield
    gc.collect()


@pytest.mark.usefixtures("no_model_left")
@pytest.mark.parametrize(
    "path",
    [x for x in CONFIGS if x not in (*TRAINING_FREE, *TRANSDUCTIVE)],
    ids=lambda path: path.stem,
)
def test_every_config_makes_a_model(path: Path):
    """Of its own size, if not with its weights; and, where there is something to train, an
    optimizer: its learning rates name its parts."""
    towers = ["MODEL.CLIP.PRETRAINED", "", "MODEL.DEVICE", "cpu"]
    towers += ["MODEL.CLIP_ZSS.ENCODER.PRETRAINED", False]
    # A base config has the model of another one, but not yet its data.
    data = ["DATASETS.TRAIN", ("zss_voc_train",)] if path.stem == "Base-ZeroShot" else []
    cfg = load_config(path, [*towers, *data])
    model = build_model(cfg)
    assert type(model).__name__ == cfg.MODEL.META_ARCHITECTURE
    if any(p.requires_grad for p in model.parameters()):
        assert build_optimizer(cfg, model).param_groups


@pytest.mark.parametrize("path", TRANSDUCTIVE, ids=lambda path: path.stem)
def test_transductive_configs_have_the_model_and_the_data_of_their_base(path: Path):
    stem = path.stem.partition("_transductive")[0]
    released = path.parent / f"{stem}_released.yaml"
    base = released if "released" in path.stem and released.exists() else f"{stem}.yaml"
    cfg, inductive = load_config(path), load_config(ROOT / "configs" / base)
    start_of_self_training = cfg.MODEL.WEIGHTS
    for config in (cfg, inductive):
        config.defrost()
        config.MODEL.WEIGHTS = ""
    for node in ("MODEL", "DATASETS", "INPUT"):
        assert cfg[node] == inductive[node]
    assert (cfg.ZERO_SHOT.SETTING, inductive.ZERO_SHOT.SETTING) == ("transductive", "inductive")
    start, total = cfg.ZERO_SHOT.SELF_TRAINING.START, inductive.SOLVER.MAX_ITER
    leaky = cfg.ZERO_SHOT.SELF_TRAINING.PIXELS == "unseen_location"
    assert leaky == any(word in path.stem for word in ("leaky", "released"))
    if "released" in path.stem:
        assert (start, cfg.SOLVER.MAX_ITER, cfg.TEST.SEEN_BIAS) == (0, total // 2, 0)
        kept, period = inductive.SOLVER.CHECKPOINT_KEEP, inductive.SOLVER.CHECKPOINT_PERIOD
        assert start_of_self_training == f"{inductive.OUTPUT_DIR}/model_{total // 2 - 1:07}.pth"
        # It is there at the end, though a stop or two has added some.
        assert kept == 0 or kept >= total // 2 // period + 3
    else:
        late = "zegclip_mini" in path.stem
        assert (start, cfg.SOLVER.MAX_ITER) == (total * 3 // 4 if late else total // 2, total)
        assert 0 < cfg.ZERO_SHOT.SELF_TRAINING.QUANTILE < 1 or path.parent.name == "ablations"


def test_voc_follows_the_documented_zegclip_settings():
    """reference: settings of ZegCLIP's released VOC configuration."""
    cfg = get_cfg()
    add_zss_config(cfg)
    cfg.merge_from_file(str(ROOT / "configs/ldvc_voc.yaml"))
    solver = cfg.SOLVER
    assert (cfg.MODEL.CLIP.NAME, cfg.MODEL.CLIP.PRETRAINED) == ("ViT-B-16", "openai")
    assert (solver.MAX_ITER, solver.IMS_PER_BATCH, solver.BASE_LR) == (20000, 16, 2e-5)
    assert (solver.WEIGHT_DECAY, solver.WARMUP_ITERS, solver.MIN_LR) == (0.01, 1500, 1e-6)
    assert cfg.INPUT.CROP.SIZE == [512, 512]
    assert (cfg.TEST.SLIDE.CROP, cfg.TEST.SLIDE.STRIDE) == (512, 426)
    assert (cfg.MODEL.LOSS.FOCAL_WEIGHT, cfg.MODEL.LOSS.DICE_WEIGHT) == (100.0, 1.0)


def test_every_method_key_is_commented():
    """A key without a comment above it cannot be understood from the config alone."""
    for path in ROOT.glob("zss_d2/modeling/methods/*/defaults.yaml"):
        lines = path.read_text().splitlines()
        for key in yaml.safe_load(path.read_text()):
            line = next(i for i, text in enumerate(lines) if text.startswith(f"{key}:"))
            above = next(text for text in reversed(lines[:line]) if not text[:1].isalpha())
            assert above.startswith("#"), f"{path.parent.name}: {key}"
