"""What the report says: from finished runs to headings, paragraphs, tables and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from zss_d2.analysis.report import retrieval
from zss_d2.analysis.report.document import (
    Block,
    Cell,
    Heading,
    Paragraph,
    Table,
    drawn,
)
from zss_d2.analysis.report.figures import (
    Curve,
    class_bars,
    class_shares,
    confusion_map,
    run_colours,
    training_curves,
)
from zss_d2.analysis.report.pictures import picture_part, register_data
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.drawing.lettering import class_labels
from zss_d2.evaluation.bootstrap import METRICS, Interval, bootstrap, compare
from zss_d2.evaluation.counts import StoredCounts
from zss_d2.evaluation.metrics import absent_as_zero_note, class_iou, summarise
from zss_d2.evaluation.results import describe_protocol
from zss_d2.evaluation.shape import metrics as shape
from zss_d2.utils.text import one_line

CONFUSIONS = 8
CURVES = ("mIoU-S", "mIoU-U", "hIoU")
EXTRA_METRICS = ("mIoU-U-things", "mIoU-U-stuff", "fwIoU", "mACC")


def page(runs: Sequence[RunFolder], resamples: int = 1000) -> list[Block]:
    """The whole page.

    Args:
        runs: the first one is what the others are compared with.
        resamples: of the bootstrap intervals.
    """
    names = list(dict.fromkeys(name for run in runs for name in run.metrics))
    tested = {name: [run for run in runs if name in run.metrics] for name in names}
    # All files are read before the first figure is drawn, which takes time.
    counts = {name: {run.name: run.counts(name) for run in tested[name]} for name in names}
    methods = " and ".join(dict.fromkeys(run.provenance.get("method", run.name) for run in runs))
    blocks: list[Block] = [Heading(f"Zero-shot segmentation: {methods}", 1)]
    blocks.append(
        Paragraph(
            f"{len(runs)} run{'s' * (len(runs) > 1)} on {', '.join(names)}; metrics in percent."
        )
    )
    blocks += [Paragraph(f"{run.name}: {run.incomplete}.") for run in runs if run.incomplete]
    blocks += map(Paragraph, register_data(runs))
    for name in names:
        blocks += dataset_section(name, tested[name], counts[name], resamples)
    return [*blocks, *training_section(runs), *provenance_section(runs)]


def dataset_section(
    dataset: str, runs: Sequence[RunFolder], counts: Mapping[str, StoredCounts], resamples: int
) -> Iterator[Block]:
    """Everything about one test set."""
    first = counts[runs[0].name]
    yield Heading(dataset)
    protocols = [describe_protocol(run.provenance["protocol"]) for run in runs]
    if len(set(protocols)) == 1:
        yield Paragraph(f"Protocol: {protocols[0]}.")
    else:
        lines = (f"{run.name}: {text}" for run, text in zip(runs, protocols, strict=True))
        yield Paragraph(f"The protocols differ, so compare with care. {'. '.join(lines)}.")
    yield from metric_tables(dataset, runs, counts, resamples)
    yield from shape_table(dataset, runs)

    classes, unseen = first.class_names, first.unseen_ids
    comparable = {
        name: x for name, x in counts.items() if x.class_names == classes and x.unseen_ids == unseen
    }
    yield Heading("IoU of every class", 3)
    iou = {name: 100 * class_iou(x.confusion) for name, x in comparable.items()}
    bars = class_bars(iou, classes, unseen, run_colours(list(counts)))
    absent = sum(np.isnan(values).all() for values in np.stack(list(iou.values())).T)
    note = f" {absent} classes are absent from the ground truth." if absent else ""
    yield drawn(f"{dataset}_classes", bars, f"Unseen classes are tinted.{note}")
    if others := [name for name in counts if name not in comparable]:
        yield Paragraph(f"Not shown, as they have other classes: {', '.join(others)}.")
    labels = zip(class_labels(classes), map(one_line, classes), strict=True)
    if changed := [f"{label} is {name}" for label, name in labels if label != name]:
        yield Paragraph(f"In figures, {'; '.join(changed)}.")
    yield from confusion_part(dataset, counts)
    yield from picture_part(dataset, runs, comparable)


def metric_tables(
    dataset: str,
    runs: Sequence[RunFolder],
    counts: Mapping[str, StoredCounts],
    resamples: int,
) -> Iterator[Block]:
    """Metrics with intervals, and differences to the first run."""
    # Without seen classes some do not exist.
    metrics = [k for k in METRICS if any(run.metrics[dataset].get(k) is not None for run in runs)]
    extra = [k for k in EXTRA_METRICS if any(run.metrics[dataset].get(k) for run in runs)]
    best = {
        key: max((run.metrics[dataset].get(key) or 0 for run in runs), default=0)
        for key in (*metrics, *extra)
    }
    with_images = [run for run in runs if counts[run.name].images is not None]
    intervals = {run.name: bootstrap(counts[run.name], resamples) for run in with_images}
    rows = []
    for run in runs:
        row = [Cell(run.name, run.provenance.get("method", ""))]
        for key in (*metrics, *extra):
            value = run.metrics[dataset].get(key)
            interval = intervals.get(run.name, {}).get(key)
            note = f"{interval.low:.1f} to {interval.high:.1f}" if interval else ""
            row.append(Cell(_percent(value), note, len(runs) > 1 and value == best[key] != 0))
        rows.append(row)
    yield Table(["run", *metrics, *extra], rows)
    if with_images:
        yield Paragraph(
            f"Small: 95 % of {resamples} resamples of the test images. It covers the choice of "
            "images, not that of the training seed."
        )
    for run in runs:
        stored = counts[run.name]
        again = summarise(stored.confusion, stored.class_names, stored.unseen_names)
        if note := absent_as_zero_note(again, digits=1):
            yield Paragraph(f"{run.name}: {note}")
    if len(with_images) > 1:
        base, *others = with_images
        yield Heading(f"Difference to {base.name}", 3)
        differences = {
            run.name: compare(counts[base.name], counts[run.name], resamples) for run in others
        }
        rows = [
            [Cell(name), *(_difference(values[key]) for key in metrics)]
            for name, values in differences.items()
        ]
        yield Table(["run", *metrics], rows)
        yield Paragraph(
            "The same resampled images for both runs; bold where the interval leaves out 0."
        )
    if with_images and (others := [run.name for run in runs if run not in with_images]):
        yield Paragraph(f"Without counts of single images: {', '.join(others)}.")


def shape_table(dataset: str, runs: Sequence[RunFolder]) -> Iterator[Block]:
    """How fragmented and consistent predicted regions are, for seen and for unseen classes."""
    yield Heading("Fragments, consistency, boundaries", 3)
    measured = [run for run in runs if shape.is_measured(run.metrics[dataset])]
    rows = []
    for run in measured:
        metrics = run.metrics[dataset]
        for group, suffix in shape.GROUPS.items():
            values = {name: metrics[f"{name}{suffix}"] for name in shape.METRICS}
            if any(value is not None for value in values.values()):
                cells = [Cell(shape.in_text(value, name)) for name, value in values.items()]
                rows.append([Cell(run.name, group), *cells])
    if rows:
        yield Table(["run", *shape.METRICS], rows)
        yield Paragraph(shape.LEGEND)
    if others := [run.name for run in runs if run not in measured]:
        yield Paragraph(f"Not measured, zss fragments does it: {', '.join(others)}.")


def _difference(interval: Interval) -> Cell:
    sure = interval.low > 0 or interval.high < 0
    return Cell(f"{interval.value:+.1f}", f"{interval.low:+.1f} to {interval.high:+.1f}", sure)


def confusion_part(dataset: str, counts: Mapping[str, StoredCounts]) -> Iterator[Block]:
    """A heat map per run, and the largest confusions by name."""
    yield Heading("What is taken for what", 3)
    for index, (name, x) in enumerate(counts.items()):
        figure = confusion_map(x.confusion, x.class_names, x.unseen_ids, name)
        text = f"{name}: every row is a true class; behind the lines, in red, the unseen ones."
        yield drawn(f"{dataset}_confusion{index}", figure, text)
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


def training_section(runs: Sequence[RunFolder]) -> Iterator[Block]:
    """Loss and metrics over the iterations, of the runs that were trained."""
    losses: dict[str, Curve] = {}
    metrics: dict[str, dict[str, Curve]] = {}
    retrieved: dict[str, dict[str, Curve]] = {}
    for run in runs:
        history = run.history
        if (loss := _curve(history, "total_loss"))[0]:
            losses[run.name] = loss
        for key, title in retrieval.CURVES.items():
            if (curve := _curve(history, key))[0]:
                retrieved.setdefault(title, {})[run.name] = curve
        tested = dict.fromkeys(key for line in history for key in line)
        for key in tested:
            dataset, _, metric = key.rpartition("sem_seg/")
            # One test, after the last iteration, makes no curve.
            if metric in CURVES and len((curve := _curve(history, key))[0]) > 1:
                title = f"{dataset.rstrip('/')} {metric}".strip()
                metrics.setdefault(title, {})[run.name] = curve
    yield Heading("Training")
    if not losses:
        yield Paragraph("None of the runs was trained.")
        return
    colours = run_colours([run.name for run in runs])
    panels = {x: metrics[x] for key in CURVES for x in metrics if x.rsplit(" ", 1)[-1] == key}
    figure = training_curves(losses, panels | retrieved, colours)
    untrained = [run.name for run in runs if run.name not in losses]
    note = f" Not trained: {', '.join(untrained)}." if untrained else ""
    yield drawn("training", figure, f"As logged in metrics.json.{note}")
    yield from map(Paragraph, retrieval.goes_with_unseen(runs, retrieved))


def _curve(history: Sequence[Mapping[str, float]], key: str) -> Curve:
    """Iterations and values; of an iteration that was repeated after an interruption the last."""
    points = {line["iteration"]: line[key] for line in history if key in line}
    iterations = sorted(points)
    return tuple(iterations), tuple(points[x] for x in iterations)


def provenance_section(runs: Sequence[RunFolder]) -> Iterator[Block]:
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
    facts["folder"] = [run.path.as_posix() for run in runs]
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
