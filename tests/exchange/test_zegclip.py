"""Released checkpoints of ZegCLIP: what they become, and what is said of files that are none."""

from __future__ import annotations

import json
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from tests.conftest import ROOT
from tests.exchange import released_zegclip as theirs
from tests.exchange.released_zegclip import TINY, Shape
from zss_d2 import load_model
from zss_d2.config.values import flatten
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.engine import evaluate, load_config
from zss_d2.errors import ZssError
from zss_d2.exchange.import_command import BENCHMARKS, SETTINGS, main
from zss_d2.exchange.mmsegmentation import parse_config
from zss_d2.exchange.zegclip import convert, facts
from zss_d2.exchange.zegclip.convert import config_of
from zss_d2.exchange.zegclip.names import rename
from zss_d2.exchange.zegclip.positions import shrink
from zss_d2.modeling.methods.zegclip import ZegCLIP

VOC = load_benchmark("voc")
CONFIG = """
import os
img_size = 192
base_class = {seen}
both_class = list(range(20))
pretrained = 'Path/to/pretrained/ViT-B-16.pt'
model = dict(
    type='ZegCLIP',
    decode_head=dict(type='ATMSingleHeadSeg', num_heads=4, num_classes=len(base_class)),
    test_cfg=dict(mode='slide', crop_size=(img_size, img_size), stride=(150, 150)),
    base_class=base_class,
    self_training={self_training},
    load_text_embedding='configs/_base_/datasets/text_embedding/voc12_single.npy')
img_norm_cfg = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
runner = os.system('false')
"""


def meta(self_training: bool = False, seen: int = 15, **others: object) -> dict[str, object]:
    return {
        "epoch": 1,
        "iter": 20000,
        "mmcv_version": "1.4.4",
        "CLASSES": VOC.classes,
        "PALETTE": [[128, 0, 0]] * 20,
        "config": CONFIG.format(self_training=self_training, seen=list(range(seen))),
        **others,
    }


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return theirs.make_state(TINY)


@pytest.fixture
def save(tmp_path):
    """A function that writes a checkpoint."""

    def write(content: object) -> Path:
        torch.save(content, tmp_path / "iter_20000.pth")
        return tmp_path / "iter_20000.pth"

    return write


def one_line(caught: pytest.ExceptionInfo) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_the_result_computes_what_the_released_code_does(state, save, tmp_path):
    """To single precision; windows, sentences, seen bias, doubled class embedding included."""
    path = save({"meta": meta(), "state_dict": state, "optimizer": {"state": {}}})
    assert main(["zegclip", str(path), "--output", str(tmp_path / "model")]) == 0
    model = load_model(tmp_path / "model", device="cpu")
    tokens = open_clip.tokenize([f"a photo of a {name}" for name in VOC.classes])
    text = torch.stack([theirs.text_embedding(state, TINY, ids) for ids in tokens])
    ours = model.segmentor.text_encoder.classifier(VOC.classes, model.segmentor.prompt_settings)
    torch.testing.assert_close(ours, text, rtol=0, atol=1e-6)
    pixels = torch.rand(3, 200, 360, generator=torch.Generator().manual_seed(1)) * 255
    mean, std = (
        torch.tensor(x)[:, None, None] for x in ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    )
    expected = theirs.slide(state, TINY, (pixels - mean) / std, text, range(15), 150, (100, 180))
    (found,) = model([{"image": pixels, "height": 100, "width": 180}])
    torch.testing.assert_close(found["sem_seg"], expected, rtol=0, atol=2e-6)
    assert expected.std() > 0.01


