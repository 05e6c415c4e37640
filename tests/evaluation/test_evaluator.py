"""Our evaluator against Detectron2's on the same predictions, and its refusals."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from zss_d2.errors import ZssError
from zss_d2.evaluation import ZeroShotSemSegEvaluator

NAME = "evaluator_test"
CLASSES = ["sky", "dog", "grass", "cat", "never"]
IGNORE = 255


@pytest.fixture
def dataset(tmp_path):
    """Four images of two sizes with random labels; the class "never" does not occur."""
    rng = np.random.default_rng(0)
    records = []
    for index, size in enumerate([(20, 30), (20, 30), (31, 17), (5, 5)]):
        truth = rng.integers(0, 4, size).astype(np.uint8)
        truth[rng.random(size) < 0.2] = IGNORE
        path = tmp_path / f"{index}.png"
        Image.fromarray(truth).save(path)
        records.append({"file_name": f"{index}.jpg", "sem_seg_file_name": str(path)})
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(
        stuff_classes=CLASSES,
        seen_classes=CLASSES[:3],
        unseen_classes=CLASSES[3:],
        ignore_label=255,
    )
    yield records
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def predictions(records) -> list[dict]:
    sizes = [Image.open(r["sem_seg_file_name"]).size for r in records]
    return [{"sem_seg": torch.rand(len(CLASSES), h, w)} for w, h in sizes]


def test_equals_detectron2_on_the_same_predictions(dataset):
    outputs = predictions(dataset)
    ours, theirs = ZeroShotSemSegEvaluator(NAME), SemSegEvaluator(NAME)
    results = []
    for evaluator in (ours, theirs):
        evaluator.reset()
        for record, output in zip(dataset, outputs, strict=True):
            evaluator.process([record], [output])
        results.append(evaluator.evaluate()["sem_seg"])
    shared = set(results[0]) & set(results[1])
    per_class = {f"{kind}-{name}" for kind in ("IoU", "ACC") for name in CLASSES}
    assert shared == {"mIoU", "fwIoU", "mACC", "pACC", *per_class}
    for key in shared:
        np.testing.assert_allclose(results[0][key], results[1][key], atol=1e-9, err_msg=key)


def test_order_and_batching_do_not_matter_and_reset_forgets(dataset):
    outputs = predictions(dataset)
    evaluator = ZeroShotSemSegEvaluator(NAME)
    evaluator.process(dataset, outputs)
    first = evaluator.evaluate()["sem_seg"]
    evaluator.reset()
    for record, output in reversed(list(zip(dataset, outputs, strict=True))):
        evaluator.process([record], [output])
    assert evaluator.evaluate()["sem_seg"] == pytest.approx(first, nan_ok=True)


def test_misfits_name_the_file(dataset):
    evaluator = ZeroShotSemSegEvaluator(NAME)
    with pytest.raises(ZssError, match="0.jpg: 3 score maps for the 5 classes"):
        evaluator.process(dataset[:1], [{"sem_seg": torch.rand(3, 20, 30)}])
    with pytest.raises(ZssError, match=r"0.png: the prediction is \(20, 31\)"):
        evaluator.process(dataset[:1], [{"sem_seg": torch.rand(5, 20, 31)}])
    bad = np.full((20, 30), 77, np.uint8)
    Image.fromarray(bad).save(dataset[0]["sem_seg_file_name"])
    with pytest.raises(ZssError, match="0.png: the ground truth holds label 77"):
        evaluator.process(dataset[:1], [{"sem_seg": torch.rand(5, 20, 30)}])


def test_nothing_evaluated_is_an_error(dataset):
    with pytest.raises(ZssError, match="no labelled pixel"):
        ZeroShotSemSegEvaluator(NAME).evaluate()
