"""What the values of a data set's masks mean; applied whenever a mask is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zss_d2.data.files.images import read_mask, read_pair
from zss_d2.data.labels import UndefinedLabelError, build_lut, check_labels, remap
from zss_d2.errors import ZssError


@dataclass(frozen=True)
class MaskEncoding:
    """How the masks of a data set store train ids 0..K-1 and the ignore label.

    Attributes:
        raw_to_train: train id of every value that a mask may hold; None: masks hold train ids.
        remedy: what to do about a mask with another value.
    """

    num_classes: int
    ignore_label: int
    raw_to_train: Mapping[int, int] | None = None
    remedy: str = "correct the mask"

    @classmethod
    def of(cls, metadata: Any) -> MaskEncoding:
        """That of a registered data set; one that others have registered holds train ids."""
        encoding = metadata.get("mask_encoding")
        return encoding or cls(len(metadata.stuff_classes), metadata.ignore_label)

    @cached_property
    def _lut(self) -> np.ndarray:
        return build_lut(self.raw_to_train)

    def values_of(self, train_ids: Collection[int]) -> set[int]:
        """Return the values that masks hold for these train ids."""
        if self.raw_to_train is None:
            return set(train_ids)
        return {raw for raw, train in self.raw_to_train.items() if train in train_ids}

    def read(self, path: str | Path) -> np.ndarray:
        """Read a mask as train ids: (H, W) integers.

        Raises ZssError as `read_mask` does, and for a value without a train id.
        """
        return self._decode(read_mask(path), path)

    def read_pair(
        self, record: Mapping[str, str], image_format: str = "RGB"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read the image (H, W, 3) and the train ids (H, W) of a record.

        Raises ZssError as `zss_d2.data.files.images.read_pair` does, and for a value without a
        train id.
        """
        path = record["sem_seg_file_name"]
        image, raw = read_pair(record["file_name"], path, image_format)
        return image, self._decode(raw, path)

    def _decode(self, raw: np.ndarray, path: str | Path) -> np.ndarray:
        try:
            if self.raw_to_train is not None:
                return remap(raw, self._lut).astype(np.min_scalar_type(self._lut.max()))
            check_labels(raw, self.num_classes, self.ignore_label)
        except UndefinedLabelError as error:
            problem = "without a train id"
            if self.raw_to_train is None:
                last = self.num_classes - 1
                problem = f"outside 0..{last} and not the ignore label {self.ignore_label}"
            raise ZssError(f"{path}: {error} {problem}; {self.remedy}") from None
        return raw


def read_labels(path: str | Path, metadata: Any) -> np.ndarray:
    """Read a mask of a registered data set as train ids: (H, W) integers.

    Args:
        metadata: Detectron2's, of that data set.

    Raises ZssError naming the file, also for a value without a train id.
    """
    return MaskEncoding.of(metadata).read(path)
