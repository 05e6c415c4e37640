"""Printing and flattening results."""

import logging
from collections.abc import Mapping
from typing import Any

_logger = logging.getLogger(__name__)


def print_csv_format(results: Mapping[str, Mapping[str, float]]) -> None:
    """Log {task: {metric: value}} as comma-separated lines, without per-class metrics ("A-b")."""
    for task, metrics in results.items():
        main = {name: value for name, value in metrics.items() if "-" not in name}
        _logger.info("copypaste: Task: %s", task)
        _logger.info("copypaste: %s", ",".join(main))
        _logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in main.values()))


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
