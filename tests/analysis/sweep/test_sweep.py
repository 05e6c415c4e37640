"""The runner for tables: what it plans, what it repeats, and what it makes of results."""

import csv
import json

import pytest

from tests.analysis.sweep.pretended import pretend
from tests.conftest import ROOT, TINY_CONFIG
from zss_d2.analysis.commands.sweep import main, parse_args
from zss_d2.analysis.sweep import runner
from zss_d2.analysis.sweep.plan import plan_runs
from zss_d2.analysis.sweep.session import execute
from zss_d2.analysis.sweep.state import finished
from zss_d2.analysis.sweep.table import check_settings, collect, write_tables
from zss_d2.errors import ZssError

MASKCLIP = str(ROOT / "configs/maskclip_voc.yaml")


def arguments(tmp_path, *more: str):
    return parse_args([str(TINY_CONFIG), MASKCLIP, "--output", str(tmp_path), *more])


def test_plan_is_configs_times_values_times_seeds(tmp_path):
    runs = plan_runs(
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
    runs = plan_runs(parse_args([MASKCLIP, "--output", str(output), *more]))
    assert [str(run) for run in runs] == [
        f"maskclip_voc {value} {name} seed 0" for name in ("cats", "birds") for value in "ab"
    ]
    assert len({run.folder for run in runs}) == 4
    cfg = runs[-1].config()
    assert cfg.DATASETS.TEST == ("zss_birds_val",)
    assert cfg.MODEL.CLIP.PRETRAINED == "b"
    for run, hiou in zip(runs, (10.0, 12.0, 17.0, 13.0), strict=True):
        pretend(run, {"hIoU": hiou})
    overall, by_variant, _ = write_tables(collect(runs), output).split("\n\n", 2)
    assert "views of zss_voc_val" in overall
    assert "13.0 ± 2.9" in overall  # 10, 12, 17, 13: mean 13, sample variance 26 / 3
    assert "b cats" in by_variant and "12.0" in by_variant


def test_a_view_of_other_data_is_refused(tmp_path):
    view = str(ROOT / "datasets/mini_heldout.yaml")
    with pytest.raises(ZssError, match=r"mini_heldout.yaml: is no view of zss_voc_"):
        plan_runs(arguments(tmp_path, "--views", view))


def test_only_the_same_finished_configuration_counts_as_done(tmp_path):
    run = plan_runs(arguments(tmp_path))[0]
    assert not finished(run)
    pretend(run, {}, iteration=25)
    assert not finished(run)
    pretend(run, {})
    assert finished(run)
    with pytest.raises(ZssError, match="run of another configuration, SOLVER.BASE_LR 0.001 there"):
        changed = plan_runs(arguments(tmp_path, "--opts", "SOLVER.BASE_LR", "0.5"))[0]
        finished(changed)


def test_tables_by_hand(tmp_path):
    runs = plan_runs(arguments(tmp_path, "--seeds", "0", "1", "2"))
    for run, hiou in zip(runs, (10.0, 12.0, 17.0, 5.0, 5.0, 5.0), strict=True):
        pretend(run, {"hIoU": hiou, "mIoU-U": None})
    markdown = write_tables(collect(runs), tmp_path)
    assert markdown == (tmp_path / "table.md").read_text()
    assert "13.0 ± 3.6" in markdown  # 10, 12, 17: mean 13, sample variance 13
    assert "5.0 ± 0.0" in markdown
    assert "mIoU-U" not in markdown
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [row["hIoU"] for row in rows] == ["10.0", "12.0", "17.0", "5.0", "5.0", "5.0"]
    assert [row["seed"] for row in rows] == ["0", "1", "2"] * 2


def test_shapes_have_a_table_of_their_own_where_they_were_measured(tmp_path):
    runs = plan_runs(arguments(tmp_path, "--seeds", "0", "1"))
    for run, pieces in zip(runs, (2.0, 4.0, None, None), strict=True):
        shape = {} if pieces is None else {"pieces-U": pieces, "mBIoU-S": 30.0}
        pretend(run, {"hIoU": 1.0} | shape)
    markdown = write_tables(collect(runs), tmp_path)
    assert "3.00 ± 1.41" in markdown
    assert "30.0 ± 0.0" in markdown
    assert "fragments-U" not in markdown
    first, second = markdown.split("\n\n")[:2]
    assert "pieces" not in first
    assert [x.split("|")[-2].strip() for x in second.splitlines()[2:]] == ["3.00 ± 1.41", "-"]
    for run in runs:
        pretend(run, {"hIoU": 1.0})
    assert "pieces" not in write_tables(collect(runs), tmp_path)


def refused(tmp_path, *more: str, configs=(str(TINY_CONFIG),)) -> str:
    args = parse_args([*configs, "--output", str(tmp_path / "output"), *more])
    with pytest.raises(ZssError) as caught:
        plan_runs(args)
    return str(caught.value)


PRETRAINED = ("--vary", "MODEL.CLIP.PRETRAINED")


@pytest.mark.parametrize(
    ("more", "folder"),
    [
        (("--seeds", "0", "1", "0"), "seed0"),
        ((*PRETRAINED, "a", "b", "a"), "a/seed0"),
        ((*PRETRAINED, "a/b", "a_b"), "a_b/seed0"),
    ],
)
def test_what_is_given_twice_is_refused(tmp_path, more, folder):
    text = refused(tmp_path, *more)
    assert f"ldvc_voc_tiny_cpu/{folder} would be the folder of two runs" in text


def test_a_config_or_view_that_is_given_twice_is_refused(tmp_path):
    config = str(TINY_CONFIG)
    assert "would be the folder of two runs" in refused(tmp_path, configs=(config, config))
    (tmp_path / "other").mkdir()
    alike = tmp_path / "other" / TINY_CONFIG.name
    alike.write_text(f"_BASE_: {config}\nSOLVER: {{BASE_LR: 0.5}}")
    text = refused(tmp_path, configs=(config, str(alike)))
    assert f"of {config} and {alike}" in text
    view = tmp_path / "cats.yaml"
    view.write_text("name: cats\nbase: voc\nhold_out: [cat]\n")
    assert "two runs" in refused(tmp_path, "--views", str(view), str(view))
    copied = tmp_path / "copy.yaml"
    copied.write_text(view.read_text().replace("cats", "felines"))
    text = refused(tmp_path, "--views", str(view), str(copied))
    assert "views cats and felines hold out the same classes" in text


def test_settings_that_are_one_in_two_spellings_are_refused(tmp_path):
    text = refused(tmp_path, "--vary", "SOLVER.BASE_LR", "0.1", "0.10")
    assert "0.1 seed 0 and" in text
    assert "have the same settings" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--vary", "SEED", "1", "2"), "--vary SEED would have no effect; use --seeds"),
        (("--opts", "SEED", "1"), "--opts SEED would have no effect; use --seeds"),
        (("--opts", "OUTPUT_DIR", "x"), "--opts OUTPUT_DIR would have no effect; use --output"),
        (
            (*PRETRAINED, "a", "--opts", "MODEL.CLIP.PRETRAINED", "b"),
            "--opts MODEL.CLIP.PRETRAINED would have no effect beside --vary",
        ),
    ],
)
def test_keys_without_effect_are_refused(tmp_path, more, message):
    assert message in refused(tmp_path, *more)


