import pytest
import torch

from zss_d2.modeling.inference import LabelsOnly, NanScoresError, argmax_labels, best_class


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
    with pytest.raises(NanScoresError, match="NaN.*earlier checkpoint"):
        argmax_labels(scores)


def test_labels_only_knows_no_other_dimension():
    labels = LabelsOnly(torch.ones(2, 3, dtype=torch.int32), 5)
    assert labels.shape == (5, 2, 3)
    assert labels.argmax(dim=0).tolist() == [[1] * 3] * 2
    with pytest.raises(ValueError, match="not over dim 1"):
        labels.argmax(dim=1)
    with pytest.raises(ValueError, match="not their scores"):
        best_class(labels)


def test_the_best_scores_come_along():
    scores = torch.randn(7, 300, 200)
    best = best_class(scores)
    assert torch.equal(best.scores, scores.max(dim=0).values)
    assert torch.equal(best.labels.long(), scores.argmax(dim=0))
