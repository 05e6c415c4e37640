"""The path from an image to scores, on a network that is no segmentor."""

from dataclasses import replace

import pytest
import torch

from zss_d2.modeling.inference import (
    InferenceProtocol,
    LabelsOnly,
    best_class,
    segment,
    segment_batch,
)
from zss_d2.modeling.inference.batches import coarse_logits, together

NAMES = ("red", "green", "blue")


class Channels:
    """A class for every colour; counts what it is given."""

    labelled_classes = ("green",)

    def __init__(self):
        self.batches: list[tuple[int, ...]] = []

    def logits(self, images, class_names):
        self.batches.append(tuple(images.shape))
        height, width = self.padded_size(images.shape[-2:])
        padded = torch.nn.functional.pad(
            images, (0, width - images.shape[-1], 0, height - images.shape[-2])
        )
        return torch.nn.functional.avg_pool2d(padded, 4)[:, : len(class_names)]

    def padded_size(self, size):
        return tuple(side + -side % 4 for side in size)

    def activate(self, logits):
        return logits.sigmoid()


@pytest.mark.parametrize(
    ("protocol", "batches"),
    [
        ({}, [(1, 3, 20, 30)]),
        ({"flip": True}, [(1, 3, 20, 30)] * 2),
        ({"flip": True, "batch": 2}, [(2, 3, 20, 30)]),
        ({"scales": (0.5, 1.0)}, [(1, 3, 10, 15), (1, 3, 20, 30)]),
        # 2 x 3 windows, of which 4 and then 2 go through the network together.
        ({"slide_crop": 16, "slide_stride": 8, "batch": 4}, [(4, 3, 16, 16), (2, 3, 16, 16)]),
        # Mirrored ones count: two of them and two others, three times.
        ({"slide_crop": 16, "slide_stride": 8, "batch": 5, "flip": True}, [(4, 3, 16, 16)] * 3),
        ({"slide_crop": 40, "slide_stride": 8, "batch": 4}, [(1, 3, 20, 30)]),
        # Windows of two scales: 1 x 2 and 2 x 3.
        (
            {"slide_crop": 16, "slide_stride": 8, "batch": 8, "scales": (0.8, 1.0)},
            [(8, 3, 16, 16)],
        ),
    ],
)
@pytest.mark.parametrize("max_scores", [0, 1 << 20])
def test_what_goes_through_the_network(protocol, batches, max_scores):
    network = Channels()
    settings = InferenceProtocol(**protocol, max_scores=max_scores)
    result = segment(network, torch.randn(3, 20, 30), NAMES, (40, 60), settings)
    assert result.shape == (3, 40, 60)
    assert isinstance(result, LabelsOnly) == (max_scores == 0)
    assert network.batches == batches


def test_the_bias_lowers_the_classes_with_labels():
    image = torch.randn(3, 8, 8)
    plain = segment(Channels(), image, NAMES, (8, 8), InferenceProtocol())
    biased = segment(Channels(), image, NAMES, (8, 8), InferenceProtocol(seen_bias=0.25))
    expected = torch.tensor([0.0, 0.25, 0.0]).view(3, 1, 1).expand_as(plain)
    torch.testing.assert_close(plain - biased, expected)


@pytest.mark.parametrize("bias", [0.0, 0.2])
def test_what_is_unsure_goes_to_the_background(bias):
    """After the bias, and not where a score is just enough; without that class, nowhere."""
    names, image = ("red", "background", "green"), torch.randn(3, 40, 40)
    plain = segment(Channels(), image, names, (40, 40), InferenceProtocol(seen_bias=bias))
    top, best = plain.max(dim=0)
    least = float(top.flatten().sort().values[700])
    protocol = InferenceProtocol(seen_bias=bias, background_below=least)
    expected = torch.where(top < least, 1, best)
    assert not torch.equal(expected, best)
    scores = segment(Channels(), image, names, (40, 40), protocol)
    assert torch.equal(scores.argmax(dim=0), expected)
    assert torch.equal(scores[[0, 2]], plain[[0, 2]])
    labels = segment(Channels(), image, names, (40, 40), replace(protocol, max_scores=0))
    assert torch.equal(labels.argmax(), expected)
    others = ("red", "grey", "green")
    assert torch.equal(segment(Channels(), image, others, (40, 40), protocol), plain)


@pytest.mark.parametrize("size", [(37, 53), (80, 60)])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [None, 24])
def test_labels_in_pieces_are_those_of_the_scores(size, flip, crop):
    protocol = InferenceProtocol(flip=flip, slide_crop=crop, slide_stride=16, seen_bias=0.05)
    image = torch.randn(3, 37, 53)
    scores = segment(Channels(), image, NAMES, size, protocol)
    labels = segment(Channels(), image, NAMES, size, replace(protocol, max_scores=0))
    assert torch.equal(labels.argmax(), scores.argmax(dim=0))


