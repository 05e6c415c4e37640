"""What a sweep makes of a folder that a run is in already, and which runs share a mean."""

from __future__ import annotations

import json

import pytest

from tests.analysis.sweep.pretended import pretend
from tests.conftest import ROOT, TINY_CONFIG
from zss_d2.analysis.commands.sweep import parse_args
from zss_d2.analysis.sweep.plan import Run, plan_runs
from zss_d2.analysis.sweep.state import finished
from zss_d2.analysis.sweep.table import check_settings, collect, write_tables
from zss_d2.errors import ZssError

MASKCLIP = str(ROOT / "configs/maskclip_voc.yaml")


def one_run(tmp_path, *opts: str, config: str = str(TINY_CONFIG)) -> Run:
    arguments = [config, "--output", str(tmp_path / "output"), "--opts", *opts]
    (run,) = plan_runs(parse_args(arguments))
    return run


@pytest.mark.parametrize(
    "opts",
    [
        ("DATALOADER.NUM_WORKERS", "3"),
        ("SOLVER.CHECKPOINT_PERIOD", "7"),
        ("TEST.EVAL_PERIOD", "10"),
        ("MODEL.DEVICE", "cuda"),
    ],
)
def test_what_changes_no_result_is_no_other_run(tmp_path, opts):
    pretend(one_run(tmp_path), {"hIoU": 1.0})
    assert finished(one_run(tmp_path, *opts))


@pytest.mark.parametrize(
    ("opts", "shown"),
    [
        (("SOLVER.BASE_LR", "0.5"), "SOLVER.BASE_LR 0.001 there and 0.5 here;"),
        (("TEST.SEEN_BIAS", "0.1"), "TEST.SEEN_BIAS 0.0 there and 0.1 here;"),
        (("TEST.PREDICTIONS", "png"), "TEST.PREDICTIONS 'none' there and 'png' here;"),
        (("INPUT.MIN_SIZE_TEST", "64"), "INPUT.MIN_SIZE_TEST 128 there and 64 here;"),
        (("MODEL.WEIGHTS", "a.pth"), "MODEL.WEIGHTS '' there and 'a.pth' here;"),
        (
            ("DATASETS.TEST", "('zss_voc_train',)"),
            r"DATASETS.TEST \['zss_voc_val'\] there and \('zss_voc_train',\) here;",
        ),
        (("TEST.FLIP", "True", "SOLVER.MAX_ITER", "60"), "SOLVER.MAX_ITER 50 there and 60 here, "),
    ],
)
@pytest.mark.parametrize("done", [True, False])
def test_what_changes_results_is_refused_with_its_values(tmp_path, opts, shown, done):
    run = one_run(tmp_path)
    pretend(run, {"hIoU": 1.0})
    if not done:
        (run.folder / "results.json").unlink()
    with pytest.raises(ZssError, match=f"run of another configuration, {shown}"):
        finished(one_run(tmp_path, *opts))


def test_a_key_without_effect_is_no_difference(tmp_path):
    base, config = tmp_path / "base.yaml", tmp_path / "config.yaml"
    config.write_text(f"_BASE_: {base}")

    def run(stride: int) -> Run:
        base.write_text(f"_BASE_: {TINY_CONFIG}\nTEST: {{SLIDE: {{STRIDE: {stride}}}}}\n")
        return one_run(tmp_path, config=str(config))

    pretend(run(300), {"hIoU": 1.0})
    assert finished(run(400))  # TEST.SLIDE.ENABLED is False


def test_results_of_another_evaluation_are_not_taken(tmp_path):
    """It was begun under these settings, so that config.yaml has them, and was broken off."""
    run = one_run(tmp_path)
    pretend(one_run(tmp_path, "TEST.SEEN_BIAS", "0.1"), {"hIoU": 1.0})
    (run.folder / "config.yaml").write_text(run.config().dump())
    assert not finished(run)


@pytest.mark.parametrize("text", ["[]", "no json", "{}", '{"provenance": {}}', '{"a": {"b": 1}}'])
def test_results_that_are_none_are_named(tmp_path, text):
    run = one_run(tmp_path)
    run.folder.mkdir(parents=True)
    (run.folder / "results.json").write_text(text)
    with pytest.raises(ZssError, match="seed0/results.json cannot be read: .* evaluate the run"):
        finished(run)


