"""MaskCLIP: it compares dense tokens with text embeddings, and trains nothing."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch.nn import functional as F

from tests.modeling.method_tester import InferenceTester, batch
from zss_d2.engine import ZeroShotTrainer
from zss_d2.errors import ZssError

OVERRIDES = ("MODEL.META_ARCHITECTURE", "MaskCLIP", "MODEL.VISUAL_PROMPTS.LENGTH", 0)


DENSE = "MODEL.CLIP.DENSE"
RESCLIP = (f"{DENSE}.RESCLIP_WEIGHT", 0.4, f"{DENSE}.RESCLIP_BLOCKS", [0, 1])
# Of a tower of three blocks.
VARIANTS = {
    name: (*OVERRIDES, "MODEL.CLIP.DENSE_TOKENS", *settings)
    for name, settings in {
        "SCLIP": ("sclip",),
        "ClearCLIP": ("clearclip",),
        "NACLIP": ("naclip",),
        "ResCLIP": ("naclip", *RESCLIP),
        "CLIP-Surgery": ("clip_surgery", f"{DENSE}.SURGERY_DEPTH", 2),
        "GEM": ("gem", f"{DENSE}.GEM_DEPTH", 2),
    }.items()
}


class TestMaskCLIP(InferenceTester):
    overrides = OVERRIDES


class TestVariants(InferenceTester):
    """What follows MaskCLIP, as settings of it."""

    @pytest.fixture(params=VARIANTS)
    def cfg(self, request, make_cfg) -> CfgNode:
        precision = "bfloat16" if request.param in ("ResCLIP", "GEM") else ""
        return make_cfg(*VARIANTS[request.param], "MODEL.AUTOCAST", precision)


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
