import argparse
import os

import pytest
import torch

from tests.conftest import TINY_CONFIG
from zss_d2.engine import run
from zss_d2.engine.launching import check_devices
from zss_d2.errors import ZssError


def arguments(*opts: str, config_file: str = str(TINY_CONFIG), num_gpus: int = 1):
    return argparse.Namespace(
        config_file=config_file,
        opts=list(opts),
        num_gpus=num_gpus,
        num_machines=1,
        machine_rank=0,
        dist_url="auto",
    )


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
    with pytest.raises(ZssError, match="only 2 CPU cores"):
        check_devices(make_cfg(), 8)


def test_run_hands_over_the_config():
    seen = []
    run(lambda cfg, args: seen.append((cfg.SEED, args.num_gpus)), arguments("SEED", "5"))
    assert seen == [(5, 1)]


@pytest.mark.parametrize(
    "error",
    [
        ZssError("a.png: value 77; mend it"),
        RuntimeError(
            "Caught in worker.\nTraceback\nzss_d2.errors.ZssError: a.png: value 77; mend it\n"
        ),
    ],
)
def test_user_errors_end_with_one_line_and_status_2(error, capsys):
    def main(cfg, args):
        raise error

    with pytest.raises(SystemExit) as stopped:
        run(main, arguments())
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: a.png: value 77; mend it\n"


def test_bugs_keep_their_traceback():
    def main(cfg, args):
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(main, arguments())
