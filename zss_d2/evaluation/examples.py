"""A few fixed test images, with what an evaluation has predicted for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.utils import comm
from torch import nn
from torch.utils.hooks import RemovableHandle

from zss_d2.data.files.encoding import read_labels
from zss_d2.data.files.images import read_image
from zss_d2.modeling.inference import NanScoresError, argmax_labels
from zss_d2.utils.sampling import evenly_spaced


class Examples:
    """Watches a model that is evaluated; the images are the same at every evaluation.

    Args:
        dataset_name: registered test set.
        number: how many of its images, evenly spaced; all, if it has no more.
    """

    def __init__(self, dataset_name: str, number: int):
        records = DatasetCatalog.get(dataset_name)
        self.dataset_name = dataset_name
        self.records = [records[index] for index in evenly_spaced(len(records), number)]
        self._wanted = {record["file_name"] for record in self.records}
        self._labels: dict[str, np.ndarray] = {}

    def watch(self, model: nn.Module) -> RemovableHandle:
        """Keep the labels of these images when ``model`` has them; remove the hook in the end."""
        return model.register_forward_hook(self._keep)

    def _keep(self, model: nn.Module, args: tuple[Any, ...], outputs: Any) -> None:
        for item, output in zip(args[0], outputs, strict=True):
            name = item.get("file_name")
            if item.get("dataset_name") == self.dataset_name and name in self._wanted:
                with suppress(NanScoresError):  # of which the evaluator tells
                    self._labels[name] = argmax_labels(output["sem_seg"]).cpu().numpy()

    def pictures(self) -> Iterator[tuple[str, np.ndarray]]:
        """Names and pictures (h, w, 3), RGB, of all processes, on rank 0; on others, nothing.

        Every process must ask.
        """
        # Each process has seen its share of the test set.
        shares: Sequence[Mapping[str, np.ndarray]] = comm.gather(self._labels)
        if not comm.is_main_process():
            return
        # What only who draws pays for.
        from zss_d2.drawing.comparison import compare

        labels = {name: found for share in shares for name, found in share.items()}
        metadata = MetadataCatalog.get(self.dataset_name)
        for record in self.records:
            if record["file_name"] not in labels:
                continue
            yield (
                f"{self.dataset_name}/{Path(record['file_name']).stem}",
                compare(
                    read_image(record["file_name"]),
                    read_labels(record["sem_seg_file_name"], metadata),
                    labels[record["file_name"]],
                    metadata.stuff_classes,
                    metadata.unseen_classes,
                    metadata.get("colors"),
                ),
            )
