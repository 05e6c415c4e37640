"""The training loader: records in shared memory, chosen images, the zero-shot mapper."""

from __future__ import annotations

import hashlib
import itertools
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader, get_detection_dataset_dicts
from detectron2.utils import comm
from torch.utils.data import Dataset

from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.data.pipeline.stream import DrawnImages, ImageStream, ResumableLoader
from zss_d2.data.pipeline.train_images import require_labels, without_unseen
from zss_d2.data.spec.vocabulary import require_one_vocabulary
from zss_d2.errors import ZssError


class PackedRecords(Dataset):
    """Records as one block of bytes, unpacked one at a time.

    Reading an ordinary list touches the reference count of its items, so that every worker process
    ends up with a copy of all of it; nobody writes to this block.
    """

    def __init__(self, records: Sequence[dict[str, Any]]):
        packed = [pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL) for record in records]
        self._bounds = np.array([0, *itertools.accumulate(map(len, packed))])
        self._bytes = np.frombuffer(b"".join(packed), np.uint8)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return pickle.loads(self._bytes[self._bounds[index] : self._bounds[index + 1]])

    def digest(self) -> str:
        """Which images these are, in order, wherever they lie."""
        digest = hashlib.sha256()
        for record in (self[index] for index in range(len(self))):
            digest.update(f"{record['dataset_name']}/{record['image_id']}\n".encode())
        return digest.hexdigest()


def training_records(cfg: CfgNode) -> list[dict[str, Any]]:
    """List the records of ``DATASETS.TRAIN`` that ``ZERO_SHOT.TRAIN_IMAGES`` admits.

    A set that is named twice is listed twice, and so its images are drawn twice as often.

    Raises ZssError if the label ids of several sets do not mean the same, or if a set has no label
    that training may see.
    """
    require_one_vocabulary(cfg.DATASETS.TRAIN)
    records = get_detection_dataset_dicts(cfg.DATASETS.TRAIN)
    if cfg.ZERO_SHOT.TRAIN_IMAGES == "without_unseen":
        records = without_unseen(records, cfg.DATALOADER.NUM_WORKERS)
    require_labels(records, supervised=cfg.ZERO_SHOT.SETTING == "supervised")
    return records


def build_train_loader(cfg: CfgNode) -> ResumableLoader:
    """Build the endless loader of lists of mapped records; a list is one process's batch.

    The order of images and their augmentation follow from ``SEED``; without one the processes agree
    on a seed.

    Raises ZssError for a sampler other than TrainingSampler, and as `training_records` does.
    """
    if cfg.DATALOADER.SAMPLER_TRAIN != "TrainingSampler":
        raise ZssError(
            f"DATALOADER.SAMPLER_TRAIN is {cfg.DATALOADER.SAMPLER_TRAIN!r}; use 'TrainingSampler'"
        )
    records = PackedRecords(training_records(cfg))
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    stream = ImageStream(len(records), seed)
    batches = build_detection_train_loader(
        DrawnImages(records, ZeroShotMapper(cfg, is_train=True), stream),
        mapper=None,
        sampler=stream,
        total_batch_size=cfg.SOLVER.IMS_PER_BATCH,
        # Groups would make the batches depend on the number of processes.
        aspect_ratio_grouping=False,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    return ResumableLoader(batches, stream, records.digest())
