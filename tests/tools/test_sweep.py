"""The runner for tables: what it plans, what it repeats, and what it makes of results."""

import csv
import json

import pytest

from tests.conftest import ROOT, TINY_CONFIG
from zss_d2.errors import ZssError
from zss_d2.evaluation.results import config_hash
from zss_d2.tools import sweep

MASKCLIP = str(ROOT / "configs/maskclip_voc.yaml")


def arguments(tmp_path, *more: str):
    return sweep.parse_args([str(TINY_CONFIG), MASKCLIP, "--output", str(tmp_path), *more])


def pretend(run: sweep.Run, metrics: dict, **provenance) -> None:
    """Write the results that a run of exactly this configuration would have left."""
    cfg = run.config()
    known = dict.fromkeys(("commit", "uncommitted_changes", "detectron2", "torch", "device"), "x")
    known |= {"config_sha256": config_hash(cfg), "iteration": cfg.SOLVER.MAX_ITER} | provenance
    run.folder.mkdir(parents=True, exist_ok=True)
    content = {cfg.DATASETS.TEST[0]: metrics, "provenance": known}
    (run.folder / "results.json").write_text(json.dumps(content))


def test_plan_is_configs_times_values_times_seeds(tmp_path):
    runs = sweep.plan(
        arguments(tmp_path, "--seeds", "0", "3", "--vary", "MODEL.CLIP.PRETRAINED", "a", "b/c")
    )
    assert len({run.folder for run in runs}) == len(runs) == 8
    last = runs[-1]
    assert str(last) == "maskclip_voc b/c seed 3"
    assert last.folder == tmp_path / "maskclip_voc" / "b_c" / "seed3"
    cfg = last.config()
    assert (3, "b/c", str(last.folder)) == (cfg.SEED, cfg.MODEL.CLIP.PRETRAINED, cfg.OUTPUT_DIR)


def test_views_take_the_place_of_the_data_and_are_averaged(tmp_path):
    views = []
    for name in ("cats", "birds"):
        views.append(tmp_path / f"{name}.yaml")
        views[-1].write_text(f"name: {name}\nbase: voc\nhold_out: [{name[:-1]}]\n")
    output = tmp_path / "output"
    more = ("--views", *map(str, views), "--vary", "MODEL.CLIP.PRETRAINED", "a", "b")
    runs = sweep.plan(sweep.parse_args([MASKCLIP, "--output", str(output), *more]))
    assert [str(run) for run in runs] == [
        f"maskclip_voc {value} {name} seed 0" for name in ("cats", "birds") for value in "ab"
    ]
    assert len({run.folder for run in runs}) == 4
    cfg = runs[-1].config()
    assert cfg.DATASETS.TEST == ("zss_birds_val",)
    assert cfg.MODEL.CLIP.PRETRAINED == "b"
    for run, hiou in zip(runs, (10.0, 12.0, 17.0, 13.0), strict=True):
        pretend(run, {"hIoU": hiou})
    overall, by_variant, _ = sweep.write_tables(sweep.collect(runs), output).split("\n\n", 2)
    assert "views of zss_voc_val" in overall
    assert "13.0 ± 2.9" in overall  # 10, 12, 17, 13: mean 13, sample variance 26 / 3
    assert "b cats" in by_variant and "12.0" in by_variant


def test_a_view_of_other_data_is_refused(tmp_path):
    view = str(ROOT / "datasets/mini_heldout.yaml")
    with pytest.raises(ZssError, match=r"mini_heldout.yaml: is no view of zss_voc_"):
        sweep.plan(arguments(tmp_path, "--views", view))


def test_only_the_same_finished_configuration_counts_as_done(tmp_path):
    run = sweep.plan(arguments(tmp_path))[0]
    assert not sweep.finished(run, run.config())
    pretend(run, {}, iteration=25)
    assert not sweep.finished(run, run.config())
    pretend(run, {})
    assert sweep.finished(run, run.config())
    with pytest.raises(ZssError, match="run of another configuration; give another --output"):
        changed = sweep.plan(arguments(tmp_path, "--opts", "SOLVER.BASE_LR", "0.5"))[0]
        sweep.finished(changed, changed.config())


def test_tables_by_hand(tmp_path):
    runs = sweep.plan(arguments(tmp_path, "--seeds", "0", "1", "2"))
    for run, hiou in zip(runs, (10.0, 12.0, 17.0, 5.0, 5.0, 5.0), strict=True):
        pretend(run, {"hIoU": hiou, "mIoU-U": None})
    markdown = sweep.write_tables(sweep.collect(runs), tmp_path)
    assert markdown == (tmp_path / "table.md").read_text()
    assert "13.0 ± 3.6" in markdown  # 10, 12, 17: mean 13, sample variance 13
    assert "5.0 ± 0.0" in markdown
    assert "mIoU-U" not in markdown
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["hIoU"] for row in rows] == ["10.0", "12.0", "17.0", "5.0", "5.0", "5.0"]
    assert [row["seed"] for row in rows] == ["0", "1", "2"] * 2


@pytest.mark.slow
def test_a_sweep_runs_once_and_a_failure_names_its_log(toy_voc, tmp_path, capsys):
    opts = ("--opts", "SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "0", "DATALOADER.NUM_WORKERS")
    command = [str(TINY_CONFIG), "--output", str(tmp_path), *opts, "0"]
    assert sweep.main(command) == 0
    first = capsys.readouterr().out
    assert "[1/1] ldvc_voc_tiny_cpu seed 0" in first
    assert sweep.main(command) == 0
    assert "1 of 1 runs are already finished" in capsys.readouterr().out

    bad = [
        str(TINY_CONFIG),
        "--output",
        str(tmp_path / "bad"),
        *opts,
        "0",
        "MODEL.WEIGHTS",
        "no.pth",
    ]
    assert sweep.main(bad) == 2
    error = capsys.readouterr().err
    assert "failed: checkpoint no.pth does not exist" in error
    assert "console.txt" in error