def test_what_is_written(state, save, tmp_path, capsys):
    path = save({"meta": meta(seed=np.int64(3)), "state_dict": state, "optimizer": {"state": {}}})
    assert main(["zegclip", str(path), "--output", str(tmp_path / "model")]) == 0
    said = capsys.readouterr().out
    assert "ZegCLIP on CLIP zss-tiny: 5 prompts a layer, 3 decoder layers, images of 192 px" in said
    assert "left out, as the released code does not use them either: 19 tensors" in said
    assert "left out, of no use for predictions: optimizer" in said
    assert "position embedding: 12 x 12 brought back to 8 x 8 patches" in said
    cfg = load_config(tmp_path / "model/config.yaml")
    clip, slide = cfg.MODEL.CLIP, cfg.TEST.SLIDE
    assert (clip.NAME, clip.QUICK_GELU, clip.TEMPLATE_SET) == ("zss-tiny", "true", "single")
    assert cfg.MODEL.VISUAL_PROMPTS.LENGTH == 5
    assert (cfg.MODEL.ZEGCLIP.NUM_LAYERS, cfg.MODEL.ZEGCLIP.NUM_HEADS) == (3, 4)
    assert (cfg.ZERO_SHOT.SETTING, cfg.TEST.SEEN_BIAS) == ("inductive", 0.1)
    assert (slide.CROP, slide.STRIDE, cfg.INPUT.MIN_SIZE_TEST) == (192, 150, 192)
    about = json.loads((tmp_path / "model/zss_model.json").read_text())
    assert about["iteration"] == 19999
    assert about["identity"]["labelled_classes"] == list(VOC.seen_names)
    assert about["identity"]["templates"] == ["a photo of a {}"]
    assert "Converted from iter_20000.pth (SHA-256 " in (tmp_path / "model/README.md").read_text()
    again = ["zegclip", str(path), "--output", str(tmp_path / "model")]
    assert main(again) == 2
    assert "holds a model; give another folder, or overwrite=True" in capsys.readouterr().err
    assert main([*again, "--overwrite"]) == 0


def test_it_is_evaluated_as_a_config(state, save, tmp_path, toy_voc):
    main(
        [
            "zegclip",
            str(save({"meta": meta(), "state_dict": state})),
            "--output",
            str(tmp_path / "m"),
        ]
    )
    opts = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "out")]
    results = evaluate(load_config(tmp_path / "m/config.yaml", opts), resume=False)
    assert 0 <= results["sem_seg"]["mIoU"] <= 100
    protocol = json.loads((tmp_path / "out/results.json").read_text())["provenance"]["protocol"]
    assert (protocol["slide"], protocol["seen_bias"]) == ({"crop": 192, "stride": 150}, 0.1)


@pytest.mark.parametrize("setting", ["inductive", "transductive"])
@pytest.mark.parametrize("data", ["voc", "coco"])
def test_the_settings_of_released_files_are_those_of_the_released_configs(data, setting):
    """All of them, of files in the released sizes."""
    prompts, name = {"voc": (10, "voc"), "coco": (100, "coco_stuff")}[data]
    sizes = facts.Sizes("ViT-B-16", torch.zeros(197, 768), 0.0, 512, prompts, 3, 2048, None)
    released = facts.Released({}, (), {}, None, (), {})
    cfg = flatten(config_of(released, {}, sizes, name, setting))
    kind = "" if setting == "inductive" else "_transductive"
    expected = flatten(load_config(ROOT / f"configs/zegclip_{data}{kind}_released.yaml"))
    others = {key for key, value in expected.items() if cfg[key] != value}
    others -= {"MODEL.WEIGHTS", "OUTPUT_DIR", "MODEL.DEVICE", "SOLVER.CHECKPOINT_KEEP"}
    assert others == {"MODEL.CLIP.FROM_WEIGHTS", "MODEL.CLIP.QUICK_GELU"}


def test_released_names_and_shapes_are_all_that_the_model_has(monkeypatch):
    """At the released sizes, without values."""
    monkeypatch.setattr("zss_d2.modeling.clip_segmentor.class_tokens", lambda *_: None)
    size = Shape(prompts=100, classes=156)
    state = {n: torch.empty(s, device="meta") for n, s in theirs.shapes(size).items()}
    found = rename(state)
    assert len(found.unused) == 3 * 6 + 1
    assert not found.unknown
    cfg = load_config(
        ROOT / "configs/zegclip_coco_released.yaml",
        ["MODEL.DEVICE", "cpu", "MODEL.CLIP.FROM_WEIGHTS", "True"],
    )
    with torch.device("meta"):
        own = ZegCLIP(cfg).state_dict()
    shapes = {name: tuple(x.shape) for name, x in found.state.items()}
    shapes["image_encoder.visual.positional_embedding"] = (197, 768)
    assert shapes == {name: tuple(x.shape) for name, x in own.items()}


