"""Class names that CLIP cannot tell apart, sentences that do not hold them: found at the start."""

from __future__ import annotations

import re
from pathlib import Path

import open_clip
import pytest
import torch
import yaml
from detectron2.data import MetadataCatalog

import zss_d2
from zss_d2.clip import PromptSettings, TextEncoder
from zss_d2.clip.templates import TEMPLATE_SETS
from zss_d2.clip.towers import get_tokenizer
from zss_d2.clip.wording import (
    Vocabulary,
    check_names,
    check_templates,
    class_tokens,
    prompts_for,
)
from zss_d2.errors import ZssError
from zss_d2.modeling.clip_segmentor import prompt_settings

BENCHMARKS = sorted(Path(zss_d2.__file__).parent.glob("data/spec/benchmarks/*.yaml"))


@pytest.fixture(scope="module")
def tokenizer():
    return open_clip.get_tokenizer("zss-tiny")


def test_tokens_and_owners_of_a_hand_made_case(tokenizer):
    made = class_tokens(
        tokenizer, ["tv", "dog"], PromptSettings(["a {}", "the {}."], {"tv": ["telly"]})
    )
    texts = ["a tv", "the tv.", "a telly", "the telly.", "a dog", "the dog."]
    assert torch.equal(made.tokens, tokenizer(texts))
    assert made.owner.tolist() == [0, 0, 0, 0, 1, 1]
    bare = class_tokens(tokenizer, ["tv", "dog"], PromptSettings(None))
    assert torch.equal(bare.tokens, tokenizer(["tv", "dog"]))


@pytest.mark.parametrize(
    ("templates", "shown"),
    [
        ([], "is []"),
        ("a photo of a {}.", "is 'a photo of a {}.'"),
        (["a {}", "a photo"], "has 'a photo'"),
        (["a {} in a {}"], "has 'a {} in a {}'"),
        (["a {0}"], "has 'a {0}'"),
        (["a {name}"], "has 'a {name}'"),
        (["a {:>20}"], "has 'a {:>20}'"),
        (["a {!r}"], "has 'a {!r}'"),
        (["a {} {"], "has 'a {} {'"),
        (["a {} }"], "has 'a {} }'"),
        (["a {{}}"], "has 'a {{}}'"),
        ([3], "has 3"),
    ],
)
def test_sentences_without_exactly_one_place_are_refused(templates, shown, tokenizer):
    with pytest.raises(ZssError, match=re.escape(f"MODEL.CLIP.TEMPLATES {shown}")):
        class_tokens(tokenizer, ["dog"], PromptSettings(templates))


def test_a_sentence_that_counts_twice_is_said(caplog):
    check_templates(["a {}", "the {}", "a {}"])
    assert "has 'a {}' more than once" in caplog.text


@pytest.mark.parametrize("names", TEMPLATE_SETS)
def test_the_sets_pass(names, caplog):
    check_templates(TEMPLATE_SETS[names])
    assert not caplog.text


@pytest.mark.parametrize(
    "pair", [("Tree", "tree"), ("dining table", "dining  table "), ("dog", "dog"), ("a\tb", "a b")]
)
def test_names_that_are_one_to_clip_are_refused(pair, tokenizer):
    with pytest.raises(ZssError) as caught:
        check_names(tokenizer, ["cat", *pair])
    assert f"class {pair[0]!r} and class" in " ".join(str(caught.value).split())
    assert "cannot tell them apart; rename one" in str(caught.value)


def test_names_that_clip_can_tell_apart_pass(tokenizer):
    check_names(
        tokenizer, ["tree", "trees", "tree.", "dining table", "diningtable", "dining-table"]
    )


@pytest.mark.parametrize("name", ["", "  ", "\n"])
def test_empty_names_are_refused(name, tokenizer):
    with pytest.raises(ZssError, match="is empty to CLIP; give it a name"):
        check_names(tokenizer, ["dog", name])


@pytest.mark.parametrize(
    ("synonyms", "message"),
    [
        ({"cat": ["Dog"]}, "synonym 'Dog' of class 'cat' and class 'dog' are the same"),
        ({"cat": ["pet"], "dog": ["pet"]}, "synonym 'pet' of class 'cat' and synonym 'pet' of"),
        ({"cat": ["CAT"]}, "class 'cat' and synonym 'CAT' of class 'cat' are the same"),
        ({"cat": [" "]}, "synonym ' ' of class 'cat' is empty"),
    ],
)
def test_synonyms_are_checked_too(synonyms, message, tokenizer):
    with pytest.raises(ZssError, match=message):
        check_names(tokenizer, ["cat", "dog"], synonyms)


def test_a_name_that_clip_would_cut_off_is_refused(tokenizer):
    longest = " ".join(["dog"] * 71)  # and "a photo of a", start and end: 77
    class_tokens(tokenizer, [longest], PromptSettings(["a photo of a {}"]))
    with pytest.raises(ZssError, match="longer than the 77 tokens that CLIP reads; shorten"):
        class_tokens(tokenizer, [f"{longest} dog"], PromptSettings(["a photo of a {}"]))


