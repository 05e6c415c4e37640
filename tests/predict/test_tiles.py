"""Large images in tiles: no pixel depends on how memory is bounded."""

import numpy as np
import pytest
import torch

from zss_d2.predict import tiles
from zss_d2.predict.tiles import ArraySource, bands, score_tiles


def scores_of(image, side, overlap, shown=None):
    """Each tile scores its own pixels, and its mean, so that wrong overlaps cannot cancel."""

    def score(parts):
        for part in parts:
            if shown is not None:
                shown.append(part.shape[:2])
            x = torch.from_numpy(part[..., :2].astype(np.float32)).permute(2, 0, 1)
            yield x + x.mean(dim=(1, 2), keepdim=True)

    whole = np.full((2, *image.shape[:2]), np.nan)
    for rows, columns, part in score_tiles(ArraySource(image), score, 2, side, overlap):
        assert np.isnan(whole[:, rows, columns]).all()
        whole[:, rows, columns] = part
    assert not np.isnan(whole).any()
    return whole


@pytest.mark.parametrize("size", [(40, 90), (90, 40), (10, 10), (17, 64), (7, 100)])
@pytest.mark.parametrize(("side", "overlap"), [(16, 0.25), (16, 0.0), (20, 0.5), (64, 0.1)])
@pytest.mark.parametrize("limit", [1, 300, 2000])
def test_bands_change_nothing(size, side, overlap, limit, monkeypatch):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = scores_of(image, side, overlap)
    monkeypatch.setattr(tiles, "SHARED_SCORES", limit)
    np.testing.assert_allclose(scores_of(image, side, overlap), expected, rtol=1e-6)


def test_bands_by_hand():
    """Tiles of 4 px every 3 px start at 0, 3, 6."""
    assert list(bands(10, 4, 3, most=10)) == [(0, 10, slice(0, 10))]
    assert list(bands(10, 4, 3, most=3)) == [
        (0, 4, slice(0, 3)),
        (0, 7, slice(3, 6)),
        (3, 10, slice(6, 9)),
        (6, 10, slice(9, 10)),
    ]


def test_a_seam_is_blended():
    """Two tiles that say 0 and 1: the weight of the second rises in steps over the overlap."""
    image = np.zeros((1, 12, 3), np.uint8)

    def score(parts):
        for index, part in enumerate(parts):
            yield torch.full((1, *part.shape[:2]), float(index))

    pieces = list(score_tiles(ArraySource(image), score, 1, 8, 0.5))
    row = torch.cat([scores for _, _, scores in pieces], dim=2).flatten()
    assert row.tolist() == [0, 0, 0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1, 1, 1]


def test_no_tile_is_larger_than_wanted():
    shown = []
    scores_of(np.zeros((50, 70, 3), np.uint8), 16, 0.25, shown)
    assert set(shown) == {(16, 16)}
