"""The contract all methods share, on a model whose logits can be predicted."""

import pytest
import torch

from zss_d2.errors import ZssError
from zss_d2.modeling.segmentor import ZeroShotSegmentor

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

    def losses(self, images, targets):
        self.seen_targets = targets
        return {"loss": images.mean()}


def model(**changes) -> ChannelModel:
    settings = {
        "pixel_mean": (10.0, 20.0, 30.0),
        "pixel_std": (1.0, 2.0, 4.0),
        "size_divisibility": 4,
        "classes": CLASSES,
        "train_classes": SEEN,
        "ignore_label": IGNORE,
    }
    return ChannelModel(**settings | changes)


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
    net = model(slide_crop=8, slide_stride=4).eval()
    (result,) = net([item(8, 20)])
    assert net.input_shape == (1, 3, 8, 8)
    assert result["sem_seg"].shape == (4, 8, 20)


def test_statistics_move_with_the_model_but_stay_out_of_checkpoints():
    assert not model().state_dict()
