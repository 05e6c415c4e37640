import numpy as np
import pytest

from zss_d2.drawing.figures import encode, image_grid


def test_rows_are_as_high_as_their_images():
    sizes = [(60, 120), (100, 100), (10, 1000), (1000, 10)]
    figure, axes = image_grid(sizes, columns=2, width=2.0, margin=1.0)
    assert axes.shape == (4, 2)
    # A panorama and a tower are not drawn to their last pixel.
    assert figure.get_figheight() == pytest.approx(1.0 + 2.0 + 0.6 + 3.2 + 4 * 0.06 + 1.0)
    for (height, width), row in zip(sizes, axes, strict=True):
        for axis in row:
            axis.imshow(np.zeros((height, width)))
    encode(figure, dpi=50)
    first, second = (axis.get_window_extent().height for axis in axes[:2, 0])
    assert first / second == pytest.approx(0.5, rel=0.1)
    assert not any(len(axis.get_xticks()) for axis in axes.flat)


def test_landscape_images_leave_no_gaps_between_rows():
    figure, axes = image_grid([(50, 100)] * 3, columns=2, width=2.0)
    for axis in axes.flat:
        axis.imshow(np.zeros((50, 100)))
    encode(figure, dpi=100)
    above, below = (axes[row, 0].get_window_extent() for row in (0, 1))
    assert above.y0 - below.y1 < 0.12 * above.height
