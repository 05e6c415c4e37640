"""Pseudo labels of pixels, on cases by hand and against slow references."""

import pytest
import torch
from torch.nn import functional as F

from zss_d2.modeling.losses import chunks
from zss_d2.modeling.self_training.pseudo_labels import (
    BINS,
    Guess,
    best_candidate,
    count_scores,
    eligible,
    fill,
    least_bins,
    take,
    tally,
    without_low,
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
    guess = best_candidate([logits], (9, 7), activate, first)
    labels, scores = slow_best(logits, (9, 7), activate, first)
    assert torch.equal(guess.labels, labels)
    torch.testing.assert_close(guess.scores, scores)
    assert guess.agreed.all()
    other = torch.randn(2, 5, 7, 6)  # of a larger scale
    both = best_candidate([logits, other], (9, 7), activate, first)
    labels_of_other, scores_of_other = slow_best(other, (9, 7), activate, first)
    assert torch.equal(both.labels, labels)
    assert torch.equal(both.agreed, labels == labels_of_other)
    torch.testing.assert_close(both.scores, (scores + scores_of_other) / 2)


def guess_of(labels: list[int], scores: list[float], agreed: tuple[int, ...] = ()) -> Guess:
    """Of an image of one row."""
    agreed = agreed or [1] * len(labels)
    values = torch.tensor(labels), torch.tensor(scores), torch.tensor(agreed).bool()
    return Guess(*(x.view(1, 1, -1) for x in values))


def test_labels_stay_and_low_scores_give_none():
    targets = torch.tensor([[[0, IGNORE, IGNORE, IGNORE]]])
    pixels = torch.tensor([[[0, 1, 1, 0]]]).bool()
    guess = guess_of([2, 2, 3, 3], [0.9, 0.5, 0.49, 0.9])
    filled = fill(targets, pixels, guess, threshold=0.5)
    assert filled.tolist() == [[[0, 2, IGNORE, IGNORE]]]
    assert tally(targets, filled, pixels, 4).tolist() == [2, 0, 0, 1, 0]


def test_what_views_do_not_agree_on_gets_no_label():
    targets = torch.full((1, 1, 3), IGNORE)
    filled = fill(targets, targets == IGNORE, guess_of([1, 2, 3], [1.0] * 3, (1, 0, 1)), 0.0)
    assert filled.tolist() == [[[1, IGNORE, 3]]]


def test_labels_that_were_made_before_are_taken_where_there_are_some():
    targets = torch.tensor([[[0, IGNORE, IGNORE, IGNORE, IGNORE]]])
    pixels = torch.tensor([[[0, 1, 1, 1, 0]]]).bool()
    labels = torch.tensor([[[2, 2, 1, IGNORE, 2]]])
    assert take(targets, pixels, labels, 0).tolist() == [[[0, 2, 1, IGNORE, IGNORE]]]
    assert take(targets, pixels, labels, 2).tolist() == [[[0, 2, IGNORE, IGNORE, IGNORE]]]


def test_the_lowest_scores_of_every_class_are_left_out():
    """A quarter of each class; what has no pixel or does not agree is not counted."""
    scores = [0.1, 0.2, 0.3, 0.4, 0.91, 0.92, 0.93, 0.94, 0.0, 0.0]
    guess = guess_of([0] * 4 + [2] * 4 + [0, 0], scores, (*[1] * 9, 0))
    pixels = torch.tensor([[[True] * 8 + [False, True]]])
    counts = count_scores(guess, pixels, 3)
    assert counts.sum(dim=1).tolist() == [4, 0, 4]
    assert [int(i) for i in counts[0].nonzero()] == [int(1000 * x) for x in (0.1, 0.2, 0.3, 0.4)]
    kept = without_low(guess, least_bins(counts, 0.25)).agreed & pixels
    assert kept.flatten().int().tolist() == [0, 1, 1, 1, 0, 1, 1, 1, 0, 0]


def slow_least(counts: list[int], quantile: float) -> int:
    total, below = sum(counts), 0
    for index, count in enumerate(counts):
        below += count
        if below > quantile * total:
            return index
    return 0


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.5, 0.99])
def test_the_least_bin_of_a_quantile(quantile):
    counts = torch.randint(0, 5, (6, BINS)) * (torch.rand(6, BINS) < 0.02)
    counts[2] = 0
    expected = [slow_least(row.tolist(), quantile) for row in counts]
    assert least_bins(counts, quantile).tolist() == expected
