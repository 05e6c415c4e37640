"""What pytest says in the end about tests that this machine cannot run."""

from types import SimpleNamespace

import pytest
import torch

from tests.conftest import pytest_terminal_summary


def summary(monkeypatch, **outcomes: list[str]) -> list[str]:
    """Lines after a run with tests of these markers, by outcome."""
    lines: list[str] = []
    stats = {
        outcome: [SimpleNamespace(keywords={marker: 1}) for marker in markers]
        for outcome, markers in outcomes.items()
    }
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    pytest_terminal_summary(
        SimpleNamespace(stats=stats, write_line=lambda line, **_: lines.append(line))
    )
    return lines


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ({"skipped": ["gpu", "slow", "gpu"]}, ["2 GPU tests not run: no CUDA device"]),
        ({"passed": ["gpu", "slow"], "failed": ["gpu"]}, ["2 GPU tests run on Some GPU"]),
        ({"passed": ["slow"], "skipped": ["slow"]}, []),
    ],
)
def test_gpu_tests_are_counted(monkeypatch, outcomes, expected):
    assert summary(monkeypatch, **outcomes) == expected
