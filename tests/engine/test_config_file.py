"""From files and a command line to a config: what is accepted, and one line for what is not."""

import json
import logging

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser

from tests.conftest import ROOT, TINY_CONFIG
from zss_d2.data.synthetic import toy_custom
from zss_d2.engine import load_config
from zss_d2.engine.config_file import check_arguments, check_device, parse_arguments
from zss_d2.errors import ZssError


def load(*opts: object, config_file: object = TINY_CONFIG) -> CfgNode:
    return load_config(config_file, opts)


def refusal(*opts: object, config_file: object = TINY_CONFIG) -> str:
    """The one line that a config is refused with."""
    with pytest.raises(ZssError) as caught:
        load(*opts, config_file=config_file)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 320
    return message


def test_overrides_win_and_the_config_is_frozen():
    cfg = load("SOLVER.MAX_ITER", "7")
    assert cfg.SOLVER.MAX_ITER == 7
    assert cfg.MODEL.CLIP.NAME == "zss-tiny"
    assert cfg.is_frozen()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"config_file": "none.yaml"}, "none.yaml does not exist; see "),
        ({"config_file": ""}, "--config-file is missing; give a file or the name of a config"),
        ({"config_file": "x" * 300}, "does not exist"),
        ({"config_file": str(ROOT / "configs")}, "configs is a folder; give a file"),
        ({"config_file": str(ROOT / "configs/ldvc_vok.yaml")}, "did you mean .*ldvc_voc.yaml"),
        ({"opts": ["SOLVER.MAXITER", "7"]}, "command line: .*; did you mean SOLVER.MAX_ITER"),
        ({"opts": ["max_iter", "7"]}, "no key max_iter; did you mean SOLVER.MAX_ITER"),
        ({"opts": ["SOLVER.MAX_ITER", "many"]}, "SOLVER.MAX_ITER is 'many'; give a whole number"),
        ({"opts": ["SOLVER.MAX_ITER"]}, "SOLVER.MAX_ITER' is an odd number of words"),
        ({"opts": ["SOLVER.MAX_ITER=7"]}, "leave a blank instead of =: SOLVER.MAX_ITER 7"),
        ({"opts": ["SOLVER", "7"]}, "SOLVER is '7', but it is a group of keys, such as SOLVER.LR_"),
        ({"opts": ["VERSION", "1"]}, "VERSION is 1; use one of 2"),
        ({"opts": ["ZERO_SHOT.SETTING", "blind"]}, "'blind'; use one of 'inductive', 'trans"),
        ({"opts": ["INPUT.FORMAT", "BGR"]}, "INPUT.FORMAT is 'BGR'"),
    ],
)
def test_wrong_configs_are_explained(given, message):
    opts = given.pop("opts", [])
    with pytest.raises(ZssError, match=message):
        load(*opts, **given)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ldvc", " (did you mean 'LDVC'?); use one of CLIPZSS, "),
        ("Clip_Zss", " (did you mean 'CLIPZSS'?); use one of"),
        ("SAM", "; use one of CLIPZSS, "),
        ("GeneralizedRCNN", "; use one of CLIPZSS"),  # Detectron2's own, and the default
    ],
)
def test_an_unknown_method_is_answered_with_those_there_are(name, message):
    expected = f"MODEL.META_ARCHITECTURE is '{name}', which is no method{message}"
    assert expected in refusal("MODEL.META_ARCHITECTURE", name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.yaml: the config file is empty"),
        ("- a\n- b\n", "mine.yaml: the config file holds ['a', 'b']"),
        ("just text\n", "mine.yaml: the config file holds 'just text'"),
        ("SOLVER:\n  MAXITER: 3\n", "mine.yaml: there is no key SOLVER.MAXITER; did you mean"),
        ("MODEL: 5\n", "mine.yaml: MODEL is 5, but it is a group of keys"),
        ("SOLVER:\n  MAX_ITER:\n", "mine.yaml: SOLVER.MAX_ITER is None; give a whole number"),
        ("SOLVER:\n  MAX_ITER: {a: 1}\n", "SOLVER.MAX_ITER is {'a': 1}; give a whole number"),
        ("MODEL:\n  WEIGHTS: 12\n", "MODEL.WEIGHTS is 12; give text, in quotes"),
        ("SEED: 1\nSEED: 2\n", "mine.yaml: line 2: invalid yaml (key 'SEED' is given twice)"),
        ("SOLVER:\n  A: 1\n  A: 2\n", "line 3: invalid yaml (key 'A' is given twice)"),
        ("SEED: [1\n", "mine.yaml: line 2: invalid yaml"),
        ("1: 2\n", "mine.yaml: there is no key 1"),
        ("_BASE_: none.yaml\n", "none.yaml does not exist; see "),
        ("_BASE_: mine.yml\n", "mine.yml does not exist; did you mean"),
        ("_BASE_: .\n", "is a folder; give a file, see "),
        ("_BASE_: mine.yaml\n", "mine.yaml has this file as its own base; name another one"),
        ("_BASE_: 5\n", "mine.yaml: _BASE_ is 5; give the path of a config file"),
        ("_BASE_:\n", "mine.yaml: _BASE_ is None; give the path of a config file"),
        ("_BASE_: [a.yaml, {b: c}]\n", "mine.yaml: _BASE_ is ['a.yaml', {'b': 'c'}]"),
        (f"_BASE_: {TINY_CONFIG}\nVERSION: 1\n", "VERSION is 1; use one of 2"),
    ],
)
def test_files_that_are_no_config_are_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert message in refusal(config_file=path)


