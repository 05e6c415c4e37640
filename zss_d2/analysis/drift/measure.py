"""One run on images of its test set: measures of every stage of its decoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from torch import Tensor, nn
from torch.nn import functional as F

from zss_d2.analysis.comparison import records_of
from zss_d2.analysis.drift.measures import (
    NO_CLASS,
    Plane,
    QueryMeasures,
    TokenMeasures,
    fit_plane,
    group_means,
    token_labels,
)
from zss_d2.data.files.encoding import read_labels
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.errors import ZssError
from zss_d2.utils.sampling import evenly_spaced


@dataclass
class Drift:
    """Measures of one run; tokens and queries by the name of the stage, in order."""

    method: str
    classes: list[str]
    seen: list[bool]
    plane: Plane
    text: Tensor  # (K, C), unit norm
    images: int
    tokens: dict[str, TokenMeasures] = field(default_factory=dict)
    queries: dict[str, QueryMeasures] = field(default_factory=dict)
    used: int = 0  # tokens with a class
    all: int = 0  # tokens

    @property
    def groups(self) -> dict[str, list[int]]:
        """Indices of the seen and of the unseen classes; a group without classes is left out."""
        ids = {
            name: [i for i, x in enumerate(self.seen) if x is value]
            for name, value in (("seen", True), ("unseen", False))
        }
        return {name: x for name, x in ids.items() if x}

    def means(self) -> dict[str, dict[str, dict]]:
        """ "tokens" or "queries" -> stage -> group -> measure -> mean over classes."""
        return {
            "tokens": {x: group_means(m.per_class(), self.groups) for x, m in self.tokens.items()},
            "queries": {
                x: group_means(m.per_class(), self.groups) for x, m in self.queries.items()
            },
        }

    def content(self) -> dict[str, Any]:
        """All numbers, for JSON; what has no value is None."""
        parts = {"tokens": self.tokens, "queries": self.queries}
        return _without_nan(
            {
                "method": self.method,
                "images": self.images,
                "tokens with a class": self.used / max(self.all, 1),
                "plane": {"explained": self.plane.explained},
                "means": self.means(),
                "classes": {
                    name: {"seen": self.seen[index]}
                    | {
                        part: {
                            stage: {x: float(v[index]) for x, v in m.per_class().items()}
                            | {"place": m.cloud.means[index].tolist()}
                            for stage, m in measures.items()
                        }
                        for part, measures in parts.items()
                    }
                    for index, name in enumerate(self.classes)
                },
            }
        )


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_without_nan(x) for x in value]
    return None if isinstance(value, float) and value != value else value


@torch.inference_mode()
def measure_run(cfg: CfgNode, model: nn.Module, dataset: str, number: int, share: float) -> Drift:
    """Measures of a model on evenly spaced images of a data set, each seen whole, in one pass.

    Args:
        number: of images; all, if there are fewer.
        share: of a token's pixels that a class needs, see `token_labels`.

    Raises:
        ZssError: the method shows no stages, or the data set has no image or one class only.
    """
    method = cfg.MODEL.META_ARCHITECTURE
    if not hasattr(model, "trace"):
        raise ZssError(f"{method} has no trace, which tells tokens and class embeddings apart")
    metadata, records = MetadataCatalog.get(dataset), records_of(dataset)
    mapper = ZeroShotMapper(cfg, is_train=False)
    found: Drift | None = None
    for index in evenly_spaced(len(records), number):
        record = records[index]
        image = mapper(dict(record))["image"]
        trace = model.trace(model.normalise(image)[None], metadata.stuff_classes)
        if found is None:
            text = F.normalize(trace.text.float().cpu(), dim=1)
            found = _empty(method, metadata, text, min(number, len(records)))
        mask = read_labels(record["sem_seg_file_name"], metadata)
        _add_image(found, trace, mask, tuple(image.shape[1:]), share)
    if found is None:
        raise ZssError(f"{dataset} holds no image")
    return found


def _empty(method: str, metadata: Metadata, text: Tensor, images: int) -> Drift:
    classes = list(metadata.stuff_classes)
    if len(classes) < 2:
        raise ZssError("a single class has no other one to drift to; name another DATASETS.TEST")
    seen = [name not in metadata.unseen_classes for name in classes]
    return Drift(method, classes, seen, fit_plane(text), text, images)


def _add_image(
    found: Drift, trace: Any, mask: np.ndarray, image: tuple[int, int], share: float
) -> None:
    number, dim = found.text.shape
    entered = trace.stages[0].classes[0].float().cpu()
    for position, stage in enumerate(trace.stages):
        tokens = stage.tokens[0].float().cpu()  # (C, h, w)
        labels = token_labels(mask, image, trace.padded, tokens.shape[1:], number, share)
        ids = torch.from_numpy(labels).flatten()
        known = ids != NO_CLASS
        measures = found.tokens.setdefault(stage.name, TokenMeasures(number, dim, found.plane))
        measures.add(tokens.flatten(1).T[known], ids[known], stage.classes[0].float().cpu())
        if position == 0:
            found.used, found.all = found.used + int(known.sum()), found.all + ids.numel()
        if stage.queries is not None:
            seen = torch.tensor(found.seen)
            queries = found.queries.setdefault(
                stage.name, QueryMeasures(number, dim, found.plane, seen)
            )
            queries.add(stage.queries[0].float().cpu(), entered, found.text)
