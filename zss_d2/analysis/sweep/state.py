"""What the folder of a run of a sweep holds already."""

from __future__ import annotations

import hashlib

from zss_d2.analysis.run_folder import RunFolder
from zss_d2.analysis.sweep.plan import Run
from zss_d2.analysis.sweep.settings import described, different_settings
from zss_d2.errors import ZssError
from zss_d2.evaluation.results import config_hash


def finished(run: Run) -> bool:
    """Whether the folder holds the final results under the settings of the run.

    Raises:
        ZssError: the folder holds a run under other settings, finished or not.
    """
    cfg, there = run.config(), RunFolder(run.folder)
    if changes := different_settings(there, cfg) if there.settings else {}:
        raise ZssError(
            f"{run.folder} holds a run of another configuration, {described(changes)}; give "
            "another --output or rename it"
        )
    if not there.has_results:
        return False
    provenance = there.provenance
    if there.settings:
        # An evaluation under other settings that was broken off has replaced config.yaml only.
        text = there.config_file.read_bytes()
        if provenance["config_sha256"] != hashlib.sha256(text).hexdigest():
            return False
    elif provenance["config_sha256"] != config_hash(cfg):
        raise ZssError(
            f"{run.folder} holds a run of another configuration; give another --output or rename it"
        )
    return provenance["iteration"] in (None, cfg.SOLVER.MAX_ITER)
