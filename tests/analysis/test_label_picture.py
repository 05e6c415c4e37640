import numpy as np

from zss_d2.analysis.label_picture import label_picture
from zss_d2.drawing.figures import encode


def test_the_legend_names_what_occurs_and_marks_what_is_unseen():
    image = np.zeros((8, 8, 3), np.uint8)
    truth, prediction = np.zeros((8, 8), int), np.full((8, 8), 2)
    truth[0] = 255
    figure = label_picture(
        [image],
        [("truth", [truth]), ("model", [prediction])],
        ["cat", "dog", "cow"],
        ["cow"],
        ["one"],
    )
    texts = {text.get_text(): text.get_fontweight() for text in figure.legends[0].get_texts()}
    assert texts == {"cat": "normal", "cow (unseen)": "bold", "void": "normal"}
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["image", "truth", "model"]
    assert figure.axes[0].get_ylabel() == "one"


def test_the_legend_stays_within_the_picture():
    names = [f"yellow meshed thing {index}" for index in range(30)]
    labels = np.arange(30).reshape(5, 6)
    figure = label_picture(
        [np.zeros((5, 6, 3), np.uint8)], [("truth", [labels]), ("model", [labels])], names, names
    )
    encode(figure, dpi=50)
    box, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert box.x0 >= whole.x0
    assert box.x1 <= whole.x1


def test_columns_of_one_name_and_classes_of_any_name_are_all_drawn():
    names = ["$x^2$", r"$\frac$", "_a", "two\nlines", "void"]
    labels = np.arange(5)[None]
    columns = [(title, [labels]) for title in ("image", "run", "run", r"_$\frac$")]
    figure = label_picture([np.zeros((1, 5, 3), np.uint8)], columns, names, ["_a"])
    encode(figure, dpi=40)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["image", "image", "run", "run", r"_$\frac$"]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["$x^2$", r"$\frac$", "_a (unseen)", "two lines", "void", "unlabelled"]


def test_long_names_stay_within_the_picture():
    names = [f"{'very ' * 20}long {index}" for index in range(8)]
    labels = np.arange(8)[None]
    titles = [f"output/{'long_' * 10}{index}/seed0" for index in range(3)]
    columns = [(title, [labels]) for title in titles]
    figure = label_picture([np.zeros((1, 8, 3), np.uint8)], columns, names, names)
    encode(figure, dpi=50)
    boxes = [axis.title.get_window_extent() for axis in figure.axes]
    assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))
    legend, whole = figure.legends[0].get_window_extent(), figure.bbox
    assert legend.x0 >= whole.x0
    assert legend.x1 <= whole.x1
