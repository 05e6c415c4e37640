import pytest
from detectron2.data import DatasetCatalog
from matplotlib.image import imread

from zss_d2.data.files import read_mask
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer
from zss_d2.errors import ZssError
from zss_d2.tools import panel
from zss_d2.tools.runs import choose


def test_images_with_something_unseen_come_first(toy_voc):
    records = DatasetCatalog.get("zss_voc_val")
    chosen = choose(records, len(records), list(range(15, 20)))
    assert sorted(r["image_id"] for r in chosen) == [r["image_id"] for r in records]
    unseen = [bool((read_mask(r["sem_seg_file_name"]) // 5 == 3).any()) for r in chosen]
    assert unseen == sorted(unseen, reverse=True)
    assert any(unseen)
    assert len(choose(records, 2, [15, 16, 17, 18, 19])) == 2


def test_a_picture_of_a_run(toy_voc, make_cfg, tmp_path):
    run = tmp_path / "run"
    cfg = make_cfg("OUTPUT_DIR", str(run))
    run.mkdir()
    (run / "config.yaml").write_text(cfg.dump())
    ZeroShotCheckpointer(ZeroShotTrainer.build_model(cfg), str(run)).save("model_final")
    output = tmp_path / "panel.png"
    assert panel.main([str(run), "--images", "2", "--output", str(output)]) == 0
    height, width = imread(output).shape[:2]
    assert width > height > 300


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    assert panel.main([str(tmp_path / "nothing")]) == 2
    assert "nothing is no folder of a run: config.yaml is missing" in capsys.readouterr().err


def test_runs_on_different_data_cannot_share_a_picture(toy_voc, make_cfg, tmp_path):
    for name in ("zss_voc_val", "zss_voc_train"):
        cfg = make_cfg("DATASETS.TEST", (name,))
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(cfg.dump())
    folders = [tmp_path / "zss_voc_val", tmp_path / "zss_voc_train"]
    with pytest.raises(ZssError, match="different data sets: zss_voc_train, zss_voc_val"):
        panel.panel(folders, 1)