@pytest.mark.parametrize(("larger", "side"), [(32, 14), (12, 8), (14, 14), (24, 16)])
def test_positions_come_back(larger, side):
    size = Shape(width=6, grid=side, image=16 * larger)
    state = theirs.make_state(Shape(width=6, grid=side, image=16 * larger, words=3))
    found = shrink(state["backbone.positional_embedding"], side)
    assert found.positions.shape == (1 + side**2, size.width)
    assert found.error < 1e-6
    again = torch.nn.functional.interpolate(
        found.positions[1:].T.unflatten(1, (side, side))[None], size=(larger,) * 2, mode="bilinear"
    )
    expected = state["backbone.positional_embedding"]
    torch.testing.assert_close(again[0].flatten(1).T, expected[1:], rtol=0, atol=1e-6)
    assert torch.equal(found.positions[0], expected[0])


REMOVED = {
    "backbone.ln_pre.bias": "is without backbone.ln_pre.bias; fetch",
    "backbone.conv1.weight": "lacks backbone.conv1.weight; fetch",
    "backbone.prompt_embeddings": "lacks backbone.prompt_embeddings or backbone.deep_prompt",
    "decode_head.decoder_1.layers.2.norm3.weight": r"without decode_head.decoder_1.layers.2.norm3.",
    "text_encoder.text_projection": "another size than any CLIP",
}


@pytest.mark.parametrize("name", REMOVED)
def test_a_tensor_less_is_one_line(state, save, name):
    with pytest.raises(ZssError, match=REMOVED[name]) as caught:
        convert(save({"meta": meta(), "state_dict": {k: x for k, x in state.items() if k != name}}))
    one_line(caught)


@pytest.mark.parametrize(
    "name", ["backbone.ln_mid.weight", "auxiliary_head.conv.weight", "decode_head.conv_seg.weight"]
)
def test_a_tensor_more_is_one_line(state, save, name):
    with pytest.raises(ZssError, match=f"beside those of ZegCLIP, {name}; fetch") as caught:
        convert(save({"meta": meta(), "state_dict": {**state, name: torch.zeros(2)}}))
    one_line(caught)


def test_other_shapes_and_values_are_one_line(state, save):
    name = "decode_head.q_proj.bias"
    for value, message in (
        (torch.zeros(65), r"another size, decode_head.q_proj.bias, \(65,\) instead of \(64,\)"),
        (torch.full((64,), torch.nan), "1 of .* tensors hold NaN"),
    ):
        with pytest.raises(ZssError, match=message) as caught:
            convert(save({"meta": meta(), "state_dict": {**state, name: value}}))
        one_line(caught)
    grid = torch.randn_like(state["backbone.positional_embedding"])
    with pytest.raises(ZssError, match="is no enlargement of that of zss-tiny"):
        convert(
            save({"meta": meta(), "state_dict": {**state, "backbone.positional_embedding": grid}})
        )


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/zss_evil",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"backbone.block1.0.attn.spatial_gating_unit.x": torch.ones(1)}}, "MSCAN"),
        ({"visual.conv1.weight": torch.ones(1)}, "looks like a CLIP; give it as MODEL.CLIP.PRE"),
        ({"model": {"image_encoder.visual.proj": torch.ones(1)}}, "a checkpoint of this project"),
        (
            {"state_dict": {"backbone.x": torch.ones(1), "decode_head.conv_seg.w": torch.ones(1)}},
            "another model of MMSegmentation .2 tensors, decode_head.conv_seg",
        ),
        ({"x": torch.ones(1)}, "1 tensors of something else, such as 'x'"),
        ({"meta": {}}, "holds a dict of meta, no tensors by name"),
        ({"meta": {"hook": Evil()}, "state_dict": {}}, "holds Python code to run, posix.system"),
    ],
)
def test_other_files_say_what_they_look_like(save, content, message):
    with pytest.raises(ZssError, match=message) as caught:
        convert(save(content))
    one_line(caught)
    assert not Path("/tmp/zss_evil").exists()


