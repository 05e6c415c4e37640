import math

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from matplotlib.image import imread

from tests.modeling.clip_zss.test_clip_zss import TINY
from zss_d2.analysis.commands.plm import main
from zss_d2.analysis.plm import Purity, examine, purity, total_purity


def test_purity_of_two_regions():
    pseudo = np.array([[0, 0, 0, 0], [2, 2, -1, -1]])
    truth = np.array([[7, 7, 3, 255], [3, 3, 7, 7]])
    counts = purity(pseudo, truth, ignore_label=255)
    assert counts == Purity(majority=4, labelled=5, pixels=6, regions=2)
    assert counts.value == 80


def test_purity_over_images_counts_pixels():
    total = total_purity([Purity(4, 4, 4, 1), Purity(1, 4, 10, 2), Purity(0, 0, 5, 1)])
    assert total == Purity(5, 8, 19, 4)
    assert math.isnan(Purity(0, 0, 5, 1).value)


def test_no_pseudo_labels_at_all():
    assert purity(np.full((2, 2), -1), np.zeros((2, 2), int), 255) == Purity(0, 0, 0, 0)


@pytest.fixture
def config(toy_voc, make_cfg, tmp_path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(make_cfg(*TINY).dump())
    return str(path)


def test_a_picture_and_its_purity(config, tmp_path, capsys):
    output = tmp_path / "plm.png"
    command = ["--config-file", config, "--images", "2", "--measure", "3"]
    assert main([*command, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("3 images: ")
    assert "% pure" in printed
    height, width = imread(output).shape[:2]
    assert width > height > 300


def test_what_is_drawn_is_f_of_training(config, make_cfg):
    """Seen labels as they are, pseudo regions beyond the classes, nothing unseen in between."""
    cfg = make_cfg(*TINY)
    for panel in examine(cfg, 3):
        seen = (panel.labels >= 0) & (panel.labels < 15)
        pseudo = panel.labels >= 20
        assert (seen | pseudo | (panel.labels == -1)).all()
        assert (panel.labels[seen] == panel.truth[seen]).all()
        assert pseudo.any()
        assert np.isin(panel.truth[pseudo], [*range(15, 20), 255]).all()
        assert panel.image.shape[:2] == panel.labels.shape == panel.fused.shape


def test_no_image_with_an_unseen_class_is_an_error(config, capsys, monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: [])
    assert main(["--config-file", config]) == 2
    assert "zss_voc_train shows no unseen class" in capsys.readouterr().err
