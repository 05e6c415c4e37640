from itertools import product

import pytest
import torch

from zss_d2.modeling.losses.chunks import blocks, chunk_bytes

MIB = 1 << 20


@pytest.mark.parametrize("at_once", [0, 1, 2, 3, 5, 7, 10, 11, 35, 99])
def test_blocks_cover_a_grid_once_and_hold_no_more_than_is_asked_for(at_once):
    found = []
    for rows, columns in blocks(5, 7, at_once):
        block = list(product(range(5)[rows], range(7)[columns]))
        assert 1 <= len(block) <= max(1, at_once)
        assert columns == slice(0, 7) or len(range(5)[rows]) == 1
        found += block
    assert sorted(found) == list(product(range(5), range(7)))


def test_parts_of_a_row_are_of_about_equal_length():
    assert [c.stop - c.start for _, c in blocks(1, 10, 4)] == [3, 3, 4]


@pytest.mark.parametrize(
    ("device", "whole", "expected"),
    [
        *(("cpu", 2000, 8), ("cpu", 10, 8)),
        *(("cuda", 240, 256), ("cuda", 2400, 600), ("cuda", 8000, 1024)),
    ],
)
def test_copies_of_a_chunk_are_as_all_logits_where_these_are_many(device, whole, expected):
    """All in MiB; 2400 is about COCO-Stuff with 16 images of 512 x 512, 240 VOC."""
    assert chunk_bytes(whole * MIB, torch.device(device)) == expected * MIB
