"""A picture of what models see: photo, ground truth and one column per trained run.

    python -m zss_d2.tools.panel output/sweep/maskclip_mini/seed0 output/sweep/ldvc_mini/seed0 \\
        --images 6 --output panel.png

A run is a folder that ``train_net.py`` has written; its ``config.yaml`` says which model and data.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import nn

from zss_d2.data.files import read_mask, read_photo, write_atomic
from zss_d2.data.mapper import ZeroShotMapper
from zss_d2.engine import ZeroShotCheckpointer, ZeroShotTrainer, load_config
from zss_d2.errors import ZssError

IGNORED = (0.85, 0.85, 0.85)


def class_colours(number: int) -> np.ndarray:
    """Well separated colours (number, 3) in 0..1: hues by the golden ratio, in three strengths."""
    index = np.arange(number)
    hue = index * 0.61803398875 % 1.0
    saturation, value = 0.55 + 0.2 * (index % 3), 0.95 - 0.2 * (index // 3 % 3)
    return mpl.colors.hsv_to_rgb(np.stack([hue, saturation, value], axis=1))


def colourise(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Paint labels (H, W) -> (H, W, 3) in 0..1; what is no class is grey."""
    lut = np.concatenate([colours, [IGNORED]])
    return lut[np.where(labels < len(colours), labels, len(colours))]


def load_run(folder: Path) -> tuple[CfgNode, nn.Module]:
    """Config and model, with its last weights, of a finished run.

    Raises:
        ZssError: the folder is no run.
    """
    config_file = folder / "config.yaml"
    if not config_file.is_file():
        raise ZssError(f"{folder} is no folder of a run: config.yaml is missing")
    cfg = load_config(argparse.Namespace(config_file=str(config_file), opts=[]))
    model = ZeroShotTrainer.build_model(cfg).eval()
    checkpointer = ZeroShotCheckpointer(model, str(folder))
    trained = checkpointer.has_checkpoint()
    checkpointer.load(checkpointer.get_checkpoint_file() if trained else cfg.MODEL.WEIGHTS)
    return cfg, model


@torch.inference_mode()
def predict(cfg: CfgNode, model: nn.Module, records: Sequence[dict]) -> list[np.ndarray]:
    """Label maps (H, W) of the records, at the original sizes."""
    mapper = ZeroShotMapper(cfg, is_train=False)
    outputs = (model([mapper(dict(record))])[0]["sem_seg"] for record in records)
    return [scores.argmax(dim=0).cpu().numpy() for scores in outputs]


def choose(records: Sequence[dict], number: int, unseen_ids: Sequence[int]) -> list[dict]:
    """The first records that show something unseen, then others, ``number`` in all."""
    with_unseen = (
        r for r in records if np.isin(read_mask(r["sem_seg_file_name"]), unseen_ids).any()
    )
    chosen = [record for _, record in zip(range(number), with_unseen, strict=False)]
    others = (record for record in records if record not in chosen)
    return chosen + [record for _, record in zip(range(number - len(chosen)), others, strict=False)]


def draw(columns: dict[str, list[np.ndarray]], legend: Sequence[tuple[str, tuple, bool]]) -> Figure:
    """Lay out images, one column per entry, and below them the legend (name, colour, unseen)."""
    rows = len(next(iter(columns.values())))
    legend_rows = -(-len(legend) // 4)
    size = (2.2 * len(columns), 2.2 * rows + 0.25 * legend_rows + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (title, images) in enumerate(columns.items()):
        axes[0, column].set_title(title)
        for row, image in enumerate(images):
            axes[row, column].imshow(image, interpolation="nearest")
            axes[row, column].set_axis_off()
    patches = [
        Patch(color=colour, label=f"{name} (unseen)" if unseen else name)
        for name, colour, unseen in legend
    ]
    box = figure.legend(handles=patches, loc="outside lower center", ncols=4, fontsize="small")
    for text, (_, _, unseen) in zip(box.get_texts(), legend, strict=True):
        text.set_fontweight("bold" if unseen else "normal")
    return figure


def panel(folders: Sequence[Path], number: int) -> Figure:
    """The picture for runs that were tested on the same data set."""
    runs = {folder: load_run(folder) for folder in folders}
    names = {cfg.DATASETS.TEST[0] for cfg, _ in runs.values()}
    if len(names) > 1:
        raise ZssError(f"the runs were tested on different data sets: {', '.join(sorted(names))}")
    dataset = names.pop()
    records = DatasetCatalog.get(dataset)
    metadata = MetadataCatalog.get(dataset)
    classes, unseen = metadata.stuff_classes, metadata.unseen_classes
    records = choose(records, number, [classes.index(name) for name in unseen])

    truth = [read_mask(record["sem_seg_file_name"]) for record in records]
    labels = {"ground truth": truth}
    for cfg, model in runs.values():
        labels[cfg.MODEL.META_ARCHITECTURE] = predict(cfg, model, records)
    colours = class_colours(len(classes))
    columns = {"photo": [read_photo(record["file_name"]) for record in records]}
    columns |= {title: [colourise(x, colours) for x in maps] for title, maps in labels.items()}
    shown = np.unique(np.concatenate([x.ravel() for maps in labels.values() for x in maps]))
    legend = [
        (classes[i], tuple(colours[i]), classes[i] in unseen) for i in shown if i < len(classes)
    ]
    return draw(columns, [*legend, ("void", IGNORED, False)])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of runs")
    parser.add_argument("--images", type=int, default=6, metavar="N", help="rows of the picture")
    parser.add_argument("--output", type=Path, default=Path("panel.png"), metavar="FILE")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = parse_args(argv)
    try:
        figure = panel(args.runs, args.images)
    except ZssError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_atomic(args.output, lambda path: figure.savefig(path, format="png", dpi=120))
    print(f"picture written to {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
