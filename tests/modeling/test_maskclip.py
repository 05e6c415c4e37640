"""MaskCLIP: it compares dense tokens with text embeddings, and trains nothing."""

import pytest
import torch
from detectron2.modeling import build_model
from torch.nn import functional as F

from tests.modeling.method_tester import InferenceTester, batch
from zss_d2.engine import ZeroShotTrainer
from zss_d2.errors import ZssError

OVERRIDES = ("MODEL.META_ARCHITECTURE", "MaskCLIP", "MODEL.VISUAL_PROMPTS.LENGTH", 0)


class TestMaskCLIP(InferenceTester):
    overrides = OVERRIDES


def test_scores_are_a_softmax_over_cosines(make_cfg):
    model = build_model(make_cfg(*OVERRIDES, "MODEL.MASKCLIP.TEMPERATURE", 0.5)).eval()
    images, names = torch.randn(1, 3, 32, 48), ("dog", "cat", "sheep")
    text = model.text_encoder.classifier(names, model.prompt_settings)
    dense = model.image_encoder(images).dense
    scores = model.activate(model.class_logits(images, names))
    cosine = torch.stack([F.cosine_similarity(dense[0, :, 1, 2], row, dim=0) for row in text])
    torch.testing.assert_close(scores[0, :, 1, 2], (cosine / 0.5).softmax(dim=0))


def test_training_is_refused(make_cfg):
    model = build_model(make_cfg(*OVERRIDES))
    with pytest.raises(ZssError, match="nothing to train; use --eval-only"):
        ZeroShotTrainer.build_optimizer(make_cfg(*OVERRIDES), model)
    with pytest.raises(ZssError, match="nothing to train; use --eval-only"):
        model.train()(batch((32, 32)))
