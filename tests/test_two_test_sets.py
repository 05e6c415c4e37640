"""DATASETS.TEST names sets of different vocabularies: each is tested as if it were alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode

from tests.modeling.all_methods import METHODS
from tests.modeling.test_ldvc import TEXT_PROMPTS
from zss_d2.data.spec.custom import register_custom
from zss_d2.data.synthetic import toy_custom
from zss_d2.engine import ZeroShotTrainer

VOC, FARM = "zss_voc_val", "zss_farm_val"


@pytest.fixture
def two_sets(toy_voc, make_cfg, tmp_path):
    """``two_sets(names, KEY, value, ...)``: trained on toy VOC, tested on the sets of these names.

    The other set has a class of VOC (dog) under another id, and one that VOC lacks as unseen.
    """
    yaml = toy_custom.generate(tmp_path / "farm")
    text = yaml.read_text().replace("name: yard", "name: farm")
    yaml.write_text(text.replace("[ground, disc, square, stripe]", "[ground, dog, barn, stripe]"))
    register_custom([yaml])

    def make(names: tuple[str, ...], *overrides: object) -> CfgNode:
        data = ("DATASETS.CUSTOM", (str(yaml),), "DATASETS.TEST", names, "TEST.SEEN_BIAS", 0.1)
        folder = tmp_path / "-".join(names)
        folder.mkdir(exist_ok=True)
        out = ("OUTPUT_DIR", str(folder), "DATALOADER.NUM_WORKERS", 0)
        return make_cfg(*data, *out, *overrides)

    return make


def results(cfg: CfgNode) -> dict:
    return json.loads((Path(cfg.OUTPUT_DIR) / "results.json").read_text())


@pytest.mark.parametrize("method", METHODS)
def test_both_sets_score_as_in_runs_of_their_own(two_sets, method):
    model = ZeroShotTrainer.build_model(two_sets((VOC, FARM), *METHODS[method]))
    runs = {}
    for names in ((VOC, FARM), (FARM, VOC), (VOC,), (FARM,)):
        cfg = two_sets(names, *METHODS[method])
        ZeroShotTrainer.test(cfg, model)
        runs[names] = results(cfg)
        assert set(runs[names]) == {*names, "provenance"}
        assert all((Path(cfg.OUTPUT_DIR) / f"confusion_{name}.npz").is_file() for name in names)
    assert runs[VOC, FARM][VOC] == runs[FARM, VOC][VOC] == runs[VOC,][VOC]
    assert runs[VOC, FARM][FARM] == runs[FARM, VOC][FARM] == runs[FARM,][FARM]
    assert "IoU-bicycle" in runs[VOC,][VOC]
    assert "IoU-barn" in runs[FARM,][FARM]
    assert runs[FARM,][FARM]["mIoU-U"] == runs[FARM,][FARM]["IoU-stripe"]


def test_both_sets_are_tested_in_training(two_sets):
    cfg = two_sets((VOC, FARM), *TEXT_PROMPTS, "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 1)
    torch.manual_seed(0)
    ZeroShotTrainer(cfg).train()
    lines = map(json.loads, (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines())
    tested = [entry for entry in lines if f"{VOC}/sem_seg/mIoU" in entry]
    assert len(tested) == 2
    final = results(cfg)
    for name in (VOC, FARM):
        assert tested[-1][f"{name}/sem_seg/mIoU"] == final[name]["mIoU"]
        assert tested[0][f"{name}/sem_seg/mIoU"] != final[name]["mIoU"]
