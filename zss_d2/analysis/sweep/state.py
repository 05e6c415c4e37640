"""What the folder of a run of a sweep holds already."""

from __future__ import annotations

import hashlib

from zss_d2.analysis.run_files import read_config
from zss_d2.analysis.sweep.plan import Run
from zss_d2.analysis.sweep.settings import described, different_settings
from zss_d2.errors import ZssError
from zss_d2.evaluation import read_results
from zss_d2.evaluation.results import PROVENANCE, config_hash


def finished(run: Run) -> bool:
    """Whether the folder holds the final results under the settings of the run.

    Raises:
        ZssError: the folder holds a run under other settings, finished or not.
    """
    cfg, before = run.config(), read_config(run.folder)
    if changes := different_settings(run.folder, before, cfg) if before else {}:
        raise ZssError(
            f"{run.folder} holds a run of another configuration, {described(changes)}; give "
            "another --output or rename it"
        )
    path = run.folder / "results.json"
    if not path.is_file():
        return False
    provenance = read_results(path)[PROVENANCE]
    if before:
        # An evaluation under other settings that was broken off has replaced config.yaml only.
        text = (run.folder / "config.yaml").read_bytes()
        if provenance["config_sha256"] != hashlib.sha256(text).hexdigest():
            return False
    elif provenance["config_sha256"] != config_hash(cfg):
        raise ZssError(
            f"{run.folder} holds a run of another configuration; give another --output or rename it"
        )
    return provenance["iteration"] in (None, cfg.SOLVER.MAX_ITER)
