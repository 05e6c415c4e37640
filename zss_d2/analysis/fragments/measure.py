"""The shape of a run's regions: as its evaluation has counted it, or counted now."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import inference_on_dataset
from tqdm import tqdm

from zss_d2.analysis.comparison import records_of
from zss_d2.analysis.run_folder import RunFolder
from zss_d2.data.files.encoding import read_labels
from zss_d2.engine import ZeroShotTrainer
from zss_d2.errors import ZssError
from zss_d2.evaluation import ZeroShotSemSegEvaluator, write_results
from zss_d2.evaluation.counts import (
    StoredCounts,
    StoredShapes,
    counts_file,
    image_key,
    read_counts,
    write_counts,
)
from zss_d2.evaluation.metrics import count_pairs, truth_columns
from zss_d2.evaluation.predictions import raw_ids, read_prediction
from zss_d2.evaluation.shape.counter import ShapeCounter
from zss_d2.evaluation.shape.metrics import class_ratios, summarise_shape


@dataclass(frozen=True)
class Measured:
    """Of one run and test set; ``source`` says where the labels that were counted come from."""

    source: str
    metrics: Mapping[str, float]
    classes: Mapping[str, Mapping[str, float]]


def measure(run: RunFolder, cfg: CfgNode, dataset: str) -> Measured:
    """What the run's evaluation has counted; else its stored predictions; else it labels anew.

    What is counted now is added to the run's files, for reports and tables, if it has labelled
    every pixel as its results say.

    Args:
        cfg: of the run.
        dataset: of its results.

    Raises:
        ZssError: files of the run are damaged, or the images of the data set are gone.
    """
    stored = run.counts(dataset)
    source = "its evaluation"
    if stored.shapes is None:
        records_of(dataset)
        new = _of_predictions(run, dataset)
        source = "its stored predictions" if new else "its last checkpoint"
        new = new or _labelled_anew(run, cfg, dataset)
        if new.class_names != stored.class_names or new.unseen_names != stored.unseen_names:
            raise ZssError(f"{run.path}: {dataset} has other classes now than in results.json")
        _add_to_run(run, dataset, stored, new)
        stored = new
    names = stored.class_names, stored.unseen_names
    ratios = class_ratios(stored.shapes.counts)
    classes = {
        name: {key: float(values[i]) for key, values in ratios.items()}
        for i, name in enumerate(stored.class_names)
    }
    return Measured(source, summarise_shape(*stored.shapes, *names), classes)


def _of_predictions(run: RunFolder, dataset: str) -> StoredCounts | None:
    """Counts of the labels in the run's folder; None where those of an image are missing."""
    metadata, records = MetadataCatalog.get(dataset), DatasetCatalog.get(dataset)
    files = [run.prediction_file(dataset, image_key(record)) for record in records]
    if not all(file.is_file() for file in files):
        return None
    ids, classes, ignored = raw_ids(metadata), metadata.stuff_classes, metadata.ignore_label
    shapes = ShapeCounter(len(classes), ignored)
    confusion = np.zeros(2 * (len(classes),), np.int64)
    for record, file in zip(tqdm(records, desc=dataset, unit="image"), files, strict=True):
        truth = read_labels(record["sem_seg_file_name"], metadata)
        columns = truth_columns(truth, len(classes), ignored)
        labels = torch.from_numpy(read_prediction(file, ids))
        try:
            confusion += count_pairs(labels, columns, len(classes), ignored).numpy()
        except ValueError as error:
            raise ZssError(f"{file}: {error}; evaluate again with TEST.PREDICTIONS png") from error
        shapes.add(labels, columns)
    names = tuple(classes), tuple(metadata.unseen_classes)
    return StoredCounts(confusion, *names, shapes=StoredShapes(shapes.total(), len(records)))


def _labelled_anew(run: RunFolder, cfg: CfgNode, dataset: str) -> StoredCounts:
    model = run.model(cfg)
    with TemporaryDirectory() as folder:
        evaluator = ZeroShotSemSegEvaluator(
            dataset, distributed=False, output_dir=folder, fragmentation=True
        )
        loader = ZeroShotTrainer.build_test_loader(cfg, dataset)
        inference_on_dataset(model, loader, evaluator)
        return read_counts(counts_file(Path(folder), dataset))


def _add_to_run(run: RunFolder, dataset: str, stored: StoredCounts, measured: StoredCounts) -> None:
    """Put the counts and metrics into the run's files; note where they are of other labels."""
    moved = int(np.abs(measured.confusion - stored.confusion).sum()) // 2
    if moved:
        print(
            f"note: {run.path}: {moved} pixels of {dataset} are labelled otherwise than in "
            "results.json (another device, batch or checkpoint), so that its files stay as they "
            "are",
            file=sys.stderr,
        )
        return
    shape = summarise_shape(*measured.shapes, measured.class_names, measured.unseen_names)
    results = {
        name: {key: nan if value is None else value for key, value in metrics.items()}
        for name, metrics in run.metrics.items()
    }
    results[dataset] |= shape
    write_counts(counts_file(run.path, dataset), replace(stored, shapes=measured.shapes))
    write_results(run.path / "results.json", results, run.provenance)
    # Another test set of the run is added to what is there now.
    run.metrics[dataset].update(shape)
    print(f"note: added to {run.path / 'results.json'}", file=sys.stderr)
