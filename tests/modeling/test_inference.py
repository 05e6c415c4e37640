import pytest
import torch

from zss_d2.modeling.inference import slide, window_starts


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


def test_a_pointwise_score_is_the_same_in_windows():
    image = torch.randn(1, 3, 13, 22)
    score = lambda view: torch.cat([view.sum(1, keepdim=True), view.prod(1, keepdim=True)], 1)  # noqa: E731
    torch.testing.assert_close(slide(score, image, crop=5, stride=3), score(image))


def test_overlaps_are_averaged():
    """A score that is constant in each window: pixels seen twice get the mean of both windows."""
    image = torch.arange(6.0).expand(1, 3, 1, 6)
    scores = slide(lambda view: view[:, :1] * 0 + view[..., :1, :1][:, :1], image, 4, 2)
    assert scores.flatten().tolist() == [0, 0, 1, 1, 2, 2]
