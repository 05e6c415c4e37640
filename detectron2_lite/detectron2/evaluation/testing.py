"""Printing and checking results."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from detectron2.config import CfgNode

_logger = logging.getLogger(__name__)


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Log {task: {metric: value}} as comma-separated lines, without per-class metrics ("A-b")."""
    assert isinstance(results, Mapping), results
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            _logger.info("copypaste: %s=%s", task, metrics)
            continue
        main = {name: value for name, value in metrics.items() if "-" not in name}
        _logger.info("copypaste: Task: %s", task)
        _logger.info("copypaste: %s", ",".join(main))
        _logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in main.values()))


def verify_results(cfg: CfgNode, results: Mapping[str, Mapping[str, float]]) -> bool:
    """Compare with TEST.EXPECTED_RESULTS, rows (task, metric, value, tolerance).

    Returns:
        True; a missing metric or one off by more than its tolerance exits with status 1.
    """
    expected = cfg.TEST.EXPECTED_RESULTS
    # Written so that NaN fails.
    failed = [
        row for row in expected if not abs(results[row[0]].get(row[1], np.nan) - row[2]) <= row[3]
    ]
    if failed:
        _logger.error("Results %s do not meet the expectations %s", results, failed)
        sys.exit(1)
    if expected:
        _logger.info("Results meet the expectations.")
    return True


def flatten_results_dict(results: Mapping[str, Any]) -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a/b": 1}, at any depth."""
    flat: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            inner = flatten_results_dict(value)
            flat |= {f"{key}/{name}": number for name, number in inner.items()}
        else:
            flat[key] = value
    return flat
