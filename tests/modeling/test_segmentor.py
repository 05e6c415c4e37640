"""The contract all methods share, on a model whose logits can be predicted."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zss_d2.errors import ZssError
from zss_d2.modeling.inference import InferenceProtocol, LabelsOnly
from zss_d2.modeling.segmentor import ZeroShotSegmentor, ids_present

CLASSES = ("sky", "dog", "grass", "cat")
SEEN = ("grass", "dog")
IGNORE = 255


class ChannelModel(ZeroShotSegmentor):
    """Scores a class by the colour channel it is named after; remembers what it trains on."""

    CHANNEL = {"sky": 2, "dog": 0, "grass": 1, "cat": 0}

    def class_logits(self, images, class_names):
        self.input_shape = images.shape
        pooled = torch.nn.functional.avg_pool2d(images, 4)
        return pooled[:, [self.CHANNEL[name] for name in class_names]]

    def training_outputs(self, images):
        return images

    def losses(self, images, targets):
        self.seen_targets = targets
        return {"loss": images.mean()}


def model(cls: type[ChannelModel] = ChannelModel, **changes) -> ChannelModel:
    settings = {
        "pixel_mean": (10.0, 20.0, 30.0),
        "pixel_std": (1.0, 2.0, 4.0),
        "size_divisibility": 4,
        "classes": CLASSES,
        "train_classes": SEEN,
        "labelled_classes": SEEN,
        "ignore_label": IGNORE,
    }
    return cls(**settings | changes)


def item(image_height: int, image_width: int, **more) -> dict:
    image = torch.randint(0, 255, (3, image_height, image_width), dtype=torch.uint8)
    return {"image": image, **more}


def test_labels_become_indices_of_the_training_classes_and_padding_is_ignored():
    sem_seg = torch.tensor([[1, 2, IGNORE], [2, 2, 1]])
    net = model().train()
    net([item(2, 3, sem_seg=sem_seg), item(4, 5, sem_seg=torch.full((4, 5), 2))])
    assert net.seen_targets.shape == (2, 4, 8)
    assert net.seen_targets[0, :2, :3].tolist() == [[1, 0, IGNORE], [0, 0, 1]]
    assert (net.seen_targets[0, 2:] == IGNORE).all()
    assert (net.seen_targets[0, :, 3:] == IGNORE).all()
    assert (net.seen_targets[1, :, :5] == 0).all()


@pytest.mark.parametrize(("label", "name"), [(0, "sky"), (3, "cat"), (77, "no class"), (-1, "no")])
def test_a_label_of_an_unseen_class_never_reaches_a_loss(label, name):
    sem_seg = torch.full((4, 4), 1)
    sem_seg[2, 3] = label
    batch = [
        item(4, 4, sem_seg=sem_seg.clamp(1, 1)),
        item(4, 4, sem_seg=sem_seg, file_name="b.jpg"),
    ]
    net = model().train()
    with pytest.raises(ZssError, match=rf"b.jpg: labels \[{label}\] \({name}.*2 of 4 classes"):
        net(batch)
    assert not hasattr(net, "seen_targets")


def transductive(**changes) -> ChannelModel:
    """The names of unseen classes are in the losses, their labels are not."""
    return model(**{"train_classes": ("cat", "grass", "dog", "sky")} | changes)


def test_labels_of_labelled_classes_are_indices_into_the_names_of_the_losses():
    net = transductive().train()
    net([item(2, 4, sem_seg=torch.tensor([[1, 2, IGNORE, 1], [2, 2, 1, IGNORE]]))])
    assert net.seen_targets[0, :2].tolist() == [[2, 1, IGNORE, 2], [1, 1, 2, IGNORE]]


@pytest.mark.parametrize(("label", "name"), [(0, "sky"), (3, "cat")])
def test_a_name_in_the_losses_does_not_let_its_labels_in(label, name):
    net = transductive().train()
    with pytest.raises(ZssError, match=rf"labels \[{label}\] \({name}\).*covers 2 of 4 classes"):
        net([item(4, 4, sem_seg=torch.full((4, 4), label))])
    assert not hasattr(net, "seen_targets")


def test_the_seen_bias_is_of_the_classes_with_labels():
    example, bias = item(8, 8), InferenceProtocol(seen_bias=0.25)
    expected = model(protocol=bias).eval()([example])[0]["sem_seg"]
    assert torch.equal(transductive(protocol=bias).eval()([example])[0]["sem_seg"], expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labelled_classes": ("dog", "cat")}, "labelled_classes has 'cat', .* train_classes"),
        ({"train_classes": (*SEEN, "cow")}, "train_classes has 'cow', .* not among classes"),
    ],
)
def test_classes_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(ZssError, match=message):
        model(**changes)


def test_results_have_the_original_size_and_one_map_per_class():
    net = model().eval()
    results = net([item(6, 10, height=12, width=20), item(5, 4, height=5, width=4)])
    assert [tuple(x["sem_seg"].shape) for x in results] == [(4, 12, 20), (4, 5, 4)]
    assert net.input_shape == (1, 3, 8, 4)  # padded to multiples of 4


def test_scores_follow_normalisation_and_vocabulary():
    image = torch.tensor([12.0, 18.0, 30.0]).view(3, 1, 1).expand(3, 8, 8)
    (result,) = model().eval()([{"image": image, "vocabulary": ("grass", "dog", "sky")}])
    expected = torch.tensor([-1.0, 2.0, 0.0]).sigmoid()  # (18-20)/2, (12-10)/1, (30-30)/4
    torch.testing.assert_close(result["sem_seg"], expected.view(3, 1, 1).expand(3, 8, 8))


def test_sliding_windows_see_only_their_crop():
    net = model(protocol=InferenceProtocol(slide_crop=8, slide_stride=4, batch=3)).eval()
    (result,) = net([item(8, 20)])
    assert net.input_shape == (1, 3, 8, 8)  # four windows, the last one alone
    assert result["sem_seg"].shape == (4, 8, 20)


class ColumnModel(ChannelModel):
    """Scores that depend on the column in the image, so that mirroring matters."""

    def class_logits(self, images, class_names):
        return super().class_logits(images, class_names) + torch.arange(images.shape[-1] // 4)


def test_flip_averages_with_the_mirrored_image():
    example = item(8, 16)
    mirrored = {"image": example["image"].flip(-1)}
    plain = model(cls=ColumnModel).eval()
    (a,), (b,) = plain([example]), plain([mirrored])
    (both,) = model(cls=ColumnModel, protocol=InferenceProtocol(flip=True)).eval()([example])
    torch.testing.assert_close(both["sem_seg"], (a["sem_seg"] + b["sem_seg"].flip(-1)) / 2)
    assert not torch.allclose(both["sem_seg"], a["sem_seg"])


def test_scales_are_averaged_at_the_original_size():
    image = torch.tensor([12.0, 18.0, 30.0]).view(3, 1, 1).expand(3, 16, 32)
    plain = model().eval()([{"image": image}])[0]["sem_seg"]
    net = model(protocol=InferenceProtocol(scales=(0.5, 1.0, 1.75))).eval()
    torch.testing.assert_close(net([{"image": image}])[0]["sem_seg"], plain)  # flat: no difference
    assert net.input_shape == (1, 3, 28, 56)


def test_the_seen_bias_lowers_the_classes_that_were_trained_by_name():
    names = ("cat", "grass", "sky", "dog")
    example = item(8, 8, vocabulary=names)
    plain = model().eval()([example])[0]["sem_seg"]
    biased = model(protocol=InferenceProtocol(seen_bias=0.25)).eval()([example])[0]["sem_seg"]
    expected = torch.tensor([0.0, 0.25, 0.0, 0.25]).view(4, 1, 1)
    torch.testing.assert_close(plain - biased, expected.expand_as(plain))


LIMITED = {
    "whole": {},
    "mirrored": {"flip": True},
    "scales": {"scales": (1.0, 0.5)},
    "windows": {"slide_crop": 32, "slide_stride": 20, "batch": 2},
    "mirrored windows, biased": {
        "slide_crop": 32,
        "slide_stride": 12,
        "flip": True,
        "seen_bias": 0.1,
    },
}


@pytest.mark.parametrize("name", LIMITED)
@pytest.mark.parametrize("target", [(150, 71), (90, 200)])
def test_labels_alone_are_those_of_the_whole_score_map(name, target):
    """Above the size limit no score map is built, with the same labels in the end."""
    example = item(150, 71, height=target[0], width=target[1])
    example["vocabulary"] = CLASSES[:3]  # one class per channel, and scores far from 0 and 1
    parts = {"pixel_mean": (127.0,) * 3, "pixel_std": (60.0, 70.0, 80.0)}
    protocol = InferenceProtocol(**LIMITED[name])
    scores = model(**parts, protocol=protocol).eval()([example])[0]["sem_seg"]
    limited = model(**parts, protocol=replace(protocol, max_scores=0)).eval()
    labels = limited([example])[0]["sem_seg"]
    assert isinstance(labels, LabelsOnly)
    assert labels.shape == scores.shape
    assert torch.equal(labels.argmax(dim=0), scores.argmax(dim=0))


class LargestTensor(TorchDispatchMode):
    """Watches the size of everything that torch makes."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("name", ["whole", "mirrored", "windows"])
