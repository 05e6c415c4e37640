"""ZegCLIP: the shared tests, its decoder against a slow reference, its published size."""

import pytest
import torch
from detectron2.modeling import build_model
from torch.nn import functional as F

from tests.modeling.method_tester import MethodTester, batch
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.zegclip.decoder import TextQueryDecoder


class TestZegCLIP(MethodTester):
    overrides = ("MODEL.META_ARCHITECTURE", "ZegCLIP")
    trained_prefixes = {"image_encoder", "descriptor", "decoder"}


class TestZegCLIPAsReleased(MethodTester):
    overrides = (
        *("MODEL.META_ARCHITECTURE", "ZegCLIP"),
        *("MODEL.VISUAL_PROMPTS.PROJECTION", True),
        *("MODEL.VISUAL_PROMPTS.NORM", True),
        *("MODEL.TEXT_ADAPTER.IDENTITY_INIT", False),
        *("MODEL.LOSS.IGNORED", "negatives"),
    )
    trained_prefixes = {"image_encoder", "descriptor", "decoder"}


def decoder(**changes) -> TextQueryDecoder:
    settings = {"dim": 8, "num_layers": 3, "num_heads": 2, "ffn_dim": 16, "dropout": 0.0}
    # Layers that differ.
    settings["init_std"] = 0.3
    return TextQueryDecoder(**settings | changes).eval()


def slow_masks(model: TextQueryDecoder, dense: torch.Tensor, classes: torch.Tensor):
    """One image, one class at a time; a list of the mask logits (K, h, w) of every layer."""
    tokens = [F.normalize(dense[:, y, x], dim=0) for y in range(3) for x in range(4)]
    queries, masks = list(classes), []
    for layer in model.layers:
        attention, updated, layer_masks = layer.attention, [], []
        for query in queries:
            query = layer.query_norm(query)
            q = attention.q(query).view(2, 4)
            scores = torch.stack([(q * attention.k(t).view(2, 4)).sum(1) / 2 for t in tokens])
            layer_masks.append(scores.mean(dim=1))
            values = torch.stack([attention.v(t).view(2, 4) for t in tokens])
            mixed = (scores.softmax(dim=0)[..., None] * values).sum(dim=0).flatten()
            x = layer.attention_norm(query + attention.out(mixed))
            updated.append(layer.ffn_norm(x + layer.ffn(x)))
        queries = updated
        masks.append(torch.stack(layer_masks).view(-1, 3, 4))
    return masks


@pytest.mark.parametrize("query_norm", [False, True])
def test_decoder_against_the_slow_reference(query_norm):
    model = decoder(query_norm=query_norm)
    dense, classes = torch.randn(2, 8, 3, 4), torch.randn(2, 5, 8)
    every = model([torch.full_like(dense, 9.0), dense], classes, every_layer=True)
    for image in range(2):
        slow = slow_masks(model, dense[image], classes[image])
        for got, expected in zip(every, slow, strict=True):
            torch.testing.assert_close(got[image], expected)
    (last,) = model([dense], classes)
    torch.testing.assert_close(last, every[-1])


def test_classes_do_not_influence_each_other():
    model, dense, classes = decoder(), torch.randn(1, 8, 3, 4), torch.randn(1, 5, 8)
    torch.testing.assert_close(model([dense], classes[:, :2])[0], model([dense], classes)[0][:, :2])


def test_the_attention_map_is_a_distribution_over_tokens():
    attention = decoder().attention_map([torch.randn(2, 8, 3, 4)], torch.randn(2, 5, 8))
    assert attention.shape == (2, 5, 3, 4)
    torch.testing.assert_close(attention.flatten(2).sum(dim=2), torch.ones(2, 5))


def test_dense_tokens_count_by_their_direction_alone():
    model, dense, classes = decoder(), torch.randn(1, 8, 3, 4), torch.randn(1, 5, 8)
    torch.testing.assert_close(model([7 * dense], classes), model([dense], classes))


def test_the_released_start():
    """No initialisation is called: torch's own, and every layer a copy of the first."""
    layers = decoder(dim=512, num_heads=8, ffn_dim=2048, init_std=0.0).layers
    first = layers[0].state_dict()
    for layer in layers[1:]:
        assert all(torch.equal(value, first[key]) for key, value in layer.state_dict().items())
        assert layer.attention.q.weight is not layers[0].attention.q.weight
    for name, channels in {
        **dict.fromkeys(("attention.q", "attention.k", "attention.v", "attention.out"), 512),
        "ffn.0": 512,
        "ffn.3": 2048,
    }.items():
        # Uniform up to the root of one over the channels that come in, weights and biases.
        bound = channels**-0.5
        for tensor in (first[f"{name}.weight"], first[f"{name}.bias"]):
            assert bound * 0.95 < tensor.abs().max() <= bound, name
        assert first[f"{name}.weight"].std().item() == pytest.approx(bound / 3**0.5, rel=0.01)
    stds = [round(first[f"{name}.weight"].std().item(), 4) for name in ("attention.q", "ffn.3")]
    assert stds == [0.0255, 0.0128]


def test_a_chosen_start():
    layers = decoder(dim=128, init_std=0.1).layers
    linears = [m for m in layers.modules() if isinstance(m, torch.nn.Linear)]
    assert all(m.weight.std().item() == pytest.approx(0.1, rel=0.1) for m in linears)
    assert not any(m.bias.any() for m in linears)
    assert not torch.equal(layers[0].attention.q.weight, layers[1].attention.q.weight)


def test_an_impossible_start_is_an_error():
    with pytest.raises(ZssError, match=r"MODEL.ZEGCLIP.INIT_STD is -0.1; give 0 or more"):
        decoder(init_std=-0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prompts", "query_norm", "count"),
    [
        # The published 13.8 M / 14.6 M less the 3,151,872 weights of self-attention that the
        # released code builds and never uses.
        (10, True, 10_669_312),
        (100, True, 11_498_752),
        # Nor does it use the three LayerNorms on the queries, 1,024 weights each.
        (10, False, 10_666_240),
        (100, False, 11_495_680),
    ],
)
def test_published_parameter_count(make_cfg, prompts, query_norm, count):
    model = build_model(
        make_cfg(
            *("MODEL.META_ARCHITECTURE", "ZegCLIP", "MODEL.CLIP.NAME", "ViT-B-16"),
            *("MODEL.CLIP.PRETRAINED", "", "MODEL.VISUAL_PROMPTS.LENGTH", prompts),
            *("MODEL.VISUAL_PROMPTS.PROJECTION", True, "MODEL.VISUAL_PROMPTS.NORM", True),
            *("MODEL.ZEGCLIP.QUERY_NORM", query_norm, "MODEL.ZEGCLIP.NUM_HEADS", 8),
            *("MODEL.ZEGCLIP.NUM_LAYERS", 3, "MODEL.ZEGCLIP.FFN_DIM", 2048),
        )
    )
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count


def test_ignored_pixels_as_negatives_lower_every_score(make_cfg):
    """The switch for the released code's behaviour: unlabelled pixels push all classes down."""
    (item,) = batch((64, 64))
    item["sem_seg"][:] = 255
    losses = {}
    for ignored in ("masked", "negatives"):
        torch.manual_seed(0)
        cfg = make_cfg("MODEL.META_ARCHITECTURE", "ZegCLIP", "MODEL.LOSS.IGNORED", ignored)
        losses[ignored] = build_model(cfg).train()([item])["loss_focal"].item()
    assert losses["masked"] == 0 < losses["negatives"]
