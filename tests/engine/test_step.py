"""One iteration: what the parts of a batch give is what the batch gives, where that can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle

import pytest
import torch
from detectron2.engine import HookBase, launch
from detectron2.utils.env import seed_all_rng
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.engine.test_resume import KillAt, assert_same_checkpoint, train
from zss_d2.engine import ZeroShotTrainer
from zss_d2.engine.resume import stored_training_state
from zss_d2.engine.step import TrainingStep
from zss_d2.errors import ZssError
from zss_d2.modeling.losses import NELLoss, SoftmaxLoss
from zss_d2.modeling.measured import measure

NEL = {"focal_weight": 20.0, "focal_alpha": 0.25, "focal_gamma": 2.0, "dice_weight": 1.0}


class Weight(nn.Module):
    """Two losses, ``3 w mean(x)`` and ``w mean(x)``."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"a": 3 * self.w * x.mean(), "b": self.w * x.mean()}


class Rank(Weight):
    """Measures the number of its process."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        measure("rank", torch.tensor(float(torch.distributed.get_rank())))
        return super().forward(x)


class Pixels(nn.Module):
    """A classifier of pixels, images (B, 3, H, W) and labels (B, H, W)."""

    def __init__(self, loss: nn.Module):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.loss = loss

    def forward(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        images, labels = batch
        return self.loss(self.conv(images), labels)


def steps(model: nn.Module, batches: Sequence, *, rate: float = 0.1, **options) -> TrainingStep:
    optimizer = torch.optim.SGD(model.parameters(), rate)
    return TrainingStep(model, cycle(batches), optimizer, **options)


def gradients(loss: nn.Module, batches: Sequence, parts: int) -> tuple[list[Tensor], float]:
    """Of the first step, and the loss that is recorded."""
    torch.manual_seed(0)
    step = steps(Pixels(loss), batches, rate=0.0, parts=parts)
    step.train(0, 1)
    return [p.grad for p in step.model.parameters()], step.storage.latest()["total_loss"][0]


def test_two_parts_by_hand():
    """Means are 2 w and, with x = 1 and 3, 3 * 2 + 2 = 8 is the gradient of the sum of losses."""
    step = steps(Weight(), [torch.tensor(1.0), torch.tensor(3.0)], parts=2)
    step.train(0, 2)
    assert step.model.w.item() == pytest.approx(1 - 2 * 0.1 * 8)
    recorded = {n: step.storage.history(n).values() for n in ("a", "b", "total_loss", "data_time")}
    assert [value for value, _ in recorded["a"]] == pytest.approx([6.0, 6 * 0.2])
    assert [value for value, _ in recorded["total_loss"]] == pytest.approx([8.0, 8 * 0.2])
    assert [when for _, when in recorded["data_time"]] == [0, 1]


class Measuring(Weight):
    """Measures x and, where it is large, that as well."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        measure("x", (self.w / self.w.detach() * x).mean())
        if x.mean() > 2:
            measure("large", x.mean())
        return super().forward(x)


def test_what_a_model_measures_is_a_curve_and_no_loss():
    """The mean over the parts that have measured it; losses and steps are as without."""
    step = steps(Measuring(), [torch.tensor(1.0), torch.tensor(3.0)], parts=2)
    step.train(0, 2)
    assert step.model.w.item() == pytest.approx(1 - 2 * 0.1 * 8)
    assert step.storage.history("x").values() == [(2.0, 0), (2.0, 1)]
    assert step.storage.history("large").values() == [(3.0, 0), (3.0, 1)]
    assert step.storage.latest()["total_loss"][0] == pytest.approx(8 * 0.2)
    assert not step.model(torch.tensor(1.0)).keys() & {"x", "large"}


def data(present: Sequence[Sequence[int]]) -> list[tuple[Tensor, Tensor]]:
    """Images of 8 x 8 px, one a batch, whose labels are all of these classes."""
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(1, 3, 8, 8, generator=generator),
            torch.tensor(classes).repeat(64)[:64].view(1, 8, 8),
        )
        for classes in present
    ]


