"""LDVC: the shared tests, and its decoder with every setting the sources leave open."""

import pytest
import torch
from detectron2.modeling import build_model
from torch.nn import functional as F

from tests.modeling.method_tester import MethodTester, batch
from zss_d2.errors import ZssError
from zss_d2.modeling.methods.ldvc.decoder import LocalConsensusDecoder
from zss_d2.modeling.methods.ldvc.mask_head import build_mask_head
from zss_d2.modeling.methods.ldvc.settings import DecoderSettings

TEXT_PROMPTS = ("MODEL.META_ARCHITECTURE", "LDVC", "MODEL.TEXT_PROMPTS.LENGTH", 4)


class TestLDVC(MethodTester):
    overrides = ("MODEL.META_ARCHITECTURE", "LDVC")
    trained_prefixes = {"image_encoder", "descriptor", "decoder"}


class TestLDVCWithTextPrompts(MethodTester):
    """As ldvc_voc.yaml, ldvc_coco.yaml and ldvc_context.yaml have it."""

    overrides = TEXT_PROMPTS
    trained_prefixes = {"image_encoder", "text_encoder", "descriptor", "decoder"}

    def test_class_embeddings_follow_the_prompts(self, model):
        """An evaluation between two steps sees the prompts of that moment, not earlier ones."""
        (item,) = batch((64, 64))
        tokens = model.text_encoder.prompts.tokens
        start, scores = tokens.detach().clone(), []
        for state in (start, start + 1, start):
            with torch.no_grad():
                tokens.copy_(state)
            scores.append(model.eval()([item])[0]["sem_seg"])
        assert not torch.equal(scores[1], scores[0])
        assert torch.equal(scores[2], scores[0])


class TestLDVCWithEverySwitch(MethodTester):
    overrides = (
        *("MODEL.META_ARCHITECTURE", "LDVC"),
        *("MODEL.CLIP.FEATURE_LAYERS", [0, -1]),
        *("MODEL.TEXT_ADAPTER.NAME", "none"),
        *("MODEL.LOSS.NAME", "softmax"),
        *("MODEL.LOSS.AUX_WEIGHT", 0.5),
        *("MODEL.LDVC.ORDER", ["cross", "ffn", "route"]),
        *("MODEL.LDVC.NORM", "post"),
        *("MODEL.LDVC.ROUTE_LEPE", 3),
        *("MODEL.LDVC.MASK_HEAD", "attention"),
    )
    trained_prefixes = {"image_encoder", "decoder"}


class TestWithoutDecoder(MethodTester):
    overrides = ("MODEL.META_ARCHITECTURE", "LDVC", "MODEL.LDVC.NUM_LAYERS", 0)
    trained_prefixes = {"image_encoder", "descriptor", "decoder"}


def settings(**changes) -> DecoderSettings:
    values = {
        "num_layers": 2,
        "order": ("route", "cross", "ffn"),
        "num_heads": 2,
        "ffn_dim": 16,
        "dropout": 0.0,
        "norm": "pre",
        "route_windows": 2,
        "route_topk": 2,
        "route_lepe": 0,
        "mask_head": "cosine",
        "init_temperature": 0.5,
        "init_bias": -1.0,
    }
    return DecoderSettings(**values | changes)


def decoder(num_features: int = 1, **changes) -> LocalConsensusDecoder:
    return LocalConsensusDecoder(8, settings(**changes), num_features).eval()


def inputs(num_features: int = 1, num_classes: int = 5) -> tuple[list[torch.Tensor], torch.Tensor]:
    dense = [torch.randn(2, 8, 3, 4) for _ in range(num_features)]
    return dense, torch.randn(2, num_classes, 8)


def test_without_layers_logits_are_cosines_over_temperature_plus_bias():
    dense, classes = inputs()
    (logits,) = decoder(num_layers=0)(dense, classes)
    token = F.layer_norm(dense[0][1, :, 1, 2], (8,))
    expected = F.cosine_similarity(token, classes[1, 3], dim=0) / 0.5 - 1.0
    assert logits.shape == (2, 5, 3, 4)
    torch.testing.assert_close(logits[1, 3, 1, 2], expected)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_layer_by_hand(norm):
    """Cross-attention and FFN as residuals, written out."""
    model = decoder(num_layers=1, order=("ffn", "cross"), norm=norm)
    (dense,), classes = inputs()
    steps = model.layers[0].steps
    x = dense.permute(0, 2, 3, 1).flatten(1, 2)  # (B, N, C)
    for name, others in (("ffn", ()), ("cross", (classes,))):
        ln, step = steps[name].norm, steps[name].step
        update = step(ln(x) if norm == "pre" else x, *others)
        x = x + update if norm == "pre" else ln(x + update)
    cosine = F.cosine_similarity(model.norm(x)[:, None], classes[:, :, None], dim=-1)
    (logits,) = model([dense], classes)
    torch.testing.assert_close(logits.flatten(2), cosine / 0.5 - 1.0)


