"""Which pixels without a label are unseen and which void changes nothing, but where it is said.

The decisive test of the transductive setting: masks that differ in nothing else give the same
targets and the same losses, bit for bit.
"""

from __future__ import annotations

import copy
import json
from itertools import product

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from tests.modeling.all_methods import METHODS, TRAINED
from zss_d2.data.files.predictions import KIND, MANIFEST, RECORDS
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.engine.run_state import with_memory
from zss_d2.utils.random_streams import seed_streams

SETTING = ("ZERO_SHOT.SETTING", "transductive")
KEY = "ZERO_SHOT.SELF_TRAINING."
SETTINGS = {
    "default": (),
    "all": (KEY + "CANDIDATES", "all"),
    "threshold": (KEY + "THRESHOLD", 0.051),
    "quantile": (KEY + "QUANTILE", 0.5),
    "agreement": (KEY + "AGREEMENT", (1.0, 0.5), KEY + "CANDIDATES", "all"),
    "ema": (KEY + "SOURCE", "ema"),
    "frozen": (KEY + "SOURCE", "frozen", KEY + "AGREEMENT", (1.5,)),
    "offline": (KEY + "SOURCE", "offline"),
    "weight": (KEY + "WEIGHT", 0.5),
    "negatives": ("MODEL.LOSS.IGNORED", "negatives"),
    "inductive phase": (KEY + "START", 1),
}
# CLIP-ZSS does not read MODEL.LOSS.IGNORED.
CASES = [pair for pair in product(TRAINED, SETTINGS) if pair != ("CLIPZSS", "negatives")]
LEAKY = (KEY + "PIXELS", "unseen_location")
IGNORE = 255


@pytest.fixture
def masks(tmp_path) -> list[dict]:
    """Two records of one image; where one mask has unseen classes, the other has void, and the
    reverse. A part of either is seen."""
    metadata = MetadataCatalog.get("zss_voc_train")
    unseen = [metadata.stuff_classes.index(name) for name in metadata.unseen_classes]
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (96, 120, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    seen = np.full((96, 120), 3, np.uint8)
    seen[50:, 30:] = 7
    hidden = generator.random((96, 120)) < 0.5
    hidden[:, :60] = cv2.blur(hidden[:, :60].astype(np.float32), (9, 9)) > 0.5
    records = []
    for number, place in enumerate((hidden, ~hidden)):
        mask = seen.copy()
        mask[20:70, 10:100] = IGNORE
        labels = generator.choice(unseen, (50, 90)).astype(np.uint8)
        mask[20:70, 10:100][place[20:70, 10:100]] = labels[place[20:70, 10:100]]
        path = tmp_path / f"mask{number}.png"
        cv2.imwrite(str(path), mask)
        record = {"file_name": str(tmp_path / "image.png"), "sem_seg_file_name": str(path)}
        name = {"dataset_name": "zss_voc_train", "image_id": str(number)}
        records.append({**record, **name, "written": str(tmp_path)})
    names = [*metadata.unseen_classes, metadata.stuff_classes[3]]
    words = {"classes": [[name] for name in names], "background": []}
    head = {"kind": KIND, "state": "finished", "method": "LDVC", "words": words}
    (tmp_path / MANIFEST).write_text(json.dumps(head))
    files = {"file_name": "image.png", "files": {"labels": "written.png"}}
    (tmp_path / RECORDS).write_text(json.dumps(files))
    labels = generator.integers(0, len(names), (96, 120), np.uint8)
    labels[30:40] = 255
    cv2.imwrite(str(tmp_path / "written.png"), labels)
    assert not np.array_equal(*(cv2.imread(r["sem_seg_file_name"], 0) for r in records))
    return records


def batch(cfg: CfgNode, record: dict) -> list[dict]:
    """A record, mapped twice."""
    mapper, items = ZeroShotMapper(cfg, is_train=True), []
    for number in range(2):
        seed_streams(1, number)
        items.append(mapper(record))
    return items


def steps(make_cfg, method: str, masks: list[dict], *overrides) -> list[tuple]:
    """Targets of the losses, these, and what was counted, of the same first step on either mask."""
    size = ("INPUT.RESIZE_BASE", (64, 64), "INPUT.CROP.SIZE", (64, 64))
    if "offline" in overrides:
        overrides = (*overrides, KEY + "FOLDER", masks[0]["written"])
    cfg = make_cfg(*METHODS[method], *SETTING, *size, *overrides)
    seed_streams(2)
    model, results = build_model(cfg).train(), []
    start = copy.deepcopy(model.state_dict())
    losses = model.losses
    memory = [
        (part.restore_memory, copy.deepcopy(part.memory())) for part in with_memory(model).values()
    ]
    for record in masks:
        targets = []

        def spy(outputs, of_losses, targets=targets):
            targets.append(of_losses.clone())
            return losses(outputs, of_losses)

        model.losses = spy
        model.load_state_dict(start)
        for restore, before in memory:
            restore(before)
        seed_streams(3)
        values = model(batch(cfg, record))
        results.append((torch.stack(targets), values, model.self_training.taken_counts()))
    return results


def same(one, other) -> bool:
    losses = all(torch.equal(loss, other[1][name]) for name, loss in one[1].items())
    return torch.equal(one[0], other[0]) and losses


@pytest.mark.parametrize(("method", "name"), CASES)
def test_what_is_unseen_and_what_is_void_makes_no_difference(make_cfg, masks, method, name):
    one, other = steps(make_cfg, method, masks, *SETTINGS[name])
    assert same(one, other)
    pixels, *labelled = one[2]
    assert one[2] == other[2]
    assert (sum(labelled) > 0) == (pixels > 0) == (name != "inductive phase")


@pytest.mark.parametrize("method", TRAINED)
def test_the_setting_that_is_named_leaky_is(make_cfg, masks, method):
    one, other = steps(make_cfg, method, masks, *LEAKY)
    assert not same(one, other)
