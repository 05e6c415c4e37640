"""The graph that is exported gives what a test of the model gives, whatever it has inside."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.exchange.conftest import MODELS
from zss_d2 import load_model
from zss_d2.clip.wording import Vocabulary
from zss_d2.errors import ZssError
from zss_d2.exchange.export import exporting, parity
from zss_d2.exchange.export.graph import GraphSettings, SegmentationGraph
from zss_d2.exchange.export.images import check_images, made_up_images
from zss_d2.exchange.export.metadata import as_texts, describe, from_texts
from zss_d2.exchange.export.parity import Parity

INSIDE, COARSE = GraphSettings(), GraphSettings(resize=False)
IMAGES = made_up_images([(64, 96), (91, 75)])


def graph_of(model, settings, names, bias=None) -> SegmentationGraph:
    text = None if settings.embeddings else exporting.class_embeddings(model, names, False)
    sizes = () if settings.embeddings else model.words_per_class(names)
    return SegmentationGraph(model, settings, text, sizes, bias).eval()


def called(graph: SegmentationGraph):
    """The graph itself in the place of a file."""

    def run(inputs):
        with torch.no_grad():
            outputs = graph(*(torch.from_numpy(x) for x in inputs.values()))
        return dict(zip(graph.settings.outputs, (x.numpy() for x in outputs), strict=True))

    return run


@pytest.mark.parametrize("method", MODELS)
def test_every_method_by_all_ways(method, make_run):
    model = load_model(make_run(method), device="cpu").segmentor
    names = ("dog", "zebra", "sky", "a very long pole")
    for settings in (
        INSIDE,
        COARSE,
        GraphSettings(argmax=True),
        GraphSettings(size=(75, 91)),
        GraphSettings(size=(64, 96), resize=False),
        GraphSettings(embeddings=True),
    ):
        graph = graph_of(model, settings, names)
        assert not any("text_encoder" in key or "learner" in key for key in graph.state_dict())
        images = IMAGES if settings.size is None else made_up_images([settings.size])
        found = parity.compare(called(graph), graph, model, names, images)
        found.require("the graph")
        assert found.images == 2 * len(images)


def test_a_seen_bias_is_in_the_scores(make_run):
    model = load_model(make_run("ZegCLIP"), device="cpu", opts=["TEST.SEEN_BIAS", "0.3"]).segmentor
    names = model.classes
    seen = torch.tensor([float(name in model.labelled_classes) for name in names])
    graph = graph_of(model, INSIDE, names, 0.3 * seen)
    parity.compare(called(graph), graph, model, names, IMAGES[:1], 0.3).require("the graph")
    with pytest.raises(ZssError, match="does not give what the model gives: scores within 3"):
        parity.compare(called(graph), graph, model, names, IMAGES[:1], 0.0).require("the graph")


def test_a_class_of_several_words_counts_as_its_best_one(make_run):
    words = "MODEL.MASKCLIP.WORDS", [["dog", "dog", "puppy"], ["cat", "kitten"]]
    model = load_model(make_run("MaskCLIP", *words), device="cpu").segmentor
    names = model.classes
    graph = graph_of(model, INSIDE, names)
    parity.compare(called(graph), graph, model, names, IMAGES[:1]).require("the graph")
    with pytest.raises(ZssError, match=r"'dog' has 2 words \(MODEL.MASKCLIP.WORDS\)"):
        exporting.class_embeddings(model, names)
    own = Vocabulary(("dog", "sky"), {"dog": ("hound",)})
    assert exporting.class_embeddings(model, own).shape == (2, model.image_encoder.embed_dim)


def test_the_model_stays_as_it_is(make_run):
    model = load_model(make_run("timm"), device="cpu").segmentor
    before = {key: value.clone() for key, value in model.state_dict().items()}
    graph = graph_of(model, INSIDE, model.classes)
    assert model.classifier is not None
    assert len(graph.state_dict()) < len(before)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_labels_of_coarse_logits_are_refused():
    with pytest.raises(ZssError, match="--argmax inside needs --resize inside"):
        GraphSettings(resize=False, argmax=True)


def test_a_method_without_embeddings_cannot_be_exported(make_run):
    model = load_model(make_run("MaskCLIP"), device="cpu").segmentor
    base = type(model).__mro__[2]
    bare = type("Bare", (type(model),), {"embedded_logits": base.embedded_logits})
    model.__class__ = bare
    with pytest.raises(ZssError, match="Bare cannot be exported: it implements class_logits"):
        exporting.class_embeddings(model, ("dog",))


@pytest.mark.parametrize(
    ("difference", "agreement"), [(2e-4, 1.0), (0.0, 0.9985), (float("nan"), 1.0)]
)
def test_what_is_too_far_off_is_an_error(difference, agreement):
    with pytest.raises(ZssError, match="a.onnx does not give what the model gives"):
        Parity(difference, agreement, 1, 100).require("a.onnx")


def test_near_enough_is_none():
    Parity(1e-4, 0.999, 1, 100).require("a.onnx")


def test_a_difference_is_found_wherever_it_is(make_run):
    model = load_model(make_run("CLIPZSS"), device="cpu").segmentor
    names = ("dog", "cat")
    graph = graph_of(model, INSIDE, names)

    def changed(inputs):
        outputs = called(graph)(inputs)
        scores = outputs["scores"].copy()
        scores[1, :, 3, 5] = scores[1, ::-1, 3, 5] + 0.25  # of the mirrored image
        return {"scores": scores}

    found = parity.compare(changed, graph, model, names, IMAGES[:1])
    assert found.difference >= 0.2
    assert found.agreement <= 1 - 1 / found.pixels


def test_what_a_file_says_of_itself(make_run):
    predictor = load_model(make_run("CLIPZSS"), device="cpu")
    names = ("dog", "zebra", "sofa")
    graph = graph_of(predictor.segmentor, INSIDE, names)
    about = describe(predictor, graph, names, 0.0)
    assert about == from_texts(as_texts(about))
    assert about["classes"] == list(names)
    assert about["seen"] == [name in predictor.segmentor.labelled_classes for name in names]
    assert about["multiple_of"] == 32
    assert (about["size"], about["shorter_edge"], about["longer_edge_at_most"]) == ("any", 128, 512)
    assert (about["activation"], about["method"]) == ("softmax", "CLIPZSS")
    assert np.array(about["palette"]).shape == (3, 3)
    assert len({tuple(colour) for colour in about["palette"]}) == 3
    assert about["mean"] == predictor.segmentor.pixel_mean.flatten().tolist()


def test_check_images_are_as_in_an_evaluation(make_cfg, tmp_path):
    from PIL import Image

    path = tmp_path / "a.png"
    Image.fromarray(IMAGES[0]).save(path)
    cfg = make_cfg()
    (image,) = check_images([str(path)], cfg, None, 64)
    assert image.shape == (128, 192, 3)
    (image,) = check_images([str(path)], cfg, (50, 70), 64)
    assert image.shape == (50, 70, 3)
    with pytest.raises(ZssError, match="sides of less than 500 px are not taken"):
        check_images([str(path)], cfg, None, 500)