def test_no_tensor_of_many_classes_at_the_full_size_is_made(name):
    names = ("sky", "dog", "grass", "cat") * 10
    example = item(400, 300, vocabulary=names)
    net = model(protocol=InferenceProtocol(**LIMITED[name], max_scores=0)).eval()
    with LargestTensor() as largest:
        net([example])
    assert largest.numel < len(names) * 400 * 300 / 3


def test_damaged_weights_are_named():
    net = model(pixel_std=(float("nan"),) * 3, protocol=InferenceProtocol(max_scores=0)).eval()
    with pytest.raises(ZssError, match="b.jpg: the scores hold NaN.*earlier checkpoint"):
        net([item(8, 8, file_name="b.jpg")])


def test_statistics_move_with_the_model_but_stay_out_of_checkpoints():
    assert not model().state_dict()


def test_training_on_void_alone_is_said_and_then_refused(caplog):
    segmentor = model().train()
    void = item(8, 8, sem_seg=torch.full((8, 8), IGNORE), file_name="a.png")
    segmentor([void])
    assert "a.png and the rest of its batch: no pixel is labelled" in caplog.text
    with pytest.raises(ZssError, match="no pixel is labelled .* in the first 1000 batches"):
        for _ in range(999):
            segmentor([void])


def test_void_batches_after_labels_are_no_fault():
    segmentor = model().train()
    void = item(8, 8, sem_seg=torch.full((8, 8), IGNORE))
    segmentor([void])
    segmentor([void, item(8, 8, sem_seg=torch.full((8, 8), 1))])
    for _ in range(30):
        segmentor([void])


