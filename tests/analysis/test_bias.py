import csv

import numpy as np
import pytest
import torch
from matplotlib.image import imread

from zss_d2.analysis import bias as seen_bias
from zss_d2.analysis.commands.bias import main
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.drawing.figures import encode
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer
from zss_d2.errors import ZssError


def test_labels_are_those_of_the_biased_scores():
    scores = torch.rand(6, 9, 7)
    scores[3] = scores[0]
    scores[:, 0] = 0.5
    biases = (-1.0, -0.2, 0.0, 0.1, 1.0)
    for bias, labels in zip(
        biases, seen_bias.biased_labels(scores, [0, 2, 4], biases), strict=True
    ):
        shifted = scores.clone()
        shifted[[0, 2, 4]] -= bias
        assert torch.equal(labels, shifted.argmax(dim=0))


def test_the_area_is_that_of_the_trapezoids():
    rows = [
        {"mIoU-S": 100.0, "mIoU-U": 0.0},
        {"mIoU-S": 0.0, "mIoU-U": 60.0},
        {"mIoU-S": 50.0, "mIoU-U": 40.0},
    ]
    assert seen_bias.area(rows) == pytest.approx(0.5 * (0.6 + 0.4) / 2 + 0.5 * 0.4 / 2)


@pytest.fixture
def run(toy_voc, make_cfg, tmp_path):
    folder = tmp_path / "run"
    cfg = make_cfg("OUTPUT_DIR", str(folder))
    folder.mkdir()
    (folder / "config.yaml").write_text(cfg.dump())
    model = ZeroShotTrainer.build_model(cfg).eval()
    ZeroShotCheckpointer(model, str(folder)).save("model_final")
    return folder, cfg, model


def test_every_point_is_what_an_evaluation_with_this_bias_gives(run, tmp_path, capsys):
    folder, cfg, model = run
    output = tmp_path / "bias"
    arguments = [str(folder), "--dataset", "zss_voc_val", "--output", str(output)]
    assert main([*arguments, "--biases", "0.05", "-0.4"]) == 0
    area, accuracy = capsys.readouterr().out.splitlines()
    assert area.startswith("area under the seen/unseen curve")
    assert accuracy.startswith("unseen-only accuracy: mACC-U ")
    with (output / "bias.csv").open() as file:
        rows = {float(row["seen_bias"]): row for row in csv.DictReader(file)}
    assert sorted(rows) == [-0.4, 0.0, 0.05, 1.0]
    assert imread(output / "bias.png").shape[0] > 300
    for bias, row in rows.items():
        cfg.TEST.SEEN_BIAS = bias
        model = ZeroShotTrainer.build_model(cfg).eval()
        ZeroShotCheckpointer(model).load(str(folder / "model_final.pth"))
        expected = ZeroShotTrainer.test(cfg, model)["sem_seg"]
        for name in (*seen_bias.METRICS, "mACC-S", "mACC-U"):
            np.testing.assert_allclose(float(row[name]), expected[name], atol=1e-9)


def test_what_seen_classes_take():
    rows = [
        {"seen_bias": 0.0, "mACC-S": 70.0, "mACC-U": 31.0},
        {"seen_bias": 1.0, "mACC-S": 0.0, "mACC-U": 84.0},
    ]
    assert seen_bias.unseen_only_accuracy(rows) == {"mACC-U": (31.0, 84.0)}


def test_a_benchmark_without_a_dev_split_asks_for_a_set(run):
    with pytest.raises(ZssError, match="has no split 'dev'; name a set with --dataset"):
        seen_bias.development_set(RunFolder(run[0]), run[1])


def test_mistakes_are_named(run, tmp_path, capsys):
    assert main([str(run[0]), "--dataset", "zss_nothing"]) == 2
    assert "zss_nothing is not registered" in capsys.readouterr().err
    useless = ["--opts", "TEST.SEEN_BIAS", "0.1"]
    assert main([str(run[0]), *useless]) == 2
    assert "--opts TEST.SEEN_BIAS would have no effect" in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 2
    assert "none is no folder of a run" in capsys.readouterr().err


def test_the_title_is_the_folder_as_it_is_called():
    row = dict.fromkeys(("mIoU-S", "mIoU-U", "hIoU", "pAcc"), 50.0)
    rows = [{"seen_bias": bias} | row for bias in (0.0, 1.0)]
    figure = seen_bias.draw(rows, r"output/$\frac$ on zss_voc_val")
    encode(figure, dpi=40)
    assert figure.get_suptitle() == r"output/$\frac$ on zss_voc_val"
