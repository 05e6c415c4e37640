import copy

import open_clip
import pytest
import torch
from torch.nn import functional as F

from zss_d2.clip import PromptSettings, TextEncoder, build_clip_towers
from zss_d2.errors import ZssError

NAMES = ("dog", "potted plant", "tv monitor, turned off")
TEMPLATES = ("a photo of a {}.", "There is a {} in the scene.")
PROMPTS = PromptSettings(TEMPLATES)


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
    for row, name in zip(encoder.classifier(NAMES, PROMPTS), NAMES, strict=True):
        texts = encoder.tokenizer([template.format(name) for template in TEMPLATES])
        features = clip.encode_text(texts, normalize=True)
        torch.testing.assert_close(row, F.normalize(features.mean(dim=0), dim=0))


def test_classifier_cache_is_keyed_by_names_and_templates(encoder):
    three = encoder.classifier(NAMES, PROMPTS)
    assert encoder.classifier(NAMES, PROMPTS) is three
    assert encoder.classifier((*NAMES, "cat", "cow"), PROMPTS).shape == (5, 64)
    assert not torch.equal(encoder.classifier(NAMES, PromptSettings(TEMPLATES[:1])), three)


def test_the_cache_keeps_the_last_few_vocabularies(encoder):
    """Those in use stay, whatever else is asked for in between."""
    kept = encoder.classifier(NAMES, PROMPTS)
    for index in range(40):
        encoder.classifier([f"thing {index}"], PROMPTS)
        assert encoder.classifier(NAMES, PROMPTS) is kept
        assert len(encoder._classifiers) <= 8
    assert len(encoder._tokens) == 8


def test_a_write_to_a_frozen_weight_drops_the_cache(clip, encoder):
    before = encoder.classifier(NAMES, PROMPTS)
    other = {key: value + 0.1 for key, value in clip.transformer.state_dict().items()}
    clip.transformer.load_state_dict(other)  # not through the encoder, which shares the modules
    after = encoder.classifier(NAMES, PROMPTS)
    assert not torch.allclose(after, before)
    clip.ln_final.bias.data = clip.ln_final.bias.data + torch.randn(64)
    moved = encoder.classifier(NAMES, PROMPTS)
    assert not torch.allclose(moved, after)
    replaced = {"weight": torch.randn(64), "bias": torch.randn(64)}
    clip.ln_final.load_state_dict(replaced, assign=True)
    assert not torch.allclose(encoder.classifier(NAMES, PROMPTS), moved)


def test_a_copy_watches_its_own_weights(encoder):
    encoder.classifier(NAMES, PROMPTS)
    copied = copy.deepcopy(encoder)
    before = copied.classifier(NAMES, PROMPTS)
    copied.ln_final.bias.add_(torch.randn(64))
    assert not torch.allclose(copied.classifier(NAMES, PROMPTS), before)
    assert torch.equal(encoder.classifier(NAMES, PROMPTS), before)


def test_the_tower_may_be_built_in_inference_mode(encoder):
    with torch.inference_mode():
        clip = open_clip.create_model("zss-tiny").eval()
        assert TextEncoder(clip, encoder.tokenizer).classifier(NAMES, PROMPTS).shape == (3, 64)


def test_the_result_is_in_single_precision_whatever_asks_first(encoder):
    expected = encoder.classifier(NAMES, PROMPTS).clone()
    encoder._classifiers.clear()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert torch.equal(encoder.classifier(NAMES, PROMPTS), expected)