def test_the_text_tower_checks_every_vocabulary():
    clip = open_clip.create_model("zss-tiny").eval().requires_grad_(False)
    encoder = TextEncoder(clip, open_clip.get_tokenizer("zss-tiny"))
    for prompts in (False, True):
        if prompts:
            encoder.add_prompts(4, "a photo of a", 0.0)
        with pytest.raises(ZssError, match="are the same tokens to CLIP"):
            encoder.classifier(["tree", "Tree"], PromptSettings(["a {}"]))
    with pytest.raises(ZssError, match="no class names"):
        encoder.classifier([], PromptSettings(["a {}"]))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_every_benchmark_passes(path):
    content = yaml.safe_load(path.read_text())
    tokenizer = get_tokenizer("mini" if path.stem == "mini" else "ViT-B-16")
    sentences = ["a photo of a {}."] if path.stem == "mini" else TEMPLATE_SETS["imagenet80"]
    class_tokens(
        tokenizer, content["classes"], PromptSettings(sentences, content.get("synonyms", {}))
    )


class TestAtStart:
    @pytest.fixture
    def register(self):
        made = []

        def add(name: str, classes: list[str], **metadata: object) -> str:
            MetadataCatalog.get(name).set(stuff_classes=classes, **metadata)
            made.append(name)
            return name

        yield add
        for name in made:
            MetadataCatalog.pop(name)

    @pytest.mark.parametrize("prompts", [0, 4])
    @pytest.mark.parametrize("role", ["DATASETS.TRAIN", "DATASETS.TEST"])
    def test_an_unseen_class_under_the_name_of_a_seen_one_is_refused(
        self, make_cfg, register, prompts, role
    ):
        names = {"seen_classes": ["tree", "dog"], "unseen_classes": ["Tree"]}
        name = register("leaking", ["tree", "dog", "Tree"], **names)
        cfg = make_cfg(role, (name,), "MODEL.TEXT_PROMPTS.LENGTH", prompts)
        with pytest.raises(ZssError, match="leaking: class 'tree' and class 'Tree' are the same"):
            prompt_settings(cfg, learned=prompts > 0)

    def test_an_unseen_class_among_the_synonyms_of_a_seen_one_is_refused(self, make_cfg, register):
        name = register("leaking", ["tree", "fir"], synonyms={"tree": ["fir"]})
        cfg = make_cfg("DATASETS.TRAIN", (name,), "MODEL.CLIP.SYNONYMS", True)
        with pytest.raises(
            ZssError, match="leaking: synonym 'fir' of class 'tree' and class 'fir'"
        ):
            prompt_settings(cfg)
        cfg.MODEL.CLIP.SYNONYMS = False
        assert prompt_settings(cfg).synonyms == {}

    def test_sentences_are_checked_unless_prompts_stand_in_for_them(self, make_cfg):
        cfg = make_cfg("MODEL.CLIP.TEMPLATES", ["a photo"])
        with pytest.raises(ZssError, match="MODEL.CLIP.TEMPLATES has 'a photo'"):
            prompt_settings(cfg)
        assert prompt_settings(cfg, learned=True).templates is None

    def test_two_sets_with_other_synonyms_for_one_name_are_refused(self, make_cfg):
        """The second's would be averaged into the first's class."""
        sets = ("zss_voc_val", "zss_context59_val")
        cfg = make_cfg("DATASETS.TEST", sets, "MODEL.CLIP.SYNONYMS", True)
        with pytest.raises(
            ZssError, match="'pottedplant' has the synonyms .*set MODEL.CLIP.SYNONYMS"
        ):
            prompt_settings(cfg)
        cfg.MODEL.CLIP.SYNONYMS = False
        prompt_settings(cfg)

    def test_synonyms_of_all_sets_are_given(self, make_cfg):
        cfg = make_cfg("MODEL.CLIP.SYNONYMS", True)
        words = prompt_settings(cfg).synonyms
        assert words == {"pottedplant": ("potted plant",), "tvmonitor": ("tv",)}


def test_a_vocabulary_has_a_say_in_how_its_names_are_embedded():
    own = PromptSettings(("a photo of a {}.",), {"sofa": ("couch",), "cat": ("kitty",)})
    assert prompts_for(("sofa",), own) is own
    vocabulary = Vocabulary(("sofa", "dog"), {"sofa": ["settee"], "dog": ["puppy"]})
    mixed = prompts_for(vocabulary, own)
    assert mixed.templates == own.templates
    assert mixed.names_of("sofa") == ("sofa", "settee")
    assert mixed.names_of("cat") == ("cat", "kitty")
    assert (len(vocabulary), vocabulary[1], list(vocabulary)) == (2, "dog", ["sofa", "dog"])
    other = prompts_for(Vocabulary(("sofa",), {}, ("{}",)), own)
    assert (other.templates, other.names_of("sofa")) == (("{}",), ("sofa", "couch"))


def test_learned_prompts_leave_no_place_for_templates():
    learned = PromptSettings(None)
    assert prompts_for(Vocabulary(("sofa",)), learned).templates is None
    with pytest.raises(ZssError, match="learned prompts in the place of sentence templates"):
        prompts_for(Vocabulary(("sofa",), {}, ("{}",)), learned)
