"""The command line as users call it, where it matters in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

import zss_d2.engine
from tests.conftest import ROOT, TINY_CONFIG, loads_torch, prepare_voc
from train_net import start
from zss_d2.data.synthetic import toy_custom
from zss_d2.data.synthetic.toy_voc import generate

pytestmark = pytest.mark.slow


SCRIPT = (str(ROOT / "train_net.py"),)


def train_net(
    data: Path, *arguments: str, script: Sequence[str] = SCRIPT
) -> subprocess.CompletedProcess:
    """Run it with the tiny config, unless the arguments name another."""
    command = [sys.executable, *script, "--config-file", str(TINY_CONFIG)]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(data)}
    return subprocess.run(
        [*command, "--dist-url", "auto", *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def train_net_here(monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """The same in this process: (exit status, what it says on stderr); logs stay as they are."""
    monkeypatch.setattr(zss_d2.engine, "set_up", lambda cfg, args: None)
    monkeypatch.chdir(ROOT)

    def call(data: Path, *arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("DETECTRON2_DATASETS", str(data))
        command = ["train_net.py", "--config-file", str(TINY_CONFIG), *arguments]
        monkeypatch.setattr(sys, "argv", command)
        try:
            status = start()
        except SystemExit as ended:
            status = ended.code
        return status, capsys.readouterr().err

    return call


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def error_line(status: int, said: str) -> str:
    """The one line a failed command shows; the exit status must be 2 and no traceback be shown."""
    assert status == 2, said
    assert "Traceback" not in said
    (line,) = [x for x in said.splitlines() if x.startswith("error: ")]
    return line


def test_train_evaluate_resume_and_two_processes_agree(voc_root, tmp_path, train_net_here):
    run = tmp_path / "run"
    train_net(voc_root, "SOLVER.MAX_ITER", "4", "OUTPUT_DIR", str(run)).check_returncode()
    trained = results(run)
    metrics = trained["zss_voc_val"]
    assert {"pAcc", "mIoU", "mIoU-S", "mIoU-U", "hIoU", "IoU-dog"} <= set(metrics)
    assert trained["provenance"]["iteration"] == 4

    weights = ("MODEL.WEIGHTS", str(run / "model_final.pth"))
    test = ("--eval-only", *weights, "OUTPUT_DIR")
    assert train_net_here(voc_root, *test, str(tmp_path / "eval1"))[0] == 0
    two = train_net(voc_root, "--num-gpus", "2", *test, str(tmp_path / "eval2"))
    two.check_returncode()
    for name in ("eval1", "eval2"):
        evaluated = results(tmp_path / name)
        assert evaluated["zss_voc_val"] == metrics
        assert (
            evaluated["provenance"]["checkpoint_sha256"]
            == (trained["provenance"]["checkpoint_sha256"])
        )

    resumed = train_net(
        voc_root,
        *("--resume", "--num-gpus", "2", "SOLVER.MAX_ITER", "6", "OUTPUT_DIR", str(run)),
    )
    resumed.check_returncode()
    assert "Starting training from iteration 4" in resumed.stdout
    assert "SOLVER.MAX_ITER was 4 and is 6" in resumed.stdout
    # The screen has what a person wants to read, the file everything, of rank 0 alone.
    log = (run / "log.txt").read_text()
    assert "Environment info" in log
    assert "Environment info" not in resumed.stdout
    assert log.count("SOLVER.MAX_ITER was 4 and is 6") == 1
    assert "SOLVER.MAX_ITER was 4 and is 6" in (run / "log.txt.rank1").read_text()
    assert results(run)["provenance"]["iteration"] == 6


def test_a_missing_data_set_is_named(tmp_path, train_net_here):
    line = error_line(*train_net_here(tmp_path / "nowhere", "OUTPUT_DIR", str(tmp_path)))
    assert "nowhere/zss/voc" in line
    assert "prepare_voc.py" in line


def test_two_processes_without_data_fail_with_one_line(tmp_path):
    process = train_net(tmp_path / "nowhere", "--num-gpus", "2", "OUTPUT_DIR", str(tmp_path))
    said = process.stderr + process.stdout
    assert "nowhere/zss/voc" in error_line(process.returncode, said)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        ("value", "value 77"),
        ("image", "unreadable image"),
        ("mask", "no mask for 1"),
    ],
)
def test_damaged_data_is_named_from_the_worker(tmp_path, damage, expected, train_net_here):
    generate(tmp_path / "VOC2012", num_train=4, num_val=1, seed=0)
    prepare_voc(tmp_path / "VOC2012", tmp_path, "--copy")
    image = next((tmp_path / "zss/voc/images/train").iterdir())
    mask = tmp_path / "zss/voc/annotations/train" / f"{image.stem}.png"
    if damage == "value":
        labels = Image.open(mask)
        labels.putpixel((0, 0), 77)
        labels.save(mask)
    elif damage == "image":
        image.write_bytes(b"no image")
    else:
        mask.unlink()
    line = error_line(*train_net_here(tmp_path, "OUTPUT_DIR", str(tmp_path / "out")))
    assert expected in line
    assert image.stem in line


def test_a_checkpoint_of_another_model_is_refused(voc_root, tmp_path, train_net_here):
    run = ("SOLVER.MAX_ITER", "1", "DATASETS.TEST", "()", "OUTPUT_DIR", str(tmp_path))
    assert train_net_here(voc_root, *run)[0] == 0
    weights = ("MODEL.WEIGHTS", str(tmp_path / "model_final.pth"))
    out = ("OUTPUT_DIR", str(tmp_path / "test"))
    other = ("--eval-only", "MODEL.LDVC.NUM_LAYERS", "1")
    line = error_line(*train_net_here(voc_root, *other, *weights, *out))
    assert "model_final.pth: belongs to another model" in line


def test_two_processes_train_on_a_data_set_of_ones_own(tmp_path):
    """Neither the processes nor their loader workers inherit what the parent registered.

    ZegCLIP, because its last layer holds parameters that a step leaves out: the second step fails
    unless the processes look for them.
    """
    yaml = toy_custom.generate(tmp_path / "my_data")
    sets = ("DATASETS.TRAIN", "('zss_yard_train',)", "DATASETS.TEST", "('zss_yard_val',)")
    process = train_net(
        tmp_path,
        *("--num-gpus", "2", "DATASETS.CUSTOM", f"('{yaml}',)", *sets),
        *("MODEL.META_ARCHITECTURE", "ZegCLIP", "OUTPUT_DIR", str(tmp_path / "out")),
        *("SOLVER.MAX_ITER", "3", "SOLVER.IMS_PER_BATCH", "2"),
    )
    assert process.returncode == 0, process.stderr
    assert "IoU-stripe" in results(tmp_path / "out")["zss_yard_val"]


def test_the_help_is_whole():
    process = subprocess.run(
        [sys.executable, *SCRIPT, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0
    for text in ("--config-file", "--eval-only", "--num-gpus", "--overwrite", "torchrun --nproc"):
        assert text in process.stdout


def test_the_work_of_a_process_is_imported_pickled_and_loads_nothing_heavy():
    code = (
        "import pickle, sys; from zss_d2.train import work; "
        "assert pickle.loads(pickle.dumps(work)) is work; "
        "assert not {'torch', 'detectron2'} & {*sys.modules}"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize("script", [SCRIPT, ("-m", "zss_d2", "train")], ids=["script", "module"])
def test_ctrl_c_while_two_processes_start_is_one_line(script, voc_root, tmp_path):
    """Ctrl-C of a terminal goes to all of them; the spawned ones are still importing."""
    command = [sys.executable, *script, "--config-file", str(TINY_CONFIG), "--num-gpus", "2"]
    process = subprocess.Popen(
        [*command, "OUTPUT_DIR", str(tmp_path)],
        # Upstream's modules warn of what newer versions of torch will lack.
        env={**os.environ, "DETECTRON2_DATASETS": str(voc_root), "PYTHONWARNINGS": "ignore"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    importing = 0
    while importing < 2 and process.poll() is None:
        time.sleep(0.02)
        with suppress(OSError):
            importing = sum(loads_torch(int(pid)) for pid in children.read_text().split())
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert errors.splitlines() == [f"stopped by SIGINT; {tmp_path} holds no checkpoint"]
