"""Self-training in a run: when it begins, what is recorded, and that it can be stopped."""

from __future__ import annotations

import json
import signal

import pytest
import torch
from detectron2.modeling import build_model

from tests.conftest import ROOT
from tests.engine.test_resume import KillAt, assert_same_checkpoint, scalars, train
from zss_d2.data.spec.benchmark import load_benchmark
from zss_d2.data.spec.custom import load_custom
from zss_d2.data.synthetic.mini.write import write_split
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer, load_config
from zss_d2.engine.processes.interrupt import Interrupted
from zss_d2.engine.resume import read_metrics
from zss_d2.engine.trainer import evaluate
from zss_d2.errors import ZssError
from zss_d2.evaluation.results import describe_protocol

KEY = "ZERO_SHOT.SELF_TRAINING."
SETTING = ("ZERO_SHOT.SETTING", "transductive")
SOURCES = {
    "online": (KEY + "QUANTILE", 0.3),
    "ema": (KEY + "SOURCE", "ema", KEY + "EMA_MOMENTUM", 0.5),
    "frozen": (KEY + "SOURCE", "frozen", KEY + "ROUNDS", 2),
}


@pytest.fixture
def transductive_cfg(toy_voc, make_cfg):
    """Six iterations of LDVC with dropout, the last three of them with pseudo labels."""

    def make(*overrides: object):
        return make_cfg(
            *("MODEL.VISUAL_PROMPTS.DROPOUT", 0.1, "MODEL.LDVC.DROPOUT", 0.1),
            *("SOLVER.MAX_ITER", 6, "SOLVER.CHECKPOINT_PERIOD", 6, "TEST.EVAL_PERIOD", 2),
            *("SOLVER.IMS_PER_BATCH", 2, "DATALOADER.NUM_WORKERS", 0),
            *("INPUT.RESIZE_BASE", (64, 64), "INPUT.CROP.SIZE", (64, 64)),
            *(*SETTING, KEY + "START", 3, *overrides),
        )

    return make


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_a_resumed_run_is_the_uninterrupted_one(transductive_cfg, tmp_path, source):
    """Stopped in either phase and between two lines of metrics."""
    cfg = transductive_cfg(*SOURCES[source])
    train(cfg, tmp_path / "whole")
    for killed in (1, 3, 4):
        with pytest.raises(Interrupted):
            train(cfg, tmp_path / "stopped", kill=KillAt(killed, signal.SIGTERM))
    train(cfg, tmp_path / "stopped")
    assert_same_checkpoint(tmp_path / "whole/model_final.pth", tmp_path / "stopped/model_final.pth")
    assert scalars(tmp_path / "whole") == scalars(tmp_path / "stopped")


@pytest.mark.slow
def test_before_its_start_it_is_the_inductive_run(transductive_cfg, tmp_path, caplog):
    """Weights and losses, bit for bit; from there on coverage and classes are recorded."""
    caplog.set_level("INFO")
    train(transductive_cfg("SOLVER.CHECKPOINT_PERIOD", 3), tmp_path / "transductive")
    inductive = transductive_cfg("SOLVER.CHECKPOINT_PERIOD", 3, "ZERO_SHOT.SETTING", "inductive")
    train(inductive, tmp_path / "inductive")
    for name, equal in (("model_0000002.pth", True), ("model_final.pth", False)):
        one, other = (
            torch.load(tmp_path / kind / name, weights_only=True)["model"]
            for kind in ("transductive", "inductive")
        )
        assert one.keys() == other.keys()
        assert all(torch.equal(value, other[key]) for key, value in one.items()) == equal
    lines = read_metrics(tmp_path / "transductive/metrics.json")
    recorded = {line["iteration"]: line for line in lines if "pseudo_coverage" in line}
    assert set(recorded) == {3, 5}
    for line in recorded.values():
        assert line["pseudo_coverage"] == 1.0
        shares = [value for key, value in line.items() if key.startswith("pseudo_")]
        assert sum(shares) == pytest.approx(2.0)  # coverage, and the classes' shares of it
    assert "Self-training since iteration 3" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("SOLVER.MAX_ITER", 3), "START is 3, but SOLVER.MAX_ITER is 3"),
        ((KEY + "START", 0), r"START is 0 and MODEL.WEIGHTS empty.*half of SOLVER.MAX_ITER \(3\)"),
        ((KEY + "SOURCE", "offline"), "SOURCE is 'offline' and FOLDER empty"),
        ((KEY + "SOURCE", "ema", "MODEL.COMPILE", "eager"), "COMPILE is 'eager' and .*'ema'"),
    ],
)
def test_a_run_without_a_start_is_refused(transductive_cfg, overrides, message):
    with pytest.raises(ZssError, match=message):
        ZeroShotTrainer(transductive_cfg(*overrides))