class TestIdentity:
    def test_name_weights_and_activation(self, clip, encoder):
        assert not encoder.identity.quick_gelu
        named = TextEncoder(clip, encoder.tokenizer, "zss-tiny", "a/file.pt").identity
        assert (named.name, named.pretrained) == ("zss-tiny", "a/file.pt")
        quick = TextEncoder(open_clip.create_model("zss-tiny-quickgelu"), encoder.tokenizer)
        assert quick.identity.quick_gelu

    def test_the_fingerprint_is_of_the_text_weights_and_nothing_else(self, clip, encoder):
        before = encoder.identity.text_fingerprint()
        assert len(before) == 64
        clip.visual.proj.add_(1)
        encoder.add_prompts(4, "a photo of a", 0.0)
        assert encoder.identity.text_fingerprint() == before
        assert encoder.bfloat16().identity.text_fingerprint() == before
        clip.text_projection[0, 0] += 1
        assert encoder.identity.text_fingerprint() != before

    def test_it_is_the_same_for_a_copy_in_another_file_format(self, clip, encoder, tmp_path):
        torch.save({"model": clip.state_dict()}, tmp_path / "clip.pt")
        towers = build_clip_towers("zss-tiny", str(tmp_path / "clip.pt"))
        assert towers.identity.text_fingerprint() == encoder.identity.text_fingerprint()


def test_new_weights_and_moves_drop_the_cache(encoder):
    before = encoder.classifier(NAMES, PROMPTS)
    state = {key: value + 0.1 for key, value in encoder.state_dict().items()}
    encoder.load_state_dict(state)
    assert not torch.allclose(encoder.classifier(NAMES, PROMPTS), before)
    assert encoder.double().classifier(NAMES, PROMPTS).dtype == torch.float64


def test_a_classifier_made_in_inference_mode_serves_training(encoder):
    with torch.inference_mode():
        encoder.classifier(NAMES, PROMPTS)
    weight = torch.ones(64, requires_grad=True)
    (encoder.classifier(NAMES, PROMPTS) * weight).sum().backward()
    assert weight.grad is not None


def test_the_frozen_tower_never_enters_training_mode(encoder):
    assert encoder.train() is encoder
    assert not any(module.training for module in encoder.modules())


def test_synonyms_are_averaged_like_templates(encoder):
    both = encoder.classifier(
        ["tv", "dog"], PromptSettings(TEMPLATES, {"tv": ["television", "tv set"]})
    )
    names = ("tv", "television", "tv set")
    texts = [template.format(name) for name in names for template in TEMPLATES]
    features = F.normalize(encoder.encode(encoder.tokenizer(texts)), dim=-1)
    torch.testing.assert_close(both[0], F.normalize(features.mean(dim=0), dim=0))
    torch.testing.assert_close(both[1], encoder.classifier(["dog"], PROMPTS)[0])