def test_steps_come_in_the_given_order():
    torch.manual_seed(0)
    one = decoder(order=("cross", "ffn"))
    torch.manual_seed(0)
    other = decoder(order=("ffn", "cross"))
    other.load_state_dict(one.state_dict())
    dense, classes = inputs()
    assert not torch.allclose(one(dense, classes)[0], other(dense, classes)[0])
    assert list(other.layers[0].steps) == ["ffn", "cross"]


def test_decoder_treats_classes_as_a_set():
    """Another order of the classes reorders the logits and changes nothing else."""
    model, (dense, classes) = decoder(), inputs()
    order = torch.tensor([3, 0, 4, 1, 2])
    (plain,), (reordered,) = model(dense, classes), model(dense, classes[:, order])
    torch.testing.assert_close(reordered, plain[:, order])


def test_every_layer_ends_with_what_the_decoder_gives():
    model, (dense, classes) = decoder(num_layers=3), inputs()
    every = model(dense, classes, every_layer=True)
    assert [tuple(x.shape) for x in every] == [(2, 5, 3, 4)] * 3
    torch.testing.assert_close(every[-1], model(dense, classes)[0])
    model.layers = model.layers[:1]
    torch.testing.assert_close(every[0], model(dense, classes)[0])


def test_features_of_several_layers_are_joined():
    model, (dense, classes) = decoder(num_features=2), inputs(2)
    (logits,) = model(dense, classes)
    (exchanged,) = model(dense[::-1], classes)
    assert logits.shape == exchanged.shape
    assert not torch.allclose(logits, exchanged)


def test_the_attention_map_is_that_of_the_last_layer():
    """A distribution over the classes at every token, equal to torch's own attention."""
    model, (dense, classes) = decoder(order=("cross", "ffn")), inputs()
    attention = model.attention_map(dense, classes)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(2, 3, 4))
    visual = model.layers[0](dense[0].permute(0, 2, 3, 1), classes)
    cross = model.layers[1].steps["cross"]
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    qkv = (cross.step.q, cross.step.k, cross.step.v)
    reference.in_proj_weight.data = torch.cat([linear.weight for linear in qkv])
    reference.in_proj_bias.data = torch.cat([linear.bias for linear in qkv])
    _, weights = reference(cross.norm(visual).flatten(1, 2), classes, classes)
    torch.testing.assert_close(attention.flatten(2).transpose(1, 2), weights)


@pytest.mark.parametrize("changes", [{"num_layers": 0}, {"order": ("route", "ffn")}])
def test_without_cross_attention_there_is_no_attention_map(changes):
    with pytest.raises(ZssError, match="no cross-attention"):
        decoder(**changes).attention_map(*inputs())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"order": ("cross", "mlp")}, "ORDER is .*'mlp'.*; give each of route, cross, ffn once"),
        ({"order": ("cross", "cross")}, "once or never"),
        ({"norm": "none"}, "NORM is 'none'; use one of pre, post"),
        ({"mask_head": "linear"}, "MASK_HEAD is 'linear'; use one of cosine, attention"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(ZssError, match=message):
        decoder(**changes)


def test_the_attention_head_by_hand():
    visual, classes = torch.randn(1, 3, 8), torch.randn(1, 2, 8)
    head = build_mask_head(8, settings(mask_head="attention"))
    centred = classes[0, 1] - classes[0, 1].mean()
    anchor = centred / (centred.square().mean() + 1e-5).sqrt()  # LayerNorm
    q, k = head.attention.q(visual[0, 2]), head.attention.k(anchor)
    expected = (q[:4] @ k[:4] + q[4:] @ k[4:]) / 2 / 4**0.5  # two heads of four channels
    torch.testing.assert_close(head(visual, classes)[0, 1, 2], expected)


def test_attention_masks_do_not_fade_with_the_norm_of_class_embeddings():
    torch.manual_seed(0)
    visual, classes = torch.randn(1, 3, 8), torch.randn(1, 2, 8)
    head = build_mask_head(8, settings(mask_head="attention"))
    torch.testing.assert_close(
        head(visual, 0.1 * classes), head(visual, classes), atol=1e-2, rtol=1e-2
    )


def test_classes_stay_anchors(make_cfg):
    """What the decoder gets as classes is the same tensor for every layer."""
    model = build_model(make_cfg("MODEL.META_ARCHITECTURE", "LDVC")).eval()
    seen = []
    for layer in model.decoder.layers:
        layer.register_forward_hook(lambda _, args, __: seen.append(args[1]))
    model(batch((64, 64)))
    assert len(seen) == len(model.decoder.layers) > 1
    assert all(classes is seen[0] for classes in seen)


def test_of_the_text_tower_only_the_prompts_learn(make_cfg):
    model = build_model(make_cfg(*TEXT_PROMPTS)).train()
    sum(model(batch((64, 64))).values()).backward()
    of_text = {name for name, p in model.named_parameters() if name.startswith("text_encoder")}
    learning = {name for name in of_text if model.get_parameter(name).grad is not None}
    assert learning == {"text_encoder.prompts.tokens"} < of_text
    assert model.text_encoder.prompts.tokens.grad.abs().amax(dim=(1, 2)).min() > 0  # every layer
