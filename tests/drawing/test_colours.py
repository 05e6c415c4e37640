import numpy as np

from zss_d2.drawing.colours import IGNORED, class_colours, colourise, distinct_colours


def test_colours_are_distinct_and_void_is_grey():
    colours = class_colours([f"class {i}" for i in range(35)])
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1) + np.eye(35)
    assert apart.min() > 0.15
    assert len(np.unique(distinct_colours(300), axis=0)) == 300
    painted = colourise(np.array([[0, 34, 255]]), colours)
    np.testing.assert_allclose(painted[0], [colours[0], colours[34], IGNORED])


def test_colours_that_are_given_stay_and_the_others_keep_away_from_them():
    given = {"lava": (240, 120, 20), "not here": (1, 2, 3)}
    names = ["cat", "lava", "dog"]
    colours = class_colours(names, given)
    np.testing.assert_allclose(255 * colours[1], given["lava"])
    np.testing.assert_array_equal(colours[[0, 2]], distinct_colours(2, colours[1:2]))
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1) + np.eye(3)
    assert apart.min() > 0.3
    # Without lava's, its neighbour in the palette would be among the first ones.
    near = distinct_colours(1)
    assert np.linalg.norm(distinct_colours(1, near) - near) > 0.3
