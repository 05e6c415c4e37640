"""How well attention is aligned with the ground truth: by hand and on runs."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tests.analysis.test_attention import save_run
from zss_d2.analysis import alignment
from zss_d2.analysis.alignment import Alignment, align, measure_run
from zss_d2.analysis.commands.attention import main
from zss_d2.analysis.drift.measures import token_pixels
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.errors import ZssError

# Of 2 x 2 tokens with 4 pixels each: the first is all of class 0, the second half 0 and half 1, the
# third has one pixel of class 1 and is void else, the fourth is void.
PIXELS = np.array([[[4, 0, 0], [2, 2, 0]], [[0, 1, 0], [0, 0, 0]]])


def test_by_hand():
    weights = np.array(
        [
            [[0.5, 0.2], [0.1, 0.2]],  # class 0
            [[0.1, 0.2], [0.4, 0.3]],  # class 1
            [[0.4, 0.1], [0.5, 0.0]],  # class 2, which is not there
        ]
    )
    found = align(weights, PIXELS)
    # Class 0 on labelled pixels: 0.5 * 4 + 0.2 * 4 + 0.1 * 1 = 2.9, of which 2.0 + 0.4 inside.
    assert found.inside[:2] == pytest.approx([2.4 / 2.9, (0.2 * 2 + 0.4) / (0.4 + 0.8 + 0.4)])
    assert found.area[:2] == pytest.approx([6 / 9, 3 / 9])
    assert found.pointing[:2] == pytest.approx([1, 1])
    # Shares of class 0: 0.5 of the first token, 0.4 of the second; of class 1: 0.4, 0.4.
    assert found.own[:2] == pytest.approx([(4 * 0.5 + 2 * 0.4) / 6, (2 * 0.4 + 1 * 0.4) / 3])
    assert all(math.isnan(x[2]) for x in found)


def test_attention_on_void_or_padding_is_left_out():
    weights = np.zeros((3, 2, 2))
    weights[:, 1, 1] = 5.0
    weights[0, 0, 1] = weights[1, 0, 0] = 1.0
    found = align(weights, PIXELS)
    assert found.inside[:2] == pytest.approx([0.5, 0])
    assert found.pointing[:2] == pytest.approx([0.5, 0])


def test_equal_attention_is_chance():
    """Also of the pointing game, where all tokens are the strongest."""
    found = align(np.full((3, 2, 2), 0.25), PIXELS)
    for values in (found.inside, found.pointing):
        assert values[:2] == pytest.approx(found.area[:2])
    assert found.own[:2] == pytest.approx([1 / 3, 1 / 3])


def test_perfect_attention():
    weights = np.moveaxis(PIXELS > 0, 2, 0).astype(float)
    weights[1, 0, 1] = weights[0, 0, 1] = 0  # the mixed token
    weights[:, 0, 1] = [0, 0, 1]
    found = align(weights, PIXELS)
    assert found.inside[:2] == pytest.approx([1, 1])
    assert found.pointing[:2] == pytest.approx([1, 1])


def test_a_class_does_not_depend_on_the_scale_of_its_attention():
    rng = np.random.default_rng(0)
    weights, pixels = rng.random((5, 6, 7)), rng.integers(0, 3, (6, 7, 5))
    scaled = weights * rng.random((5, 1, 1))
    for name in ("inside", "area", "pointing"):
        assert getattr(align(scaled, pixels), name) == pytest.approx(
            getattr(align(weights, pixels), name)
        )


def test_pixels_of_tokens_by_hand():
    """A mask of twice the image's size, whose lower token row is half padding; 9 is void."""
    labels = np.zeros((6, 8), int)
    labels[:, 4:] = 1
    labels[0, :3] = 9
    pixels = token_pixels(labels, (3, 4), (4, 4), (2, 2), 2)
    assert pixels.tolist() == [[[13, 0], [0, 16]], [[8, 0], [0, 8]]]


def test_classes_that_are_never_shown_enter_no_mean():
    classes = {name: np.array([10.0, 30.0, math.nan]) for name in alignment.MEASURES}
    found = Alignment(4, np.array([3, 1, 0]), classes)
    assert found.mean([0, 1, 2])["inside"] == 20
    assert math.isnan(found.mean([2])["inside"])


def test_both_directions_are_measured_and_written(toy_voc, make_cfg, tmp_path, capsys):
    runs = [save_run(tmp_path / name, make_cfg, name) for name in ("ZegCLIP", "LDVC")]
    output = tmp_path / "a.png"
    options = ["--images", "1", "--measure", "3", "--output", str(output)]
    assert main([*map(str, runs), *options]) == 0
    content = json.loads((tmp_path / "a.json").read_text())
    assert (content["images"], list(content["groups"])) == (3, ["ZegCLIP", "LDVC"])
    printed = capsys.readouterr().out
    assert output.is_file()
    for name in content["groups"]:
        for kind, measures in content["groups"][name].items():
            if not content["pairs"][kind]:
                continue
            assert all(0 <= x["value"] <= 100 for x in measures.values()), (name, kind)
            assert measures["own by chance"]["value"] == pytest.approx(5)  # 20 classes
            assert f"| {measures['inside']['value']:.1f} " in printed
    areas = [content["groups"][name]["seen"]["area"] for name in content["groups"]]
    assert areas[0] == areas[1]  # of the images, whatever the run


def test_methods_without_attention_and_images_without_labels_are_named(
    toy_voc, make_cfg, tmp_path, monkeypatch
):
    run = RunFolder(save_run(tmp_path / "maskclip", make_cfg, "MaskCLIP"))
    cfg = run.config()
    with pytest.raises(ZssError, match="MaskCLIP has no cross-attention to show"):
        measure_run(cfg, run.model(cfg), "zss_voc_val", 1)
    run = RunFolder(save_run(tmp_path / "ldvc", make_cfg, "LDVC"))
    cfg = run.config()
    monkeypatch.setattr(alignment, "read_labels", lambda *_: np.full((40, 50), 255))
    with pytest.raises(ZssError, match="zss_voc_val: no labelled pixel in the images"):
        measure_run(cfg, run.model(cfg), "zss_voc_val", 2)


def test_an_option_without_effect_is_refused(tmp_path: Path, capsys):
    assert main([str(tmp_path), "--over", "MODEL.CLIP.PRETRAINED"]) == 2
    assert "--over would have no effect without --measure" in capsys.readouterr().err
