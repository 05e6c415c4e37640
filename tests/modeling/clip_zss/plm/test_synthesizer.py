"""Centroids over masks, the synthesizer and its loss against plain references."""

import math

import pytest
import torch
from torch.nn import functional as F

from zss_d2.modeling.methods.clip_zss.plm.synthesizer import (
    Synthesizer,
    mask_centroids,
    prototype_loss,
)


def test_centroids_are_means_over_the_pixels_of_a_mask():
    features, labels = torch.randn(3, 4, 5, 6), torch.randint(-1, 7, (3, 5, 6))
    labels[1] = -1
    centroids, present = mask_centroids(features, labels, 7)
    for image in range(3):
        for mask in range(7):
            pixels = features[image][:, labels[image] == mask]
            assert bool(present[image, mask]) == (pixels.shape[1] > 0)
            expected = pixels.mean(dim=1) if pixels.shape[1] else torch.zeros(4)
            torch.testing.assert_close(centroids[image, mask], expected)


def test_no_masks_at_all():
    centroids, present = mask_centroids(torch.randn(2, 4, 3, 3), torch.full((2, 3, 3), -1), 0)
    assert centroids.shape == (2, 0, 4)
    assert present.shape == (2, 0)


def test_masks_and_images_do_not_influence_each_other():
    model = Synthesizer(8, num_layers=2, num_heads=2, ffn_dim=16)
    centroids, cls = torch.randn(3, 5, 8), torch.randn(3, 8)
    whole = model(centroids, cls)
    torch.testing.assert_close(model(centroids[1:2, 3:], cls[1:2]), whole[1:2, 3:])


def test_a_layer_equals_the_decoder_of_torch_without_self_attention():
    model = Synthesizer(8, num_layers=1, num_heads=2, ffn_dim=16)
    (layer,) = model.layers
    centroids, cls = torch.randn(2, 3, 8), torch.randn(2, 8)
    # With one key the softmax is 1: every query gets the projected value.
    update = layer.attention.out(layer.attention.v(cls))[:, None]
    x = layer.attention_norm(centroids + update)
    expected = layer.ffn_norm(x + layer.ffn(x))
    torch.testing.assert_close(model(centroids, cls), expected)


def test_without_layers_the_prototypes_are_the_centroids():
    centroids = torch.randn(2, 3, 8)
    assert torch.equal(Synthesizer(8, 0, 2, 16)(centroids, torch.randn(2, 8)), centroids)


def test_loss_equals_the_slow_reference():
    prototypes, text = torch.randn(2, 3, 4), F.normalize(torch.randn(3, 4), dim=1)
    present = torch.tensor([[True, False, True], [False, False, True]])
    terms = []
    for image, own in present.nonzero().tolist():
        for other in range(3):
            cosine = F.cosine_similarity(prototypes[image, own], text[other], dim=0)
            p = 1 / (1 + math.exp(-5 * cosine))
            terms.append(-math.log(p if other == own else 1 - p))
    got = prototype_loss(prototypes, text, present, scale=5)
    assert float(got) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_no_seen_class_costs_nothing_and_keeps_the_graph():
    prototypes = torch.zeros(2, 3, 4, requires_grad=True)
    text = F.normalize(torch.randn(3, 4), dim=1)
    loss = prototype_loss(prototypes, text, torch.zeros(2, 3, dtype=torch.bool), 5)
    loss.backward()
    assert loss == 0
    assert not prototypes.grad.any()
