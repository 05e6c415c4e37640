"""Training itself: it learns, only what it should, and stops cleanly."""

from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage

from tests.conftest import REAL_VOC, ROOT, prepare_voc
from zss_d2.engine import ZeroShotTrainer
from zss_d2.errors import ZssError


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