def test_an_empty_value_is_a_value_and_no_value_leaves_the_folder(tmp_path):
    args = parse_args([str(TINY_CONFIG), "--output", str(tmp_path), *PRETRAINED, "", "..", "x"])
    runs = plan_runs(args)
    home = tmp_path / "ldvc_voc_tiny_cpu"
    assert [run.folder for run in runs] == [home / x / "seed0" for x in ("_", "_..", "x")]
    assert [run.variant for run in runs] == ['""', "..", "x"]
    assert [run.config().MODEL.CLIP.PRETRAINED for run in runs] == ["", "..", "x"]


def sweep_once(tmp_path, hiou: float, *more: str) -> str:
    """Plan a sweep into ``tmp_path``, pretend that it ran, and return its Markdown."""
    args = parse_args([MASKCLIP, "--output", str(tmp_path), *more])
    runs = plan_runs(args)
    for run in runs:
        if not finished(run):
            pretend(run, {"hIoU": hiou})
    return write_tables(collect(runs), tmp_path)


def test_a_second_sweep_keeps_the_rows_of_the_first(tmp_path):
    sweep_once(tmp_path, 10.0, "--seeds", "0", "1")
    markdown = sweep_once(tmp_path, 16.0, "--seeds", "2")
    assert "| maskclip_voc | zss_voc_val | 3      | 12.0 ± 3.5 |" in markdown  # 10, 10, 16
    assert "Seeds 0, 1, 2" in markdown
    assert "2 of 3 runs are of earlier sweeps" in markdown
    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(row["seed"], row["hIoU"]) for row in rows] == [
        ("0", "10.0"),
        ("1", "10.0"),
        ("2", "16.0"),
    ]
    # Neither order nor repetition changes anything, nor does a row become a second run.
    again = sweep_once(tmp_path, 99.0, "--seeds", "1", "0")
    assert "| maskclip_voc | zss_voc_val | 3      | 12.0 ± 3.5 |" in again


