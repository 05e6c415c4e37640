import pytest
import torch
from torch.nn import functional as F

from zss_d2.modeling.inference.resize import resize_rows


@pytest.mark.parametrize("size", [(7, 5), (64, 48), (33, 90), (1, 1)])
def test_rows_of_a_resized_map(size):
    scores = torch.randn(1, 3, 16, 12)
    expected = F.interpolate(scores, size, mode="bilinear", align_corners=False)
    for start in range(0, size[0], 10):
        stop = min(start + 10, size[0])
        torch.testing.assert_close(
            resize_rows(scores, size, slice(start, stop)), expected[..., start:stop, :]
        )
