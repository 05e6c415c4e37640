"""Results of one or several runs as one page: numbers, figures, pictures, provenance.

    python -m zss_d2.evaluation.report output/maskclip_mini output/ldvc_mini --output output/report

Writes ``report.html``, which needs no other file, and ``report.md`` with its pictures. A run is a
folder that ``train_net.py`` has written. Pictures of predictions appear where the runs were tested
with ``TEST.PREDICTIONS png``. The first run is the one that others are compared with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure

from zss_d2.data.files import read_mask, read_photo, write_atomic
from zss_d2.errors import ZssError, command
from zss_d2.evaluation.bootstrap import METRICS, Interval, bootstrap, compare, contributions
from zss_d2.evaluation.counts import StoredCounts, image_key
from zss_d2.evaluation.document import (
    Block,
    Cell,
    Heading,
    Paragraph,
    Picture,
    Table,
    picture_files,
    to_html,
    to_markdown,
)
from zss_d2.evaluation.drawing import label_picture, png
from zss_d2.evaluation.figures import (
    class_bars,
    class_shares,
    confusion_map,
    run_colours,
    training_curves,
)
from zss_d2.evaluation.metrics import class_iou
from zss_d2.evaluation.predictions import prediction_file, raw_ids, read_prediction
from zss_d2.evaluation.results import describe_protocol
from zss_d2.evaluation.run_files import FinishedRun, read_runs

FIGURE_DPI = 150
SCREEN_DPI = 96
CONFUSIONS = 8
# Pictures of each kind: best, median, worst.
PICTURES = 2
EXTRA_METRICS = ("mIoU-U-things", "mIoU-U-stuff", "fwIoU", "mACC")


def report(runs: Sequence[FinishedRun], resamples: int = 1000) -> list[Block]:
    """The whole page.

    Args:
        runs: the first one is what the others are compared with.
        resamples: of the bootstrap intervals.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    methods = " and ".join(dict.fromkeys(run.provenance.get("method", run.name) for run in runs))
    blocks: list[Block] = [Heading(f"Zero-shot segmentation: {methods}", 1)]
    blocks.append(
        Paragraph(
            f"{len(runs)} run{'s' * (len(runs) > 1)} on {', '.join(names)}; metrics in percent."
        )
    )
    for name in names:
        blocks += dataset_section(name, [run for run in runs if name in run.metrics], resamples)
    return [*blocks, *training_section(runs), *provenance_section(runs)]


def dataset_section(dataset: str, runs: Sequence[FinishedRun], resamples: int) -> Iterator[Block]:
    """Everything about one test set."""
    counts = {run.name: run.counts(dataset) for run in runs}
    first = counts[runs[0].name]
    yield Heading(dataset)
    protocols = [describe_protocol(run.provenance["protocol"]) for run in runs]
    if len(set(protocols)) == 1:
        yield Paragraph(f"Protocol: {protocols[0]}.")
    else:
        lines = (f"{run.name}: {text}" for run, text in zip(runs, protocols, strict=True))
        yield Paragraph(f"The protocols differ, so compare with care. {'. '.join(lines)}.")
    yield from metric_tables(dataset, runs, counts, resamples)

    classes, unseen = first.class_names, first.unseen_ids
    comparable = {
        name: x for name, x in counts.items() if x.class_names == classes and x.unseen_ids == unseen
    }
    yield Heading("IoU of every class", 3)
    iou = {name: 100 * class_iou(x.confusion) for name, x in comparable.items()}
    bars = class_bars(iou, classes, unseen, run_colours(list(counts)))
    absent = sum(np.isnan(values).all() for values in np.stack(list(iou.values())).T)
    note = f" {absent} classes are absent from the ground truth." if absent else ""
    yield _picture(f"{dataset}_classes", bars, f"Unseen classes are tinted.{note}")
    yield from confusion_part(dataset, counts)
    yield from picture_part(dataset, runs, comparable)


