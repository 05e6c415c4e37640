"""Views for choosing settings: the label maths, and the descriptions with their mistakes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from zss_d2.data.files.encoding import read_labels
from zss_d2.data.prepare.check_command import main as check
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.spec.custom import load_custom, register_custom
from zss_d2.data.spec.heldout import hold_out
from zss_d2.errors import ZssError


@pytest.fixture
def fold(yard) -> Path:
    """A view of the six generated images."""
    path = yard.with_name("fold.yaml")
    path.write_text("name: yard_fold\nbase: yard.yaml\nhold_out: [disc]\n")
    return path


def masks(dataset: str) -> dict[str, np.ndarray]:
    return {
        record["image_id"]: read_labels(record["sem_seg_file_name"], MetadataCatalog.get(dataset))
        for record in DatasetCatalog.get(dataset)
    }


def test_unseen_classes_become_void_and_ids_close_up():
    voc = load_benchmark("voc")
    view = hold_out(voc, ["cat", "bird"])
    assert view.classes == voc.seen_names
    assert view.unseen_names == ("bird", "cat")
    for raw, train in voc.raw_to_train.items():
        name = (*voc.classes, *["void"] * 256)[train]
        expected = 255 if name in (*voc.unseen_names, "void") else view.classes.index(name)
        assert view.raw_to_train[raw] == expected
    assert hold_out(voc, ["dog"]).raw_to_train == view.raw_to_train
    assert set(view.synonyms) <= set(view.classes)


def test_a_view_of_own_data_shows_the_same_masks_without_the_unseen_class(fold):
    register_custom([fold.with_name("yard.yaml"), fold])
    metadata = MetadataCatalog.get("zss_yard_fold_train")
    assert metadata.stuff_classes == ["ground", "disc", "square"]
    assert metadata.unseen_classes == ["disc"]
    views = masks("zss_yard_fold_train")
    originals = masks("zss_yard_train")
    assert views.keys() == originals.keys() and len(views) == 4
    assert any((labels == 3).any() for labels in originals.values())
    for image_id, labels in originals.items():
        assert np.array_equal(views[image_id], np.where(labels == 3, 255, labels))


def test_a_view_of_raw_masks_goes_through_both_maps(fold):
    for path in fold.with_name("masks").iterdir():
        labels = np.asarray(Image.open(path))
        Image.fromarray(labels * 10).save(path)
    yard = fold.with_name("yard.yaml")
    mapping = "raw_to_train: {0: stripe, 10: ground, 20: disc, 30: square}\n"
    yard.write_text(mapping + yard.read_text())
    register_custom([fold])
    for image_id, labels in masks("zss_yard_fold_val").items():
        original = np.asarray(Image.open(fold.with_name("masks") / f"{image_id}.png"))
        assert np.array_equal(labels, np.array([255, 0, 1, 2])[original // 10])


def test_a_benchmark_that_is_not_prepared_is_named_with_its_script(fold):
    fold.write_text("name: voc_fold\nbase: voc\nhold_out: [cat]\n")
    register_custom([fold])
    with pytest.raises(ZssError, match=r"zss/voc/.*no such folder; run `python datasets/prepare_v"):
        DatasetCatalog.get("zss_voc_fold_val")


def test_the_check_counts_what_the_view_shows(fold, capsys):
    assert check([str(fold)]) == 0
    out = capsys.readouterr().out
    assert "note: yard_fold: 3 classes, 2 seen, 1 unseen (disc), ignore label 255" in out
    assert "square" in out and "stripe" not in out


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[disc]", "[disk]", "line 3: key 'hold_out': 'disk' is no seen class of yard (did you me"),
        ("[disc]", "[stripe]", "line 3: key 'hold_out': 'stripe' is no seen class of yard"),
        ("[disc]", "[]", "line 3: key 'hold_out': the list is empty"),
        ("[disc]", "[disc, square, ground]", "line 3: key 'hold_out': every seen class is held"),
        ("base: yard.yaml", "base: vocc", "line 2: key 'base': unknown benchmark 'vocc' (did you"),
        ("base: yard.yaml", "base: fold.yaml", "line 2: key 'base': fold.yaml is a view itself"),
        ("base: yard.yaml", "base: gone.yaml", "gone.yaml: cannot read the data set's description"),
        ("name: yard_fold", "name: voc", "line 1: key 'name': 'voc' is a benchmark of the package"),
        ("hold_out: [disc]", "unseen: [disc]", "line 3: key 'top level': unknown key 'unseen'"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_remedy(fold, old, new, expected):
    fold.write_text(fold.read_text().replace(old, new))
    with pytest.raises(ZssError) as caught:
        load_custom(fold)
    assert expected in str(caught.value)
    assert str(fold.parent) in str(caught.value)
