"""The whole of ``zss speed``: runs -> times in turn, scores, table, chart, files."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from tabulate import tabulate
from torch import Tensor

from zss_d2.analysis.comparison import load_configs, records_of
from zss_d2.analysis.over_runs.replicates import replicates
from zss_d2.analysis.over_runs.statistics import Mean, mean_over_runs
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.analysis.speed.picture import Point, draw
from zss_d2.analysis.speed.timing import describe_device, labelling, ratios, rounds_in_turn
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.drawing.figures import encode
from zss_d2.errors import ZssError
from zss_d2.evaluation.results import describe_protocol, protocol_of
from zss_d2.utils.text import markdown_text
from zss_d2.utils.writing import write_atomic


def run_speed(
    folders: Sequence[Path],
    output: Path,
    *,
    metric: str,
    size: int,
    rounds: int,
    over: Sequence[str] = (),
    opts: Sequence[str] = (),
) -> str:
    """Time one run of every group; writes ``speed.json``, ``.md`` and, with scores, ``.png``.

    Args:
        metric: of results.json.
        size: side of the image, px; 0: the first one of the test set, as the first run sees it.
        rounds: of measurements.
        over: keys beside the seed in which the runs of a group may differ.
        opts: config keys and values, in turn.

    Returns:
        the table, as Markdown.

    Raises:
        ZssError: as `load_configs` and `replicates`; no result has such a metric, or the runs
            would be computed on different devices.
    """
    configs, dataset = load_configs(folders, opts)
    groups = replicates(folders, configs, over)
    if len(devices := {cfg.MODEL.DEVICE for cfg in configs}) > 1:
        raise ZssError(
            f"the runs name different devices, {', '.join(sorted(devices))}; give one for all with "
            "--opts MODEL.DEVICE NAME"
        )
    runs = [RunFolder(folder) for folder in folders]
    scores = {name: _score([runs[i] for i in ids], dataset, metric) for name, ids in groups.items()}
    image = _image(configs[0], dataset, size)
    first = {name: ids[0] for name, ids in groups.items()}
    models = {name: runs[i].model(configs[i]) for name, i in first.items()}
    device = next(iter(models.values())).device
    found = rounds_in_turn({n: labelling(x, image) for n, x in models.items()}, rounds, device)
    height, width = image.shape[1:]
    what = f"one {width} x {height} image at a time, {describe_device(device)}"

    points = [
        Point(name, statistics.median(x), min(x), max(x), scores[name]) for name, x in found.items()
    ]
    runs_of = {name: len(ids) for name, ids in groups.items()}
    protocols = {name: describe_protocol(protocol_of(configs[i])) for name, i in first.items()}
    text = _table(points, found, metric, runs_of, what, rounds, protocols)
    content: dict[str, Any] = {
        "device": describe_device(device),
        "torch": torch.__version__,
        "height": height,
        "width": width,
        "rounds": rounds,
        "dataset": dataset,
        "metric": metric,
        "groups": {
            x.name: {
                "runs": [folders[i].as_posix() for i in groups[x.name]],
                "protocol": protocols[x.name],
                "images per second": found[x.name],
                "median": x.rate,
                "score": {key: None if v != v else v for key, v in x.score._asdict().items()},
            }
            for x in points
        },
    }
    written = json.dumps(content, indent=1, allow_nan=False) + "\n"
    output.mkdir(parents=True, exist_ok=True)
    write_atomic(output / "speed.json", lambda path: path.write_text(written, "utf-8"))
    write_atomic(output / "speed.md", lambda path: path.write_text(text, "utf-8"))
    if with_score := [x for x in points if x.score.runs]:
        picture = encode(draw(with_score, f"{metric} on {dataset}", what))
        write_atomic(output / "speed.png", lambda path: path.write_bytes(picture))
    return text


def _score(runs: Sequence[RunFolder], dataset: str, metric: str) -> Mean:
    """Mean over the runs that have a result of the data set; others are named."""
    values = []
    for run in runs:
        try:
            metrics = run.metrics.get(dataset)
        except ZssError as error:
            metrics, why = None, str(error)
        else:
            why = f"{run.path} has no results of {dataset}"
        if metrics is None:
            print(f"note: without a score: {why}", file=sys.stderr)
            continue
        if metric not in metrics:
            raise ZssError(
                f"--metric {metric} is not in the results of {run.path}; they have "
                f"{', '.join(x for x in metrics if '-' not in x or x.startswith('mIoU'))}"
            )
        if run.incomplete:
            print(f"note: {run.path}: {run.incomplete}", file=sys.stderr)
        values.append(float("nan") if metrics[metric] is None else metrics[metric])
    return mean_over_runs(values)


def _image(cfg: CfgNode, dataset: str, size: int) -> Tensor:
    """(3, H, W) uint8; in page-locked memory, as the test loader has it, for a GPU."""
    if size:
        generator = torch.Generator().manual_seed(0)
        image = torch.randint(0, 256, (3, size, size), dtype=torch.uint8, generator=generator)
    else:
        records = records_of(dataset)
        if not records:
            raise ZssError(f"{dataset} holds no image; say how large one is with --size")
        image = ZeroShotMapper(cfg, is_train=False)(dict(records[0]))["image"]
    return image.pin_memory() if cfg.MODEL.DEVICE.startswith("cuda") else image


def _table(
    points: Sequence[Point],
    found: dict[str, list[float]],
    metric: str,
    runs_of: dict[str, int],
    what: str,
    rounds: int,
    protocols: dict[str, str],
) -> str:
    base = points[0].name
    rows = []
    for x in points:
        times = ratios(found, x.name, base)
        rows.append(
            [
                markdown_text(x.name),
                runs_of[x.name],
                f"{x.rate:.3g} ({x.least:.3g} to {x.largest:.3g})",
                f"{statistics.median(times):.2f} ({min(times):.2f} to {max(times):.2f})",
                x.score.text(1),
            ]
        )
    headers = ["run", "runs", "images/s", f"times as fast as {markdown_text(base)}", metric]
    table = tabulate(rows, headers, "github", disable_numparse=True)
    lines = [
        table,
        f"\nImages per second: {what}; median (least to largest) of {rounds} rounds, in each of "
        "which every run is timed once; ratios within rounds. Of runs that are repetitions the "
        "first one is timed, scores are means with 95 % intervals.",
    ]
    if len(set(protocols.values())) > 1:
        lines += ["\nTheir test protocols differ:\n"]
        lines += [f"- {markdown_text(name)}: {protocol}" for name, protocol in protocols.items()]
    return "\n".join(lines) + "\n"
