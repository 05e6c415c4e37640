import errno
from pathlib import Path

import pytest
import torch

from zss_d2.engine.processes.failures import as_user_error
from zss_d2.errors import ZssError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "out/metrics.json"), "the disk is full"),
        (
            OSError(errno.EROFS, "Read-only file system", "out/log.txt"),
            "log.txt: cannot be written",
        ),
        (OSError(errno.EACCES, "Permission denied", "a.png"), "a.png: Permission denied; check"),
        (torch.OutOfMemoryError("CUDA out of memory"), "lower SOLVER.IMS_PER_BATCH"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "NUM_WORKERS"),
        (RuntimeError("unable to allocate: bus error"), "--shm-size"),
        (RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:3"), "another process"),
        (RuntimeError("[gloo] Timed out waiting 1800000ms for recv"), "--timeout"),
        (RuntimeError("server socket: EADDRINUSE, address already in use"), "--dist-url"),
        (ZssError("as it is"), "as it is"),
    ],
)
def test_known_failures_are_one_line(error, said, tmp_path):
    known = as_user_error(error, tmp_path)
    assert isinstance(known, ZssError)
    assert said in str(known)
    assert "\n" not in str(known)


def test_a_full_disk_is_told_with_the_space_that_is_left(tmp_path):
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "not/there/yet"))
    assert "the disk is full (" in (line := str(as_user_error(error, Path("elsewhere"))))
    assert "MiB free); make room" in line


@pytest.mark.parametrize("error", [ValueError("a bug"), FileNotFoundError(2, "none", "x.json")])
def test_faults_of_this_project_are_not_explained_away(error, tmp_path):
    assert as_user_error(error, tmp_path) is None


def test_resuming_is_named_only_where_there_is_a_checkpoint(tmp_path):
    error = RuntimeError("[gloo] Connection closed by peer [127.0.0.1]:3")
    assert "start the run again, it has no checkpoint yet" in str(as_user_error(error, tmp_path))
    (tmp_path / "model_0000009.pth").touch()
    assert str(as_user_error(error, tmp_path)).endswith("; go on with --resume")
