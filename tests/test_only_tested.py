"""Benchmarks that are only tested on, with models that train nothing or were trained elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from PIL import Image

from tests.data.released import make_ade20k, make_cityscapes
from tests.modeling.all_methods import METHODS
from zss_d2.analysis import bias
from zss_d2.analysis.commands import report
from zss_d2.data.spec.requirements import require_datasets
from zss_d2.engine import ZeroShotTrainer
from zss_d2.errors import ZssError
from zss_d2.evaluation.metrics import summarise

CITYSCAPES = ("DATASETS.TEST", ("zss_cityscapes_val",), "DATALOADER.NUM_WORKERS", 0)
ITSELF = ("DATASETS.TRAIN", ("zss_cityscapes_train",))


@pytest.fixture
def root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    make_ade20k(tmp_path)
    make_cityscapes(tmp_path)
    return tmp_path


def evaluated(cfg) -> dict:
    ZeroShotTrainer.test(cfg, ZeroShotTrainer.build_model(cfg).eval())
    return json.loads((Path(cfg.OUTPUT_DIR) / "results.json").read_text())


def test_without_training_all_classes_are_unseen_and_there_is_no_harmonic_mean(root, make_cfg):
    options = (*METHODS["MaskCLIP"], *CITYSCAPES, *ITSELF, "TEST.PREDICTIONS", "png")
    cfg = make_cfg(*options, "TEST.PER_IMAGE", True)
    require_datasets(cfg, train=False)
    metrics = evaluated(cfg)["zss_cityscapes_val"]
    assert metrics["mIoU"] == metrics["mIoU-U"]
    assert [metrics[key] for key in ("mIoU-S", "hIoU", "seen-as-unseen")] == [None] * 3
    assert metrics["mIoU-U-things"] is not None
    # Predictions are in the ids that Cityscapes' server takes.
    values = set()
    for path in (Path(cfg.OUTPUT_DIR) / "predictions/zss_cityscapes_val").glob("*.png"):
        values |= set(np.unique(np.asarray(Image.open(path))).tolist())
    assert values
    assert values <= set(
        MetadataCatalog.get("zss_cityscapes_val").stuff_dataset_id_to_contiguous_id
    )
    assert report.main([cfg.OUTPUT_DIR, "--output", str(root / "page"), "--resamples", "5"]) == 0
    page = (root / "page/report.md").read_text()
    assert "| run | pAcc | mIoU | mIoU-U | " in page
    assert " nan" not in page.split("## Provenance")[0]
    with pytest.raises(ZssError, match="zss_cityscapes_val has no seen classes, and so nothing to"):
        bias.require_registered("zss_cityscapes_val")


def test_a_model_that_was_trained_elsewhere_is_given_the_names(root, toy_voc, make_cfg):
    (toy_voc / "cityscapes").symlink_to(root / "cityscapes")
    try:
        metrics = evaluated(make_cfg(*CITYSCAPES))["zss_cityscapes_val"]
    finally:
        (toy_voc / "cityscapes").unlink()
    assert metrics["mIoU"] == metrics["mIoU-U"]
    assert {"IoU-traffic light", "IoU-rider"} <= metrics.keys()


def test_training_on_them_needs_a_view_or_all_labels(root, make_cfg):
    cfg = make_cfg(*CITYSCAPES, *ITSELF)
    with pytest.raises(ZssError, match="zss_cityscapes_train has no seen classes, being only"):
        require_datasets(cfg, train=True)
    cfg.ZERO_SHOT.SETTING = "supervised"
    require_datasets(cfg, train=True)
    cfg.SOLVER.CHECKPOINT_BEST = "hIoU"
    with pytest.raises(ZssError, match="CHECKPOINT_BEST is 'hIoU', but zss_cityscapes_val has no"):
        require_datasets(cfg, train=True)


def test_a_bias_needs_a_class_to_be_subtracted_from(root, make_cfg):
    cfg = make_cfg(*CITYSCAPES, *ITSELF, "TEST.SEEN_BIAS", 0.1)
    with pytest.raises(ZssError, match="SEEN_BIAS is 0.1 but has no effect: .*_train; leave"):
        require_datasets(cfg, train=False)
    cfg.DATASETS.TRAIN = ("zss_coco_stuff_train",)  # a person is one in both
    require_datasets(cfg, train=False)


def test_metrics_of_a_set_without_seen_classes_by_hand():
    metrics = summarise(np.array([[3, 1], [0, 4]]), ["a", "b"], ["a", "b"])
    assert metrics["mIoU-U"] == pytest.approx(100 * (3 / 4 + 4 / 5) / 2)
    assert np.isnan([metrics["mIoU-S"], metrics["hIoU"], metrics["hIoU-absent0"]]).all()
