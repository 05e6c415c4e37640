"""The views of the mini world for choosing settings must not show what is reported."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.conftest import ROOT
from zss_d2.data.files.encoding import read_labels
from zss_d2.data.files.images import read_mask
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.spec.custom import load_custom, register_custom
from zss_d2.data.synthetic.mini.write import write_split

FOLDS = sorted(ROOT.glob("datasets/mini_heldout*.yaml"))


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in ("train", "dev"):
        write_split(load_benchmark("mini").splits[name], 12, tmp_path / "zss/mini")
    register_custom(FOLDS)


@pytest.mark.parametrize("name", [path.stem for path in FOLDS])
def test_no_unseen_class_is_left_and_every_other_label_is_kept(world, name):
    mini = load_benchmark("mini")
    metadata = MetadataCatalog.get(f"zss_{name}_dev")
    assert not set(metadata.stuff_classes) & set(mini.unseen_names)
    assert set(metadata.unseen_classes) < set(metadata.stuff_classes)
    assert len(metadata.stuff_classes) == len(mini.classes) - len(mini.unseen_names)
    for split in ("train", "dev"):
        original = {r["image_id"]: r for r in DatasetCatalog.get(f"zss_mini_{split}")}
        for record in DatasetCatalog.get(f"zss_{name}_{split}"):
            truth = read_mask(original[record["image_id"]]["sem_seg_file_name"])
            names = np.array([*mini.classes, *["void"] * (256 - len(mini.classes))])[truth]
            names[np.isin(names, list(mini.unseen_names))] = "void"
            kept = read_labels(record["sem_seg_file_name"], metadata)
            assert (np.array([*metadata.stuff_classes, *["void"] * 230])[kept] == names).all()


def test_held_out_things_recombine_what_stays_seen_and_the_folds_share_no_class():
    held_out = []
    for path in FOLDS:
        view = load_custom(path).benchmark
        held_out += view.unseen_names
        seen = [name.split() for name in view.things if name in view.seen_names]
        for name in set(view.unseen_names) & set(view.things):
            colour, pattern, _ = name.split()
            assert any(colour == other[0] for other in seen)
            assert any(pattern == other[1] for other in seen)
    assert len(FOLDS) == 3
    assert len(held_out) == len(set(held_out)) == 21
