"""``zss distillation`` on runs of CLIP-ZSS: checkpoints, parts that a run lacks, other methods."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch.nn import functional as F

from tests.modeling.clip_zss.test_clip_zss import CE_ONLY, TINY
from zss_d2.analysis.commands.distillation import main
from zss_d2.analysis.distillation.measure import checkpoints_of, measure_model, unseen_miou
from zss_d2.analysis.plm import bare_teacher, training_scenes
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer

C2S = (
    *TINY,
    *("MODEL.CLIP_ZSS.REGIONS", "unannotated", "MODEL.CLIP_ZSS.BCE_WEIGHT", 0.0),
    *("MODEL.CLIP_ZSS.SYNTHESIZER.MEMORY", "global_local", "MODEL.CLIP_ZSS.LOCAL.SIZE", 0),
)


# What needs no part of a training.
MARGINS = {"retrieval", "margin"}


@pytest.fixture
def save_run(toy_voc, make_cfg, tmp_path):
    """Save an untrained run with checkpoints of these iterations and return its folder."""

    def save(place: str, *overrides: object, iterations: tuple[int, ...] = (9,)) -> Path:
        folder = tmp_path / place
        cfg = make_cfg("OUTPUT_DIR", str(folder), *overrides)
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(cfg.dump())
        checkpointer = ZeroShotCheckpointer(ZeroShotTrainer.build_model(cfg), str(folder))
        for iteration in iterations:
            checkpointer.save(f"model_{iteration:07d}", iteration=iteration)
        checkpointer.save("model_final", iteration=iterations[-1])
        return folder

    return save


def distillation(folders: list[Path], output: Path, *options: str) -> dict:
    command = [*map(str, folders), "--output", str(output), "--images", "3", *options]
    assert main(command) == 0
    return json.loads((output / "distillation.json").read_text())


def test_every_checkpoint_has_a_line(save_run, tmp_path, capsys):
    run, output = save_run("run", *TINY, iterations=(4, 9)), tmp_path / "out"
    metrics = ({"iteration": 4, "sem_seg/mIoU-U": 12.5}, {"iteration": 10, "sem_seg/mIoU-U": 30.0})
    (run / "metrics.json").write_text("".join(json.dumps(x) + "\n" for x in metrics))
    ((name, found),) = distillation([run], output)["runs"].items()
    assert list(found) == ["5", "10"]  # model_final.pth is the second one
    assert [x["mIoU-U"] for x in found.values()] == [12.5, 30.0]
    # The weights are the same, so is what they give.
    assert {**found["5"], "mIoU-U": 0} == {**found["10"], "mIoU-U": 0}
    assert 0 < found["5"]["purity"] <= 100
    assert 0 < found["5"]["coverage"] <= 100
    assert -1 <= found["5"]["own"] <= 1
    printed = capsys.readouterr().out
    assert sum(line.startswith(f"| {name} ") for line in printed.splitlines()) == 2
    assert imread(output / "distillation.png").shape[1] > 1000


def test_what_a_run_lacks_has_no_value(save_run, tmp_path):
    """Without pseudo labels there are no regions; the prediction of CLS needs no part at all."""
    runs = [save_run("r/ce", *TINY, *CE_ONLY), save_run("r/c2s", *C2S)]
    found = distillation(runs, tmp_path / "out")["runs"]
    assert {x for x, value in found["ce"]["10"].items() if value is not None} == MARGINS
    lacking = {x for x, value in found["c2s"]["10"].items() if value is None}
    assert lacking == {"mIoU-U"}


def test_measures_are_those_of_regions_and_prototypes_of_a_training(save_run):
    """One scene after the other, with what a training step itself would see."""
    run = RunFolder(save_run("run", *TINY))
    cfg = run.config()
    model, scenes, teacher = run.model(cfg), training_scenes(cfg, 3), bare_teacher(cfg)
    cls = torch.cat([teacher(image[None].float()).cls for image, _ in scenes])
    got = measure_model(model, cfg, scenes, cls)

    majority = labelled = covered = hidden = hits = 0
    own, predictions = [], []
    text = model.classifier(model.classes)
    for (image, truth), token in zip(scenes, cls, strict=True):
        rows, columns = (
            (np.arange(side) + 0.5) * size // side
            for side, size in zip(image.shape[1:], truth.shape, strict=True)
        )
        truth = truth[rows.astype(int)][:, columns.astype(int)].astype(int)
        known = torch.from_numpy(np.where((truth >= 15) & (truth < 20), 255, truth))
        examined = model.examine([{"image": image, "sem_seg": known}])
        labels = examined.labels[0, : truth.shape[0], : truth.shape[1]].numpy()
        hidden += ((truth >= 15) & (truth < 20)).sum()
        covered += ((truth >= 15) & (truth < 20) & (labels >= 15)).sum()
        for region in range(15, labels.max() + 1):
            classes = truth[(labels == region) & (truth != 255)].tolist()
            if not classes:
                continue
            most = max(sorted(set(classes)), key=classes.count)
            majority, labelled = majority + classes.count(most), labelled + len(classes)
            if most >= 15 and examined.present[0, region - 15]:
                prototype = examined.prototypes[0, region - 15]
                own.append(float(F.cosine_similarity(prototype, text[most], dim=0)))
        features = examined.features[0].flatten(1)
        weights = (token @ features / token.numel() ** 0.5).softmax(dim=0)
        predictions.append(features @ weights)
    for index, predicted in enumerate(predictions):
        cosine = F.cosine_similarity(predicted[None], cls, dim=1)
        hits += int(cosine.argmax()) == index
    assert got["purity"] == pytest.approx(100 * majority / labelled)
    assert got["coverage"] == pytest.approx(100 * covered / hidden)
    assert got["own"] == pytest.approx(sum(own) / len(own), abs=1e-5)
    assert got["retrieval"] == pytest.approx(100 * hits / 3, rel=1e-5)


def test_examining_changes_no_weight(save_run):
    run = RunFolder(save_run("run", *TINY))
    cfg = run.config()
    model = run.model(cfg)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    measure_model(model, cfg, training_scenes(cfg, 1), torch.randn(1, 64))
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert model.learner.global_learning.bank.numel() == 0


def test_checkpoints_and_evaluations_of_a_run(save_run, tmp_path):
    run = RunFolder(save_run("run", *TINY, iterations=(1, 3)))
    found = checkpoints_of(run, run.config())
    names = {iteration: path.name for iteration, path in found.items()}
    assert names == {2: "model_0000001.pth", 4: "model_final.pth"}
    assert math.isnan(unseen_miou(run, 4))
    empty = RunFolder(tmp_path / "empty")
    empty.path.mkdir()
    (empty.path / "config.yaml").write_text((run.path / "config.yaml").read_text())
    assert checkpoints_of(empty, empty.config()) == {0: None}


def test_runs_that_have_no_student_or_no_teacher_are_refused(save_run, tmp_path, capsys):
    ldvc, student = save_run("ldvc"), save_run("student", *TINY)
    for run, options, message in (
        (ldvc, (), f"{ldvc} is a run of LDVC, which has no student"),
        (student, ("--opts", "MODEL.CLIP_ZSS.TEACHER", "False"), "TEACHER is False; add"),
        (student, ("--opts", "MODEL.DEVICE", "cuda:98"), "this machine has no such device"),
        (student, ("--over", "NOTHING"), "--over NOTHING is no config key"),
    ):
        assert main([str(run), "--output", str(tmp_path / "out"), *options]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
