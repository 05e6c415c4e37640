"""The trade between seen and unseen classes: one trained run under many seen biases."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from zss_d2.analysis.comparison import tested_set
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.data.files.encoding import read_labels
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.drawing.figures import encode
from zss_d2.drawing.lettering import drawn_title, style
from zss_d2.errors import ZssError
from zss_d2.evaluation.metrics import confusion_matrix, summarise
from zss_d2.utils.text import wrapped
from zss_d2.utils.writing import write_atomic

# Both signs of these and 0: from a thousandth, where softmax scores differ, to all or nothing.
STRENGTHS = np.logspace(-3, 0, 13)
BIASES = tuple(np.concatenate([-STRENGTHS[::-1], [0.0], STRENGTHS]).round(5).tolist())
# Scores are within 0..1, so with this no pixel goes to a seen class.
ONLY_UNSEEN = 1.0
METRICS = ("pAcc", "mIoU-S", "mIoU-U", "hIoU")
# Letters of the title above the figure.
TITLE_WIDTH = 90


def biased_labels(scores: Tensor, seen_ids: Sequence[int], biases: Sequence[float]) -> list[Tensor]:
    """Labels (H, W) of scores (K, H, W) for every bias that is subtracted from the seen classes."""
    seen = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    seen[list(seen_ids)] = True
    best_seen, seen_label = scores.masked_fill(~seen[:, None, None], -torch.inf).max(dim=0)
    best_unseen, unseen_label = scores.masked_fill(seen[:, None, None], -torch.inf).max(dim=0)
    # Of equal scores the first class wins, as in argmax.
    first = torch.minimum(seen_label, unseen_label)
    labels = []
    for bias in biases:
        lead = best_seen - bias - best_unseen
        label = torch.where(lead > 0, seen_label, unseen_label)
        labels.append(torch.where(lead == 0, first, label))
    return labels


@torch.inference_mode()
def measure(
    cfg: CfgNode, model: nn.Module, dataset: str, biases: Sequence[float]
) -> list[dict[str, float]]:
    """`METRICS` and mACC of groups in percent for every bias, which is called ``seen_bias``.

    Args:
        cfg, model: with all scores and without a bias of their own.
        dataset: a registered name.
        biases: subtracted from the scores of the classes whose labels were trained on.
    """
    metadata = MetadataCatalog.get(dataset)
    classes, ignore_label = metadata.stuff_classes, metadata.ignore_label
    seen_ids = [i for i, name in enumerate(classes) if name in model.labelled_classes]
    mapper = ZeroShotMapper(cfg, is_train=False)
    totals = torch.zeros(len(biases), len(classes), len(classes), dtype=torch.int64)
    for record in tqdm(DatasetCatalog.get(dataset), desc=dataset, unit="image"):
        scores = model([mapper(dict(record))])[0]["sem_seg"]
        labels = read_labels(record["sem_seg_file_name"], metadata)
        truth = torch.from_numpy(labels.astype(np.int32))
        for index, labels in enumerate(biased_labels(scores, seen_ids, biases)):
            totals[index] += confusion_matrix(labels, truth, len(classes), ignore_label).cpu()
    rows = []
    for bias, confusion in zip(biases, totals.numpy(), strict=True):
        metrics = summarise(
            confusion, classes, metadata.unseen_classes, metadata.get("thing_classes", ())
        )
        names = [*METRICS, *(name for name in metrics if name.startswith("mACC-"))]
        rows.append({"seen_bias": bias} | {name: metrics[name] for name in names})
    return rows


def unseen_only_accuracy(rows: Sequence[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """mACC of the unseen classes, and of their things and stuff, among all and only unseen classes.

    Args:
        rows: of `measure`, with the biases 0 and `ONLY_UNSEEN`.

    Returns:
        {metric: (percent when all classes can be predicted, when only unseen ones can)}.
    """
    by_bias = {row["seen_bias"]: row for row in rows}
    among_all, alone = by_bias[0.0], by_bias[ONLY_UNSEEN]
    return {name: (x, alone[name]) for name, x in among_all.items() if name.startswith("mACC-U")}


def area(rows: Sequence[dict[str, float]]) -> float:
    """Area under mIoU-U over mIoU-S, both in 0..1, by the trapezoidal rule."""
    points = sorted((row["mIoU-S"] / 100, row["mIoU-U"] / 100) for row in rows)
    seen, unseen = np.array(points).T
    return float(np.sum(np.diff(seen) * (unseen[1:] + unseen[:-1]) / 2))


def draw(rows: Sequence[dict[str, float]], title: str) -> Figure:
    """The curve, with the points of no bias and of the best hIoU, and hIoU over the bias."""
    figure = Figure(figsize=(9.6, 4.2), layout="constrained")
    curve, over_bias = figure.subplots(1, 2)
    seen, unseen = ([row[key] for row in rows] for key in ("mIoU-S", "mIoU-U"))
    curve.plot(seen, unseen, color="0.4", marker=".", zorder=1)
    curve.fill_between(seen, unseen, color="0.94")
    best = max(rows, key=lambda row: row["hIoU"])
    plain = min(rows, key=lambda row: abs(row["seen_bias"]))
    for row, colour, label in ((plain, "#0072B2", "no bias"), (best, "#D55E00", "best hIoU")):
        text = f"{label}: {row['seen_bias']:g}, hIoU {row['hIoU']:.1f}"
        curve.scatter(row["mIoU-S"], row["mIoU-U"], color=colour, zorder=2, label=text)
    curve.set(
        xlabel="mIoU-S (%)", ylabel="mIoU-U (%)", xlim=0, ylim=0, title=f"area {area(rows):.3f}"
    )
    curve.legend(frameon=False)
    biases = [row["seen_bias"] for row in rows]
    for key in METRICS[1:]:
        over_bias.plot(biases, [row[key] for row in rows], marker=".", label=key)
    over_bias.set_xscale("symlog", linthresh=STRENGTHS[0])
    over_bias.set(xlabel="subtracted from the scores of seen classes", ylabel="%", ylim=0)
    over_bias.legend(frameon=False)
    for axis in (curve, over_bias):
        axis.grid(color="0.9")
        axis.spines[["top", "right"]].set_visible(False)
    title = wrapped(drawn_title(title), TITLE_WIDTH)
    figure.suptitle(title, **style([title]))
    return figure


def write(rows: Sequence[dict[str, float]], title: str, folder: Path) -> None:
    """Write ``bias.csv``, a line per row, and ``bias.png`` of that title."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(folder / "bias.csv", lambda path: path.write_text(text.getvalue(), "utf-8"))
    picture = encode(draw(rows, title))
    write_atomic(folder / "bias.png", lambda path: path.write_bytes(picture))


def require_registered(dataset: str) -> None:
    """Raise `ZssError` for the name of no data set, or of one without seen classes."""
    if dataset not in DatasetCatalog.list():
        raise ZssError(f"--dataset {dataset} is not registered; name one such as zss_mini_dev")
    if not MetadataCatalog.get(dataset).get("seen_classes"):
        raise ZssError(
            f"--dataset {dataset} has no seen classes, and so nothing to trade for unseen ones; "
            "name another"
        )


def development_set(run: RunFolder, cfg: CfgNode) -> str:
    """The dev split of the benchmark that the run was tested on.

    Raises:
        ZssError: it has none.
    """
    tested = tested_set(run, cfg)
    name = f"zss_{MetadataCatalog.get(tested).get('benchmark')}_dev"
    if name not in DatasetCatalog.list():
        raise ZssError(
            f"the benchmark of {tested} has no split 'dev'; name a set with --dataset, but not the "
            "one whose results you report: a bias chosen there is fitted to it"
        )
    return name