@pytest.mark.parametrize("content", [b"\xff\xfeS\x00E\x00", b"\x00\x01\x02\xff"])
def test_files_that_are_no_text_are_named(tmp_path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert "mine.yaml: the config file is no text in UTF-8" in refusal(config_file=path)


def test_bases_that_lead_in_a_circle_are_named(tmp_path):
    for name, base in (("a", "b"), ("b", "sub/../c"), ("c", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"_BASE_: {base}.yaml\n")
    (tmp_path / "sub").mkdir()
    message = refusal(config_file=tmp_path / "a.yaml")
    assert "c.yaml: the _BASE_ " in message
    assert "a.yaml has this file as its own base" in message


def test_a_wrong_value_is_blamed_on_the_file_that_has_it(tmp_path):
    (tmp_path / "base.yaml").write_text(f"_BASE_: {TINY_CONFIG}\nSEED: x\n")
    (tmp_path / "own.yaml").write_text("_BASE_: base.yaml\nSOLVER:\n  MAX_ITER: 3\n")
    assert refusal(config_file=tmp_path / "own.yaml").startswith(f"{tmp_path / 'base.yaml'}: SEED")


def test_several_bases_are_merged_in_turn(tmp_path):
    (tmp_path / "a.yaml").write_text(f"_BASE_: {TINY_CONFIG}\nSEED: 1\nOUTPUT_DIR: a\n")
    (tmp_path / "b.yaml").write_text("SEED: 2\nSOLVER:\n  MAX_ITER: 8\n")
    (tmp_path / "own.yaml").write_text("\ufeff_BASE_: [a.yaml, b.yaml]\nSOLVER:\n  MAX_ITER: 9\n")
    cfg = load(config_file=str(tmp_path / "own.yaml"))
    assert (cfg.SEED, cfg.OUTPUT_DIR, cfg.SOLVER.MAX_ITER) == (2, "a", 9)


def test_a_config_runs_no_code(tmp_path):
    path, mark = tmp_path / "evil.yaml", tmp_path / "mark"
    for tag in ("python/object/apply:pathlib.Path.touch", "python/object/new:pathlib.Path.touch"):
        path.write_text(f"SEED: !!{tag} [{mark}]\n")
        assert "evil.yaml: line 1: invalid yaml" in refusal(config_file=path)
    path.write_text(f"_BASE_: {TINY_CONFIG}\nSEED: __import__('pathlib').Path('{mark}').touch()\n")
    assert "SEED is " in refusal(config_file=path)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("SOLVER.MIN_LR", "0", 0.0),
        ("SOLVER.MAX_ITER", "1e4", 10000),
        ("SOLVER.MAX_ITER", 60.0, 60),
        ("TEST.SCALES", "(1,)", (1.0,)),
        ("TEST.SCALES", "2", (2.0,)),
        ("INPUT.CROP.SIZE", "[64.0, 64]", [64, 64]),
        ("INPUT.RESIZE_BASE", "(512., 128)", (512, 128)),
        ("MODEL.CLIP.FEATURE_LAYERS", "-1", [-1]),
        ("DATASETS.TEST", "zss_voc_val", ("zss_voc_val",)),
        ("DATASETS.TEST", '("zss_voc_val")', ("zss_voc_val",)),
        ("DATASETS.TEST", '"zss_voc_val",', ("zss_voc_val",)),
        ("MODEL.CLIP.QUICK_GELU", "True", "true"),
        ("MODEL.CLIP.QUICK_GELU", "false", "false"),
        ("TEST.FLIP", "true", True),
        ("OUTPUT_DIR", "2024", "2024"),
        ("MODEL.CLIP.TEMPLATES", "a {}.", ["a {}."]),
    ],
)
def test_values_may_be_written_in_any_way_that_keeps_them(tmp_path, key, written, value):
    node, name = key.rsplit(".", 1) if "." in key else ("", key)

    def check(cfg):
        found = cfg
        for part in key.split("."):
            found = found[part]
        assert found == value
        assert json.dumps(found) == json.dumps(value)  # 1 is not 1.0
        assert type(found) is type(value)

    check(load(key, written))
    content: dict = {name: written if key != "OUTPUT_DIR" else "'2024'"}
    for part in reversed(node.split(".") if node else []):
        content = {part: content}
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump(content | {"_BASE_": str(TINY_CONFIG)}))
    check(load(config_file=path))


