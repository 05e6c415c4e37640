import argparse
import math
import os
import re
import socket

import pytest
import torch
from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

from tests.conftest import TINY_CONFIG
from zss_d2.engine import argument_parser, run
from zss_d2.engine.processes.launching import check_devices, check_meeting_point, check_switches
from zss_d2.errors import ZssError


def arguments(*opts: str, config_file: str = str(TINY_CONFIG), num_gpus: int = 1):
    return argparse.Namespace(
        config_file=config_file,
        opts=list(opts),
        num_gpus=num_gpus,
        num_machines=1,
        machine_rank=0,
        dist_url="auto",
        eval_only=False,
        resume=False,
        overwrite=False,
        allow_changes=False,
        oversubscribe=False,
        timeout=30.0,
    )


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """OUTPUT_DIR is relative."""
    monkeypatch.chdir(tmp_path)


def test_more_processes_than_devices_are_refused(make_cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    check_devices(make_cfg("MODEL.DEVICE", "cuda"), 4)
    with pytest.raises(ZssError, match="--num-gpus 8: MODEL.DEVICE is cuda .* 4 GPUs; use at most"):
        check_devices(make_cfg("MODEL.DEVICE", "cuda"), 8)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ZssError, match="0 GPUs; add MODEL.DEVICE cpu"):
        check_devices(make_cfg("MODEL.DEVICE", "cuda"), 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    check_devices(make_cfg(), 2)
    check_devices(make_cfg(), 8, oversubscribe=True)
    with pytest.raises(ZssError, match="only 2 CPU cores"):
        check_devices(make_cfg(), 8)


def test_run_hands_over_the_config():
    seen = []
    run(lambda cfg, args: seen.append((cfg.SEED, args.num_gpus)), arguments("SEED", "5"))
    assert seen == [(5, 1)]


@pytest.mark.parametrize(
    "error",
    [
        ZssError("a.png: value 77; fix it"),
        RuntimeError(
            "Caught in worker.\nTraceback\nzss_d2.errors.ZssError: a.png: value 77; fix it\n"
        ),
    ],
)
def test_user_errors_end_with_one_line_and_status_2(error, capsys):
    def main(cfg, args):
        raise error

    with pytest.raises(SystemExit) as stopped:
        run(main, arguments())
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: a.png: value 77; fix it\n"


def test_bugs_keep_their_traceback():
    def main(cfg, args):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(main, arguments())


def test_the_parser_is_that_of_detectron2_with_switches():
    args = argument_parser().parse_args(["--config-file", "a.yaml", "--overwrite", "SEED", "1"])
    assert (args.dist_url, args.overwrite, args.timeout) == ("auto", True, 30.0)
    assert args.opts == ["SEED", "1"]


def test_a_port_that_is_in_use_is_named():
    args = arguments(num_gpus=2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        args.dist_url = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ZssError, match=f"{args.dist_url}: Address already in use; .*auto"):
            check_meeting_point(args)
        args.num_gpus = 1  # nobody meets
        check_meeting_point(args)
    args.num_gpus = 2
    check_meeting_point(args)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (
            ProcessExitedException("ended", 1, 4711, exit_code=-9, signal_name="SIGKILL"),
            1,
            r"error: rank 1 \(process 4711\) was ended by SIGKILL, .*; start the run again",
        ),
        (
            ProcessExitedException("ended", 0, 4711, exit_code=143),
            143,
            "stopped by SIGTERM; output/ldvc_voc_tiny_cpu holds no checkpoint",
        ),
        (
            ProcessRaisedException("Traceback\nRuntimeError: Connection closed by peer", 1, 4711),
            1,
            r"error: rank 1 \(process 4711\): contact with another process of the run was lost",
        ),
        (
            ProcessRaisedException("Traceback\nzss_d2.errors.ZssError: a.png: fix it", 0, 4711),
            2,
            "error: a.png: fix it",
        ),
        (
            ProcessRaisedException("Traceback\nValueError: a bug", 1, 4711),
            1,
            r"error: rank 1 \(process 4711\): ValueError: a bug",
        ),
        (
            OSError(28, "No space left on device", "log.txt"),
            2,
            "error: log.txt: .* the disk is full",
        ),
    ],
)
def test_whatever_ends_a_run_is_one_line(error, status, said, capsys):
    def main(cfg, args):
        raise error

    with pytest.raises(SystemExit) as stopped:
        run(main, arguments())
    assert stopped.value.code == status
    assert re.match(said, capsys.readouterr().err.splitlines()[-1])


def test_a_finished_run_is_not_written_over(tmp_path, capsys):
    folder = tmp_path / "output/ldvc_voc_tiny_cpu"
    folder.mkdir(parents=True)
    (folder / "model_final.pth").write_text("weights")
    with pytest.raises(SystemExit) as stopped:
        run(lambda cfg, args: pytest.fail("it ran"), arguments())
    assert stopped.value.code == 2
    assert "holds a finished run" in capsys.readouterr().err
    assert (folder / "model_final.pth").read_text() == "weights"


def test_torchrun_says_how_many_processes_there_are(monkeypatch, capsys):
    for name in ("RANK", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "1")
    with pytest.raises(SystemExit):
        run(lambda cfg, args: None, arguments(num_gpus=2))
    assert "leave out --num-gpus" in capsys.readouterr().err
    seen = []
    run(lambda cfg, args: seen.append(args.resume), arguments())
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    run(lambda cfg, args: seen.append(args.resume), arguments())
    assert seen == [False, True]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("timeout", math.nan), ("timeout", 0.0), ("dist_url", "foo")),
        *(("dist_url", "tcp://a:99999"), ("allow_changes", True), ("overwrite", True)),
    ],
)
def test_switches_and_addresses_are_checked_first(name, value):
    args = arguments(num_gpus=2)
    args.eval_only = name == "overwrite"
    setattr(args, name, value)
    with pytest.raises(ZssError, match=f"--{name.replace('_', '-')} (is|has an effect with) "):
        check_switches(args)
        check_meeting_point(args)


def test_a_misspelt_flag_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        argument_parser().parse_args(["--bogus"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: unrecognized arguments: --bogus; --help")
