"""The picture of cross-attention maps."""

from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog
from matplotlib.image import imread

from zss_d2.analysis import attention
from zss_d2.analysis.commands.attention import main
from zss_d2.analysis.comparison import load_models
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.drawing.figures import encode
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer


def save_run(folder: Path, make_cfg, method: str) -> Path:
    prompts = ("MODEL.VISUAL_PROMPTS.LENGTH", 0) if method == "MaskCLIP" else ()
    cfg = make_cfg("OUTPUT_DIR", str(folder), "MODEL.META_ARCHITECTURE", method, *prompts)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(cfg.dump())
    if method != "MaskCLIP":
        ZeroShotCheckpointer(ZeroShotTrainer.build_model(cfg), str(folder)).save("model_final")
    return folder


def test_a_picture_of_both_directions(toy_voc, make_cfg, tmp_path):
    runs = [save_run(tmp_path / name, make_cfg, name) for name in ("ZegCLIP", "LDVC")]
    output = tmp_path / "attention.png"
    assert main([*map(str, runs), "--images", "1", "--output", str(output)]) == 0
    height, width = imread(output).shape[:2]
    assert width > 700
    assert height > 250


def test_maps_have_the_size_of_the_image(toy_voc, make_cfg, tmp_path):
    run = RunFolder(save_run(tmp_path / "run", make_cfg, "LDVC"))
    cfg = run.config()
    record = DatasetCatalog.get("zss_voc_val")[0]
    maps = attention.attention_maps(cfg, run.model(cfg), record, (50, 70))
    assert maps.shape == (20, 50, 70)
    np.testing.assert_allclose(maps.sum(axis=0), 1, rtol=1e-5)  # tokens share among the classes


def test_titles_tell_runs_apart_and_show_names_as_they_are(toy_voc, make_cfg, tmp_path):
    runs = [save_run(tmp_path / f"{name}$/x/seed0", make_cfg, "LDVC") for name in ("$a", "_$b")]
    figure = attention.draw(runs, *load_models(runs), 1)
    encode(figure, dpi=40)
    assert [axis.get_title() for axis in figure.axes[:3]] == ["image", "$a$", "_$b$"]
    assert not any(axis.title.get_parse_math() for axis in figure.axes[:3])
    assert not any(axis.yaxis.label.get_parse_math() for axis in figure.axes[::3])


def test_the_largest_class_of_a_group():
    mask = np.array([[0, 0, 3], [3, 3, 1]])
    assert attention.largest(mask, [0, 1]) == 0
    assert attention.largest(mask, [1, 3]) == 3
    assert attention.largest(mask, [2, 4]) is None
    assert attention.largest(mask, []) is None


def test_a_method_without_attention_is_named(toy_voc, make_cfg, tmp_path, capsys):
    assert main([str(save_run(tmp_path / "run", make_cfg, "MaskCLIP"))]) == 2
    assert "MaskCLIP has no cross-attention to show" in capsys.readouterr().err
