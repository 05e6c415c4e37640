"""Cross-attention against torch's own."""

import pytest
import torch

from zss_d2.modeling.attention import CrossAttention


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


def test_identity_values_keep_the_result_among_the_memory():
    """Weights times the memory as it is: a corner of the simplex for a one-entry memory."""
    attention = CrossAttention(8, 2, identity_values=True).eval()
    memory = torch.randn(2, 1, 8)
    torch.testing.assert_close(attention(torch.randn(2, 3, 8), memory), memory.expand(2, 3, 8))
    assert {name.split(".")[0] for name, _ in attention.named_parameters()} == {"q", "k"}


def test_dropout_acts_in_training_only():
    for identity_values in (False, True):
        attention = CrossAttention(8, 2, dropout=0.5, identity_values=identity_values)
        queries, memory = torch.randn(1, 3, 8), torch.randn(1, 5, 8)
        assert not torch.equal(attention(queries, memory), attention(queries, memory))
        attention.eval()
        assert torch.equal(attention(queries, memory), attention(queries, memory))
