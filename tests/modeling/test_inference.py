import pytest
import torch
from torch.nn import functional as F

from zss_d2.modeling.inference.pipeline import (
    LabelsOnly,
    argmax_labels,
    resize_rows,
    slide,
    slide_pieces,
    window_starts,
)


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


def naive_slide(score, image, crop, stride):
    """The definition, with the whole sum in memory."""
    height, width = image.shape[-2:]
    total = count = 0
    for top in window_starts(height, crop, stride):
        for left in window_starts(width, crop, stride):
            scores = score(image[..., top : top + crop, left : left + crop])
            right, bottom = width - left - scores.shape[-1], height - top - scores.shape[-2]
            total = total + F.pad(scores, (left, right, top, bottom))
            count = count + F.pad(torch.ones_like(scores), (left, right, top, bottom))
    return total / count


@pytest.mark.parametrize("size", [(13, 22), (40, 17), (3, 31), (4, 4), (50, 50)])
@pytest.mark.parametrize(("crop", "stride"), [(5, 3), (7, 2), (10, 10), (9, 4), (64, 32)])
def test_pieces_equal_the_naive_average(size, crop, stride):
    """Up to four windows deep in each direction, windows as large as the image, single windows."""
    image = torch.randn(1, 3, *size)
    # Every window has scores of its own, so that wrong overlaps cannot cancel.
    score = lambda views: views + views[..., :1, :1]  # noqa: E731
    expected = naive_slide(score, image, crop, stride)
    for batch in (1, 3):
        assert torch.equal(slide(score, image, crop, stride, batch), expected)
    seen = torch.zeros(size)
    for rows, columns, scores in slide_pieces(score, image, crop, stride):
        seen[rows, columns] += 1
        assert torch.equal(scores, expected[0, :, rows, columns])
    assert (seen == 1).all()


@pytest.mark.parametrize("size", [(7, 5), (64, 48), (33, 90), (1, 1)])
def test_rows_of_a_resized_map(size):
    scores = torch.randn(1, 3, 16, 12)
    expected = F.interpolate(scores, size, mode="bilinear", align_corners=False)
    for start in range(0, size[0], 10):
        stop = min(start + 10, size[0])
        torch.testing.assert_close(
            resize_rows(scores, size, start, stop), expected[..., start:stop, :]
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1, 3, 4), (5, 1, 1), (256, 7, 9), (257, 7, 9), (3, 300, 200)])
def test_labels_are_the_argmax_and_the_first_of_equal_scores(shape, dtype):
    scores = torch.randint(-9, 9, shape).to(dtype)  # many ties
    labels = argmax_labels(scores)
    assert labels.dtype == (torch.uint8 if shape[0] <= 256 else torch.int32)
    assert torch.equal(labels.long(), scores.argmax(dim=0))


def test_labels_of_scores_in_another_layout():
    scores = torch.randn(11, 13, 5).permute(1, 0, 2)
    assert torch.equal(argmax_labels(scores).long(), scores.argmax(dim=0))
    assert torch.equal(
        argmax_labels(-scores.abs().log()).long(), (-scores.abs().log()).argmax(dim=0)
    )


def test_nan_is_refused():
    scores = torch.zeros(4, 3, 3)
    scores[2, 1, 1] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        argmax_labels(scores)


def test_labels_only_knows_no_other_dimension():
    labels = LabelsOnly(torch.ones(2, 3, dtype=torch.int32), 5)
    assert labels.shape == (5, 2, 3)
    assert labels.argmax(dim=0).tolist() == [[1] * 3] * 2
    with pytest.raises(ValueError, match="not over dim 1"):
        labels.argmax(dim=1)
