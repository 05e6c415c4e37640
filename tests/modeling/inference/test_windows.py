import pytest
import torch
from torch.nn import functional as F

from zss_d2.modeling.inference.windows import Windows, window_starts


@pytest.mark.parametrize(
    ("size", "crop", "stride", "starts"),
    [
        (10, 4, 3, [0, 3, 6]),
        (11, 4, 3, [0, 3, 6, 7]),
        (4, 4, 3, [0]),
        (2, 4, 3, [0]),
        (9, 3, 3, [0, 3, 6]),
    ],
)
def test_window_starts_by_hand(size, crop, stride, starts):
    assert window_starts(size, crop, stride) == starts


def averaged(score, image: torch.Tensor, windows: Windows) -> torch.Tensor:
    """Scores (K, H, W) of an image, with every pixel in one piece."""
    result = None
    for rows, columns, scores in windows.average(map(score, windows.cut(image))):
        if result is None:
            result = torch.full((len(scores), *windows.size), torch.nan)
        assert result[:, rows, columns].isnan().all()
        result[:, rows, columns] = scores
    assert not result.isnan().any()
    return result


def test_a_pointwise_score_is_the_same_in_windows():
    image = torch.randn(3, 13, 22)
    score = lambda view: torch.stack([view.sum(0), view.prod(0)])  # noqa: E731
    torch.testing.assert_close(averaged(score, image, Windows((13, 22), 5, 3)), score(image))


def test_overlaps_are_averaged():
    """A score that is constant in each window: pixels seen twice get the mean of both windows."""
    image = torch.arange(6.0).expand(3, 1, 6)
    scores = averaged(lambda view: view[:1] * 0 + view[:1, :1, :1], image, Windows((1, 6), 4, 2))
    assert scores.flatten().tolist() == [0, 0, 1, 1, 2, 2]


def naive_average(score, image: torch.Tensor, windows: Windows) -> torch.Tensor:
    """The definition, with the whole sum in memory."""
    height, width = windows.size
    total = count = 0
    for top in windows.tops:
        for left in windows.lefts:
            scores = score(image[:, top : top + windows.crop, left : left + windows.crop])
            right, bottom = width - left - scores.shape[-1], height - top - scores.shape[-2]
            total = total + F.pad(scores, (left, right, top, bottom))
            count = count + F.pad(torch.ones_like(scores), (left, right, top, bottom))
    return total / count


@pytest.mark.parametrize("size", [(13, 22), (40, 17), (3, 31), (4, 4), (50, 50)])
@pytest.mark.parametrize(("crop", "stride"), [(5, 3), (7, 2), (10, 10), (9, 4), (64, 32)])
def test_pieces_equal_the_naive_average(size, crop, stride):
    """Up to four windows deep in each direction, windows as large as the image, single windows."""
    image, windows = torch.randn(3, *size), Windows(size, crop, stride)
    # Every window has scores of its own, so that wrong overlaps cannot cancel.
    score = lambda view: view + view[:, :1, :1]  # noqa: E731
    assert torch.equal(averaged(score, image, windows), naive_average(score, image, windows))


def test_scores_that_are_averaged_stay_what_they_were():
    image, windows = torch.randn(3, 20, 20), Windows((20, 20), 8, 4)
    given = list(windows.cut(image))
    before = image.clone()
    list(windows.average(iter(given)))
    assert torch.equal(image, before)


def test_blended_windows_fade_by_hand():
    """Windows of 4 px every 2 px that say 0, 1 and 2: weights are 1/4, 3/4, 3/4, 1/4."""
    said = iter(torch.arange(3.0))
    windows = Windows((1, 8), 4, 2, blend=True)
    scores = averaged(
        lambda view: torch.full((1, *view.shape[1:]), float(next(said))),
        torch.zeros(3, 1, 8),
        windows,
    )
    assert scores.flatten().tolist() == [0, 0, 0.25, 0.75, 1.25, 1.75, 2, 2]


@pytest.mark.parametrize("size", [(13, 22), (3, 31), (50, 50)])
def test_blending_leaves_what_windows_agree_on(size):
    image = torch.randn(3, *size)
    scores = averaged(lambda view: view, image, Windows(size, 9, 6, blend=True))
    torch.testing.assert_close(scores, image)
