import torch
from torch.nn import functional as F

from zss_d2.modeling.methods.clip_zss.similarity import cosine_map, dot_map


def test_dot_products_with_shared_and_own_vectors():
    features, shared, own = torch.randn(2, 5, 3, 4), torch.randn(6, 5), torch.randn(2, 6, 5)
    torch.testing.assert_close(
        dot_map(features, shared), torch.einsum("bchw,kc->bkhw", features, shared)
    )
    torch.testing.assert_close(
        dot_map(features, own), torch.einsum("bchw,bkc->bkhw", features, own)
    )
    assert dot_map(features, own[:, :0]).shape == (2, 0, 3, 4)


def test_cosine_and_its_gradient_equal_torchs():
    vectors = F.normalize(torch.randn(6, 5, dtype=torch.float64), dim=1)
    features = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 6, 3, 4, dtype=torch.float64)
    expected = F.cosine_similarity(features[:, None], vectors[None, :, :, None, None], dim=2)
    got = cosine_map(features, vectors)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad((weight * x).sum(), features)[0] for x in (got, expected)]
    torch.testing.assert_close(*gradients)


def test_a_feature_of_zeros_has_cosine_zero_and_a_finite_gradient():
    features = torch.zeros(1, 5, 1, 1, requires_grad=True)
    cosine = cosine_map(features, F.normalize(torch.randn(2, 5), dim=1))
    cosine.sum().backward()
    assert not cosine.any()
    assert features.grad.isfinite().all()


def test_vectors_may_carry_the_scale_of_the_logits():
    features, vectors = torch.randn(2, 5, 3, 4), F.normalize(torch.randn(6, 5), dim=1)
    torch.testing.assert_close(
        cosine_map(features, 20 * vectors), 20 * cosine_map(features, vectors)
    )