def test_results_without_their_config_go_by_its_hash(tmp_path):
    run = one_run(tmp_path)
    pretend(run, {"hIoU": 1.0})
    (run.folder / "config.yaml").unlink()
    assert finished(run)
    with pytest.raises(ZssError, match="run of another configuration"):
        finished(one_run(tmp_path, "TEST.SEEN_BIAS", "0.1"))


def sweep_into(tmp_path, *more: str, hiou: float = 10.0) -> str:
    """Check and pretend a sweep of MaskCLIP; returns its table."""
    output = tmp_path / "output"
    runs = plan_runs(parse_args([MASKCLIP, "--output", str(output), *more]))
    check_settings(runs, output)
    for run in runs:
        pretend(run, {"hIoU": hiou})
    return write_tables(collect(runs), output)


def test_a_new_value_of_the_varied_key_under_other_settings_enters_no_mean(tmp_path):
    sweep_into(tmp_path, "--vary", "TEST.SEEN_BIAS", "0.1")
    message = (
        r"maskclip_voc 0.2 seed 0 would be averaged with .*/0.1/seed0, which has other settings: "
        "TEST.FLIP False there and True here; give another --output"
    )
    with pytest.raises(ZssError, match=message):
        sweep_into(tmp_path, "--vary", "TEST.SEEN_BIAS", "0.2", "--opts", "TEST.FLIP", "True")
    markdown = sweep_into(tmp_path, "--vary", "TEST.SEEN_BIAS", "0.2", "0.3", hiou=16.0)
    assert "| 3      | 14.0 ± 3.5 |" in markdown  # 10, 16, 16


def test_seeds_that_differ_in_what_changes_no_result_share_a_mean(tmp_path):
    sweep_into(tmp_path)
    more = ("SOLVER.CHECKPOINT_PERIOD", "7", "DATALOADER.NUM_WORKERS", "3")
    assert "| 2      | 11.0 ± 1.4 |" in sweep_into(
        tmp_path, "--seeds", "1", "--opts", *more, hiou=12.0
    )


def test_views_of_one_data_set_are_one_setting(tmp_path):
    views = []
    for name in ("cats", "birds"):
        views.append(tmp_path / f"{name}.yaml")
        views[-1].write_text(f"name: {name}\nbase: voc\nhold_out: [{name[:-1]}]\n")
    sweep_into(tmp_path, "--views", str(views[0]))
    markdown = sweep_into(tmp_path, "--views", str(views[1]), hiou=12.0)
    assert "11.0 ± 1.4" in markdown
    other = views[1].with_name("dogs.yaml")
    other.write_text("name: dogs\nbase: voc\nhold_out: [dog]\n")
    with pytest.raises(ZssError, match="other settings: .*TEST.SEEN_BIAS 0.0 there and 0.1 here"):
        sweep_into(tmp_path, "--views", str(other), "--opts", "TEST.SEEN_BIAS", "0.1")


def test_a_failed_run_keeps_no_other_from_its_mean(tmp_path):
    output = tmp_path / "output"
    runs = plan_runs(parse_args([MASKCLIP, "--output", str(output), "--seeds", "0"]))
    runs[0].folder.mkdir(parents=True)
    write_tables(collect(runs, {runs[0].place: "no memory"}), output)
    table = sweep_into(tmp_path, "--seeds", "1", "--opts", "TEST.SEEN_BIAS", "0.1")
    assert "| maskclip_voc | zss_voc_val | 1      | 10.0   |" in table
    assert "| maskclip_voc/seed0 | no memory |" in table


def test_a_description_at_another_place_is_another_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        text = "name: cats\nbase: voc\nhold_out: [cat]\n"
        (tmp_path / folder / "cats.yaml").write_text(text)

    def run(view: str) -> Run:
        arguments = [MASKCLIP, "--output", "output", "--views", view]
        (planned,) = plan_runs(parse_args(arguments))
        return planned

    pretend(run("one/cats.yaml"), {"hIoU": 1.0})
    assert finished(run(str(tmp_path / "one/cats.yaml")))
    with pytest.raises(ZssError, match="DATASETS.CUSTOM"):
        finished(run("two/cats.yaml"))


def test_a_data_set_without_numbers_is_not_undefined(tmp_path):
    run = one_run(tmp_path)
    pretend(run, {"hIoU": None})
    content = json.loads((run.folder / "results.json").read_text())
    assert content["zss_voc_val"] == {"hIoU": None}
    assert finished(run)
