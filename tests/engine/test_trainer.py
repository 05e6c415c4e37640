"""Training itself: it learns, only what it should, undisturbed by evaluation, and stops cleanly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage

from tests.conftest import REAL_VOC, ROOT, prepare_voc
from zss_d2.engine import ZeroShotTrainer
from zss_d2.engine.testing import _saved_checkpoint
from zss_d2.errors import ZssError
from zss_d2.modeling.inference import InferenceProtocol


@pytest.fixture
def four_images(tmp_path, voc_root) -> Path:
    """DETECTRON2_DATASETS with four images: real photographs if they are at hand, else toys."""
    source, list_name = (
        (REAL_VOC, "train_mini") if REAL_VOC.is_dir() else (voc_root / "VOC2012", "train_aug")
    )
    ids = (source / f"ImageSets/Segmentation/{list_name}.txt").read_text().split()[:4]
    voc = tmp_path / "VOC2012"
    (voc / "ImageSets/Segmentation").mkdir(parents=True)
    for name in ("train_aug", "val"):
        (voc / f"ImageSets/Segmentation/{name}.txt").write_text("\n".join(ids))
    for folder in ("JPEGImages", "SegmentationClassAug"):
        (voc / folder).symlink_to(source / folder)
    prepare_voc(voc, tmp_path)
    return tmp_path


def total_loss(trainer: ZeroShotTrainer, batch: list[dict]) -> float:
    with torch.no_grad(), EventStorage():
        return float(sum(trainer.model(batch).values()))


@pytest.mark.slow
def test_the_loss_falls_when_four_images_are_learned_by_heart(four_images, make_cfg, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(four_images))
    cfg = make_cfg("SOLVER.MAX_ITER", 150, "SOLVER.CHECKPOINT_PERIOD", 1000)
    cfg.merge_from_list(["INPUT.SCALE_RANGE", (1.0, 1.0), "INPUT.COLOR_AUG", False])
    cfg.merge_from_list(["DATALOADER.NUM_WORKERS", 0, "DATASETS.TEST", ()])
    trainer = ZeroShotTrainer(cfg)
    batch = next(iter(trainer.build_train_loader(cfg)))
    before = total_loss(trainer, batch)
    trainer.train()
    after = total_loss(trainer, batch)
    assert after < 0.5 * before, (before, after)


def test_a_loss_that_is_not_finite_stops_with_a_remedy(toy_voc, make_cfg):
    cfg = make_cfg("SOLVER.MAX_ITER", 5, "DATALOADER.NUM_WORKERS", 0, "DATASETS.TEST", ())
    cfg.MODEL.LOSS.FOCAL_WEIGHT = float("nan")
    with pytest.raises(
        ZssError, match="SOLVER.BASE_LR .*start the run again, it has no checkpoint"
    ):
        ZeroShotTrainer(cfg).train()
    (Path(cfg.OUTPUT_DIR) / "model_0000009.pth").touch()
    with pytest.raises(ZssError, match="SOLVER.BASE_LR .*--resume"):
        ZeroShotTrainer(cfg).train()


def test_an_uneven_batch_is_refused(make_cfg, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    with pytest.raises(ZssError, match="IMS_PER_BATCH is 4, which 3 processes cannot share"):
        ZeroShotTrainer.build_train_loader(make_cfg())


@pytest.mark.slow
def test_the_full_voc_model_takes_a_step_and_leaves_clip_untouched(make_cfg):
    """ViT-B/16 at 512 px, batch 1; only prompts, adapter and decoder learn."""
    cfg = make_cfg()
    cfg.merge_from_file(str(ROOT / "configs/ldvc_voc.yaml"))
    cfg.merge_from_list(["MODEL.CLIP.PRETRAINED", "", "MODEL.DEVICE", "cpu"])
    model = ZeroShotTrainer.build_model(cfg).train()
    optimizer = ZeroShotTrainer.build_optimizer(cfg, model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sem_seg = torch.randint(0, 15, (512, 512))
    image = torch.randint(0, 255, (3, 512, 512), dtype=torch.uint8)
    sum(model([{"image": image, "sem_seg": sem_seg}]).values()).backward()
    optimizer.step()

    learning = {name for name, p in model.named_parameters() if p.grad is not None}
    of_towers = {n for n in learning if not n.startswith(("descriptor.", "decoder."))}
    assert of_towers == {"image_encoder.prompts.tokens", "text_encoder.prompts.tokens"}
    assert {"descriptor.linear.weight", "decoder.mask_head.bias"} < learning
    after = model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == learning


@pytest.fixture
def train_four(toy_voc, make_cfg, tmp_path):
    """``train_four(folder, KEY, value, ...)``: LDVC with every kind of dropout, four iterations.

    The trainer's ``modes`` tell for every step which modules were in training mode.
    """

    def train(folder: str, *overrides: object) -> ZeroShotTrainer:
        cfg = make_cfg(
            *("MODEL.TEXT_PROMPTS.LENGTH", 4, "MODEL.TEXT_PROMPTS.DROPOUT", 0.1),
            *("MODEL.VISUAL_PROMPTS.DROPOUT", 0.1, "MODEL.LDVC.DROPOUT", 0.1),
            *("SOLVER.MAX_ITER", 4, "OUTPUT_DIR", str(tmp_path / folder), *overrides),
        )
        (tmp_path / folder).mkdir()
        seed_all_rng(0)
        trainer = ZeroShotTrainer(cfg)
        trainer.modes = []
        trainer.model.register_forward_pre_hook(
            lambda model, _: (
                trainer.modes.append([m.training for m in model.modules()])
                if model.training
                else None
            )
        )
        trainer.train()
        return trainer

    return train


def recorded(folder: Path) -> dict[int, dict[str, float]]:
    """Metrics by iteration, as metrics.json has them."""
    lines = (folder / "metrics.json").read_text().splitlines()
    return {entry["iteration"]: entry for entry in map(json.loads, lines)}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_in_mid_training_does_not_change_the_training(train_four, tmp_path, workers):
    """Its results are kept, dropout is on again behind it, and the weights are the same bits."""
    common = ("DATALOADER.NUM_WORKERS", workers)
    plain = train_four("plain", *common)
    interrupted = train_four("interrupted", *common, "TEST.EVAL_PERIOD", 2)

    results = recorded(tmp_path / "interrupted")
    assert "sem_seg/hIoU" in results[1]  # iterations count from 0: after two
    assert results[1]["sem_seg/mIoU"] != results[max(results)]["sem_seg/mIoU"]
    assert interrupted.modes == plain.modes
    assert len(plain.modes) == 4
    assert plain.modes[0] == plain.modes[3]

    expected = plain.model.state_dict()
    got = interrupted.model.state_dict()
    assert [name for name in expected if not torch.equal(expected[name], got[name])] == []


def test_every_evaluation_in_mid_training_is_recorded(train_four, tmp_path):
    """Not only the last one before metrics are written, every 20 iterations."""
    overrides = ("DATALOADER.NUM_WORKERS", 0, "SOLVER.MAX_ITER", 7, "TEST.EVAL_PERIOD", 2)
    train_four("run", *overrides)
    tested = [i for i, entry in recorded(tmp_path / "run").items() if "sem_seg/mIoU" in entry]
    assert tested == [1, 3, 5, 7]  # the one at the end comes after the last iteration


@pytest.mark.parametrize("windows", [False, True])
def test_an_evaluation_in_batches_counts_the_same_pixels(toy_voc, make_cfg, tmp_path, windows):
    """But for those whose two best classes are equal up to rounding; the batch is on record."""
    counts = []
    for batch in (1, 4):
        out = tmp_path / str(batch)
        cfg = make_cfg(
            *("OUTPUT_DIR", str(out), "DATALOADER.NUM_WORKERS", 0, "TEST.BATCH", batch),
            *("TEST.FLIP", windows, "TEST.SLIDE.ENABLED", windows),
            *("TEST.SLIDE.CROP", 128, "TEST.SLIDE.STRIDE", 96),
        )
        loader = ZeroShotTrainer.build_test_loader(cfg, "zss_voc_val")
        assert len(next(iter(loader))) == batch
        seed_all_rng(0)
        ZeroShotTrainer.test(cfg, ZeroShotTrainer.build_model(cfg))
        results = json.loads((out / "results.json").read_text())
        assert results["provenance"]["test_batch"] == batch
        assert "batch" not in results["provenance"]["protocol"]
        with np.load(out / "confusion_zss_voc_val.npz") as stored:
            counts.append(stored["confusion"].astype(int))
    assert counts[0].sum() == counts[1].sum() > 0
    assert np.abs(counts[0] - counts[1]).sum() <= 1e-4 * counts[0].sum()


def test_the_batch_of_a_test_is_that_of_the_device_unless_one_is_given(make_cfg):
    for device, given, expected in (
        ("cpu", 0, 1),
        ("cuda:1", 0, 16),
        ("cuda", 3, 3),
        ("mps", 0, 1),
    ):
        cfg = make_cfg("MODEL.DEVICE", device, "TEST.BATCH", given)
        assert InferenceProtocol.from_config(cfg).batch_on(cfg.MODEL.DEVICE) == expected


def test_a_checkpoint_that_was_removed_is_not_what_results_are_of(tmp_path, make_cfg):
    """A run that goes on from model_final.pth evaluates what is missing, numbered ones or not."""
    cfg = make_cfg("OUTPUT_DIR", str(tmp_path), "SOLVER.CHECKPOINT_PERIOD", 2, "SOLVER.MAX_ITER", 8)
    assert _saved_checkpoint(cfg, 4) == _saved_checkpoint(cfg, 8) == ""
    for name in ("model_0000003.pth", "model_final.pth"):
        (tmp_path / name).touch()
    found = [_saved_checkpoint(cfg, iteration) for iteration in (4, 5, 6, 8)]
    assert [Path(path).name for path in found] == ["model_0000003.pth", "", "", "model_final.pth"]