@pytest.mark.parametrize(
    ("key", "written", "message"),
    [
        ("SOLVER.MAX_ITER", "0.5", "give a whole number"),
        ("SOLVER.MAX_ITER", "True", "give a whole number"),
        ("SOLVER.BASE_LR", "1e400", "use more than 0"),
        ("SOLVER.BASE_LR", "nan", "use more than 0"),
        ("SOLVER.BASE_LR", float("nan"), "use more than 0"),
        ("SOLVER.BASE_LR", True, "give a number"),
        ("TEST.FLIP", "1", "give True or False"),
        ("DATASETS.TEST", '("zss_voc_val"', "give a list, such as "),
        ("MODEL.CLIP.FEATURE_LAYERS", '["a"]', "give "),
        ("MODEL.CLIP.FEATURE_LAYERS", "[0.5]", "give whole numbers"),
    ],
)
def test_other_values_are_refused_with_what_would_do(key, written, message):
    text = refusal(key, written)
    assert f"{key} is " in text
    assert message in text


def test_the_config_of_an_earlier_run_can_be_read(tmp_path, caplog):
    """It has a value that every run was once written with, and that is refused now."""
    content = yaml.safe_load(load().dump())
    content["DATALOADER"]["ASPECT_RATIO_GROUPING"] = True
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    cfg = load(config_file=path)
    assert cfg.DATALOADER.ASPECT_RATIO_GROUPING is False
    assert "ASPECT_RATIO_GROUPING True is read as False" in caplog.text
    assert "use one of False" in refusal("DATALOADER.ASPECT_RATIO_GROUPING", "True")


@pytest.mark.parametrize(
    ("line", "opts", "flags"),
    [
        ("SEED 1 OUTPUT_DIR x --resume", ["SEED", "1", "OUTPUT_DIR", "x"], {"resume": True}),
        ("SEED -1 --resume", ["SEED", "-1"], {"resume": True}),
        ("SEED 1 --num-gpus 2 OUTPUT_DIR x", ["SEED", "1", "OUTPUT_DIR", "x"], {"num_gpus": 2}),
        ("--resume SEED 1 --num-gpus=3 --eval-only", ["SEED", "1"], {"num_gpus": 3}),
        ("--resume SEED 1 --eval-only", ["SEED", "1"], {"resume": True, "eval_only": True}),
        ("-- SEED 1", ["SEED", "1"], {"resume": False}),
        ("--resume -- SEED 1 --eval-only", ["SEED", "1"], {"resume": True, "eval_only": True}),
        ("SEED 1 --config-file b.yaml", ["SEED", "1"], {"config_file": "b.yaml"}),
        ("SEED --resume", ["SEED"], {"resume": True}),
        ("", [], {"resume": False, "num_gpus": 1}),
    ],
)
def test_flags_may_stand_anywhere(line, opts, flags):
    args = parse_arguments(default_argument_parser(), ["--config-file", "a.yaml", *line.split()])
    assert args.opts == opts
    assert {name: getattr(args, name) for name in flags} == flags
    assert args.config_file == flags.get("config_file", "a.yaml")


