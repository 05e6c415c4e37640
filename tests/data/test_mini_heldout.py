"""The view of the mini world for choosing settings must not show what is reported."""

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.conftest import ROOT
from zss_d2.data.benchmark import load_benchmark
from zss_d2.data.custom import register_custom
from zss_d2.data.files import read_mask
from zss_d2.data.mini.write import write_split

HELDOUT = ROOT / "datasets/mini_heldout.yaml"


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in ("train", "dev"):
        write_split(load_benchmark("mini").splits[name], 12, tmp_path / "zss/mini")
    register_custom([HELDOUT])


def test_no_unseen_class_is_left_and_every_other_label_is_kept(world):
    mini = load_benchmark("mini")
    metadata = MetadataCatalog.get("zss_mini_heldout_dev")
    assert not set(metadata.stuff_classes) & set(mini.unseen_names)
    assert set(metadata.unseen_classes) < set(metadata.stuff_classes)
    assert len(metadata.stuff_classes) == len(mini.classes) - len(mini.unseen_names)
    for split in ("train", "dev"):
        original = {r["image_id"]: r for r in DatasetCatalog.get(f"zss_mini_{split}")}
        for record in DatasetCatalog.get(f"zss_mini_heldout_{split}"):
            truth = read_mask(original[record["image_id"]]["sem_seg_file_name"])
            names = np.array([*mini.classes, *["void"] * (256 - len(mini.classes))])[truth]
            names[np.isin(names, list(mini.unseen_names))] = "void"
            kept = read_mask(record["sem_seg_file_name"])
            assert (np.array([*metadata.stuff_classes, *["void"] * 230])[kept] == names).all()


def test_held_out_things_recombine_what_stays_seen():
    view = yaml.safe_load(HELDOUT.read_text())
    seen = [name.split() for name in view["things"] if name not in view["unseen"]]
    for name in set(view["unseen"]) & set(view["things"]):
        colour, pattern, _ = name.split()
        assert any(colour == other[0] for other in seen)
        assert any(pattern == other[1] for other in seen)
