"""How well cross-attention is aligned with the ground truth, in numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from tabulate import tabulate
from torch import nn

from zss_d2.analysis.attention import require_attention
from zss_d2.analysis.comparison import records_of
from zss_d2.analysis.drift.measures import token_pixels
from zss_d2.analysis.names import short_names
from zss_d2.analysis.over_runs.replicates import replicates
from zss_d2.analysis.over_runs.statistics import Mean, mean_over_runs
from zss_d2.data.files.encoding import read_labels
from zss_d2.data.pipeline.mapper import ZeroShotMapper
from zss_d2.errors import ZssError
from zss_d2.utils.sampling import evenly_spaced
from zss_d2.utils.text import markdown_text

# Percent; the second and the last are what attention would have that is the same everywhere.
MEASURES = ("inside", "area", "pointing", "own", "own by chance")
LEGEND = (
    "inside: % of a class's attention within its region; area: of the image that the region takes, "
    "which is inside and pointing by chance; pointing: % of images whose strongest token lies in "
    "the region; own: % of the attention of the region's tokens that is shared with their own "
    "class, by chance 100 / number of classes. Void counts nowhere; means over images, then over "
    "classes; pairs: of an image and a class that it shows."
)


class Aligned(NamedTuple):
    """Of one image, fractions per class (K,); NaN for classes that it does not show."""

    inside: np.ndarray
    area: np.ndarray
    pointing: np.ndarray
    own: np.ndarray


def align(weights: np.ndarray, pixels: np.ndarray) -> Aligned:
    """Measure attention of K classes over h x w tokens.

    With a_ct the attention between class c and token t, and n_ct the pixels of c in t:
    inside = sum_t a_ct n_ct / sum_t a_ct n_t, where n_t = sum_c n_ct; area is the same for equal
    a_ct; pointing = n_ct / n_t of the token with the largest a_ct (the pointing game of Zhang et
    al. 2016, arXiv 1608.00507, tokens for points); own = the mean of a_ct / sum_k a_kt over the
    pixels of c.

    The first three compare tokens for one class: so it is that ZegCLIP's classes attend. Where
    tokens attend to classes (LDVC) they are of the attention that a class receives, whose sum over
    tokens is not 1. The last one compares classes for one token: LDVC's own direction.

    Args:
        weights: (K, h, w), not negative.
        pixels: (h, w, K), labelled pixels of each class in each token, see `token_pixels`.
    """
    number = len(weights)
    attention = weights.reshape(number, -1).astype(float)
    of_class = pixels.reshape(-1, number).T.astype(float)  # (K, N)
    labelled = of_class.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = (attention * of_class).sum(axis=1) / (attention * labelled).sum(axis=1)
        area = of_class.sum(axis=1) / labelled.sum()
        among_labelled = np.where(labelled > 0, attention, -1.0)
        strongest = among_labelled == among_labelled.max(axis=1, keepdims=True)
        pointing = (strongest * of_class).sum(axis=1) / (strongest * labelled).sum(axis=1)
        share = np.nan_to_num(attention / attention.sum(axis=0))
        own = (share * of_class).sum(axis=1) / of_class.sum(axis=1)
    shown = of_class.sum(axis=1) > 0
    return Aligned(*(np.where(shown, x, np.nan) for x in (inside, area, pointing, own)))


class Alignment(NamedTuple):
    """Of one run: number of images, pairs and means in percent per class."""

    images: int
    pairs: np.ndarray  # (K,) images that show a class
    classes: dict[str, np.ndarray]  # of `MEASURES` (K,), NaN for a class that none shows

    def mean(self, ids: Sequence[int]) -> dict[str, float]:
        """Mean over those of the classes that are shown; NaN where none is."""
        shown = [i for i in ids if self.pairs[i]]
        return {
            name: float(np.mean(x[shown])) if shown else math.nan
            for name, x in self.classes.items()
        }


@torch.inference_mode()
def measure_run(cfg: CfgNode, model: nn.Module, dataset: str, number: int) -> Alignment:
    """Alignment of a model on evenly spaced images of a data set, each seen whole.

    Args:
        number: of images; all, if there are fewer.

    Raises:
        ZssError: the method has no cross-attention, or no image has a labelled pixel.
    """
    require_attention(cfg, model)
    metadata, records = MetadataCatalog.get(dataset), records_of(dataset)
    mapper = ZeroShotMapper(cfg, is_train=False)
    names = metadata.stuff_classes
    found = []
    for index in evenly_spaced(len(records), number):
        record = records[index]
        image = mapper(dict(record))["image"]
        maps = model.attention_map(model.normalise(image)[None], names)[0].float().cpu().numpy()
        mask = read_labels(record["sem_seg_file_name"], metadata)
        size = tuple(image.shape[1:])
        pixels = token_pixels(mask, size, model.padded_size(size), maps.shape[1:], len(names))
        found.append(align(maps, pixels))
    if not found or np.isnan([x.area for x in found]).all():
        raise ZssError(f"{dataset}: no labelled pixel in the images that were taken")
    stacked = {name: np.stack([getattr(x, name) for x in found]) for name in Aligned._fields}
    pairs = (~np.isnan(stacked["area"])).sum(axis=0)
    classes = {
        name: 100 * np.nansum(x, axis=0) / np.maximum((~np.isnan(x)).sum(axis=0), 1)
        for name, x in stacked.items()
    }
    classes["own by chance"] = np.full(len(names), 100 / len(names))
    return Alignment(
        len(found), pairs, {x: np.where(pairs > 0, classes[x], np.nan) for x in MEASURES}
    )


def run_alignment(
    folders: Sequence[Path],
    models: Sequence[tuple[CfgNode, nn.Module]],
    dataset: str,
    number: int,
    over: Sequence[str] = (),
) -> tuple[str, dict[str, Any]]:
    """Measure runs that were tested on one data set.

    Args:
        models, dataset: of `zss_d2.analysis.comparison.load_models`.
        number: of images.
        over: keys beside the seed in which the runs of a group may differ.

    Returns:
        a table as Markdown, and everything for JSON.

    Raises:
        ZssError: as `replicates` and `measure_run`.
    """
    configs = [cfg for cfg, _ in models]
    groups = replicates(folders, configs, over)
    metadata = MetadataCatalog.get(dataset)
    names = list(metadata.stuff_classes)
    unseen = [i for i, name in enumerate(names) if name in metadata.unseen_classes]
    ids = {"seen": [i for i in range(len(names)) if i not in unseen], "unseen": unseen}
    runs = [measure_run(cfg, model, dataset, number) for cfg, model in models]
    means = {
        name: {kind: _mean([runs[i] for i in members], x) for kind, x in ids.items()}
        for name, members in groups.items()
    }
    pairs = {kind: int(runs[0].pairs[x].sum()) for kind, x in ids.items()}
    rows = [
        [markdown_text(name), len(groups[name]), kind, pairs[kind]]
        + [values[x].text(1) for x in MEASURES]
        for name, kinds in means.items()
        for kind, values in kinds.items()
        if pairs[kind]
    ]
    table = tabulate(
        rows, ["run", "runs", "classes", "pairs", *MEASURES], "github", disable_numparse=True
    )
    images = runs[0].images
    content = {
        "dataset": dataset,
        "images": images,
        "pairs": pairs,
        "groups": {
            name: {
                kind: {x: _numbers(mean._asdict()) for x, mean in values.items()}
                for kind, values in kinds.items()
            }
            for name, kinds in means.items()
        },
        "runs": {
            name: {
                "method": cfg.MODEL.META_ARCHITECTURE,
                "classes": {
                    class_name: {"pairs": int(run.pairs[i]), "seen": i not in unseen}
                    | _numbers({x: float(values[i]) for x, values in run.classes.items()})
                    for i, class_name in enumerate(names)
                },
            }
            for name, cfg, run in zip(short_names(folders), configs, runs, strict=True)
        },
    }
    return f"{images} images of {markdown_text(dataset)}\n\n{table}\n\n{LEGEND}\n", content


def _mean(runs: Sequence[Alignment], ids: Sequence[int]) -> dict[str, Mean]:
    each = [run.mean(ids) for run in runs]
    return {name: mean_over_runs([x[name] for x in each]) for name in MEASURES}


def _numbers(values: Mapping[str, float]) -> dict[str, float | None]:
    return {key: None if math.isnan(value) else value for key, value in values.items()}
