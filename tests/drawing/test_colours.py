import numpy as np

from zss_d2.drawing.colours import IGNORED, class_colours, colourise


def test_colours_are_distinct_and_void_is_grey():
    colours = class_colours(35)
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1) + np.eye(35)
    assert apart.min() > 0.15
    assert len(np.unique(class_colours(300), axis=0)) == 300
    painted = colourise(np.array([[0, 34, 255]]), colours)
    np.testing.assert_allclose(painted[0], [colours[0], colours[34], IGNORED])
