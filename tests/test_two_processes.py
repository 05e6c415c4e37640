"""Training on two processes: the ranks learn the same from different images, and score alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor

from tests.conftest import ROOT, TINY_CONFIG
from tests.modeling.test_ldvc import TEXT_PROMPTS
from tests.test_train_net import results, train_net
from zss_d2.collection.command import main as predict
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.synthetic.mini.write import write_split
from zss_d2.engine import ZeroShotCheckpointer, evaluate, load_config
from zss_d2.engine.resume import read_metrics

pytestmark = pytest.mark.slow


def train_on_two(data: Path, config: Path, folder: Path, *opts: object) -> tuple[dict, dict]:
    """What `tests.ranks` saw on both ranks, after the checks that hold for every method."""
    arguments = ("--config-file", config, "--num-gpus", 2, *opts)
    common = ("OUTPUT_DIR", folder, "DATALOADER.NUM_WORKERS", 0)
    run = train_net(data, *map(str, (*arguments, *common)), script=("-m", "tests.ranks"))
    assert run.returncode == 0, run.stderr
    first, second = (torch.load(folder / f"rank{n}.pth", weights_only=True) for n in range(2))
    for a, b in zip(first["batches"], second["batches"], strict=True):
        assert not any(torch.equal(x["image"], y["image"]) for x, y in zip(a, b, strict=True))
    for when in ("start", "gradients", "end"):
        assert first[when]
        assert unequal(first[when], second[when]) == set()
    return first, second


def unequal(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


def learnt(rank: dict) -> set[str]:
    return unequal(rank["end"], {name: rank["start"][name] for name in rank["end"]})


def test_ldvc_with_text_prompts_learns_from_the_mean_gradient(voc_root, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(voc_root))
    """With softmax; NEL is divided by what all ranks have, so that a rank alone has another one."""
    loss = ("MODEL.LOSS.NAME", "softmax")
    overrides = (*TEXT_PROMPTS, *loss, "SOLVER.MAX_ITER", 4, "DATASETS.TEST", "()")
    first, second = train_on_two(voc_root, TINY_CONFIG, tmp_path, *overrides)
    trained = ("image_encoder.prompts", "text_encoder.prompts", "descriptor", "decoder")
    changed = learnt(first)
    assert all(name.startswith(trained) for name in changed)
    assert all(any(name.startswith(part) for name in changed) for part in trained)

    file = str(tmp_path / "config.yaml")
    model = build_model(load_config(file))
    model.load_state_dict(first["start"])
    for rank in (first, second):
        sum(model.train()(rank["batches"][0]).values()).backward()  # gradients add up
    for name, gradient in first["gradients"].items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad / 2, msg=name)


@pytest.mark.parametrize("source", ["online", "offline"])
def test_self_training_learns_from_the_mean_gradient(voc_root, tmp_path, monkeypatch, source):
    """Each rank has pseudo labels for its own images; what they are recorded as is of both."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(voc_root))
    opts = ["ZERO_SHOT.SETTING", "transductive", "MODEL.LOSS.NAME", "softmax", "SOLVER.MAX_ITER", 2]
    opts += ["DATASETS.TEST", "()", "MODEL.WEIGHTS", str(tmp_path / "start.pth")]
    cfg = load_config(TINY_CONFIG, opts)
    ZeroShotCheckpointer(build_model(cfg), str(tmp_path)).save("start")
    if source == "offline":
        label_training_images(voc_root, tmp_path / "start.pth", tmp_path / "labels")
        opts += ["ZERO_SHOT.SELF_TRAINING.SOURCE", "offline"]
        opts += ["ZERO_SHOT.SELF_TRAINING.FOLDER", str(tmp_path / "labels")]
        cfg = load_config(TINY_CONFIG, opts)
    first, second = train_on_two(voc_root, TINY_CONFIG, tmp_path / "run", *opts)
    model = build_model(cfg)
    model.load_state_dict(first["start"])
    for rank in (first, second):
        sum(model.train()(rank["batches"][0]).values()).backward()  # gradients add up
    for name, gradient in first["gradients"].items():
        torch.testing.assert_close(gradient, model.get_parameter(name).grad / 2, msg=name)
    model(first["batches"][1]), model(second["batches"][1])
    (line,) = read_metrics(tmp_path / "run/metrics.json")
    pixels, *labelled = model.self_training.taken_counts()
    assert line["pseudo_coverage"] == sum(labelled) / pixels
    # What was written has seen classes too, which are no candidates.
    assert line["pseudo_coverage"] == 1 if source == "online" else 0 < line["pseudo_coverage"] < 1


def label_training_images(data: Path, weights: Path, folder: Path) -> None:
    """``zss predict`` for the training images of VOC, with the names of all classes."""
    arguments = [str(data / "zss/voc/images/train"), "--config-file", str(TINY_CONFIG)]
    arguments += ["--weights", str(weights), "--classes", *load_benchmark("voc").classes]
    arguments += ["--formats", "labels", "--output", str(folder)]
    assert predict(arguments) == 0


@pytest.fixture(scope="module")
def mini_root(tmp_path_factory) -> Path:
    """A DETECTRON2_DATASETS folder with a few scenes of the mini world."""
    root = tmp_path_factory.mktemp("mini")
    mini = load_benchmark("mini")
    for split, count in (("train", 8), ("val", 5)):
        write_split(mini.splits[split], count, root / "zss/mini")
    return root


@pytest.mark.parametrize("name", ["clip_zss_mini", "clip_to_seg_mini"])
def test_students_train_and_both_ranks_score_as_the_checkpoint(
    mini_root, tmp_path, monkeypatch, name
):
    """Statistics of batch norm, too, are those of the checkpoint in the test at the end."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(mini_root))
    config = ROOT / f"configs/{name}.yaml"
    run = tmp_path / "run"
    overrides = ("SOLVER.MAX_ITER", 4, "SOLVER.IMS_PER_BATCH", 4)
    first, _ = train_on_two(mini_root, config, run, *overrides)
    assert {name.split(".")[0] for name in learnt(first)} == {"student", "learner"}
    trained = results(run)["zss_mini_val"]
    assert {"mIoU-S", "mIoU-U-things", "IoU-wood"} <= set(trained)

    opts = ["MODEL.WEIGHTS", str(run / "model_final.pth"), "OUTPUT_DIR", str(tmp_path)]
    cfg = load_config(config, opts)
    evaluate(cfg, resume=False)
    assert results(tmp_path)["zss_mini_val"] == trained