def test_variants_of_other_keys_are_not_averaged_with_each_other(tmp_path):
    sweep_once(tmp_path, 10.0)
    sweep_once(tmp_path, 20.0, *PRETRAINED, "a", "b")
    overall = sweep_once(tmp_path, 30.0, "--vary", "TEST.SEEN_BIAS", "0.1").split("\n\n")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in overall.splitlines()]
    assert rows[0] == ["method", "data", "varied", "runs", "hIoU"]
    assert [row[2:] for row in rows[2:]] == [
        ["", "1", "10.0"],
        ["MODEL.CLIP.PRETRAINED", "2", "20.0 ± 0.0"],
        ["TEST.SEEN_BIAS", "1", "30.0"],
    ]


def test_another_spelling_of_a_value_is_no_second_run(tmp_path):
    sweep_once(tmp_path, 10.0, "--vary", "TEST.SEEN_BIAS", "0.1")
    args = parse_args([MASKCLIP, "--output", str(tmp_path), "--vary", "TEST.SEEN_BIAS", "0.10"])
    with pytest.raises(ZssError, match="has the settings and the seed of .*0.1.* leave it out"):
        check_settings(plan_runs(args), tmp_path)


def test_runs_of_other_settings_do_not_enter_one_mean(tmp_path):
    sweep_once(tmp_path, 10.0, "--seeds", "0")
    more = ["--seeds", "1", "--opts", "TEST.SEEN_BIAS"]
    for bias in ("0.0", "0.1"):
        runs = plan_runs(parse_args([MASKCLIP, "--output", str(tmp_path), *more, bias]))
        if bias == "0.0":
            check_settings(runs, tmp_path)
            continue
        message = (
            "seed 1 would be averaged with .*seed0, which has other settings: TEST.SEEN_BIAS 0.0 "
            "there and 0.1 here; give another"
        )
        with pytest.raises(ZssError, match=message):
            check_settings(runs, tmp_path)


def test_rows_of_runs_that_are_gone_leave_the_table_with_a_word(tmp_path):
    sweep_once(tmp_path, 10.0, "--seeds", "0", "1", "2")
    home = tmp_path / "maskclip_voc"
    (home / "seed0").rename(tmp_path / "elsewhere")
    results = json.loads((home / "seed1/results.json").read_text())
    results["provenance"]["config_sha256"] = "other"
    (home / "seed1/results.json").write_text(json.dumps(results))
    markdown = sweep_once(tmp_path, 20.0, "--seeds", "3")
    assert "gone or changed: maskclip_voc/seed0, maskclip_voc/seed1." in markdown
    assert "Seeds 2, 3;" in markdown


