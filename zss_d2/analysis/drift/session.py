"""The whole of ``zss drift``: runs -> measures, tables, files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from zss_d2.analysis.comparison import load_configs
from zss_d2.analysis.drift.measure import Drift, measure_run
from zss_d2.analysis.drift.picture import draw
from zss_d2.analysis.drift.table import content, tables
from zss_d2.analysis.names import short_names
from zss_d2.analysis.over_runs.replicates import replicates
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.drawing.figures import encode
from zss_d2.utils.writing import write_atomic


def run_drift(
    folders: Sequence[Path],
    output: Path,
    *,
    images: int,
    share: float,
    over: Sequence[str] = (),
    opts: Sequence[str] = (),
) -> str:
    """Measure runs that were tested on one data set; writes ``drift.json``, ``.md`` and ``.png``.

    Args:
        images: of the test set, evenly spaced.
        share: of a token's pixels that a class needs.
        over: keys beside the seed in which the runs of a group may differ.
        opts: config keys and values, in turn.

    Returns:
        the tables, as Markdown.

    Raises:
        ZssError: as `load_configs`, `replicates` and `measure_run`.
    """
    configs, dataset = load_configs(folders, opts)
    groups = replicates(folders, configs, over)
    runs: list[Drift] = []
    for folder, cfg in zip(folders, configs, strict=True):
        model = RunFolder(folder).model(cfg)
        runs.append(measure_run(cfg, model, dataset, images, share))
    of_groups = {name: [runs[i].means() for i in ids] for name, ids in groups.items()}
    text = tables(of_groups)
    found = {
        "dataset": dataset,
        "images": runs[0].images,
        "share": share,
        "groups": content(of_groups),
        "runs": dict(zip(short_names(folders), (run.content() for run in runs), strict=True)),
    }
    picture = encode(draw({name: runs[ids[0]] for name, ids in groups.items()}))
    written = json.dumps(found, indent=1, allow_nan=False) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    write_atomic(output / "drift.json", lambda path: path.write_text(written, "utf-8"))
    write_atomic(output / "drift.md", lambda path: path.write_text(text, "utf-8"))
    write_atomic(output / "drift.png", lambda path: path.write_bytes(picture))
    return text
