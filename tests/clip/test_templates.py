import pytest

from zss_d2.clip.templates import TEMPLATE_SETS, template_set
from zss_d2.errors import ZssError


def test_sets_have_their_published_sizes():
    sizes = {name: len(set(sentences)) for name, sentences in TEMPLATE_SETS.items()}
    assert sizes == {"single": 1, "coco15": 15, "imagenet80": 80}


def test_every_sentence_has_one_place_for_the_name():
    for sentences in TEMPLATE_SETS.values():
        for sentence in sentences:
            assert sentence.count("{}") == 1
            assert sentence.format("cat").count("cat") == 1


def test_zegclips_sentence_for_voc_has_no_full_stop():
    assert template_set("single") == ("a photo of a {}",)


def test_the_sentences_of_coco():
    sentences = template_set("coco15")
    assert sentences[:2] == ("a photo of a {}.", "a photo of a small {}.")
    assert sentences[7] == "This is a photo of a large {}."
    assert sentences[-1] == "This is one {} in the scene."


def test_an_unknown_set_is_named():
    with pytest.raises(ZssError, match="TEMPLATE_SET is 'coco'; use one of single, coco15"):
        template_set("coco")
