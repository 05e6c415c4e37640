"""From what users write to label ids."""

import numpy as np
import pytest

from zss_d2.errors import ZssError
from zss_d2.predict.labelling import label_ids
from zss_d2.predict.words import Words, read_words


def test_order_decides_the_ids():
    words = Words.of(["sofa|couch", "coffee  cup"])
    assert words.names == ("sofa", "coffee cup")
    assert words.label_ids.tolist() == [0, 1]
    assert list(words.vocabulary) == ["sofa", "coffee cup"]
    assert words.vocabulary.synonyms == {"sofa": ["couch"]}
    assert (words.dtype, words.unknown_id, words.nodata_id) == (np.uint8, 255, 254)


def test_background_words_are_one_class_of_id_0():
    words = Words.of(["cat", "dog"], background=["sky|blue sky", "wall"])
    assert words.names == ("background", "cat", "dog")
    assert list(words.vocabulary) == ["cat", "dog", "sky", "wall"]
    assert words.label_ids.tolist() == [1, 2, 0, 0]


def test_labels_by_hand():
    words = Words.of(["cat", "dog"], ["sky"], unknown_below={"dog": 0.5})
    best = np.array([[0, 1, 1], [2, 2, 0]])
    scores = np.array([[0.1, 0.4, 0.6], [0.1, 0.9, 0.9]], np.float32)
    assert label_ids(best, scores, words).tolist() == [[1, 255, 2], [0, 0, 1]]
    valid = np.array([[True, True, False], [True, True, True]])
    assert label_ids(best, scores, words, valid).tolist() == [[1, 255, 254], [0, 0, 1]]


def test_one_threshold_is_that_of_every_class_but_not_of_the_background():
    words = Words.of(["cat", "dog"], ["sky"], unknown_below=0.5)
    assert words.thresholds.tolist() == [0.5, 0.5, 0.0]


@pytest.mark.parametrize(("number", "dtype"), [(254, np.uint8), (255, np.uint16)])
def test_many_classes_take_16_bit(number, dtype):
    words = Words.of([f"class {i}" for i in range(number)])
    assert words.dtype == dtype
    assert words.nodata_id >= number
    assert label_ids(np.array([[number - 1]]), np.ones((1, 1)), words).tolist() == [[number - 1]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "no classes"),
        (("cat",), "classes is 'cat'; give a list"),
        (({"cat", "dog"},), "classes is {.*}; give a list"),
        ((None,), "classes is None; give a list"),
        ((["cat"], None), "background is None; give a list"),
        ((["cat"], (), 0.0, "a {}"), "templates is 'a {}'; give a list"),
        ((["cat"], (), 0.0, []), "templates is .*; list one sentence or more"),
        ((["cat", ""],), "'', with an empty wording"),
        ((["cat|"],), "'cat|', with an empty wording"),
        ((["cat", " Cat "],), "'Cat' is given twice"),
        ((["sofa|couch", "couch"],), r"'couch' is given twice \(see 'sofa\|couch'\)"),
        ((["cat"], ["cat"]), "'cat' is given twice"),
        ((["cat", "unknown"],), "'unknown' is what results call"),
        ((["background"],), "give what it shows as background words"),
        ((["cat"], (), 1.5), "unknown_below is 1.5 for 'cat'"),
        ((["cat"], (), float("nan")), "unknown_below is nan"),
        ((["cat"], (), {"dog": 0.5}), "names 'dog', which is no class; give one of cat"),
        ((["cat"], (), 0.0, ["a photo"]), "templates has 'a photo'; a sentence has one {}"),
        ((["cat", 7],), "a class is 7"),
    ],
)
def test_wrong_words_are_one_line(arguments, message):
    with pytest.raises(ZssError, match=message):
        Words.of(*arguments)


def test_words_come_in_anything_that_has_an_order():
    expected = Words.of(["cat", "dog"], ["sky"])
    assert Words.of(np.array(["cat", "dog"]), iter(["sky"])) == expected
    assert Words.of(dict.fromkeys(["cat", "dog"]), ("sky",)) == expected


def test_a_file_of_words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("\ufeff# animals\ncat|kitty # small\n\nMöwe\n 猫 \n", encoding="utf-8")
    assert read_words(path) == ["cat|kitty", "Möwe", "猫"]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff\xfe\x00", "no UTF-8"), (b"# nothing\n", "holds no word"), (None, "give a text file")],
)
def test_a_bad_file_of_words(tmp_path, content, message):
    if content is not None:
        (tmp_path / "words.txt").write_bytes(content)
    with pytest.raises(ZssError, match=rf"words.txt.*{message}"):
        read_words(tmp_path / "words.txt")
