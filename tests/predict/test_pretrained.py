"""Folders to share: what is loaded from one is the model that was written, and says what it is."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.modeling import build_model
from safetensors.torch import load_file, save_file

import zss_d2
from tests.conftest import ROOT, TINY_CONFIG
from tests.modeling.all_methods import METHODS
from tests.modeling.clip_zss.test_clip_zss import TINY as STUDENT
from tests.test_api import scores
from zss_d2 import load_model
from zss_d2.config.defaults import add_zss_config
from zss_d2.config.model_folder import ABOUT, CARD, CONFIG, WEIGHTS
from zss_d2.data.spec.custom import register_custom
from zss_d2.data.synthetic.toy_custom import generate
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer, evaluate, load_config
from zss_d2.errors import ZssError
from zss_d2.predict import pretrained
from zss_d2.predict.predictor import Predictor

CPU = {"device": "cpu"}
FILES = {ABOUT, CARD, CONFIG, WEIGHTS}
MINI_CLIP = Path(zss_d2.__file__).parent / "clip/mini/seed0.safetensors"
MINI = (
    *("MODEL.CLIP.NAME", "mini", "DATASETS.TRAIN", ("zss_mini_train",)),
    *("DATASETS.TEST", (), "MODEL.CLIP.TEMPLATES", ["a photo of a {}."]),
)


def leave_run(folder: Path, *overrides: object) -> Path:
    """What a training leaves, with random weights."""
    cfg = get_cfg()
    add_zss_config(cfg)
    cfg.merge_from_file(str(TINY_CONFIG))
    cfg.merge_from_list([*overrides, "OUTPUT_DIR", str(folder)])
    model = build_model(cfg).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    ZeroShotCheckpointer(model, str(folder)).save("model_final", iteration=9)
    (folder / CONFIG).write_text(cfg.dump())
    return folder


def share(run: Path, folder: Path, **options) -> Path:
    return load_model(run, **CPU).save_pretrained(folder, **options)


def edit(path: Path, change) -> None:
    read, write = (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, None)
    content = read(path.read_text())
    change(content)
    path.write_text((write or yaml.safe_dump)(content))


@pytest.mark.parametrize("method", METHODS)
def test_a_model_comes_back_bit_for_bit(tmp_path, monkeypatch, method):
    run = leave_run(tmp_path / "run", *METHODS[method])
    expected = scores(load_model(run, **CPU))
    folder = share(run, tmp_path / "shared")
    assert {path.name for path in folder.iterdir()} == FILES
    shutil.rmtree(run)
    moved = tmp_path / "elsewhere" / "model"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    monkeypatch.chdir(moved.parent)
    model = load_model("model", **CPU)
    assert torch.equal(scores(model), expected)
    assert not model.segmentor.training
    again = model.save_pretrained(tmp_path / "again")
    assert (again / WEIGHTS).read_bytes() == (moved / WEIGHTS).read_bytes()
    for name in (ABOUT, CONFIG):
        first, second = ((x / name).read_text() for x in (moved, again))
        assert second.replace("output/again", "output/shared") == first


def test_no_file_names_a_path_of_this_machine(tmp_path):
    clip = tmp_path / "private" / "clip.safetensors"
    clip.parent.mkdir()
    shutil.copy(MINI_CLIP, clip)
    folder = share(
        leave_run(tmp_path / "run", *MINI, "MODEL.CLIP.PRETRAINED", str(clip)), tmp_path / "shared"
    )
    for name in FILES:
        assert str(tmp_path).encode() not in (folder / name).read_bytes(), name
    assert json.loads((folder / ABOUT).read_text())["identity"]["clip"]["pretrained"] == clip.name


def test_both_towers_come_along(tmp_path, caplog):
    """So the CLIP that they are of need not be there, nor be asked for."""
    clip = tmp_path / "clip.safetensors"
    shutil.copy(MINI_CLIP, clip)
    run = leave_run(tmp_path / "run", *MINI, "MODEL.CLIP.PRETRAINED", str(clip))
    expected = scores(load_model(run, **CPU))
    folder = share(run, tmp_path / "shared")
    clip.unlink()
    with caplog.at_level("WARNING"):
        assert torch.equal(scores(load_model(folder, **CPU)), expected)
    # Loggers that a run has set up tell of lower levels too.
    assert not [x for x in caplog.records if x.levelno >= logging.WARNING]
    with pytest.raises(ZssError, match=r"FROM_WEIGHTS is True and no weights are given"):
        evaluate(load_config(folder / CONFIG, ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""]), False)


def test_a_student_goes_without_clip(tmp_path):
    clip = tmp_path / "clip.safetensors"
    shutil.copy(MINI_CLIP, clip)
    method = (*STUDENT, *MINI, "MODEL.CLIP.PRETRAINED", str(clip))
    model = load_model(leave_run(tmp_path / "run", *method), **CPU)
    folder = model.save_pretrained(tmp_path / "shared")
    names = set(load_file(folder / WEIGHTS))
    assert {name.split(".")[0] for name in names} == {"student", "classifier"}
    words, image = ["grass", "purple thing"], torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()
    expected = model.predict(image, words, class_scores=True).class_scores
    clip.unlink()
    with pytest.raises(ZssError, match=r"MODEL.CLIP.PRETRAINED is 'clip.safetensors': neither a"):
        load_model(folder, **CPU).predict(image, words)
    named = load_model(folder, opts=["MODEL.CLIP.PRETRAINED", "seed0"], **CPU)
    assert (named.predict(image, words, class_scores=True).class_scores == expected).all()
    other = load_model(folder, opts=["MODEL.CLIP.PRETRAINED", "seed1"], **CPU)
    with pytest.raises(ZssError, match="made by the weights 'clip.safetensors' of CLIP mini"):
        other.predict(image, words)


@pytest.mark.parametrize("method", ["ZegCLIP", "CLIPZSS"])
def test_evaluations_take_a_folder(tmp_path, toy_voc, method):
    """As their config, and as the weights of another."""
    run = leave_run(tmp_path / "run", *METHODS[method])
    folder = share(run, tmp_path / "shared")
    opts = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path / "out")]
    expected = evaluate(load_config(run / CONFIG, opts[:2]), resume=True)
    found = [
        evaluate(load_config(folder / CONFIG, opts), resume=False),
        evaluate(load_config(run / CONFIG, [*opts, "MODEL.WEIGHTS", str(folder)]), resume=False),
    ]
    assert list(map(repr, found)) == [repr(expected)] * 2  # NaN of absent classes is not itself
    content = json.loads((tmp_path / "out/results.json").read_text())["provenance"]
    about = json.loads((folder / ABOUT).read_text())
    assert content["checkpoint_sha256"] == about["weights_sha256"]
    assert content["iteration"] == 10
    other = load_model(TINY_CONFIG, folder, opts=list(map(str, METHODS[method])), **CPU)
    assert torch.equal(scores(other), scores(load_model(folder, **CPU)))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder of ZegCLIP with random weights."""
    cfg = load_config(TINY_CONFIG, ["MODEL.META_ARCHITECTURE", "ZegCLIP"])
    model = Predictor(cfg, build_model(cfg).eval())
    return model.save_pretrained(tmp_path_factory.mktemp("folders") / "shared")


