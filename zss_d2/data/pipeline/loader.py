"""The training loader: chosen images, in a stream that can be resumed, and the mapper."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetFromList,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from detectron2.utils import comm

from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.pipeline.stream import DrawnImages, ImageStream, ResumableLoader
from zss_d2.data.pipeline.train_images import require_labels, without_unseen
from zss_d2.data.pipeline.workers import pinned
from zss_d2.data.spec.vocabulary import require_one_vocabulary
from zss_d2.errors import ZssError


def training_records(cfg: CfgNode) -> list[dict[str, Any]]:
    """List the records of ``DATASETS.TRAIN`` that ``ZERO_SHOT.TRAIN_IMAGES`` admits.

    A set that is named twice is listed twice, and so its images are drawn twice as often.

    Raises ZssError if the label ids of several sets do not mean the same, or if a set has no label
    that training may see.
    """
    require_one_vocabulary(cfg.DATASETS.TRAIN)
    records = get_detection_dataset_dicts(cfg.DATASETS.TRAIN)
    # Which images show an unseen class is ground truth too, which pseudo labels are not to know.
    hidden = cfg.ZERO_SHOT.SETTING == "transductive"
    if cfg.ZERO_SHOT.TRAIN_IMAGES == "without_unseen" and not hidden:
        records = without_unseen(records, cfg.DATALOADER.NUM_WORKERS)
    require_labels(records, supervised=cfg.ZERO_SHOT.SETTING == "supervised")
    return records


def images_digest(records: Iterable[Mapping[str, Any]]) -> str:
    """Which images these are, in order, wherever they lie."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(f"{record['dataset_name']}/{record['image_id']}\n".encode())
    return digest.hexdigest()


def build_train_loader(cfg: CfgNode) -> ResumableLoader:
    """Build the endless loader of lists of mapped records; a list is one process's batch.

    With ``SOLVER.ACCUMULATE`` it is one process's share of a part of the batch.

    The order of images and their augmentation follow from ``SEED``; without one the processes agree
    on a seed.

    Raises ZssError for a sampler other than TrainingSampler, and as `training_records` does.
    """
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ZssError(
            f"DATALOADER.SAMPLER_TRAIN is {cfg.DATALOADER.SAMPLER_TRAIN!r}; use 'TrainingSampler'"
        )
    chosen = training_records(cfg)
    # Packed into one block of memory, which worker processes share.
    records = DatasetFromList(chosen)
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    stream = ImageStream(len(records), seed)
    mapper = ZeroShotMapper(cfg, is_train=True)
    if mapper.pseudo_labels:
        for name in cfg.DATASETS.TRAIN:
            mapper.written(name).require(r for r in chosen if r["dataset_name"] == name)
    batches = build_detection_train_loader(
        DrawnImages(records, mapper, stream),
        mapper=None,
        sampler=stream,
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH // cfg.SOLVER.ACCUMULATE,
        # Groups would make the batches depend on the number of processes.
        aspect_ratio_grouping=False,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    return ResumableLoader(pinned(batches, cfg.MODEL.DEVICE), stream, images_digest(chosen))
