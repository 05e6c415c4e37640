"""The pictures of the report: some test images with the predictions of the runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from zss_d2.analysis.label_picture import label_picture
from zss_d2.analysis.report.document import Block, Heading, Paragraph, drawn
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.data.files.encoding import read_labels
from zss_d2.data.files.images import read_image
from zss_d2.data.spec.custom import load_custom, register_custom
from zss_d2.errors import ZssError
from zss_d2.evaluation.bootstrap import contributions
from zss_d2.evaluation.counts import StoredCounts, image_key
from zss_d2.evaluation.predictions import raw_ids, read_prediction

# Pictures of each kind: best, median, worst.
PICTURES = 2


def register_data(runs: Sequence[RunFolder]) -> list[str]:
    """Register the custom datasets that the runs used; returns what failed, in words."""
    problems = []
    known: dict[str, Path] = {}
    for run in runs:
        try:
            for path in run.custom_descriptions():
                name = load_custom(path).benchmark.name
                first = known.setdefault(name, path)
                if first.resolve() == path.resolve():
                    register_custom([path])
                elif first.read_bytes() != path.read_bytes():
                    problems.append(
                        f"{name} is described by {first} and, for {run.name}, by {path}; the "
                        "pictures are of the former."
                    )
        except (ZssError, OSError) as error:
            problems.append(f"The data of {run.name} could not be registered: {error}.")
    return list(dict.fromkeys(problems))


def picture_part(
    dataset: str, runs: Sequence[RunFolder], counts: Mapping[str, StoredCounts]
) -> Iterator[Block]:
    """Best, median and worst images by what they add to hIoU, on average over the runs."""
    yield Heading("Pictures", 3)
    shown = [run for run in runs if run.name in counts and _has_predictions(dataset, run, counts)]
    if not shown:
        yield Paragraph(
            "No predictions were stored. Evaluate again with --eval-only TEST.PREDICTIONS png "
            "(and TEST.PER_IMAGE True)."
        )
        return
    added = np.mean([contributions(counts[run.name]) for run in shown], axis=0)
    chosen = choose_images(added)
    keys = counts[shown[0].name].images.keys
    titles = [f"{kind}\n{added[i]:+.3f}" for i, kind in chosen]
    try:
        metadata = MetadataCatalog.get(dataset)
        images, columns = _read(dataset, shown, counts, [keys[i] for i, _ in chosen])
    except (ZssError, KeyError) as error:
        yield Paragraph(f"The images could not be read: {error}.")
        return
    yield drawn(
        f"{dataset}_pictures",
        label_picture(
            images,
            columns,
            metadata.stuff_classes,
            metadata.unseen_classes,
            titles,
            metadata.get("colors"),
        ),
        "At the left what the image adds to hIoU (points, mean over the runs): hIoU of all images "
        "minus that without this one.",
    )
    if missing := [run.name for run in runs if run not in shown]:
        yield Paragraph(f"Without predictions of single images: {', '.join(missing)}.")


def _has_predictions(dataset: str, run: RunFolder, counts: Mapping[str, StoredCounts]) -> bool:
    images = counts[run.name].images
    return images is not None and run.prediction_file(dataset, images.keys[0]).is_file()


def _read(
    dataset: str, runs: Sequence[RunFolder], counts: Mapping[str, StoredCounts], keys: list[str]
) -> tuple[list[np.ndarray], list[tuple[str, list[np.ndarray]]]]:
    """Images and titled label maps of the images ``keys``."""
    records = {image_key(record): record for record in DatasetCatalog.get(dataset)}
    metadata = MetadataCatalog.get(dataset)
    if tuple(metadata.stuff_classes) != counts[runs[0].name].class_names:
        raise ZssError(f"{dataset} has other classes now than when the runs were tested")
    if missing := [key for key in keys if key not in records]:
        raise ZssError(f"{dataset} holds no image {missing[0]} any more")
    chosen = [records[key] for key in keys]
    truth = [read_labels(record["sem_seg_file_name"], metadata) for record in chosen]
    columns = [("ground truth", truth)]
    ids = raw_ids(metadata)
    for run in runs:
        files = (run.prediction_file(dataset, key) for key in keys)
        columns.append((run.name, [read_prediction(path, ids) for path in files]))
    return [read_image(record["file_name"]) for record in chosen], columns


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
