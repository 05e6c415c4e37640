import open_clip
import pytest
import torch
from torch.nn import functional as F

from zss_d2.clip import ImageEncoder
from zss_d2.clip.dense_tokens import DENSE_TOKENS, LastBlock
from zss_d2.clip.image import VisualPrompts
from zss_d2.clip.prompts import with_prompts
from zss_d2.errors import ZssError

PATCH = 16


@pytest.fixture(scope="module")
def clip():
    return open_clip.create_model("zss-tiny").eval().requires_grad_(False)


def encoder(clip, prompts: int, dense_tokens: str = "tokens") -> ImageEncoder:
    return ImageEncoder(
        clip.visual, prompt_length=prompts, prompt_dropout=0.0, dense_tokens=dense_tokens
    ).eval()


def test_cls_token_equals_open_clip_at_the_native_size(clip):
    images = torch.randn(2, 3, 128, 128)
    features = encoder(clip, 0)(images)
    torch.testing.assert_close(features.cls, clip.encode_image(images))
    assert features.dense.shape == (2, 64, 8, 8)


def test_dense_tokens_are_row_by_row(clip):
    """A change in the top right patch must move the dense token at [0, -1] most."""
    image = torch.zeros(1, 3, 48, 80)
    changed = image.clone()
    changed[..., :PATCH, -PATCH:] = 3.0
    model = encoder(clip, 0)
    difference = (model(changed).dense - model(image).dense).norm(dim=1)[0]
    assert difference.shape == (3, 5)
    assert difference.argmax() == 4


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_position_embedding_keeps_cls_and_interpolates_the_grid(clip, mode):
    """Without antialiasing, for any grid, also an oblong one."""
    model = ImageEncoder(clip.visual, prompt_length=0, prompt_dropout=0.0, position_resize=mode)
    position = clip.visual.positional_embedding
    grid = position[1:].T.unflatten(1, (8, 8))[None]  # (1, C, 8, 8)
    for size in ((8, 8), (4, 4), (3, 5), (16, 4)):
        expected = F.interpolate(grid, size, mode=mode, align_corners=False)
        expected = torch.cat([position[:1], expected[0].flatten(1).T])
        images = torch.randn(1, 3, PATCH * size[0], PATCH * size[1])
        patches = clip.visual.conv1(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([clip.visual.class_embedding.expand(1, 1, -1), patches], dim=1)
        expected = clip.visual.ln_pre(tokens + expected)
        torch.testing.assert_close(model._embed(images)[0], expected, msg=str(size))


def test_prompts_are_replaced_at_every_layer(clip):
    """Against a slow reference that rebuilds the sequence from its parts."""
    model = encoder(clip, 3)
    images = torch.randn(2, 3, 64, 64)
    tokens, grid = model._embed(images)
    cls, patches = tokens[:, :1], tokens[:, 1:]
    for layer, block in enumerate(clip.visual.transformer.resblocks):
        prompts = torch.stack([model.prompts.tokens[layer]] * 2)
        sequence = block(torch.cat([cls, prompts, patches], dim=1))
        cls, patches = sequence[:, :1], sequence[:, 4:]
    expected = clip.visual.ln_post(patches) @ clip.visual.proj
    dense = model(images).dense
    assert grid == (4, 4)
    torch.testing.assert_close(dense.flatten(2).transpose(1, 2), expected)


def test_prompts_start_within_the_vpt_bound():
    tokens = VisualPrompts(12, 10, 768, (16, 16), 0.0).tokens.detach()
    assert tokens.abs().max() <= 0.0625
    assert tokens.std().item() == pytest.approx(0.0625 / 3**0.5, rel=0.02)


def test_prompt_dropout_is_drawn_for_every_image():
    prompts = VisualPrompts(2, 5, 64, (16, 16), 0.5).train()
    torch.nn.init.ones_(prompts.tokens)
    first, second = prompts(2)[0]
    assert set(first.unique().tolist()) == {0.0, 2.0}
    assert not torch.equal(first == 0, second == 0)


def test_without_prompt_dropout_nothing_is_drawn():
    """Stored results depend on the numbers that come after."""
    prompts, state = VisualPrompts(2, 5, 64, (16, 16), 0.0).train(), torch.get_rng_state()
    prompts(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_projection_starts_as_in_zegclip():
    """Weights normal by the fan-out, bias as torch starts it: uniform."""
    projection = VisualPrompts(2, 5, 768, (16, 16), 0.0, project=True).projection
    assert projection.weight.std().item() == pytest.approx((2 / 768) ** 0.5, rel=0.01)
    bound = 768**-0.5
    assert 0.95 * bound < projection.bias.abs().max() <= bound
    assert projection.bias.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_only_prompts_get_gradients_and_the_tower_stays_in_eval_mode(clip):
    model = encoder(clip, 2).train()
    model(torch.randn(1, 3, 64, 64)).dense.square().mean().backward()
    assert not model.visual.training
    trained = [name for name, p in model.named_parameters() if p.grad is not None]
    assert trained == ["prompts.tokens"]
    assert (model.prompts.tokens.grad.flatten(1).norm(dim=1) > 0).all()


def test_without_prompts_nothing_is_kept_for_backward(clip):
    assert not encoder(clip, 0).train()(torch.randn(1, 3, 64, 64)).dense.requires_grad


@pytest.mark.parametrize("kind", ["value", "value_residual"])
def test_value_tokens_equal_attention_of_each_token_to_itself(clip, kind):
    """Reference: the last block on each token as a sequence of length one, softmax of one score."""
    images = torch.randn(1, 3, 48, 64)
    model = encoder(clip, 0, kind)
    tokens, grid = model._embed(images)
    *blocks, last = clip.visual.transformer.resblocks
    for block in blocks:
        tokens = block(tokens)
    alone = tokens[0, 1:, None]  # (N, 1, C)
    expected = last(alone) if kind == "value_residual" else last.attention(last.ln_1(alone))
    expected = clip.visual.ln_post(expected[:, 0]) @ clip.visual.proj
    features = model(images)
    torch.testing.assert_close(features.dense[0].flatten(1).T, expected)
    torch.testing.assert_close(features.cls, encoder(clip, 0)(images).cls)


def test_another_mode_of_dense_tokens_is_registered_from_outside(clip):
    """It sees the last block, all tokens before and behind it, and the grid."""
    seen = []

    def shifted(last: LastBlock) -> torch.Tensor:
        seen.append((last.inputs.shape, last.outputs.shape, last.grid))
        return last.patches(last.outputs).roll(1, dims=1)

    images = torch.randn(1, 3, 48, 64)
    with pytest.raises(ZssError, match="'shifted'; use one of 'tokens', 'value', 'value_residual'"):
        encoder(clip, 2, "shifted")
    DENSE_TOKENS.register(shifted)
    try:
        model = encoder(clip, 2, "shifted")
    finally:
        del DENSE_TOKENS._obj_map["shifted"]
    plain = encoder(clip, 2)
    plain.load_state_dict(model.state_dict())
    dense = plain(images).dense.flatten(2).roll(1, dims=2)
    assert torch.equal(model(images).dense.flatten(2), dense)
    assert seen == [((1, 15, 64), (1, 15, 64), (3, 4))]


def test_projection_and_norm_of_the_prompts(clip):
    """As ZegCLIP: one linear layer for all prompts, a LayerNorm on the output tokens."""
    model = ImageEncoder(
        clip.visual, prompt_length=3, prompt_dropout=0.0, prompt_projection=True, prompt_norm=True
    ).eval()
    plain = encoder(clip, 3)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        plain.prompts.tokens.copy_(model.prompts.projection(model.prompts.tokens))
        model.prompt_norm.bias.fill_(0.5)
    tokens, _ = plain._embed(images)
    for layer, block in enumerate(clip.visual.transformer.resblocks):
        tokens = block(with_prompts(tokens, plain.prompts(1)[layer], 3 if layer else 0))
    normed = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:], eps=1e-6) + 0.5
    expected = clip.visual.ln_post(normed) @ clip.visual.proj
    features = model(images)
    torch.testing.assert_close(features.cls, expected[:, 0])
    torch.testing.assert_close(features.dense.flatten(2).transpose(1, 2), expected[:, 4:])
    features.dense.square().mean().backward()
    trained = {name for name, p in model.named_parameters() if p.grad is not None}
    assert trained == {
        "prompts.tokens",
        "prompts.projection.weight",
        "prompts.projection.bias",
        "prompt_norm.weight",
        "prompt_norm.bias",
    }


