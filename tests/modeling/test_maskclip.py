"""MaskCLIP: it compares dense tokens with text embeddings, and trains nothing."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch.nn import functional as F

from tests.modeling.method_tester import InferenceTester, batch
from zss_d2.clip.wording import Vocabulary
from zss_d2.config.defaults import validate_config
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


def test_a_class_is_what_any_of_its_words_is(make_cfg):
    """The largest logit of the words; they compete with those of other classes one by one."""
    words = [["cat", "kitten", "cat", "tiger"], ["sheep", "lamb"]]
    plain = build_model(make_cfg(*OVERRIDES)).eval()
    model = build_model(make_cfg(*OVERRIDES, "MODEL.MASKCLIP.WORDS", words)).eval()
    model.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 32, 48)
    own = plain.class_logits(images, ("dog", "kitten", "cat", "tiger", "lamb"))
    logits = model.class_logits(images, ("dog", "cat", "sheep"))
    for index, group in enumerate(([0], [1, 2, 3], [4])):
        assert torch.equal(logits[:, index], own[:, group].max(dim=1).values)
    assert torch.equal(
        model.class_logits(images, ("dog", "cow")), plain.class_logits(images, ("dog", "cow"))
    )


def test_wordings_that_a_user_gives_count_alone(make_cfg):
    """Words of predict, as do their sentences for words of the config."""
    words = [["cat", "kitten", "tiger"]]
    plain = build_model(make_cfg(*OVERRIDES)).eval()
    model = build_model(make_cfg(*OVERRIDES, "MODEL.MASKCLIP.WORDS", words)).eval()
    model.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 32, 48)
    mine = Vocabulary(("cat", "dog"), {"cat": ("pussy cat",)})
    assert torch.equal(model.class_logits(images, mine), plain.class_logits(images, mine))
    sentences = ("a drawing of a {}.",)
    logits = model.class_logits(images, Vocabulary(("cat", "dog"), {}, sentences))
    all_words = Vocabulary(("kitten", "tiger", "dog"), {}, sentences)
    expected = plain.class_logits(images, all_words)
    assert torch.equal(logits[:, 0], expected[:, :2].max(dim=1).values)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([["zebra", "horse"]], "words for 'zebra', which is no class of zss_voc_train"),
        ([["cat", "kitten", "Dog"]], "WORDS, zss_voc_train: .*[Dd]og"),
        ([["cat"]], "WORDS is .*; give a list of lists of two texts or more"),
        ([["cat", "kitten"], ["cat", "tiger"]], "WORDS is .*; name 'cat' once"),
    ],
)
def test_words_that_cannot_be_are_refused(make_cfg, words, message):
    with pytest.raises(ZssError, match=message):
        cfg = make_cfg(*OVERRIDES, "MODEL.MASKCLIP.WORDS", words)
        validate_config(cfg)
        build_model(cfg)


def test_training_is_refused(make_cfg):
    model = build_model(make_cfg(*OVERRIDES))
    with pytest.raises(ZssError, match="nothing to train; use --eval-only"):
        ZeroShotTrainer.build_optimizer(make_cfg(*OVERRIDES), model)
    with pytest.raises(ZssError, match="nothing to train; use --eval-only"):
        model.train()(batch((32, 32)))


@pytest.mark.parametrize("key", ["VISUAL_PROMPTS.LENGTH", "TEXT_PROMPTS.LENGTH"])
def test_prompts_that_would_stay_random_are_refused(make_cfg, key):
    with pytest.raises(ZssError, match="prompts would stay random; set MODEL.VISUAL_PROMPTS"):
        build_model(make_cfg(*OVERRIDES, f"MODEL.{key}", 2))