@pytest.mark.parametrize(
    ("kinds", "most", "groups"),
    [
        ("", 3, []),
        ("aaaa", 1, [[0], [1], [2], [3]]),
        ("aaaa", 3, [[0, 1, 2], [3]]),
        ("abab", 2, [[0, 2], [1, 3]]),
        ("abcaa", 2, [[0, 3], [1], [2], [4]]),
    ],
)
def test_groups_by_hand(kinds, most, groups):
    assert together(kinds, most) == groups


@pytest.mark.parametrize(("batch", "shapes"), [(6, [3 * 2, 2 * 2]), (1, [1] * 10), (3, [2] * 5)])
def test_mirrored_inputs_share_the_batches_of_the_others(batch, shapes):
    images = torch.randn(5, 3, 12, 8)
    network = Channels()
    found = list(coarse_logits(network, iter(images), NAMES, flip=True, batch=batch))
    assert [shape[0] for shape in network.batches] == shapes
    for image, (plain, mirrored) in zip(images, found, strict=True):
        assert torch.equal(plain, network.logits(image[None], NAMES))
        assert torch.equal(mirrored, network.logits(image[None].flip(-1), NAMES))


def test_inputs_are_read_and_computed_as_they_are_needed():
    read, network = [], Channels()
    inputs = (read.append(i) or torch.zeros(3, 4 + 4 * (i % 2), 4) for i in range(30))
    found = coarse_logits(network, inputs, NAMES, flip=False, batch=2)
    next(found)
    assert read == list(range(8))
    assert network.batches == [(2, 3, 4, 4)]
    one_by_one = coarse_logits(
        network, (read.append(i) or torch.zeros(3, 4, 4) for i in "ab"), NAMES, False, 1
    )
    next(one_by_one)
    assert read[8:] == ["a"]


def test_inputs_that_are_padded_to_one_size_go_together():
    """37 x 50 and 40 x 52, both 40 x 52 once padded; alone they give the same, to the bit."""
    network = Channels()
    sizes = [(37, 50), (40, 52), (20, 52), (39, 49)]
    inputs = [torch.randn(3, *size) for size in sizes]
    found = list(coarse_logits(network, inputs, NAMES, flip=True, batch=16))
    assert network.batches == [(6, 3, 40, 52), (2, 3, 20, 52)]
    for image, passes in zip(inputs, found, strict=True):
        for logits, side in zip(passes, (image, image.flip(-1)), strict=True):
            assert torch.equal(logits, network.logits(side[None], NAMES))


@pytest.mark.parametrize("slide", [{}, {"slide_crop": 16, "slide_stride": 8}])
def test_images_of_several_sizes_are_as_if_alone(slide):
    """Which image a result is of does not depend on what it shared batches with."""
    sizes = [(20, 30), (33, 12), (20, 30), (5, 9), (19, 29)]
    images = [torch.randn(3, *size) for size in sizes]
    settings = InferenceProtocol(**slide, scales=(0.5, 1.0), flip=True, seen_bias=0.1, batch=6)
    together = list(segment_batch(Channels(), images, NAMES, sizes, settings))
    for image, size, result in zip(images, sizes, together, strict=True):
        alone = segment(Channels(), image, NAMES, size, replace(settings, batch=1))
        torch.testing.assert_close(result, alone, atol=1e-6, rtol=0)
    assert not list(segment_batch(Channels(), [], NAMES, [], settings))


@pytest.mark.parametrize("protocol", [{}, {"slide_crop": 16, "slide_stride": 8, "batch": 5}])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0)])
@pytest.mark.parametrize("max_scores", [3000, 1 << 20])
def test_images_of_a_batch_are_as_if_alone(protocol, scales, max_scores):
    """Also where they come out at sizes of their own, one of them in pieces."""
    settings = InferenceProtocol(
        **{"batch": 6, **protocol},
        scales=scales,
        flip=True,
        seen_bias=0.1,
        max_scores=max_scores,
    )
    images, sizes = torch.randn(3, 3, 20, 30), [(20, 30), (40, 50), (10, 20)]
    network = Channels()
    together = list(segment_batch(network, images, NAMES, sizes, settings))
    for image, size, result in zip(images, sizes, together, strict=True):
        alone = segment(Channels(), image, NAMES, size, settings)
        assert isinstance(result, LabelsOnly) == (3 * size[0] * size[1] > max_scores)
        best, expected = best_class(result), best_class(alone)
        torch.testing.assert_close(best.scores, expected.scores)
        assert torch.equal(best.labels.long(), expected.labels.long())
    if not protocol:
        assert {shape[0] for shape in network.batches} == {6}


def test_labels_in_pieces_keep_the_best_scores():
    image, protocol = torch.randn(3, 37, 53), InferenceProtocol(seen_bias=0.05)
    scores = segment(Channels(), image, NAMES, (70, 60), protocol)
    labels = segment(Channels(), image, NAMES, (70, 60), replace(protocol, max_scores=0))
    torch.testing.assert_close(labels.scores, scores.max(dim=0).values)
