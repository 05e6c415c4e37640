"""Text adapters: their formula and how they start."""

import torch
from torch.nn import functional as F

from zss_d2.modeling.two_tower.adapter import NoAdapter, RelationDescriptor


def test_descriptor_starts_as_the_identity_and_follows_its_formula():
    descriptor = RelationDescriptor(6)
    text, image = F.normalize(torch.randn(3, 6), dim=-1), torch.randn(2, 6)
    torch.testing.assert_close(descriptor(text, image), text.expand(2, 3, 6))
    torch.nn.init.normal_(descriptor.linear.weight)
    g = image[1] / image[1].norm()
    expected = descriptor.linear(torch.cat([text[2] * g, text[2]]))
    torch.testing.assert_close(descriptor(text, image)[1, 2], expected)


def test_a_random_start_is_no_identity():
    text = F.normalize(torch.randn(3, 6), dim=-1)
    adapted = RelationDescriptor(6, identity_init=False)(text, torch.randn(2, 6))
    assert adapted.shape == (2, 3, 6)
    assert not torch.allclose(adapted[0], text, atol=0.1)


def test_without_adapter_every_image_gets_the_same_embeddings():
    text = torch.randn(3, 6)
    assert torch.equal(NoAdapter()(text, torch.randn(2, 6)), text.expand(2, 3, 6))
