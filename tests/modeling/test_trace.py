"""Stages of every method are those that its logits are made of."""

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor
from torch.nn import functional as F

from tests.modeling.all_methods import METHODS
from zss_d2.errors import ZssError
from zss_d2.modeling.attention import AttentionScores
from zss_d2.modeling.trace import Stage, Trace

ATTENTION_MASKS = (*METHODS["LDVC"], "MODEL.LDVC.MASK_HEAD", "attention")
QUERY_NORM = (*METHODS["ZegCLIP"], "MODEL.ZEGCLIP.QUERY_NORM", True)


def traced(make_cfg, overrides: tuple) -> tuple[torch.nn.Module, Tensor, Trace]:
    torch.manual_seed(0)
    model = build_model(make_cfg(*overrides)).eval()
    images = torch.randn(2, 3, 40, 64)
    with torch.inference_mode():
        return model, model.logits(images, model.classes), model.trace(images, model.classes)


def similarity(stage: Stage, cosine: bool) -> Tensor:
    """(B, K, h, w)."""
    tokens, classes = stage.tokens, stage.classes
    if cosine:
        tokens, classes = F.normalize(tokens, dim=1), F.normalize(classes, dim=2)
    return torch.einsum("bchw,bkc->bkhw", tokens, classes)


@pytest.mark.parametrize("method", ["LDVC", "MaskCLIP", "CLIPZSS"])
def test_logits_are_an_affine_function_of_the_last_cosines(make_cfg, method):
    _, logits, trace = traced(make_cfg, METHODS[method])
    assert_affine(similarity(trace.stages[-1], cosine=True), logits)


@pytest.mark.parametrize("overrides", [METHODS["ZegCLIP"], QUERY_NORM, ATTENTION_MASKS])
def test_attention_masks_are_dot_products_with_what_tokens_see(make_cfg, overrides):
    """But for an offset of every class in every image."""
    _, logits, trace = traced(make_cfg, overrides)
    products = similarity(trace.stages[-1], cosine=False)
    assert_affine(*(x - x.mean(dim=(2, 3), keepdim=True) for x in (products, logits)))


def assert_affine(a: Tensor, b: Tensor) -> None:
    line = torch.linalg.lstsq(
        torch.stack([a.flatten(), torch.ones(a.numel())], dim=1), b.flatten()[:, None]
    ).solution
    torch.testing.assert_close(a * line[0] + line[1], b, rtol=1e-3, atol=1e-3)
    assert line[0] > 0


@pytest.mark.parametrize("method", METHODS)
def test_shapes_of_all_stages(make_cfg, method):
    model, logits, trace = traced(make_cfg, METHODS[method])
    (height, width), number = trace.padded, len(model.classes)
    assert (height, width) == model.padded_size((40, 64))
    torch.testing.assert_close(trace.text.norm(dim=1), torch.ones(number))
    for stage in trace.stages:
        assert stage.tokens.shape == (2, trace.text.shape[1], *logits.shape[2:])
        assert stage.classes.shape == (2, number, trace.text.shape[1])
        assert stage.queries is None or stage.queries.shape == stage.classes.shape
    names = [stage.name for stage in trace.stages]
    assert len(set(names)) == len(names)


def test_zegclip_changes_queries_and_ldvc_tokens(make_cfg):
    _, _, zegclip = traced(make_cfg, (*METHODS["ZegCLIP"], "MODEL.ZEGCLIP.NUM_LAYERS", 3))
    assert [x.name for x in zegclip.stages[1:]] == ["layer 1", "layer 2", "layer 3"]
    assert [x.queries is None for x in zegclip.stages] == [False, False, False, True]
    assert zegclip.stages[0].queries is zegclip.stages[0].classes  # t_hat, as it enters
    assert all(torch.equal(x.tokens, zegclip.stages[0].tokens) for x in zegclip.stages)
    assert not torch.equal(zegclip.stages[1].queries, zegclip.stages[2].queries)

    _, _, ldvc = traced(make_cfg, (*METHODS["LDVC"], "MODEL.LDVC.NUM_LAYERS", 2))
    assert [x.queries is None for x in ldvc.stages] == [False, True, True]
    assert all(torch.equal(x.classes, ldvc.stages[0].classes) for x in ldvc.stages)
    assert not torch.equal(ldvc.stages[1].tokens, ldvc.stages[2].tokens)
    none = (*METHODS["LDVC"], "MODEL.LDVC.NUM_LAYERS", 0)
    assert [x.name for x in traced(make_cfg, none)[2].stages] == ["before the decoder", "norm"]


def test_what_one_side_sees_of_the_other_gives_the_scores():
    attention = AttentionScores(8, 2)
    queries, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    factor = attention.scale / attention.num_heads
    scores = attention.scores(queries, memory)
    seen = factor * memory @ attention.as_memory_sees(queries).transpose(1, 2)  # (B, M, N)
    offset = factor * attention.q(queries) @ attention.k.bias
    torch.testing.assert_close(seen.transpose(1, 2) + offset[..., None], scores)
    seen = factor * queries @ attention.as_queries_see(memory).transpose(1, 2)
    offset = factor * attention.k(memory) @ attention.q.bias
    torch.testing.assert_close(seen + offset[:, None], scores)


def test_several_words_for_a_class_have_no_one_embedding(make_cfg):
    words = ("MODEL.MASKCLIP.WORDS", [["cat", "cat", "kitten"]])
    with pytest.raises(ZssError, match="WORDS gives classes several embeddings"):
        traced(make_cfg, (*METHODS["MaskCLIP"], *words))
