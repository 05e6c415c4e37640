"""Pseudo labels of pixels, on cases by hand and against slow references."""

import pytest
import torch
from torch.nn import functional as F

from zss_d2.modeling.losses import chunks
from zss_d2.modeling.self_training.pseudo_labels import (
    Guess,
    best_candidate,
    eligible,
    fill,
    tally,
)

IGNORE = 255


def test_only_unlabelled_pixels_inside_of_an_image_are_eligible():
    targets = torch.tensor([[[0, IGNORE, IGNORE], [IGNORE, 1, IGNORE]]] * 2)
    pixels = eligible(targets, [(2, 2), (1, 3)], IGNORE, None)
    assert pixels.int().tolist() == [[[0, 1, 0], [1, 0, 0]], [[0, 1, 1], [0, 0, 0]]]
    located = torch.tensor([[[1, 1, 1], [0, 0, 0]]] * 2).bool()
    some = eligible(targets, [(2, 2), (1, 3)], IGNORE, located)
    assert some.int().tolist() == [[[0, 1, 0], [0, 0, 0]], [[0, 1, 1], [0, 0, 0]]]


def slow_best(logits, size, activate, first):
    """Pixel by pixel, on maps enlarged by torch."""
    large = F.interpolate(logits, size, mode="bilinear")
    labels, scores = [], []
    for image in large:
        for row in range(size[0]):
            for column in range(size[1]):
                own = activate(image[:, row, column].view(1, -1, 1, 1).clone()).flatten().tolist()
                best = max(range(first, len(own)), key=lambda k, own=own: own[k])
                labels.append(best)
                scores.append(own[best])
    shape = (len(logits), *size)
    return torch.tensor(labels).view(shape), torch.tensor(scores).view(shape)


@pytest.mark.parametrize("activate", [torch.sigmoid, lambda x: x.softmax(dim=1)])
@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("chunk", [1, 8 << 20])
def test_the_best_candidate_of_every_pixel(monkeypatch, activate, first, chunk):
    monkeypatch.setattr(chunks, "_SMALL", chunk)
    monkeypatch.setitem(chunks.CHUNK_BYTES, "cpu", chunk)
    logits = torch.randn(2, 5, 4, 3)
    guess = best_candidate(logits, (9, 7), activate, first)
    labels, scores = slow_best(logits, (9, 7), activate, first)
    assert torch.equal(guess.labels, labels)
    torch.testing.assert_close(guess.scores, scores)


def test_labels_stay_and_low_scores_give_none():
    targets = torch.tensor([[[0, IGNORE, IGNORE, IGNORE]]])
    pixels = torch.tensor([[[0, 1, 1, 0]]]).bool()
    guess = Guess(torch.tensor([[[2, 2, 3, 3]]]), torch.tensor([[[0.9, 0.5, 0.49, 0.9]]]))
    filled = fill(targets, pixels, guess, threshold=0.5)
    assert filled.tolist() == [[[0, 2, IGNORE, IGNORE]]]
    assert tally(targets, filled, pixels, 4).tolist() == [2, 0, 0, 1, 0]
