"""Tests that every method must pass; a method subclasses one of the two with its overrides."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from zss_d2.engine.checkpoint import ZeroShotCheckpointer
from zss_d2.errors import ZssError

NUM_SEEN, NUM_CLASSES, IGNORE = 15, 20, 255


def batch(*sizes: tuple[int, int]) -> list[dict]:
    """Random images with two seen classes and ignored pixels."""
    items = []
    for height, width in sizes:
        sem_seg = torch.full((height, width), 3)
        sem_seg[height // 2 :] = 7
        sem_seg[:, :5] = IGNORE
        image = torch.randint(0, 255, (3, height, width), dtype=torch.uint8)
        items.append({"image": image, "sem_seg": sem_seg})
    return items


class InferenceTester:
    """Sizes, batches, vocabularies and checkpoints of one meta-architecture, in both precisions."""

    overrides: tuple = ()

    @pytest.fixture(params=["", "bfloat16"], ids=["single", "bfloat16"])
    def cfg(self, request, make_cfg) -> CfgNode:
        return make_cfg(*self.overrides, "MODEL.AUTOCAST", request.param)

    @pytest.fixture
    def model(self, cfg) -> torch.nn.Module:
        return build_model(cfg)

    @pytest.mark.parametrize("size", [(64, 64), (33, 70), (130, 17), (5, 5)])
    def test_any_image_size(self, model, size):
        height, width = size
        (item,) = batch(size)
        (result,) = model.eval()([{**item, "height": 2 * height, "width": width + 3}])
        scores = result["sem_seg"]
        assert scores.shape == (NUM_CLASSES, 2 * height, width + 3)
        assert 0 <= scores.min() <= scores.max() <= 1

    def test_a_batch_equals_its_images_one_by_one(self, model):
        """To rounding: what shares a batch is summed up in another order."""
        items = batch((64, 64), (40, 90), (64, 64), (63, 60))
        alone = [model.eval()([item])[0]["sem_seg"] for item in items]
        model.protocol = replace(model.protocol, batch=16, flip=False)
        rounding = {"atol": 1e-5 if model.precision.autocast is None else 0.02, "rtol": 0}
        for expected, result in zip(alone, model(items), strict=True):
            torch.testing.assert_close(result["sem_seg"], expected, **rounding)

    def test_any_vocabulary(self, model):
        (item,) = batch((64, 64))
        for names in (("zebra", "dog"), ("dog", "zebra", "a red bus"), ("dog", "zebra")):
            (result,) = model.eval()([{**item, "vocabulary": names}])
            assert result["sem_seg"].shape[0] == len(names)

    def test_a_checkpoint_restores_the_model(self, model, cfg, tmp_path):
        (item,) = batch((64, 64))
        expected = model.eval()([item])[0]["sem_seg"]
        ZeroShotCheckpointer(model, str(tmp_path)).save("weights")
        torch.manual_seed(1)
        other = build_model(cfg).eval()
        assert not torch.equal(other([item])[0]["sem_seg"], expected)
        ZeroShotCheckpointer(other).load(str(tmp_path / "weights.pth"))
        assert torch.equal(other([item])[0]["sem_seg"], expected)

    def test_a_checkpoint_of_another_model_is_refused(self, model, tmp_path):
        ZeroShotCheckpointer(torch.nn.Linear(2, 2), str(tmp_path)).save("other")
        with pytest.raises(ZssError, match="other.pth: belongs to another model"):
            ZeroShotCheckpointer(model).load(str(tmp_path / "other.pth"))


class MethodTester(InferenceTester):
    """Also training: what learns, what stays, and evaluation in between."""

    trained_prefixes: set[str] = set()

    def test_training_returns_finite_losses_and_trains_only_what_it_should(self, model):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        losses = model.train()(batch((64, 80), (50, 37)))
        assert losses
        assert all(value.ndim == 0 and value.isfinite() for value in losses.values())
        sum(losses.values()).backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        learning = set(gradients)
        assert {name.split(".")[0] for name in learning} == self.trained_prefixes
        torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0).step()
        after = model.state_dict()
        assert {n for n in before if not torch.equal(before[n], after[n])} <= learning

    def test_any_vocabulary_between_training_steps(self, model):
        (item,) = batch((64, 64))
        for names in (("zebra", "dog"), ("dog", "zebra", "a red bus")):
            model.train()([item])
            (result,) = model.eval()([{**item, "vocabulary": names}])
            assert result["sem_seg"].shape[0] == len(names)
