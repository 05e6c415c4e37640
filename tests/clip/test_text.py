import open_clip
import pytest
import torch
from torch.nn import functional as F

from zss_d2.clip import TextEncoder
from zss_d2.errors import ZssError

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


def test_synonyms_are_averaged_like_templates(encoder):
    both = encoder.classifier(["tv", "dog"], TEMPLATES, {"tv": ["television", "tv set"]})
    names = ("tv", "television", "tv set")
    texts = [template.format(name) for name in names for template in TEMPLATES]
    features = F.normalize(encoder.encode(encoder.tokenizer(texts)), dim=-1)
    torch.testing.assert_close(both[0], F.normalize(features.mean(dim=0), dim=0))
    torch.testing.assert_close(both[1], encoder.classifier(["dog"], TEMPLATES)[0])


class TestPrompts:
    @pytest.fixture
    def prompted(self, encoder) -> TextEncoder:
        encoder.add_prompts(4, "a photo of a", 0.0)
        return encoder.eval()

    def test_before_training_they_are_the_hand_crafted_prompt(self, clip, prompted):
        texts = prompted.tokenizer([f"a photo of a {name}" for name in NAMES])
        expected = clip.encode_text(texts, normalize=True)
        torch.testing.assert_close(prompted.classifier(NAMES, TEMPLATES), expected)

    def test_the_prompt_is_repeated_or_cut_to_the_length(self, clip):
        for length, words in ((2, "a photo"), (6, "a photo of a a photo")):
            encoder = TextEncoder(clip, open_clip.get_tokenizer("zss-tiny"))
            encoder.add_prompts(length, "a photo of a", 0.0)
            expected = clip.encode_text(encoder.tokenizer([f"{words} dog"]), normalize=True)
            torch.testing.assert_close(encoder.eval().classifier(["dog"], ()), expected)

    def test_tokens_are_replaced_at_every_layer(self, clip, prompted):
        """Against a slow reference that rebuilds the sequence from its parts."""
        with torch.no_grad():
            prompted.prompts.tokens.normal_()
        tokens = prompted.tokenizer(["x x x x dog"])
        length = int(tokens.argmax()) + 1
        x = clip.token_embedding(tokens[:, :length]) + clip.positional_embedding[:length]
        mask = torch.full((length, length), float("-inf")).triu(1)
        for layer, block in enumerate(clip.transformer.resblocks):
            x = torch.cat([x[:, :1], prompted.prompts.tokens[layer][None], x[:, 5:]], dim=1)
            x = block(x, attn_mask=mask)
        expected = F.normalize(clip.ln_final(x)[:, -1] @ clip.text_projection, dim=-1)
        torch.testing.assert_close(prompted.classifier(["dog"], TEMPLATES), expected)

    def test_training_computes_anew_with_gradients_for_the_prompts_alone(self, prompted):
        first = prompted.train().classifier(NAMES, TEMPLATES)
        assert prompted.classifier(NAMES, TEMPLATES) is not first
        (first @ torch.ones(64)).sum().backward()
        learning = [name for name, p in prompted.named_parameters() if p.grad is not None]
        assert learning == ["prompts.tokens"]
        assert (prompted.prompts.tokens.grad.flatten(1).norm(dim=1) > 0).all()
        trained = [m for m in prompted.modules() if m.training]
        assert set(trained) == set(prompted.prompts.modules())

    def test_an_update_drops_the_cache(self, prompted):
        before = prompted.eval().classifier(NAMES, TEMPLATES)
        assert prompted.classifier(NAMES, TEMPLATES) is before
        prompted.train().classifier(NAMES, TEMPLATES).sum().backward()
        torch.optim.SGD([prompted.prompts.tokens], lr=1.0).step()
        after = prompted.eval().classifier(NAMES, TEMPLATES)
        assert not torch.allclose(after, before)
        assert not after.requires_grad

    def test_what_does_not_fit_is_named(self, encoder, prompted):
        with pytest.raises(ZssError, match="MODEL.TEXT_PROMPTS.INIT is ''"):
            encoder.add_prompts(4, "", 0.0)
        prompted.add_prompts(72, "a photo of a", 0.0)
        with pytest.raises(ZssError, match="MODEL.TEXT_PROMPTS.LENGTH is 72: .* 78 tokens"):
            prompted.classifier(["x x x x"], TEMPLATES)