def test_a_leaky_checkpoint_says_so_wherever_it_goes(make_cfg, tmp_path, caplog):
    leaky = (*SETTING, KEY + "PIXELS", "unseen_location")
    ZeroShotCheckpointer(build_model(make_cfg(*leaky)), str(tmp_path)).save("leaky")
    first = str(tmp_path / "leaky.pth")
    ZeroShotCheckpointer(build_model(make_cfg(*leaky))).load(first)
    assert "a leak" not in caplog.text
    for setting in (SETTING, ()):
        caplog.clear()
        model = build_model(make_cfg(*setting))
        ZeroShotCheckpointer(model, str(tmp_path)).load(first)
        assert "at the ground-truth places of unseen classes" in caplog.text
    ZeroShotCheckpointer(model, str(tmp_path)).save("second")
    caplog.clear()
    ZeroShotCheckpointer(build_model(make_cfg())).load(str(tmp_path / "second.pth"))
    assert "at the ground-truth places of unseen classes" in caplog.text


def test_results_of_weights_of_a_leaky_training_say_so(toy_voc, make_cfg, tmp_path, caplog):
    """Tested under a config that knows nothing of it; and those of a training that starts there."""
    leaky = (*SETTING, KEY + "PIXELS", "unseen_location")
    ZeroShotCheckpointer(build_model(make_cfg(*leaky)), str(tmp_path)).save("leaky")
    caplog.set_level("INFO")
    places = "LEAKY pseudo labels at the ground-truth places of unseen classes"
    for config, doubts in (
        ((), ["names of 5 unseen classes", places]),
        (SETTING, [places]),
        (leaky, None),
    ):
        caplog.clear()
        weights = ("MODEL.WEIGHTS", str(tmp_path / "leaky.pth"), "OUTPUT_DIR", str(tmp_path))
        evaluate(make_cfg(*config, *weights), resume=False)
        protocol = json.loads((tmp_path / "results.json").read_text())["provenance"]["protocol"]
        assert protocol.get("weights_trained_with") == doubts
        heading = "" if doubts is None else f"WEIGHTS TRAINED WITH {' and '.join(doubts)}"
        assert heading in describe_protocol(protocol) and heading in caplog.text


@pytest.mark.slow
def test_a_held_out_view_has_its_own_names_and_none_of_what_is_reported(tmp_path, monkeypatch):
    """A run on one, tested on its dev split."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    mini = load_benchmark("mini")
    for split, count in (("train", 8), ("dev", 2)):
        write_split(mini.splits[split], count, tmp_path / "data/zss/mini")
    view = load_custom(ROOT / "datasets/mini_heldout.yaml").benchmark
    opts = ["DATASETS.CUSTOM", (str(ROOT / "datasets/mini_heldout.yaml"),), "SOLVER.MAX_ITER", 2]
    opts += ["DATASETS.TRAIN", ("zss_mini_heldout_train",), KEY + "START", 1]
    opts += ["DATASETS.TEST", ("zss_mini_heldout_dev",), "DATALOADER.NUM_WORKERS", 0]
    cfg = load_config(ROOT / "configs/ldvc_mini_transductive.yaml", opts).clone()
    cfg.defrost()
    trainer = train(cfg, tmp_path / "run")
    model = trainer.checkpointer.model
    assert model.train_classes == (*view.seen_names, *view.unseen_names)
    assert model.labelled_classes == view.seen_names
    assert not set(model.train_classes) & set(mini.unseen_names)
    (line,) = [x for x in read_metrics(tmp_path / "run/metrics.json") if "pseudo_coverage" in x]
    assert {f"pseudo_{name}" for name in view.unseen_names} < line.keys()
    results = json.loads((tmp_path / "run/results.json").read_text())
    settings = {"pixels": "unlabelled", "source": "online", "leaky": False}
    assert results["provenance"]["protocol"]["self_training"] == settings
