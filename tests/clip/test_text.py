import open_clip
import pytest
import torch
from torch.nn import functional as F

from zss_d2.clip import TextEncoder

NAMES = ("dog", "potted plant", "tv monitor, turned off")
TEMPLATES = ("a photo of a {}.", "There is a {} in the scene.")


@pytest.fixture
def clip():
    return open_clip.create_model("zss-tiny").eval().requires_grad_(False)


@pytest.fixture
def encoder(clip) -> TextEncoder:
    return TextEncoder(clip, open_clip.get_tokenizer("zss-tiny"))


def test_features_equal_open_clip_over_the_full_context(clip, encoder):
    tokens = encoder.tokenizer(list(NAMES))
    assert tokens.shape == (3, 77)
    torch.testing.assert_close(encoder.encode(tokens), clip.encode_text(tokens))


def test_classifier_is_the_normalised_mean_over_templates(clip, encoder):
    for row, name in zip(encoder.classifier(NAMES, TEMPLATES), NAMES, strict=True):
        texts = encoder.tokenizer([template.format(name) for template in TEMPLATES])
        features = clip.encode_text(texts, normalize=True)
        torch.testing.assert_close(row, F.normalize(features.mean(dim=0), dim=0))


def test_classifier_cache_is_keyed_by_names_and_templates(encoder):
    three = encoder.classifier(NAMES, TEMPLATES)
    assert encoder.classifier(NAMES, TEMPLATES) is three
    assert encoder.classifier((*NAMES, "cat", "cow"), TEMPLATES).shape == (5, 64)
    assert not torch.equal(encoder.classifier(NAMES, TEMPLATES[:1]), three)


def test_new_weights_and_moves_drop_the_cache(encoder):
    before = encoder.classifier(NAMES, TEMPLATES)
    state = {key: value + 0.1 for key, value in encoder.state_dict().items()}
    encoder.load_state_dict(state)
    assert not torch.allclose(encoder.classifier(NAMES, TEMPLATES), before)
    assert encoder.double().classifier(NAMES, TEMPLATES).dtype == torch.float64


def test_a_classifier_made_in_inference_mode_serves_training(encoder):
    with torch.inference_mode():
        encoder.classifier(NAMES, TEMPLATES)
    weight = torch.ones(64, requires_grad=True)
    (encoder.classifier(NAMES, TEMPLATES) * weight).sum().backward()
    assert weight.grad is not None


def test_the_frozen_tower_never_enters_training_mode(encoder):
    assert encoder.train() is encoder
    assert not any(module.training for module in encoder.modules())
