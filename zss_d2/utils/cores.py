"""The CPU cores that a process may use."""

from __future__ import annotations

import os


def cpu_cores() -> list[int]:
    """Numbers of the CPU cores that this process may use, by its affinity where there is one."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