def metric_tables(
    dataset: str,
    runs: Sequence[FinishedRun],
    counts: Mapping[str, StoredCounts],
    resamples: int,
) -> Iterator[Block]:
    """Metrics with intervals, and differences to the first run."""
    extra = [k for k in EXTRA_METRICS if any(run.metrics[dataset].get(k) for run in runs)]
    best = {
        key: max((run.metrics[dataset].get(key) or 0 for run in runs), default=0)
        for key in (*METRICS, *extra)
    }
    with_images = [run for run in runs if counts[run.name].images is not None]
    intervals = {run.name: bootstrap(counts[run.name], resamples) for run in with_images}
    rows = []
    for run in runs:
        row = [Cell(run.name, run.provenance.get("method", ""))]
        for key in (*METRICS, *extra):
            value = run.metrics[dataset].get(key)
            interval = intervals.get(run.name, {}).get(key)
            note = f"{interval.low:.1f} to {interval.high:.1f}" if interval else ""
            row.append(Cell(_percent(value), note, len(runs) > 1 and value == best[key] != 0))
        rows.append(row)
    yield Table(["run", *METRICS, *extra], rows)
    if with_images:
        yield Paragraph(
            f"Small: 95 % of {resamples} resamples of the test images. It covers the choice of "
            "images, not that of the training seed."
        )
    if len(with_images) > 1:
        base, *others = with_images
        yield Heading(f"Difference to {base.name}", 3)
        differences = {
            run.name: compare(counts[base.name], counts[run.name], resamples) for run in others
        }
        rows = [
            [Cell(name), *(_difference(values[key]) for key in METRICS)]
            for name, values in differences.items()
        ]
        yield Table(["run", *METRICS], rows)
        yield Paragraph(
            "The same resampled images for both runs; bold where the interval leaves out 0."
        )


def _difference(interval: Interval) -> Cell:
    sure = interval.low > 0 or interval.high < 0
    return Cell(f"{interval.value:+.1f}", f"{interval.low:+.1f} to {interval.high:+.1f}", sure)


def confusion_part(dataset: str, counts: Mapping[str, StoredCounts]) -> Iterator[Block]:
    """A heat map per run, and the largest confusions by name."""
    yield Heading("What is taken for what", 3)
    for index, (name, x) in enumerate(counts.items()):
        figure = confusion_map(x.confusion, x.class_names, x.unseen_ids, name)
        text = f"{name}: every row is a true class; behind the lines, in red, the unseen ones."
        yield _picture(f"{dataset}_confusion{index}", figure, text)
    rows = []
    for rank in range(CONFUSIONS):
        row = [Cell(str(rank + 1))]
        for x in counts.values():
            largest = largest_confusions(x, CONFUSIONS)
            row.append(_confusion(*largest[rank], x) if rank < len(largest) else Cell("-"))
        rows.append(row)
    yield Table(["", *counts], rows, numbers=False)
    yield Paragraph("The largest confusions, by the share of the true class that they take.")


def largest_confusions(counts: StoredCounts, number: int) -> list[tuple[int, int, float]]:
    """(true, predicted, share of the true class) of the largest shares off the diagonal."""
    shares = np.nan_to_num(class_shares(counts.confusion))
    np.fill_diagonal(shares, 0)
    places = np.argsort(-shares, axis=None, kind="stable")[:number]
    pairs = [divmod(int(place), len(shares)) for place in places]
    return [
        (true, wrong, float(shares[true, wrong])) for true, wrong in pairs if shares[true, wrong]
    ]


def _confusion(true: int, wrong: int, share: float, counts: StoredCounts) -> Cell:
    names = [
        f"{counts.class_names[i]}{' (unseen)' if i in counts.unseen_ids else ''}"
        for i in (true, wrong)
    ]
    return Cell(f"{names[0]} → {names[1]}", f"{100 * share:.0f} % of its pixels")


def picture_part(
    dataset: str, runs: Sequence[FinishedRun], counts: Mapping[str, StoredCounts]
) -> Iterator[Block]:
    """Best, median and worst images by what they add to hIoU, on average over the runs."""
    yield Heading("Pictures", 3)
    shown = [
        run
        for run in runs
        if run.name in counts
        and counts[run.name].images is not None
        and prediction_file(run.folder, dataset, counts[run.name].images.keys[0]).is_file()
    ]
    if not shown:
        yield Paragraph(
            "No predictions were stored. Evaluate again with --eval-only TEST.PREDICTIONS png "
            "(and TEST.PER_IMAGE True)."
        )
        return
    keys = counts[shown[0].name].images.keys
    added = np.mean([contributions(counts[run.name]) for run in shown], axis=0)
    chosen = choose_images(added)
    try:
        records = {image_key(record): record for record in DatasetCatalog.get(dataset)}
        chosen_records = [records[keys[i]] for i, _ in chosen]
        photos = [read_photo(record["file_name"]) for record in chosen_records]
        maps = {"ground truth": [read_mask(r["sem_seg_file_name"]) for r in chosen_records]}
        metadata = MetadataCatalog.get(dataset)
        for run in shown:
            files = (prediction_file(run.folder, dataset, keys[i]) for i, _ in chosen)
            maps[run.name] = [read_prediction(path, raw_ids(metadata)) for path in files]
    except (ZssError, KeyError) as error:
        yield Paragraph(f"The images could not be read: {error}.")
        return
    titles = [f"{kind}\n{added[i]:+.3f}" for i, kind in chosen]
    figure = label_picture(photos, maps, metadata.stuff_classes, metadata.unseen_classes, titles)
    yield _picture(
        f"{dataset}_pictures",
        figure,
        "At the left what the image adds to hIoU (points, mean over the runs): hIoU of all images "
        "less that without this one.",
    )