def test_training_images_are_padded_to_the_least_size():
    """With the mean colour, which is 0 once normalised, and without labels."""
    segmentor = model(train_size=(16, 12)).train()
    outputs = []
    segmentor.training_outputs = lambda images: outputs.append(images) or images
    labels = torch.ones(8, 20, dtype=torch.int64)
    segmentor([item(8, 20, sem_seg=labels)])
    (images,) = outputs
    assert images.shape == (1, 3, 16, 20)
    assert (images[..., 8:, :] == 0).all()
    assert (segmentor.seen_targets[0, :8] != IGNORE).all()
    assert (segmentor.seen_targets[0, 8:] == IGNORE).all()
    assert segmentor.eval()([item(8, 20)])[0]["sem_seg"].shape == (4, 8, 20)


def test_images_of_a_call_share_batches_whatever_their_size_and_names():
    """Each as if alone: the third has names of its own."""
    net = model(protocol=InferenceProtocol(batch=16, flip=True)).eval()
    names = ("cat", "sky")
    items = [item(9, 14), item(20, 8), item(12, 16, vocabulary=names), item(12, 16, height=30)]
    together = net(items)
    assert net.input_shape == (2, 3, 12, 16)
    for example, result in zip(items, together, strict=True):
        alone = net([example])[0]["sem_seg"]
        assert result["sem_seg"].shape == alone.shape
        assert torch.equal(result["sem_seg"], alone)
    net(items[1:2] * 3)
    assert net.input_shape == (6, 3, 20, 8)


def test_maps_of_a_call_that_do_not_fit_together_are_their_labels():
    """Of 4 classes: 320, 160 and 320 numbers, where 500 may be held."""
    net = model(protocol=InferenceProtocol(max_scores=500)).eval()
    items = [item(8, 10), item(8, 5), item(8, 10, height=16, width=10), item(8, 10), item(2, 2)]
    results = [x["sem_seg"] for x in net(items)]
    assert [isinstance(x, LabelsOnly) for x in results] == [False, False, True, True, False]
    for example, result in zip(items, results, strict=True):
        (alone,) = net([example])
        assert torch.equal(result.argmax(dim=0), alone["sem_seg"].argmax(dim=0))
        assert result.shape == alone["sem_seg"].shape


def test_of_several_images_the_damaged_one_is_named():
    net = model(protocol=InferenceProtocol(max_scores=0, batch=4)).eval()
    items = [item(8, 8, file_name=f"{name}.jpg") for name in "ab"]
    items[1]["image"] = torch.full((3, 8, 8), float("nan"))
    with pytest.raises(ZssError, match="b.jpg: the scores hold NaN"):
        net(items)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.int32])
def test_ids_that_are_present(dtype):
    torch.manual_seed(0)
    for shape in ((7, 9), (1, 1), (0, 4)):
        labels = torch.randint(0, 12, shape).to(dtype)
        present = [bool((labels == i).any()) for i in range(10)]
        expected = [*present, bool((labels >= 10).any())]
        assert ids_present(labels, 10).tolist() == expected
    assert ids_present(torch.tensor([[-1, 2**40]]), 10).tolist() == [False] * 10 + [True]


def test_labels_of_eight_bits_train_as_those_of_64():
    targets = []
    for dtype in (torch.int64, torch.uint8):
        net = model().train()
        net([item(2, 4, sem_seg=torch.tensor([[1, 2, IGNORE, 1]] * 2).to(dtype))])
        targets.append(net.seen_targets)
    assert torch.equal(*targets)