@pytest.mark.parametrize("line", ["SEED 1 --nonsense", "SEED 1 --num-gpus", "SEED 1 --num-gpus x"])
def test_wrong_flags_behind_pairs_are_refused_like_others(line, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(default_argument_parser(), line.split())
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num-gpus", "0"), "--num-gpus is 0; give the number of processes .* MODEL.DEVICE cpu"),
        (("--num-gpus", "-1"), "--num-gpus is -1; .*1 or more"),
        (("--num-machines", "0"), "--num-machines is 0; give the number of machines in all"),
        (("--machine-rank", "1"), "--machine-rank is 1 and --num-machines 1; give one of 0..0"),
        (("--num-machines", "2", "--machine-rank", "-1"), "--machine-rank is -1 .* 0..1"),
        (("--num-machines", "2", "--dist-url", "auto"), "--dist-url is 'auto' .* address"),
    ],
)
def test_impossible_numbers_of_processes_are_refused(flags, message):
    parser = default_argument_parser()
    check_arguments(parser.parse_args(["--num-gpus", "2"]))
    with pytest.raises(ZssError, match=message):
        check_arguments(parser.parse_args(flags))


def test_a_device_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    check_device("cpu", processes=4)
    with pytest.raises(ZssError, match="MODEL.DEVICE is 'cuda' .* 0 GPUs; add MODEL.DEVICE cpu"):
        check_device("cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda", processes=2)
    check_device("cuda:1")
    with pytest.raises(ZssError, match="'cuda:7' .* 2 GPUs; use one of cuda:0, cuda:1"):
        check_device("cuda:7")
    with pytest.raises(ZssError, match="'cuda:1' and --num-gpus 2; .* give MODEL.DEVICE cuda"):
        check_device("cuda:1", processes=2)


@pytest.mark.parametrize("device", ["gpu", "cuda:", "CUDA", "cuda:x", ""], ids=repr)
def test_what_is_no_device_is_refused_on_any_machine(device):
    assert "use 'cpu', 'cuda', or one GPU" in refusal("MODEL.DEVICE", device)


def test_a_config_for_a_gpu_is_read_without_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert load("MODEL.DEVICE", "cuda").MODEL.DEVICE == "cuda"


def test_descriptions_of_data_that_is_not_used_are_named(tmp_path, caplog):
    yard = str(toy_custom.generate(tmp_path / "yard"))
    caplog.set_level(logging.WARNING)
    load("DATASETS.CUSTOM", yard, "DATASETS.TEST", "zss_yard_val")
    assert caplog.text == ""
    load("DATASETS.CUSTOM", yard)
    assert "DATASETS.TRAIN and TEST name none of zss_yard_train, zss_yard_val" in caplog.text


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    """The shell leaves that of a yaml, and that of a value in quotes, as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = load("MODEL.WEIGHTS", "~/a.pth", "OUTPUT_DIR", "~/run")
    found = [cfg.MODEL.WEIGHTS, cfg.OUTPUT_DIR]
    assert found == [str(tmp_path / "a.pth"), str(tmp_path / "run")]


def test_an_impossible_value_is_that_of_the_file_or_of_the_command_line(tmp_path):
    """Which one of several configs it is; a key that was given with them is found by itself."""
    config = tmp_path / "mine.yaml"
    config.write_text(f"_BASE_: {TINY_CONFIG}\nTEST: {{SEEN_BIAS: 7}}\n")
    with pytest.raises(ZssError, match=rf"^{config}: TEST.SEEN_BIAS is 7"):
        load_config(config)
    with pytest.raises(ZssError, match=r"^TEST.SEEN_BIAS is 8"):
        load_config(config, ["TEST.SEEN_BIAS", "8"])