def joined(parts: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    images, labels = zip(*parts, strict=True)
    return [(torch.cat(images), torch.cat(labels))]


@pytest.mark.parametrize(
    "loss", [SoftmaxLoss(weight=2.0, ignore_label=255), NELLoss(**NEL, ignore_label=255)]
)
def test_parts_with_as_many_labelled_pixels_and_masks_are_the_batch(loss):
    parts = data([[0, 1], [2, 3], [1, 2], [0, 3]])
    whole, expected = gradients(loss, joined(parts), 1)
    got, value = gradients(loss, parts, 4)
    assert value == pytest.approx(expected, rel=1e-6)
    for a, b in zip(got, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("loss", "present"),
    [
        (SoftmaxLoss(weight=2.0, ignore_label=255), [[0, 1], [2, 255]]),
        (NELLoss(**NEL, ignore_label=255), [[0, 1], [2, 2]]),
    ],
)
def test_other_parts_are_the_mean_of_batches_of_their_own(loss, present):
    """Every part then counts as much as another, however many pixels or masks it has."""
    parts = data(present)
    alone = [gradients(loss, [part], 1) for part in parts]
    got, value = gradients(loss, parts, 2)
    assert value == pytest.approx(sum(v for _, v in alone) / 2, rel=1e-6)
    for name, a in enumerate(got):
        torch.testing.assert_close(a, (alone[0][0][name] + alone[1][0][name]) / 2)
    assert value != pytest.approx(gradients(loss, joined(parts), 1)[1], rel=1e-3)


def test_a_loss_that_is_not_finite_ends_it_before_the_update():
    step = steps(Weight(), [torch.tensor(1.0), torch.tensor(math.nan)], parts=2)
    with pytest.raises(FloatingPointError):
        step.train(0, 1)
    assert step.model.w.item() == 1


def test_a_model_in_evaluation_mode_is_refused():
    step = steps(Weight(), [torch.tensor(1.0)])
    step.model.eval()
    with pytest.raises(AssertionError, match="evaluation mode"):
        step.train(0, 1)


@pytest.mark.parametrize("parts", [1, 2])
def test_scaled_gradients_are_scaled_back_before_the_step(parts):
    """In float16 on a CPU: the optimizer sees the gradient of the loss, 4 mean(x)."""
    step = steps(Weight(), [torch.tensor(1.0), torch.tensor(1.0)], parts=parts, amp=True)
    seen = []
    step.optimizer.register_step_pre_hook(lambda *_: seen.append(step.model.w.grad.item()))
    step.train(0, 3)
    assert seen == pytest.approx([4.0] * 3)
    assert step.model.w.item() == pytest.approx(1 - 3 * 0.1 * 4)


def test_an_overflow_skips_the_step_and_lowers_the_scale():
    step = steps(Weight(), [torch.tensor(1e38)], amp=True)
    before = step.grad_scaler.get_scale()
    step.train(0, 1)
    assert step.model.w.item() == 1
    assert step.grad_scaler.get_scale() == before / 2
    state = step.state_dict()
    again = steps(Weight(), [torch.tensor(1.0)], amp=True)
    again.load_state_dict(state)
    assert again.grad_scaler.get_scale() == before / 2
    plain = steps(Weight(), [torch.tensor(1.0)])
    plain.load_state_dict(state)
    assert "grad_scaler" not in plain.state_dict()
    again.load_state_dict(plain.state_dict())


def of_two_processes(folder: str) -> None:
    """Process r has the images 2 r and 2 r + 1; one exchange of gradients per step."""
    rank = torch.distributed.get_rank()
    parts = data([[0, 1], [2, 3], [1, 2], [0, 3]])[2 * rank : 2 * rank + 2]
    torch.manual_seed(0)
    model = DistributedDataParallel(Pixels(SoftmaxLoss(weight=2.0, ignore_label=255)))
    exchanged = []

    def exchange(_, bucket):  # torch looks at annotations and takes no text for one
        exchanged.append(bucket.index())
        done = torch.distributed.all_reduce(bucket.buffer() / 2, async_op=True).get_future()
        return done.then(lambda future: future.value()[0])

    model.register_comm_hook(None, exchange)
    step = steps(model, parts, rate=0.0, parts=2)
    step.train(0, 1)
    found = {"gradients": [p.grad for p in model.parameters()], "exchanged": exchanged}
    torch.save(found, f"{folder}/{rank}.pth")


def measure_in_two_processes(folder: str) -> None:
    step = steps(DistributedDataParallel(Rank()), [torch.tensor(1.0)])
    step.train(0, 1)
    if torch.distributed.get_rank() == 0:
        torch.save(step.storage.latest()["rank"], f"{folder}/rank.pth")


@pytest.mark.slow
def test_measures_are_means_over_the_processes(tmp_path):
    launch(measure_in_two_processes, 2, dist_url="auto", args=(str(tmp_path),))
    assert torch.load(tmp_path / "rank.pth", weights_only=True) == (0.5, 0)


@pytest.mark.slow
def test_two_processes_exchange_gradients_once(tmp_path):
    launch(of_two_processes, 2, dist_url="auto", args=(str(tmp_path),))
    loss = SoftmaxLoss(weight=2.0, ignore_label=255)
    whole, _ = gradients(loss, joined(data([[0, 1], [2, 3], [1, 2], [0, 3]])), 1)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pth", weights_only=True)
        assert found["exchanged"] == [0]
        for a, b in zip(found["gradients"], whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


class Batches(HookBase):
    """Which images every iteration has trained on, part by part."""

    def before_train(self) -> None:
        self.seen: list[list[list[str]]] = []
        self.trainer.model.register_forward_pre_hook(self._see)

    def before_step(self) -> None:
        self.seen.append([])

    def _see(self, model: nn.Module, args: tuple) -> None:
        if model.training:
            self.seen[-1].append([item["file_name"] for item in args[0]])


def small(make_cfg, *overrides: object):
    return make_cfg(
        *("SOLVER.MAX_ITER", 4, "SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", ()),
        *("DATALOADER.NUM_WORKERS", 0, *overrides),
    )


def test_a_run_in_parts_sees_the_same_images_and_can_be_resumed(toy_voc, make_cfg, tmp_path):
    seen = {}
    for parts in (1, 2):
        cfg = small(make_cfg, "SOLVER.ACCUMULATE", parts, "OUTPUT_DIR", str(tmp_path / str(parts)))
        seed_all_rng(0)
        trainer, hook = ZeroShotTrainer(cfg), Batches()
        trainer.register_hooks([hook])
        trainer.train()
        seen[parts] = hook.seen
        state = stored_training_state(tmp_path / str(parts) / "model_final.pth")
        assert (state["images_drawn"], state["iteration"]) == (16, 3)
        assert [len(batch) for batch in hook.seen] == [parts] * 4
    joined = [[[name for part in batch for name in part]] for batch in seen[2]]
    assert joined == seen[1]

    cfg = small(make_cfg, "SOLVER.ACCUMULATE", 2)
    with pytest.raises(KeyboardInterrupt):
        train(cfg, tmp_path / "stopped", kill=KillAt(1, None))
    train(cfg, tmp_path / "stopped")
    assert_same_checkpoint(tmp_path / "2/model_final.pth", tmp_path / "stopped/model_final.pth")


def test_parts_that_do_not_divide_the_share_of_a_process_are_refused(make_cfg, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    cfg = make_cfg("SOLVER.IMS_PER_BATCH", 4, "SOLVER.ACCUMULATE", 4)
    with pytest.raises(ZssError, match=r"4, which 4 parts \(SOLVER.ACCUMULATE\) of 2 processes"):
        ZeroShotTrainer.build_train_loader(cfg)