def test_tokens_of_other_layers(clip):
    model = ImageEncoder(
        clip.visual, prompt_length=2, prompt_dropout=0.0, feature_layers=(0, -1)
    ).eval()
    images = torch.randn(2, 3, 48, 64)
    tokens, grid = model._embed(images)
    first = clip.visual.transformer.resblocks[0](with_prompts(tokens, model.prompts(2)[0], 0))
    expected = clip.visual.ln_post(first[:, 3:]) @ clip.visual.proj
    features = model(images)
    assert len(features.layers) == 2
    assert features.layers[1] is features.dense
    torch.testing.assert_close(features.layers[0].flatten(2).transpose(1, 2), expected)


def test_a_layer_that_is_not_there_is_named(clip):
    with pytest.raises(ZssError, match=r"FEATURE_LAYERS is \[7\], but the tower has 3 blocks"):
        ImageEncoder(clip.visual, prompt_length=0, prompt_dropout=0.0, feature_layers=(7,))


def test_the_backward_pass_keeps_nothing_of_the_embedding(clip):
    """The first block is the first place where something learns."""
    assert not encoder(clip, 2).train()._embed(torch.randn(1, 3, 64, 64))[0].requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpointed_blocks_give_the_same_gradients_and_keep_less(clip, dtype):
    """To the last bit, with dropout of the prompts; the loss looks at two layers."""
    images, gradients, kept = torch.randn(2, 3, 64, 64), [], []
    for checkpoint_blocks in (False, True):
        torch.manual_seed(0)
        model = ImageEncoder(
            *(clip.visual.requires_grad_(False),),
            prompt_length=3,
            prompt_dropout=0.4,
            prompt_norm=True,
            dense_tokens="value",
            feature_layers=(0, -1),
            checkpoint_blocks=checkpoint_blocks,
        ).train()
        saved: dict[int, int] = {}

        def note(x, saved=saved):
            saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        torch.manual_seed(1)
        with (
            torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16),
            torch.autograd.graph.saved_tensors_hooks(note, lambda x: x),
        ):
            features = model(images)
            loss = sum(x.float().square().mean() for x in (features.cls, *features.layers))
        kept.append(sum(saved.values()))
        loss.backward()
        gradients.append([loss.detach(), *(p.grad for p in model.parameters() if p.requires_grad)])
    assert len(gradients[0]) == 4
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert kept[1] < 0.6 * kept[0]