class TestPrompts:
    @pytest.fixture
    def prompted(self, encoder) -> TextEncoder:
        encoder.add_prompts(4, "a photo of a", 0.0)
        return encoder.eval()

    def test_before_training_they_are_the_hand_crafted_prompt(self, clip, prompted):
        texts = prompted.tokenizer([f"a photo of a {name}" for name in NAMES])
        expected = clip.encode_text(texts, normalize=True)
        torch.testing.assert_close(prompted.classifier(NAMES, PROMPTS), expected)

    def test_the_prompt_is_repeated_or_cut_to_the_length(self, clip):
        for length, words in ((2, "a photo"), (6, "a photo of a a photo")):
            encoder = TextEncoder(clip, open_clip.get_tokenizer("zss-tiny"))
            encoder.add_prompts(length, "a photo of a", 0.0)
            expected = clip.encode_text(encoder.tokenizer([f"{words} dog"]), normalize=True)
            torch.testing.assert_close(
                encoder.eval().classifier(["dog"], PromptSettings(None)), expected
            )

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
        torch.testing.assert_close(prompted.classifier(["dog"], PROMPTS), expected)

    def test_training_computes_anew_with_gradients_for_the_prompts_alone(self, prompted):
        first = prompted.train().classifier(NAMES, PROMPTS)
        assert prompted.classifier(NAMES, PROMPTS) is not first
        (first @ torch.ones(64)).sum().backward()
        learning = [name for name, p in prompted.named_parameters() if p.grad is not None]
        assert learning == ["prompts.tokens"]
        assert (prompted.prompts.tokens.grad.flatten(1).norm(dim=1) > 0).all()
        trained = [m for m in prompted.modules() if m.training]
        assert set(trained) == set(prompted.prompts.modules())

    def test_an_update_drops_the_cache(self, prompted):
        before = prompted.eval().classifier(NAMES, PROMPTS)
        assert prompted.classifier(NAMES, PROMPTS) is before
        prompted.train().classifier(NAMES, PROMPTS).sum().backward()
        torch.optim.SGD([prompted.prompts.tokens], lr=1.0).step()
        after = prompted.eval().classifier(NAMES, PROMPTS)
        assert not torch.allclose(after, before)
        assert not after.requires_grad

    def test_any_change_of_their_values_drops_the_cache(self, prompted):
        """Also changes that no version counter sees, as some optimizers make them."""
        tokens = prompted.prompts.tokens
        changes = {
            ".data in place": lambda: tokens.data.add_(1),
            "foreach": lambda: torch._foreach_add_([tokens.data], 1.0),
            ".data assigned": lambda: setattr(tokens, "data", tokens.data + 1),
            "set_": lambda: tokens.set_(tokens.data + 1),
            "assign": lambda: prompted.prompts.load_state_dict(
                {"tokens": tokens.detach() + 1}, assign=True
            ),
        }
        for name, change in changes.items():
            before = prompted.eval().classifier(NAMES, PROMPTS)
            assert prompted.classifier(NAMES, PROMPTS) is before, name
            with torch.no_grad():
                change()
            assert not torch.allclose(prompted.classifier(NAMES, PROMPTS), before), name

    def test_dropout_is_never_remembered(self, encoder):
        encoder.add_prompts(4, "a photo of a", 0.5)
        expected = encoder.eval().classifier(NAMES, PROMPTS).clone()
        encoder._classifiers.clear()
        with torch.no_grad():
            first, second = (encoder.train().classifier(NAMES, PROMPTS) for _ in range(2))
        assert not torch.allclose(first, second)
        assert torch.equal(encoder.eval().classifier(NAMES, PROMPTS), expected)

    def test_what_does_not_fit_is_named(self, encoder, prompted):
        with pytest.raises(ZssError, match="MODEL.TEXT_PROMPTS.INIT is ''"):
            encoder.add_prompts(4, "", 0.0)
        prompted.add_prompts(72, "a photo of a", 0.0)
        with pytest.raises(ZssError, match="MODEL.TEXT_PROMPTS.LENGTH is 72: .* 78 tokens"):
            prompted.classifier(["x x x x"], PROMPTS)


class TestTracing:
    """What is traced, as for an export, holds the embeddings as constants."""

    @staticmethod
    def traced(encoder: TextEncoder) -> torch.Tensor:
        class Classify(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.encoder = encoder

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x @ self.encoder.classifier(NAMES, PROMPTS).T

        # Not strict is the default of later versions than torch 2.6.
        exported = torch.export.export(Classify().eval(), (torch.eye(64),), strict=False)
        return exported.module()(torch.eye(64)).T

    def test_embeddings_of_before_are_constants(self, encoder):
        expected = encoder.classifier(NAMES, PROMPTS)
        assert torch.equal(self.traced(encoder), expected)
        assert encoder.classifier(NAMES, PROMPTS) is expected

    def test_without_any_the_error_says_what_to_do(self, encoder):
        with pytest.raises(ZssError, match="none of 'dog' yet; run it on an image"):
            self.traced(encoder)

    def test_training_ends_what_was_remembered(self, encoder):
        encoder.add_prompts(4, "a photo of a", 0.0)
        encoder.eval().classifier(NAMES, PROMPTS)
        encoder.train().eval()
        with pytest.raises(ZssError, match="none of 'dog' yet"):
            self.traced(encoder)
