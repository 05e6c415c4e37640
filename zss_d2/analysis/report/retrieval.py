"""How often GLM of CLIP-ZSS finds the image of a CLS token, and how unseen classes go with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from zss_d2.analysis.over_runs.statistics import correlation
from zss_d2.analysis.report.figures import Curve
from zss_d2.analysis.run_folder import RunFolder

# The curve of metrics.json, and what it is called.
CURVES = {
    "glm_retrieval": "CLS retrieved among the batch",
    "glm_retrieval_bank": "CLS retrieved among batch and bank",
}


def goes_with_unseen(
    runs: Sequence[RunFolder], panels: Mapping[str, Mapping[str, Curve]]
) -> list[str]:
    """Sentences on the last values of `CURVES` and mIoU-U over runs; none below three runs.

    Args:
        runs: with results; mIoU-U is that of their first test set.
        panels: title of a curve -> name of a run -> its iterations and values.
    """
    unseen = {run.name: _unseen_miou(run) for run in runs}
    sentences = []
    for title in CURVES.values():
        curves = panels.get(title, {})
        found = correlation([x[1][-1] for x in curves.values()], [unseen[name] for name in curves])
        if not math.isnan(found.pearson):
            sentences.append(
                f"{title}, at the end, and mIoU-U over {found.runs} runs: Pearson "
                f"{found.pearson:+.2f}, Spearman {found.spearman:+.2f}."
            )
    return sentences


def _unseen_miou(run: RunFolder) -> float:
    value = next(iter(run.metrics.values()), {}).get("mIoU-U")
    return math.nan if value is None else float(value)