def other_weights(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    save_file(
        {name: x + 1 if x.is_floating_point() else x for name, x in state.items()}, folder / WEIGHTS
    )


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("weights", other_weights, "is not the file that zss_model.json beside it speaks of"),
        (
            "gone",
            lambda x: (x / WEIGHTS).unlink(),
            r"shared/model.safetensors does not exist; check MODEL.WEIGHTS",
        ),
        ("half", lambda x: (x / ABOUT).write_text('{"format": 1'), "cannot be read .JSONDecode"),
        ("list", lambda x: (x / ABOUT).write_text("[]"), "format is None; fetch"),
        ("later", lambda x: edit(x / ABOUT, lambda y: y.update(format=2)), "is of format 2"),
        (
            "sentences",
            lambda x: edit(x / CONFIG, lambda y: y["MODEL"]["CLIP"].update(TEMPLATES=["{} here."])),
            r"the weights are of templates \['a photo of a {}.'\], and config.yaml gives",
        ),
        (
            "classes",
            lambda x: edit(
                x / CONFIG, lambda y: y["DATASETS"].update(TRAIN=["zss_context59_train"])
            ),
            "the weights are of classes",
        ),
        (
            "setting",
            lambda x: edit(x / CONFIG, lambda y: y["ZERO_SHOT"].update(SETTING="supervised")),
            "ZERO_SHOT.SETTING is supervised, but the checkpoint",
        ),
        (
            "activation",
            lambda x: edit(x / CONFIG, lambda y: y["MODEL"]["CLIP"].update(QUICK_GELU="true")),
            "CLIP zss-tiny under GELU, and this config gives zss-tiny with QuickGELU",
        ),
        (
            "code",
            lambda x: (x / CONFIG).write_text("MODEL: !!python/object/apply:os.system ['false']"),
            "invalid yaml",
        ),
    ],
)
def test_a_folder_that_does_not_agree_with_itself(written, tmp_path, name, spoil, message):
    folder = shutil.copytree(written, tmp_path / "shared")
    spoil(folder)
    with pytest.raises(ZssError, match=message):
        load_model(folder, **CPU)


def test_what_is_meant_to_differ_is_an_option(written, caplog):
    with caplog.at_level("WARNING"):
        load_model(written, opts=["MODEL.CLIP.TEMPLATE_SET", "single"], **CPU)
    assert any("was trained with the sentences" in text for text in caplog.messages)


def test_folders_that_hold_something(written, tmp_path):
    model = load_model(written, **CPU)
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ZssError, match=r"holds other things, such as notes.txt; give a folder of"):
        model.save_pretrained(folder, overwrite=True)
    (folder / "notes.txt").unlink()
    model.save_pretrained(folder)
    with pytest.raises(ZssError, match="holds a model; give another folder, or overwrite=True"):
        model.save_pretrained(folder)
    model.save_pretrained(folder, overwrite=True)
    with pytest.raises(ZssError, match="is a file; give a folder"):
        model.save_pretrained(folder / CARD)


