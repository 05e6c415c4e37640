"""Several data sets in one run: training sets must mean the same by an id, test sets need not."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog
from PIL import Image

from zss_d2.data.pipeline.loader import build_train_loader, training_records
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.prepare.check_command import main as check
from zss_d2.data.spec.custom import register_custom
from zss_d2.data.spec.vocabulary import (
    Vocabulary,
    require_distinct_tests,
    require_equal,
    require_one_vocabulary,
)
from zss_d2.data.synthetic import toy_custom
from zss_d2.errors import ZssError
from zss_d2.evaluation import ZeroShotSemSegEvaluator

FIRST = Vocabulary("zss_a_train", ("sky", "dog", "cat"), frozenset({"cat"}), 255)


def message(function, *arguments) -> str:
    with pytest.raises(ZssError) as caught:
        function(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    ("classes", "unseen", "ignore_label", "expected"),
    [
        (("sky", "cat", "dog"), {"cat"}, 255, "id 1 is 'dog' in the first, 'cat' in the second"),
        (("sky", "dog"), {"dog"}, 255, "id 2 is 'cat' in the first, no class in the second"),
        (("sky", "dog", "cat", "cow"), {"cat"}, 255, "id 3 is no class in the first, 'cow' in"),
        (("sky", "dog", "cat"), {"dog"}, 255, "'dog' is unseen in the second only"),
        (("sky", "dog", "cat"), (), 255, "'cat' is unseen in the first only"),
        (("sky", "dog", "cat"), {"cat"}, 3, "void pixels are 255 in the first, 3 in the second"),
    ],
)
def test_the_first_difference_and_both_sets_are_named(classes, unseen, ignore_label, expected):
    other = Vocabulary("zss_b_train", classes, frozenset(unseen), ignore_label)
    require_equal([FIRST, FIRST])
    text = message(require_equal, [FIRST, FIRST, other])
    assert text.startswith("DATASETS.TRAIN: zss_a_train and zss_b_train cannot be mixed: ")
    assert expected in text
    assert "a custom dataset with the classes of the first" in text


def test_registered_sets_are_compared_without_their_files(monkeypatch, tmp_path):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    text = message(require_one_vocabulary, ("zss_coco_stuff_train", "zss_voc_train"))
    assert "zss_coco_stuff_train and zss_voc_train" in text
    assert "id 0 is 'person' in the first, 'aeroplane' in the second" in text
    require_one_vocabulary(("zss_voc_train", "zss_voc_val"))
    text = message(require_one_vocabulary, ("zss_voc_train", "zss_voc_trian"))
    assert "no data set 'zss_voc_trian' (did you mean 'zss_voc_train'?)" in text


@pytest.fixture
def park(yard) -> Path:
    """A second data set: other photos, and stripes and discs the other way round."""
    path = toy_custom.generate(yard.parents[1] / "park", seed=1)
    data = yaml.safe_load(path.read_text())
    data |= {"name": "park", "classes": ["stripe", "ground", "disc"], "unseen": ["disc"]}
    data |= {"ignore_label": 100}
    path.write_text(yaml.safe_dump(data))
    for mask in path.with_name("masks").iterdir():
        labels = np.asarray(Image.open(mask))
        # The masks of the generator hold ground 0, disc 1, square 2, stripe 3.
        Image.fromarray(np.array([1, 2, 100, 0], np.uint8)[labels]).save(mask)
    return path


def sets(*names: str) -> str:
    return "(" + "".join(f'"{name}", ' for name in names) + ")"


def config(tmp_path: Path, custom: list[Path], train: str, test: str) -> str:
    path = tmp_path / "run.yaml"
    listed = [str(description) for description in custom]
    path.write_text(
        yaml.safe_dump({"DATASETS": {"CUSTOM": listed, "TRAIN": train, "TEST": test}, "VERSION": 2})
    )
    return str(path)


def test_training_and_the_check_refuse_sets_that_differ(yard, park, make_cfg, tmp_path, capsys):
    register_custom([yard, park])
    names = ("zss_yard_train", "zss_park_train")
    expected = "zss_yard_train and zss_park_train cannot be mixed: id 0 is 'ground' in the first"
    cfg = make_cfg("DATASETS.TRAIN", names)
    assert expected in message(training_records, cfg)
    assert expected in message(build_train_loader, cfg)
    assert check([config(tmp_path, [yard, park], sets(*names), "()")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line


def test_the_remedy_works(yard, park, make_cfg, tmp_path):
    """The second set described with the classes of the first: its ids arrive as these."""
    names = yaml.safe_load(yard.read_text())["classes"]
    data = yaml.safe_load(park.read_text())
    data |= {"classes": names, "unseen": ["stripe"], "ignore_label": 255}
    # No square in the park, so a value that no mask holds; 100 is void there.
    data["raw_to_train"] = {0: "stripe", 1: "ground", 2: "disc", 200: "square", 100: 255}
    park.write_text(yaml.safe_dump(data))
    register_custom([yard, park])
    overrides = ("DATASETS.TRAIN", ("zss_yard_train", "zss_park_train"))
    records = training_records(make_cfg(*overrides))
    assert len(records) == 8
    mapper = ZeroShotMapper(is_train=True, augmentations=[], hide_unseen_labels=False)
    for record in records[4:]:
        raw = np.asarray(Image.open(park.parent / "masks" / f"{record['image_id']}.png"))
        expected = np.select([raw == i for i in range(3)], [3, 0, 1], 255)
        assert np.array_equal(mapper(record)["sem_seg"].numpy(), expected)
    path = config(tmp_path, [yard, park], sets("zss_yard_train", "zss_park_train"), "()")
    assert check(["--workers", "1", path]) == 0


def test_the_check_reads_every_training_set(yard, tmp_path, capsys):
    other = toy_custom.generate(tmp_path / "other", seed=1)
    other.write_text(other.read_text().replace("name: yard", "name: other"))
    (other.parent / "masks" / "yard_3.png").unlink()
    path = config(tmp_path, [yard, other], sets("zss_yard_train", "zss_other_train"), "()")
    assert check(["--workers", "1", path]) == 2
    assert "no mask for 1 (yard_3)" in capsys.readouterr().err


def test_a_training_set_named_twice_is_drawn_twice_as_often(yard, make_cfg, tmp_path, capsys):
    register_custom([yard])
    names = ("zss_yard_train", "zss_yard_train")
    cfg = make_cfg("DATASETS.TRAIN", names, "DATALOADER.NUM_WORKERS", 0)
    assert len(training_records(cfg)) == 8
    assert next(iter(build_train_loader(cfg)))
    assert check(["--workers", "1", config(tmp_path, [yard], sets(*names), "()")]) == 0
    assert "zss_yard_train is named 2 times: drawn 2 times as often" in capsys.readouterr().out


def test_a_test_set_named_twice_is_refused(yard, tmp_path, capsys):
    require_distinct_tests(("zss_voc_val", "zss_yard_val"))
    expected = "DATASETS.TEST names zss_voc_val more than once; name it once"
    assert message(require_distinct_tests, ("zss_voc_val",) * 2) == expected
    test = sets("zss_yard_val", "zss_yard_val")
    assert check([config(tmp_path, [yard], '("zss_yard_train",)', test)]) == 2
    assert "DATASETS.TEST names zss_yard_val more than once" in capsys.readouterr().err


def test_photos_that_are_in_two_sets_are_pointed_out(yard, tmp_path, capsys):
    again = yard.with_name("again.yaml")
    text = yard.read_text().replace("name: yard", "name: again")
    again.write_text(text.replace("list: val.txt", "list: mixed.txt"))
    yard.with_name("mixed.txt").write_text("yard_3\nyard_4\n")
    train = sets("zss_yard_train", "zss_again_train")
    assert (
        check(["--workers", "1", config(tmp_path, [yard, again], train, '("zss_again_val",)')]) == 0
    )
    out = capsys.readouterr().out
    assert "zss_yard_train and zss_again_train share 4 images, drawn as part of either" in out
    assert "zss_again_val: 1 of 2 images are also in zss_yard_train; scores on what was" in out


def test_test_sets_bring_their_own_names_ids_and_void(yard, park, make_cfg):
    register_custom([yard, park])
    mapper = ZeroShotMapper(make_cfg(), is_train=False)
    results = {}
    for name in ("zss_yard_val", "zss_park_val"):
        evaluator = ZeroShotSemSegEvaluator(name)
        for record in DatasetCatalog.get(name):
            item = mapper(record)
            truth = np.asarray(Image.open(record["sem_seg_file_name"]))
            number = len(item["vocabulary"])
            # Right everywhere, except that the last class is taken for the first one.
            guess = torch.from_numpy(np.where(truth >= number - 1, 0, truth).astype(np.int64))
            scores = torch.nn.functional.one_hot(guess, number).permute(2, 0, 1).float()
            evaluator.process([item], [{"sem_seg": scores}])
        results[name] = evaluator.evaluate()["sem_seg"]
    yard_scores, park_scores = results.values()
    assert yard_scores["IoU-stripe"] == park_scores["IoU-disc"] == 0
    assert yard_scores["mIoU-U"] == park_scores["mIoU-U"] == 0
    assert yard_scores["IoU-disc"] == yard_scores["IoU-square"] == 100
    # The void of the park, 100, counts nowhere: discs are all that became stripes.
    truth = [
        np.asarray(Image.open(r["sem_seg_file_name"])) for r in DatasetCatalog.get("zss_park_val")
    ]
    stripes, discs = (sum((labels == i).sum() for labels in truth) for i in (0, 2))
    assert park_scores["IoU-stripe"] == pytest.approx(100 * stripes / (stripes + discs))
    assert "IoU-square" not in park_scores


def test_items_of_mixed_loaders_keep_their_vocabulary(yard, park, make_cfg):
    register_custom([yard, park])
    mapper = ZeroShotMapper(make_cfg(), is_train=False)
    names = ("zss_yard_val", "zss_park_val")
    pairs = zip(*(DatasetCatalog.get(name) for name in names), strict=True)
    words = [mapper(record)["vocabulary"] for record in itertools.chain(*pairs)]
    assert words == 2 * [("ground", "disc", "square", "stripe"), ("stripe", "ground", "disc")]