def choose_images(added: np.ndarray, number: int = PICTURES) -> list[tuple[int, str]]:
    """Indices of the largest, the middle and the smallest values, no image twice."""
    order = np.argsort(-added, kind="stable")
    middle = max((len(order) - number) // 2, 0)
    groups = (
        ("best", order[:number]),
        ("median", order[middle : middle + number]),
        ("worst", order[-number:]),
    )
    chosen: dict[int, str] = {}
    for kind, indices in groups:
        for index in indices:
            chosen.setdefault(int(index), kind)
    return list(chosen.items())


def training_section(runs: Sequence[FinishedRun]) -> Iterator[Block]:
    """Loss and metrics over the iterations, of the runs that were trained."""
    losses, metrics = {}, {}
    for run in runs:
        history = run.history()
        points = [(x["iteration"], x["total_loss"]) for x in history if "total_loss" in x]
        if points:
            losses[run.name] = tuple(zip(*points, strict=True))
        for key in ("mIoU-S", "mIoU-U", "hIoU"):
            tested = [
                (x["iteration"], value)
                for x in history
                for name, value in x.items()
                if name.endswith(f"sem_seg/{key}")
            ]
            # One test, after the last iteration, makes no curve; several sets share one name.
            if len({iteration for iteration, _ in tested}) == len(tested) > 1:
                metrics.setdefault(key, {})[run.name] = tuple(zip(*tested, strict=True))
    yield Heading("Training")
    if not losses:
        yield Paragraph("None of the runs was trained.")
        return
    figure = training_curves(losses, metrics, run_colours([run.name for run in runs]))
    untrained = [run.name for run in runs if run.name not in losses]
    note = f" Not trained: {', '.join(untrained)}." if untrained else ""
    yield _picture("training", figure, f"As logged in metrics.json.{note}")


def provenance_section(runs: Sequence[FinishedRun]) -> Iterator[Block]:
    """What is needed to get the same numbers again."""
    yield Heading("Provenance")
    keys = list(dict.fromkeys(key for run in runs for key in run.provenance))
    facts = {
        key: [_fact(run.provenance.get(key)) for run in runs] for key in keys if key != "protocol"
    }
    protocol_keys = dict.fromkeys(key for run in runs for key in run.provenance["protocol"])
    facts |= {
        f"protocol: {key}": [_fact(run.provenance["protocol"].get(key)) for run in runs]
        for key in protocol_keys
    }
    facts["folder"] = [run.folder.as_posix() for run in runs]
    rows = [[Cell(key.replace("_", " ")), *map(Cell, values)] for key, values in facts.items()]
    yield Table(["", *(run.name for run in runs)], rows, numbers=False)


def _fact(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_fact(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_fact, value))
    return str(value)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _picture(name: str, figure: Figure, caption: str) -> Picture:
    width = round(figure.get_figwidth() * SCREEN_DPI)
    return Picture(name, png(figure, FIGURE_DPI), caption, width)


def write_report(blocks: Sequence[Block], folder: Path) -> None:
    """Write report.html, report.md and the pictures of the latter, each atomically."""
    pictures = "report_pictures"
    for name, content in picture_files(blocks).items():
        write_atomic(folder / pictures / name, lambda path, data=content: path.write_bytes(data))
    for name, text in (
        ("report.md", to_markdown(blocks, pictures)),
        ("report.html", to_html(blocks)),
    ):
        write_atomic(folder / name, lambda path, data=text: path.write_text(data, "utf-8"))


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="OUTPUT_DIR")
    parser.add_argument("--output", type=Path, default=Path("output/report"), metavar="DIR")
    parser.add_argument(
        "--resamples", type=int, default=1000, metavar="N", help="for the intervals"
    )
    args = parser.parse_args(argv)
    if args.resamples < 1:
        parser.error("--resamples must be 1 or more")
    return args


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit status."""
    args = parse_args(argv)
    write_report(report(read_runs(args.runs), args.resamples), args.output)
    print(f"report written to {args.output / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
