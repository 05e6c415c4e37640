"""Our evaluator against Detectron2's on the same predictions, and its refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.samplers import InferenceSampler
from detectron2.engine import launch
from detectron2.evaluation import SemSegEvaluator
from detectron2.utils import comm
from PIL import Image
from pycocotools import mask

from zss_d2.data.files.images import read_mask
from zss_d2.errors import ZssError
from zss_d2.evaluation import ZeroShotSemSegEvaluator, write_results
from zss_d2.evaluation import evaluator as evaluator_module
from zss_d2.evaluation.counts import counts_file, read_counts
from zss_d2.evaluation.evaluator import format_table
from zss_d2.evaluation.metrics import confusion_matrix, summarise
from zss_d2.evaluation.predictions import prediction_file, raw_ids, read_prediction
from zss_d2.evaluation.shape.counts import shape_counts
from zss_d2.evaluation.shape.metrics import summarise_shape
from zss_d2.modeling.inference import LabelsOnly
from zss_d2.modeling.inference.argmax import LabelsNow

NAME = "evaluator_test"
CLASSES = ["sky", "dog", "grass", "cat", "never"]
IGNORE = 255


def register(records: list[dict]) -> None:
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(
        stuff_classes=CLASSES,
        seen_classes=CLASSES[:3],
        unseen_classes=CLASSES[3:],
        ignore_label=IGNORE,
    )


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
    register(records)
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


def test_shapes_are_measured_beside_the_same_metrics(dataset, monkeypatch):
    outputs = predictions(dataset)
    results = []
    for on, most in ((False, 1), (True, 1), (True, 3)):
        monkeypatch.setattr(evaluator_module, "_most_pending", lambda _, most=most: most)
        evaluator = ZeroShotSemSegEvaluator(NAME, fragmentation=on)
        for _ in range(2):  # reset forgets
            evaluator.reset()
            evaluator.process(dataset[:3], outputs[:3])
            evaluator.process(dataset[3:], outputs[3:])
        results.append(evaluator.evaluate()["sem_seg"])
    plain, first, second = results
    assert first == pytest.approx(second, nan_ok=True, abs=0)
    assert list(first)[: len(plain)] == list(plain)
    assert {key: first[key] for key in plain} == pytest.approx(plain, nan_ok=True, abs=0)

    total = 0
    for record, output in zip(dataset, outputs, strict=True):
        truth = read_mask(Path(record["sem_seg_file_name"])).copy()
        truth[truth == IGNORE] = len(CLASSES)
        labels = output["sem_seg"].argmax(dim=0).numpy().astype(np.uint8)
        total += shape_counts(truth, labels, len(CLASSES))
    wanted = summarise_shape(total, len(dataset), CLASSES, CLASSES[3:])
    assert wanted == pytest.approx(
        {key: value for key, value in first.items() if key not in plain}, nan_ok=True, abs=0
    )
    assert "| unseen " in format_table(first, CLASSES[3:])


def test_misfits_name_the_file(dataset):
    evaluator = ZeroShotSemSegEvaluator(NAME)
    with pytest.raises(ZssError, match=r"0.jpg: scores of shape \(3, 20, 30\) for the 5 classes"):
        evaluator.process(dataset[:1], [{"sem_seg": torch.rand(3, 20, 30)}])
    with pytest.raises(ZssError, match=r"0.png: the prediction is \(20, 31\)"):
        evaluator.process(dataset[:1], [{"sem_seg": torch.rand(5, 20, 31)}])
    bad = np.full((20, 30), 77, np.uint8)
    Image.fromarray(bad).save(dataset[0]["sem_seg_file_name"])
    with pytest.raises(ZssError, match=r"0.png: value 77 \(600 pixels\) outside 0..4 and"):
        evaluator.process(dataset[:1], [{"sem_seg": torch.rand(5, 20, 30)}])


def test_an_image_that_is_missing_or_counted_twice_is_an_error(dataset):
    evaluator = ZeroShotSemSegEvaluator(NAME)
    with pytest.raises(ZssError, match="0 of 4 images were evaluated"):
        evaluator.evaluate()
    outputs = predictions(dataset)
    evaluator.process(dataset, outputs)
    evaluator.process(dataset[:1], outputs[:1])
    with pytest.raises(ZssError, match="0.jpg was evaluated 2 times; use InferenceSampler"):
        evaluator.evaluate()


def test_an_empty_data_set_is_an_error(dataset):
    dataset.clear()
    with pytest.raises(ZssError, match=f"{NAME} holds no image"):
        ZeroShotSemSegEvaluator(NAME)


def test_nothing_but_ignored_pixels_is_an_error(dataset):
    for record in dataset:
        size = Image.open(record["sem_seg_file_name"]).size
        Image.new("L", size, IGNORE).save(record["sem_seg_file_name"])
    evaluator = ZeroShotSemSegEvaluator(NAME)
    evaluator.process(dataset, predictions(dataset))
    with pytest.raises(ZssError, match="no labelled pixel"):
        evaluator.evaluate()


def test_nan_is_an_error(dataset):
    scores = torch.full((5, 20, 30), float("nan"))
    with pytest.raises(ZssError, match="0.jpg: the scores hold NaN"):
        ZeroShotSemSegEvaluator(NAME).process(dataset[:1], [{"sem_seg": scores}])


@pytest.fixture
def waits_for_three(monkeypatch):
    """As on a GPU, where images are counted before anybody waits for it."""
    monkeypatch.setattr(evaluator_module, "_most_pending", lambda counts: 3)


def test_images_that_nobody_waited_for_are_counted_the_same(dataset, tmp_path, monkeypatch):
    outputs, results = predictions(dataset), []
    for folder, most in (("a", 3), ("b", 1)):
        monkeypatch.setattr(evaluator_module, "_most_pending", lambda counts, most=most: most)
        evaluator = ZeroShotSemSegEvaluator(NAME, output_dir=str(tmp_path / folder), per_image=True)
        evaluator.process(dataset, outputs)
        assert len(evaluator._pending) == len(dataset) % most
        metrics = evaluator.evaluate()["sem_seg"]
        results.append((metrics, read_counts(counts_file(tmp_path / folder, NAME))))
    (metrics, stored), (expected, expected_counts) = results
    assert metrics == pytest.approx(expected, abs=0, nan_ok=True)
    assert stored.images.keys == expected_counts.images.keys
    for name in ("cells", "values", "starts"):
        assert np.array_equal(getattr(stored.images, name), getattr(expected_counts.images, name))


def test_nan_that_is_found_later_names_its_image(dataset, monkeypatch, waits_for_three):
    damaged = iter([False, True, False, False])
    monkeypatch.setattr(
        evaluator_module,
        "labels_now",
        lambda scores: LabelsNow(scores.argmax(dim=0), torch.tensor(next(damaged))),
    )
    evaluator, outputs = ZeroShotSemSegEvaluator(NAME), predictions(dataset)
    evaluator.process(dataset[:2], outputs[:2])
    with pytest.raises(ZssError, match="1.jpg: the scores hold NaN, .*earlier checkpoint"):
        evaluator.process(dataset[2:], outputs[2:])


def test_of_a_batch_the_damaged_mask_is_named(dataset):
    outputs = predictions(dataset)
    Image.fromarray(np.full((31, 17), 77, np.uint8)).save(dataset[2]["sem_seg_file_name"])
    with pytest.raises(ZssError, match=r"2.png: value 77 \(527 pixels\) outside 0..4 and"):
        ZeroShotSemSegEvaluator(NAME).process(dataset, outputs)


def test_labels_alone_count_as_their_scores(dataset):
    results = []
    for reduce in (lambda x: x, lambda x: LabelsOnly(x.argmax(dim=0), len(CLASSES))):
        torch.manual_seed(3)
        evaluator = ZeroShotSemSegEvaluator(NAME)
        outputs = [{"sem_seg": reduce(x["sem_seg"])} for x in predictions(dataset)]
        evaluator.process(dataset, outputs)
        results.append(evaluator.evaluate()["sem_seg"])
    assert results[0] == pytest.approx(results[1], abs=0, nan_ok=True)


def test_counts_of_single_images_add_up_and_are_stored(dataset, tmp_path):
    run = tmp_path / "run"
    outputs = predictions(dataset)
    evaluator = ZeroShotSemSegEvaluator(NAME, output_dir=str(run), per_image=True)
    evaluator.process(dataset, outputs)
    evaluator.evaluate()
    assert [path.name for path in run.iterdir()] == [f"confusion_{NAME}.npz"]
    stored = read_counts(counts_file(run, NAME))
    assert (stored.class_names, stored.unseen_ids) == (tuple(CLASSES), [3, 4])
    assert stored.images.keys == ("0", "1", "2", "3")
    truth = [np.asarray(Image.open(r["sem_seg_file_name"])) for r in dataset]
    assert stored.confusion.sum() == sum((x != IGNORE).sum() for x in truth)
    assert (stored.images.total(np.ones(4)) == stored.confusion).all()
    one = stored.images.total(np.array([0, 0, 1, 0]))
    labels = outputs[2]["sem_seg"].argmax(dim=0)
    expected = confusion_matrix(labels, torch.tensor(truth[2]), len(CLASSES), IGNORE)
    assert (one == expected.numpy()).all()


@pytest.mark.parametrize("raw", [{10: 0, 20: 1, 30: 2, 40: 3, 50: 4}, {700: 0, 1: 1, 2: 2, 3: 3}])
def test_predictions_as_images_hold_raw_ids(dataset, tmp_path, raw):
    MetadataCatalog.get(NAME).stuff_dataset_id_to_contiguous_id = raw
    outputs = predictions(dataset)
    evaluator = ZeroShotSemSegEvaluator(NAME, output_dir=str(tmp_path / "run"), predictions="png")
    evaluator.process(dataset, outputs)
    ids = raw_ids(MetadataCatalog.get(NAME))
    for key, output in enumerate(outputs):
        path = prediction_file(tmp_path / "run", NAME, str(key))
        labels = output["sem_seg"].argmax(dim=0).numpy()
        assert set(np.unique(read_mask(path))) <= {*raw, 4}
        assert (read_prediction(path, ids) == labels).all()


def test_predictions_as_json_are_detectron2s(dataset, tmp_path):
    MetadataCatalog.get(NAME).stuff_dataset_id_to_contiguous_id = {
        10 * (index + 1): index for index in range(5)
    }
    outputs = predictions(dataset)
    files = []
    for folder, evaluator in (
        (tmp_path / "a", SemSegEvaluator(NAME, output_dir=str(tmp_path / "a"))),
        (
            tmp_path / "b/predictions" / NAME,
            ZeroShotSemSegEvaluator(NAME, output_dir=str(tmp_path / "b"), predictions="json"),
        ),
    ):
        evaluator.reset()
        for record, output in zip(dataset, outputs, strict=True):
            evaluator.process([record], [output])
        evaluator.evaluate()
        files.append(json.loads((folder / "sem_seg_predictions.json").read_text()))
    assert files[0] == files[1]
    assert {entry["category_id"] for entry in files[0]} == {10, 20, 30, 40, 50}
    union = sum(mask.decode(x["segmentation"]) for x in files[0] if x["file_name"] == "2.jpg")
    assert union.shape == (31, 17)
    assert (union == 1).all()


def evaluate_share(records: list[dict], path: str) -> None:
    """A process of a distributed evaluation: its share of the images, by InferenceSampler."""
    if NAME not in DatasetCatalog.list():
        register(records)
    evaluator = ZeroShotSemSegEvaluator(NAME, output_dir=path, per_image=True, fragmentation=True)
    for index in InferenceSampler(len(records)):
        height, width = np.asarray(Image.open(records[index]["sem_seg_file_name"])).shape
        scores = torch.rand(
            len(CLASSES), height, width, generator=torch.Generator().manual_seed(index)
        )
        evaluator.process([records[index]], [{"sem_seg": scores}])
    results = evaluator.evaluate()
    assert (results is None) == (not comm.is_main_process())
    if results is not None:
        write_results(Path(path) / "results.json", {NAME: results["sem_seg"]}, {})


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same(dataset, tmp_path):
    """4 images on 1 and on 3 processes (2 + 1 + 1)."""
    files = []
    for processes in (1, 3):
        path = tmp_path / str(processes)
        launch(evaluate_share, processes, dist_url="auto", args=(dataset, str(path)))
        stored = read_counts(counts_file(path, NAME))
        files.append((json.loads((path / "results.json").read_text()), stored))
    (results, stored), (of_three, stored_by_three) = files
    assert of_three == results
    assert (stored_by_three.confusion == stored.confusion).all()
    assert stored_by_three.images.keys == stored.images.keys
    assert (stored_by_three.images.values == stored.images.values).all()


@pytest.mark.parametrize("kept", [{"per_image": True}, {"predictions": "png"}])
def test_images_of_one_name_are_refused_where_they_would_overwrite_each_other(tmp_path, kept):
    truth = tmp_path / "truth.png"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(truth)
    records = [{"file_name": f"{folder}/1.jpg", "sem_seg_file_name": str(truth)} for folder in "ab"]
    register(records)
    try:
        with pytest.raises(ZssError, match=r"a/1.jpg and b/1.jpg would have one name, 1; give"):
            ZeroShotSemSegEvaluator(NAME, output_dir=str(tmp_path), **kept)
        ZeroShotSemSegEvaluator(NAME, output_dir=str(tmp_path))
        for index, record in enumerate(records):
            record["image_id"] = index
        ZeroShotSemSegEvaluator(NAME, output_dir=str(tmp_path), **kept)
    finally:
        DatasetCatalog.remove(NAME)
        MetadataCatalog.remove(NAME)


def test_the_logged_table_keeps_names_and_says_what_others_would_report():
    names = ["007", "a|b", "two\nlines"]
    confusion = np.array([[10, 0, 0], [0, 5, 0], [0, 1, 0]])
    table = format_table(summarise(confusion, names, ["two\nlines"]), ["two\nlines"])
    assert "| 007 " in table
    assert "| a\\|b " in table
    assert "| two lines | unseen | -" in table
    assert "ZegFormer do: mIoU 61.11" in table
    right = format_table(summarise(np.diag([1, 2, 3]), names, names[:1]), names[:1])
    assert "ZegFormer" not in right