def test_half_a_folder_is_no_model(written, tmp_path, monkeypatch):
    """A process that is killed in between leaves nothing that could be loaded."""
    model, folder = load_model(written, **CPU), shutil.copytree(written, tmp_path / "shared")
    left = []

    def killed(path, write):
        left.append(path.name)
        raise KeyboardInterrupt

    monkeypatch.setattr(pretrained, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(folder, overwrite=True)
    assert left == [WEIGHTS]
    assert not (folder / ABOUT).exists()
    with pytest.raises(ZssError):
        load_model(folder, **CPU)


def test_whoever_may_read_the_card_may_read_the_weights(written):
    assert (written / WEIGHTS).stat().st_mode == (written / CARD).stat().st_mode


def test_a_custom_data_set_travels_as_its_classes(tmp_path):
    generate(tmp_path / "data", seed=0)
    (description,) = (tmp_path / "data").rglob("*.yaml")
    content = yaml.safe_load(description.read_text())
    train, val = (f"zss_{content['name']}_{x}" for x in ("train", "val"))
    data = ("DATASETS.TRAIN", (train,), "DATASETS.TEST", (val,))
    register_custom([description])
    run = leave_run(tmp_path / "run", "DATASETS.CUSTOM", (str(description),), *data)
    model = load_model(run, **CPU)
    expected = scores(model)
    folder = model.save_pretrained(tmp_path / "shared")
    assert {x.name for x in folder.iterdir()} == {*FILES, f"dataset_{content['name']}.yaml"}
    shutil.rmtree(tmp_path / "data")
    loaded = load_model(folder, **CPU)
    assert list(loaded.segmentor.classes) == content["classes"]
    assert torch.equal(scores(loaded), expected)


@pytest.fixture(scope="module")
def runs(voc_root, tmp_path_factory) -> list[Path]:
    folder, runs = tmp_path_factory.mktemp("sweep"), []
    for seed in range(3):
        torch.manual_seed(seed)
        run = leave_run(folder / f"seed{seed}", "SEED", seed, "TEST.PER_IMAGE", True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DETECTRON2_DATASETS", str(voc_root))
            evaluate(load_config(run / CONFIG, ["MODEL.DEVICE", "cpu"]), resume=True)
        runs.append(run)
    return runs


class TestCard:
    """Its figures are those of results.json, if they are of these weights."""

    def test_figures(self, runs, tmp_path):
        card = (share(runs[1], tmp_path / "shared") / CARD).read_text()
        values = [json.loads((run / "results.json").read_text())["zss_voc_val"] for run in runs]
        rows = {
            x.split(" | ")[0][2:]: x.split(" | ")[1:] for x in card.splitlines() if x[:2] == "| "
        }
        assert rows["metric"][1:] == [
            "95 % interval over test images",
            "mean ± standard deviation of 3 seeds |",
        ]
        for name in ("pAcc", "mIoU"):
            value, interval, spread = rows[name]
            own = torch.tensor([x[name] for x in values], dtype=torch.float64)
            assert value == f"{own[1]:.1f}"
            low, high = map(float, interval.split("–"))
            assert low <= float(value) <= high
            assert spread == f"{own.mean():.1f} ± {own.std():.1f} |"
        assert "- protocol: inductive, " in card
        assert "- precision: float32" in card
        assert "license: unknown  # fill in" in card
        assert yaml.safe_load(card.split("---")[1])["library_name"] == "zss_d2"
        again = load_model(tmp_path / "shared", **CPU).save_pretrained(tmp_path / "again")
        assert (again / CARD).read_text() == card.replace("shared", "again")

    def test_results_of_other_weights_are_left_out(self, runs, tmp_path, caplog):
        model = load_model(runs[0], **CPU)
        with caplog.at_level("WARNING"):
            folder = model.save_pretrained(tmp_path / "a", results=runs[1] / "results.json")
        assert any("is of another checkpoint" in text for text in caplog.messages)
        assert "None are known of these very weights." in (folder / CARD).read_text()
        with pytest.raises(ZssError, match="is no folder of a finished run"):
            model.save_pretrained(tmp_path / "b", results=tmp_path / "none/results.json")


def test_a_training_free_method(tmp_path):
    model = load_model(ROOT / "configs/naclip_mini.yaml", **CPU)
    folder = model.save_pretrained(tmp_path / "shared")
    assert torch.equal(scores(load_model(folder, **CPU)), scores(model))


def test_a_folder_is_a_start_of_a_training(written, tmp_path, toy_voc):
    opts = ["MODEL.META_ARCHITECTURE", "ZegCLIP", "OUTPUT_DIR", str(tmp_path / "output")]
    cfg = load_config(TINY_CONFIG, ["MODEL.WEIGHTS", str(written), *opts])
    trainer = ZeroShotTrainer(cfg)
    trainer.resume_or_load(resume=False)
    loaded = load_file(written / WEIGHTS)
    state = trainer.checkpointer.model.state_dict()
    assert all(torch.equal(state[name], x) for name, x in loaded.items())