def test_no_file(tmp_path, capsys):
    out = ["--output", str(tmp_path / "out")]
    assert main(["zegclip", str(tmp_path / "none.pth"), *out]) == 2
    assert "none.pth: no file; give a file of weights" in capsys.readouterr().err
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert main(["zegclip", str(tmp_path / "plain.pkl"), *out]) == 2
    assert "a pickle that torch.save has not written" in capsys.readouterr().err
    assert main(["segvit", "x.pth", *out]) == 2
    assert not (tmp_path / "out").exists()


def told(classes: int | None, config: dict | None = None, names: tuple[str, ...] = (), **given):
    released = facts.Released({}, names, {}, None, (), {})
    data = facts.benchmark_of(released, classes, given.get("benchmark"))
    return data.name, facts.setting_of(config or {}, data, classes, given.get("setting"))


SEEN = list(range(15))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"classes": 15}, ("voc", "inductive")),
        ({"classes": 171}, ("coco_stuff", "supervised")),
        ({"classes": 20, "setting": "transductive"}, ("voc", "transductive")),
        ({"classes": 156, "setting": "inductive"}, ("coco_stuff", "inductive")),
        (
            {"classes": 20, "config": {"base_class": SEEN, "self_training": True}},
            ("voc", "transductive"),
        ),
        (
            {"classes": 15, "config": {"base_class": SEEN, "self_training": False}},
            ("voc", "inductive"),
        ),
        ({"classes": 15, "config": {"base_class": SEEN}}, ("voc", "inductive")),
        ({"classes": 20, "config": {"base_class": [*range(20)]}}, ("voc", "supervised")),
        ({"classes": None, "names": VOC.classes, "setting": "inductive"}, ("voc", "inductive")),
        (
            {"classes": None, "benchmark": "context59", "setting": "inductive"},
            ("context59", "inductive"),
        ),
    ],
)
def test_data_and_setting(arguments, expected):
    assert told(**arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 20}, "does not tell how it was trained; say it: --setting"),
        ({"classes": 156}, "does not tell how it was trained; say it: --setting"),
        ({"classes": 19}, "19 classes in its loss does not tell the data set; say which it is"),
        ({"classes": None}, "its number of classes does not tell the data set"),
        ({"classes": 15, "benchmark": "coco_stuff"}, "coco_stuff has 171, of which 156 are seen"),
        ({"classes": 15, "config": {"base_class": SEEN[1:]}}, "seen classes are not those of voc"),
    ],
)
def test_what_a_file_does_not_tell_has_to_be_said(arguments, message):
    with pytest.raises(ZssError, match=message):
        told(**arguments)


def test_contradictions_are_said(caplog):
    with caplog.at_level(logging.WARNING):
        assert told(15, setting="transductive") == ("voc", "transductive")
        assert told(15, names=(*VOC.classes[:-1], "telly"), setting="inductive")[0] == "voc"
    assert [x.split(",")[0] for x in caplog.messages] == [
        "--setting is transductive",
        "Its class names are not those of voc: 'telly' and not 'tvmonitor'",
    ]


def test_options_are_what_the_code_knows():
    """The command line is read before what takes seconds to import."""
    assert (BENCHMARKS, SETTINGS) == (facts.BENCHMARKS, facts.SETTINGS)


def test_a_config_is_data():
    text = (
        "a = 1\nb = dict(c=[a, -2.5], d=__import__('os').getcwd(), e=(True, None))\nf = open('x')"
    )
    assert parse_config(text) == {"a": 1, "b": {"c": [1, -2.5], "e": [True, None]}}
    assert parse_config("a = (") == parse_config("") == parse_config("(" * 9999) == {}
    assert parse_config("x = {'k': 3, 'l': f()}\nx.y = 2\nz: int = 3") == {"x": {"k": 3}}
