"""Cross-attention against torch's own."""

import pytest
import torch
from detectron2.modeling import build_model

from zss_d2.errors import ZssError
from zss_d2.modeling.attention import CrossAttention
from zss_d2.modeling.methods.ldvc.route_attention import RouteAttention


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_equals_torchs(heads):
    ours = CrossAttention(8, heads).eval()
    reference = torch.nn.MultiheadAttention(8, heads, batch_first=True)
    reference.in_proj_weight.data = torch.cat([x.weight for x in (ours.q, ours.k, ours.v)])
    reference.in_proj_bias.data = torch.cat([x.bias for x in (ours.q, ours.k, ours.v)])
    reference.out_proj.load_state_dict(ours.out.state_dict())
    queries, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    expected, weights = reference(queries, memory, memory)
    torch.testing.assert_close(ours(queries, memory), expected)
    torch.testing.assert_close(ours.weights(queries, memory), weights)


def test_scores_are_the_mean_over_heads_before_the_softmax():
    attention = CrossAttention(8, 2)
    queries, memory = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    q, k = attention.q(queries)[0, 1], attention.k(memory)[0, 4]
    expected = (q[:4] @ k[:4] / 2 + q[4:] @ k[4:] / 2) / 2
    torch.testing.assert_close(attention.scores(queries, memory)[0, 1, 4], expected)


def test_dropout_acts_in_training_only():
    attention = CrossAttention(8, 2, dropout=0.5)
    queries, memory = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
    assert not torch.equal(attention(queries, memory), attention(queries, memory))
    attention.eval()
    assert torch.equal(attention(queries, memory), attention(queries, memory))


def test_heads_that_do_not_divide_the_width_are_named():
    """Modules name their argument; `build_model` names the key, before it builds the towers."""
    with pytest.raises(ZssError, match="num_heads is 7.* 64 channels; use one of 1, 2, 4, 8, 16"):
        CrossAttention(64, 7)
    with pytest.raises(ZssError, match="num_heads is 7"):
        RouteAttention(64, 7, 2, 2)


@pytest.mark.parametrize(
    ("method", "key", "opts"),
    [
        ("LDVC", "MODEL.LDVC.NUM_HEADS", ()),
        ("LDVC", "MODEL.LDVC.NUM_HEADS", ("NUM_LAYERS", 0, "MASK_HEAD", "attention")),
        ("ZegCLIP", "MODEL.ZEGCLIP.NUM_HEADS", ()),
        ("CLIPZSS", "MODEL.CLIP_ZSS.SYNTHESIZER.NUM_HEADS", ()),
    ],
)
def test_heads_are_checked_before_any_tower_is_built(method, key, opts, make_cfg, monkeypatch):
    def build(*_: object, **__: object) -> None:
        raise AssertionError("a tower was built")

    monkeypatch.setattr("zss_d2.clip.towers.build_clip_towers", build)
    own = [f"MODEL.LDVC.{x}" if i % 2 == 0 else x for i, x in enumerate(opts)]
    cfg = make_cfg("MODEL.META_ARCHITECTURE", method, key, 7, *own)
    message = f"{key} is 7, which does not divide the width, 64 channels; use one of 1, 2, 4, 8, 16"
    with pytest.raises(ZssError, match=message):
        build_model(cfg)


def test_heads_without_effect_are_not_checked(make_cfg):
    opts = ("MODEL.LDVC.NUM_LAYERS", 0, "MODEL.LDVC.NUM_HEADS", 7)
    build_model(make_cfg("MODEL.META_ARCHITECTURE", "LDVC", *opts))
