"""The configs that repeat ZegCLIP's released training: every value, the start, the optimiser."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from tests.conftest import ROOT
from zss_d2.config.defaults import add_zss_config
from zss_d2.engine.optimizer import build_lr_scheduler, build_optimizer
from zss_d2.modeling.clip_segmentor import prompt_settings

DATASETS = {"voc": (10, 20_000, 1), "coco": (100, 80_000, 15)}


def released(dataset: str, *overrides: object):
    cfg = get_cfg()
    add_zss_config(cfg)
    cfg.merge_from_file(str(ROOT / f"configs/zegclip_{dataset}_released.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *overrides])
    return cfg


@pytest.fixture(params=DATASETS)
def trained(request):
    """Config, model with a small CLIP, optimizer."""
    cfg = released(request.param, "MODEL.CLIP.NAME", "zss-tiny", "MODEL.CLIP.PRETRAINED", "")
    model = build_model(cfg)
    return cfg, model, build_optimizer(cfg, model)


@pytest.mark.parametrize("dataset", DATASETS)
def test_settings(dataset):
    cfg = released(dataset)
    prompts, iterations, sentences = DATASETS[dataset]
    visual, decoder = cfg.MODEL.VISUAL_PROMPTS, cfg.MODEL.ZEGCLIP
    assert prompts == visual.LENGTH
    assert visual.DROPOUT == 0.1
    assert (visual.PROJECTION, visual.NORM) == (True, True)
    assert (decoder.NUM_LAYERS, decoder.NUM_HEADS, decoder.FFN_DIM) == (3, 8, 2048)
    assert (decoder.DROPOUT, decoder.QUERY_NORM, decoder.INIT_STD) == (0.1, False, 0.0)
    assert not cfg.MODEL.TEXT_ADAPTER.IDENTITY_INIT
    assert (cfg.MODEL.LOSS.IGNORED, cfg.TEST.SEEN_BIAS) == ("negatives", 0.1)
    # ImageNet's statistics.
    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]
    assert cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]
    assert iterations == cfg.SOLVER.MAX_ITER
    assert cfg.SOLVER.IMS_PER_BATCH == 16
    templates = prompt_settings(cfg).templates
    assert len(templates) == sentences
    if dataset == "voc":
        assert templates == ("a photo of a {}",)


def test_layers_start_as_copies(trained):
    _, model, _ = trained
    first, *others = (layer.state_dict() for layer in model.decoder.layers)
    assert len(others) == 2
    for other in others:
        assert all(torch.equal(other[key], value) for key, value in first.items())
    assert first["attention.q.bias"].any()
    assert model.image_encoder.prompts.projection.bias.any()


def test_everything_trained_decays_and_learns_at_one_rate(trained):
    _, model, optimizer = trained
    trained_parameters = [p for p in model.parameters() if p.requires_grad]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(trained_parameters)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.01}
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [2e-4] * len(optimizer.param_groups)
    )


def test_rates_along_the_training(trained):
    """Warm-up of 1500 iterations from a millionth, times poly 0.9 down to 1e-6 for everything."""
    cfg, _, optimizer = trained
    scheduler = build_lr_scheduler(cfg, optimizer)
    end = cfg.SOLVER.MAX_ITER
    for t in (0, 1, 750, 1499, 1500, 1501, end // 2, end - 1, end):
        rate = 1e-6 + (2e-4 - 1e-6) * ((end - t) / end) ** 0.9
        warmed = min(1.0, 1e-6 + (1 - 1e-6) * t / 1500)
        scheduler.load_state_dict(scheduler.state_dict() | {"last_epoch": t})
        expected = [rate * warmed] * len(optimizer.param_groups)
        assert scheduler.get_lr() == pytest.approx(expected, rel=1e-9), t