def test_metrics_of_earlier_runs_are_read_again(tmp_path):
    sweep_once(tmp_path, 10.0, "--seeds", "0")
    path = tmp_path / "maskclip_voc/seed0/results.json"
    path.write_text(path.read_text().replace("10.0", "30.0"))
    assert "40.0 ± 14.1" in sweep_once(tmp_path, 50.0, "--seeds", "1")  # 30, 50


def test_a_table_of_another_version_is_not_replaced(tmp_path):
    (tmp_path / "table.csv").write_text("method,data,variant,seed,hIoU\nx,y,,0,1.0\n")
    with pytest.raises(ZssError, match="table.csv is no table of this version; rename it"):
        sweep_once(tmp_path, 10.0)
    assert (tmp_path / "table.csv").read_text().startswith("method,data")


def test_an_interrupted_run_does_not_go_on_with_other_settings(tmp_path):
    (run,) = plan_runs(parse_args([MASKCLIP, "--output", str(tmp_path)]))
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text(run.config().dump())
    assert not finished(run)
    more = ["--opts", "TEST.SEEN_BIAS", "0.1"]
    (other,) = plan_runs(parse_args([MASKCLIP, "--output", str(tmp_path), *more]))
    with pytest.raises(ZssError, match="run of another configuration"):
        finished(other)


def test_an_installed_package_without_the_script_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "TRAIN_NET", tmp_path / "train_net.py")
    runs = plan_runs(parse_args([MASKCLIP, "--output", str(tmp_path)]))
    with pytest.raises(ZssError, match="train_net.py does not exist; install the project again"):
        execute(runs, 1, 1)


def test_the_table_says_what_it_averages(tmp_path):
    runs = plan_runs(parse_args([MASKCLIP, "--output", str(tmp_path), "--seeds", "0", "1", "2"]))
    pretend(runs[0], {"hIoU": 10.0, "mIoU-U": 4.0}, torch="2.1", commit=None, version="0.1")
    pretend(runs[1], {"hIoU": 12.0, "mIoU-U": None}, torch="2.2", uncommitted_changes=None)
    pretend(runs[2], {"hIoU": 17.0, "mIoU-U": 6.0}, torch="2.1", uncommitted_changes=True)
    markdown = write_tables(collect(runs), tmp_path)
    assert "5.0 ± 1.4 (2 of 3)" in markdown
    assert "commit unknown (version 0.1), x, x with uncommitted changes; " in markdown
    assert "torch 2.1 / 2.2" in markdown


def test_names_do_not_break_the_table(tmp_path):
    config = tmp_path / "a|b.yaml"
    config.write_text(f"_BASE_: {MASKCLIP}")
    output = tmp_path / "output"
    args = parse_args([str(config), "--output", str(output), *PRETRAINED, "_x_", "*y*"])
    runs = plan_runs(args)
    for run in runs:
        pretend(run, {"hIoU": 1.0})
    markdown = write_tables(collect(runs), output)
    assert "a\\|b" in markdown
    assert "\\_x\\_" in markdown
    assert "\\*y\\*" in markdown


@pytest.mark.slow
def test_a_sweep_runs_once_and_a_failure_names_its_log(toy_voc, tmp_path, capsys):
    opts = ("--opts", "SOLVER.MAX_ITER", "2", "SOLVER.WARMUP_ITERS", "0", "DATALOADER.NUM_WORKERS")
    command = [str(TINY_CONFIG), "--output", str(tmp_path), *opts, "0"]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "[1/1] ldvc_voc_tiny_cpu seed 0" in first
    assert main(command) == 0
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
    assert main(bad) == 1
    captured = capsys.readouterr()
    assert "failed: checkpoint no.pth does not exist" in captured.out
    assert "1 of 1 runs failed, see" in captured.err
    assert "console.txt" in captured.err
